"""Main swallows the stop: it is delivered again until it takes, and not a moment earlier than it is dead."""

from __future__ import annotations

import signal

import pytest

from support import child, run

PLACES = {
    "bare except": """
while True:
    try: time.sleep(60)
    except: pass
""",
    "bare except, busy": """
def work():
    total = 0
    for each in range(1000): total += each
while True:
    try: work()
    except: continue
""",
    "bare except that retries three times": """
for attempt in range(3):
    try: time.sleep(60)
    except: print("retry", flush=True)
time.sleep(60)
""",
    "__del__": """
class Thing:
    def __del__(self):
        end = time.monotonic() + 0.3
        while time.monotonic() < end: pass
while True: Thing()
""",
    "weakref callback": """
import weakref
class Thing: pass
def gone(ref):
    end = time.monotonic() + 0.3
    while time.monotonic() < end: pass
while True:
    thing = Thing()
    ref = weakref.ref(thing, gone)
    del thing
""",
    "weakref.finalize": """
import weakref
class Thing: pass
def gone():
    end = time.monotonic() + 0.3
    while time.monotonic() < end: pass
while True:
    thing = Thing()
    weakref.finalize(thing, gone)
    del thing
""",
    "gc callback": """
import gc
def collected(phase, info):
    end = time.monotonic() + 0.2
    while time.monotonic() < end: pass
gc.callbacks.append(collected)
while True: gc.collect(0)
""",
    "ctypes callback": """
import ctypes
kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
@kind
def compare(a, b):
    end = time.monotonic() + 0.05
    while time.monotonic() < end: pass
    return 0
numbers = (ctypes.c_int * 8)(*range(8))
libc = ctypes.CDLL(None)
while True: libc.qsort(numbers, 8, 4, compare)
""",
    "generator closed by the collector": """
import gc
def generate():
    try: yield 1
    finally:
        end = time.monotonic() + 0.3
        while time.monotonic() < end: pass
while True:
    cycle = [generate()]
    next(cycle[0])
    cycle.append(cycle)
    del cycle
    gc.collect()
""",
    "asyncio callback": """
import asyncio
async def main():
    def spin():
        try: time.sleep(0.2)
        except BaseException: pass
        asyncio.get_running_loop().call_soon(spin)
    spin()
    await asyncio.sleep(60)
asyncio.run(main())
""",
}


@pytest.mark.parametrize("code", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_a_swallowed_stop_is_delivered_again(code: str, signum: signal.Signals) -> None:
    """A stop that vanishes where exceptions vanish takes in the end; callbacks run once, with the stop's status, in time."""
    program = "def main():\n    on_exit(print, 'callback')\n    ready()\n" + "".join(
        f"    {line}\n" for line in code.strip().splitlines()
    )
    ended = run(f"{program}guard(grace=4)(main)()\n", signum)
    assert [line for line in ended.out if line != "retry"] == ["callback"]
    assert ended.status == (143 if signum == signal.SIGTERM else -signal.SIGINT)
    assert "giving up" not in ended.err
    assert ended.seconds < 4


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


def test_an_except_block_that_keeps_the_stop_is_left_alone() -> None:
    """A stop that a handler has put aside, to look at later, is alive: nothing is delivered again while it is held."""
    ended = run(
        """
@guard(grace=6)
def main():
    on_exit(print, "callback")
    kept = None
    try:
        ready()
        time.sleep(60)
    except SystemExit as stop:
        kept = stop
    time.sleep(1)
    print("finished my job", flush=True)
    raise kept
main()
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["finished my job", "callback"], 143)


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
