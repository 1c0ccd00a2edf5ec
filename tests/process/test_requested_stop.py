"""`request_stop` at any moment and in any thread: main is told, wherever it is and whatever signals it takes."""

from __future__ import annotations

import signal

import pytest
from support import child, run

IN_TIME = 6.0
"""Seconds after which only the end of a grace period of ten can have helped."""

EARLY = """
entered, leave = threading.Event(), threading.Event()
def work():
    with guard(signals=(), hooks=()) as g:
        g.callback(print, "thread's", flush=True)
        print(g.request_stop("lease lost", status=7), flush=True)
        entered.set()
        {stay}
thread = threading.Thread(target=work, daemon=True)
thread.start()
{wait}
"""

MAINS = {
    "with": """
with guard() as g:
    g.callback(print, "main's", flush=True)
    ready()
    while True: time.sleep(0.05)
""",
    "with, blocked": """
with guard() as g:
    g.callback(print, "main's", flush=True)
    ready()
    time.sleep(60)
""",
    "cooperative": """
with guard(interrupt=False) as g:
    g.callback(print, "main's", flush=True)
    ready()
    g.wait(60)
""",
    "decorated": """
@guard
def main():
    on_exit(print, "main's", flush=True)
    ready()
    time.sleep(60)
main()
""",
    "on_exit": """
on_exit(print, "main's", flush=True)
ready()
time.sleep(60)
""",
    "asyncio": """
import asyncio
@guard
async def main():
    on_exit(print, "main's", flush=True)
    ready()
    await asyncio.sleep(60)
asyncio.run(main())
""",
    "trio": """
import trio
@guard
async def main():
    on_exit(print, "main's", flush=True)
    ready()
    await trio.sleep(60)
trio.run(main)
""",
}


@pytest.mark.parametrize("stays", [False, True], ids=["thread is gone", "thread stays"])
@pytest.mark.parametrize("main", MAINS.values(), ids=MAINS)
def test_a_stop_that_a_thread_asked_for_before_main_was_guarded(main: str, stays: bool) -> None:
    """Main is told when it enters its guard, at the latest: it ends, with the status that was asked for."""
    stay, wait = ("time.sleep(60)", "entered.wait()") if stays else ("pass", "thread.join()")
    # The stop may come before main has registered anything, or said that it is ready: the test looks at what was registered.
    body = main.replace('"main\'s"', '"main\'s"').replace("ready()", 'print("registered", flush=True)')
    ended = run("ready()\n" + EARLY.format(stay=stay, wait=wait) + body)
    assert ended.status == 7, ended.err
    assert ended.out.count("True") == 1
    assert ended.out.count("main's") == ended.out.count("registered") or ended.out.count("main's") == 1
    assert ended.out.count("thread's") == 1
    assert ended.seconds < IN_TIME


def test_a_signal_after_such_a_stop_changes_nothing() -> None:
    """SIGTERM after it is a repeat: the callbacks run once, with the status that was asked for."""
    code = (
        """
def slow():
    ready()
    time.sleep(0.5)
    print("slow", flush=True)
on_exit(slow)
"""
        + EARLY.format(stay="pass", wait="thread.join()")
        + """
with guard(): time.sleep(60)
"""
    )
    with child(code) as started:
        started.signal(signal.SIGTERM)
        ended = started.end()
    assert (ended.out.count("slow"), ended.status) == (1, 7), ended.err


REQUESTS = {
    "main": "g.request_stop('enough', status=4)",
    "thread": "threading.Thread(target=g.request_stop, args=['enough'], kwargs={'status': 4}).start()",
    "thread's guard": """threading.Thread(target=lambda: elsewhere()).start()""",
}

UNHEARD = """
def elsewhere():
    with guard(signals=()) as mine: mine.request_stop("enough", status=4)
began = time.monotonic()
ready()
try:
    with guard(signals={signals}) as g:
        g.callback(print, "callback", flush=True)
        {request}
        {wait}
finally: print("finally", time.monotonic() - began < 6, flush=True)
"""


