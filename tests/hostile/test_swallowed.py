"""Main swallows the stop: it is delivered again until it takes, and not a moment earlier than it is dead."""

from __future__ import annotations

import signal

import pytest
from support import child, run

SPIN = """
told = []
def spin():
    if not told:
        told.append(1)
        ready()
    while True: time.time()
"""

PLACES = {
    "bare except": """
try: spin()
except: pass
""",
    "bare except around a sleep": """
for attempt in range(2):
    try:
        if not attempt: ready()
        time.sleep(60)
    except: pass
""",
    "__del__": """
class Thing:
    def __del__(self): spin()
Thing()
""",
    "weakref callback": """
import weakref
class Thing: pass
thing = Thing()
ref = weakref.ref(thing, lambda _: spin())
del thing
""",
    "weakref.finalize": """
import weakref
class Thing: pass
thing = Thing()
weakref.finalize(thing, spin)
del thing
""",
    "gc callback": """
import gc
def collected(phase, info):
    gc.callbacks.remove(collected)
    spin()
gc.callbacks.append(collected)
gc.collect()
""",
    "ctypes callback": """
import ctypes
kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
@kind
def compare(a, b):
    spin()
    return 0
ctypes.CDLL(None).qsort((ctypes.c_int * 2)(1, 2), 2, 4, compare)
""",
    "generator closed by the collector": """
import gc
def generate():
    try: yield 1
    finally: spin()
cycle = [generate()]
next(cycle[0])
cycle.append(cycle)
del cycle
gc.collect()
""",
    "asyncio callback": """
import asyncio
async def swallow():
    def callback():
        try: spin()
        except BaseException: pass
    asyncio.get_running_loop().call_soon(callback)
    await asyncio.sleep(0.01)
    await asyncio.sleep(60)
asyncio.run(swallow())
""",
}
"""Each is stopped while it spins where the exception is lost, and goes on after it."""

BOTH = pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])


def status_of(signum: int) -> int:
    return 143 if signum == signal.SIGTERM else -signal.SIGINT


def indent(code: str) -> str:
    return "".join(f"    {line}\n" for line in code.strip().splitlines())


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@BOTH
def test_a_swallowed_stop_is_delivered_again(place: str, signum: signal.Signals) -> None:
    """A stop that vanishes where exceptions vanish takes in the end, in main, and callbacks run once, with its status."""
    ended = run(
        f"""{SPIN}
@guard(grace=20)
def main():
    on_exit(lambda: print("in main", threading.current_thread() is threading.main_thread()))
{indent(place)}
    time.sleep(60)
main()
""",
        signum,
    )
    assert (ended.out, ended.status) == (["in main True"], status_of(signum)), ended.err
    assert "main swallowed the stop" in ended.err
    assert ended.seconds < 16  # that is when the watcher would have taken over


ENDLESS = {
    "bare except": """
while True:
    try: spin()
    except: pass
""",
    "bare except around a sleep": """
ready()
while True:
    try: time.sleep(60)
    except: continue
""",
    "__del__": """
class Thing:
    def __del__(self): spin()
while True: Thing()
""",
}


@pytest.mark.parametrize("place", ENDLESS.values(), ids=ENDLESS)
@BOTH
def test_a_main_that_swallows_every_stop_is_ended_in_time(place: str, signum: signal.Signals) -> None:
    """A retry loop that never lets the stop through costs no callback; the process ends itself, with the stop's status."""
    ended = run(
        f"""{SPIN}
@guard(grace=2)
def main():
    on_exit(print, "callback")
{indent(place)}
main()
""",
        signum,
    )
    lines = [line for line in ended.out if line != "ready"]
    assert (lines, ended.status) == (["callback"], status_of(signum)), ended.err


def test_a_deliberate_handler_of_the_stop_is_left_alone() -> None:
    """An `except SystemExit:` block that is still running is not interrupted by a second delivery."""
    ended = run(
        """
@guard(grace=6)
def main():
    on_exit(print, "callback")
    try:
        ready()
        time.sleep(60)
    except SystemExit:
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline: pass
        print("said goodbye", flush=True)
        raise
main()
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["said goodbye", "callback"], 143)
    assert "swallowed" not in ended.err


def test_a_stop_that_is_kept_is_delivered_again() -> None:
    """Who catches the stop and keeps it, as test runners and futures do, has let go of it: main is told again."""
    ended = run(
        """
@guard(grace=20)
def main():
    on_exit(print, "callback")
    kept = []
    for job in range(2):
        try:
            if not job: ready()
            time.sleep(60)
        except SystemExit as stop:
            kept.append(stop)
            print("kept", flush=True)
    time.sleep(60)
main()
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["kept", "kept", "callback"], 143)
    assert ended.seconds < 16


def test_a_finally_block_that_takes_its_time_is_left_alone() -> None:
    """A stop on its way through a slow `finally` is not raised a second time, however often the signal is repeated."""
    with child(
        """
@guard(grace=6)
def main():
    on_exit(print, "callback")
    try:
        ready()
        time.sleep(60)
    finally:
        print("unwinding", flush=True)
        time.sleep(1)
        print("unwound", flush=True)
main()
"""
    ) as started:
        started.signal(signal.SIGTERM)
        started.wait_for_line("unwinding")
        for _ in range(50):
            started.signal(signal.SIGTERM)
        ended = started.end()
    assert (ended.out, ended.status) == (["unwinding", "unwound", "callback"], 143)


def test_a_program_that_returns_after_swallowing_the_stop_still_ends_as_stopped() -> None:
    """Main may catch the stop, finish, and return: the callbacks run and the status is the stop's."""
    ended = run(
        """
@guard
def main():
    on_exit(print, "callback")
    try:
        ready()
        time.sleep(60)
    except SystemExit:
        pass
main()
print("not reached")
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["callback"], 143)


def test_an_interrupt_that_a_del_swallows_and_somebody_keeps_is_sent_again() -> None:
    """A time limit meets a `__del__`, and a hook keeps what was raised there: the callback is ended all the same."""
    ended = run(
        """
kept = []
sys.unraisablehook = lambda raised: kept.append((raised.exc_value, raised.exc_value.__traceback__))
class Slow:
    def __del__(self): time.sleep(60)
def hangs():
    Slow()
    time.sleep(60)
with guard(hooks=()) as g:
    g.callback(lambda: print("last", len(kept), flush=True))
    g.options(timeout=0.3).callback(hangs)
    ready()
"""
    )
    assert ended.out == ["last 1"], ended.err
    assert ended.seconds < 30