@pytest.mark.parametrize("signals", ["()", "None"])
@pytest.mark.parametrize("request_it", REQUESTS.values(), ids=REQUESTS)
def test_main_is_told_whatever_signals_it_takes(request_it: str, signals: str) -> None:
    """A guard without signals learns of a stop that is asked for: main is unwound, and ends with that status."""
    wait = "while True: time.sleep(0.05)"
    ended = run(UNHEARD.format(signals=signals, request=request_it, wait=wait))
    assert (ended.out, ended.status) == (["callback", "finally True"], 4), ended.err


def test_a_shield_holds_it_back_without_signals_too() -> None:
    """Inside a critical section of a guard without signals the stop waits for its end."""
    ended = run(
        """
ready()
with guard(signals=()) as g:
    g.callback(print, "callback", flush=True)
    with g.shield():
        g.request_stop("enough", status=4)
        print("inside", flush=True)
    while True: time.sleep(0.05)
"""
    )
    assert (ended.out, ended.status) == (["inside", "callback"], 4), ended.err


LATE = {
    "in a callback": "g.callback(ask)",
    "in a thread that a callback waits for": """
    thread = threading.Thread(target=lambda: (g.wait(), ask()))
    thread.start()
    g.callback(thread.join)
""",
    "in the exit of what was entered": """
    import contextlib
    stack = contextlib.ExitStack()
    stack.callback(ask)
    g.enter_context(stack)
""",
}


@pytest.mark.parametrize("code", LATE.values(), ids=LATE)
def test_a_request_while_main_leaves_is_answered_with_false(code: str) -> None:
    """Main is leaving already: the request is no error, and begins no stop; the status is main's."""
    ended = run(
        f"""
def ask(): print(g.request_stop("worker failed", status=3), flush=True)
ready()
with guard() as g:
    {code}
"""
    )
    assert (ended.out, ended.status) == (["False"], 0), ended.err


def test_a_request_while_main_leaves_an_inner_guard_stops_main() -> None:
    """There is a guard around it, in which main would go on: the worker's word counts."""
    ended = run(
        """
ready()
with guard() as outer:
    outer.callback(print, "outer", flush=True)
    with guard() as g: g.callback(lambda: print(g.request_stop("worker failed", status=3), flush=True))
    time.sleep(60)
"""
    )
    assert (ended.out, ended.status) == (["True", "outer"], 3), ended.err


def test_a_request_after_the_guard_begins_no_stop() -> None:
    """A worker that outlives the guard is told that there is nothing to stop any more."""
    code = """
ready()
with guard() as g: pass
try: print(g.request_stop("late", status=3))
except RuntimeError: print(False)
"""
    ended = run(code)
    assert (ended.out, ended.status) == (["False"], 0), ended.err


def test_a_request_in_a_task_that_leaves_is_answered_with_false() -> None:
    """The same in an async callback."""
    ended = run(
        """
import asyncio
ready()
async def main():
    async with guard() as g:
        async def ask(): print(g.request_stop("worker failed", status=3), flush=True)
        g.callback(ask)
asyncio.run(main())
"""
    )
    assert (ended.out, ended.status) == (["False"], 0), ended.err


def test_a_second_request_is_answered_with_false() -> None:
    """The first one that asks begins the stop; a callback that asks during it is told so."""
    ended = run(
        """
ready()
with guard() as g:
    g.callback(lambda: print(g.request_stop("again", status=5), flush=True))
    g.request_stop("first", status=3)
    time.sleep(60)
"""
    )
    assert (ended.out, ended.status) == (["False"], 3), ended.err


def test_main_that_is_traced_is_asked_while_it_looks() -> None:
    """On CPython 3.11 it looked for ever at the sign of a call that another thread asked for in the middle of the first one."""
    code = """
from cleanup_guard._process.main import CallInMain
looked = []
def look(frame):
    looked.append(frame)
    sys.settrace(lambda *_: None)
    thread = threading.Thread(target=call.ask)
    thread.start()
    thread.join()
call = CallInMain(look)
ready()
call.ask()
while not looked: pass
sys.settrace(None)
call.ask()
while len(looked) < 2: pass
sys.settrace(None)
print("done", flush=True)
"""
    ended = run(code)
    assert (ended.out, ended.status) == (["done"], 0), ended.err
