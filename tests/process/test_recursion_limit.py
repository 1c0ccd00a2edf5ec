"""A stop that arrives close to the recursion limit is a stop like any other."""

from __future__ import annotations

import signal
import sys

import pytest
from support import run

DEEP = """
def depth():
    n, frame = 0, sys._getframe()
    while frame: n, frame = n + 1, frame.f_back
    return n
def down(n, act):
    if n > 0: return down(n - 1, act)
    act()
def near_the_limit(frames, act):
    try: down(sys.getrecursionlimit() - depth() - frames, act)
    except RecursionError: pass  # as a parser does
"""


# One frame from the limit 3.11 cannot even call the function that sends the signal.
@pytest.mark.parametrize(
    "frames", [*([1] if sys.version_info >= (3, 12) else []), 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 30]
)
def test_a_signal_close_to_the_limit_stops_main(frames: int) -> None:
    """So many frames from the limit the handler may not even start: main is told all the same, and in time."""
    ended = run(
        DEEP
        + f"""
with guard() as g:
    g.callback(print, "callback", flush=True)
    ready()
    near_the_limit({frames}, lambda: os.kill(os.getpid(), signal.SIGTERM))
    while True: time.sleep(0.05)
"""
    )
    assert (ended.out, ended.status) == (["callback"], 143), ended.err
    assert ended.seconds < 7, ended.err


@pytest.mark.parametrize("frames", [1, 2, 4, 6, 8, 12, 20])
def test_the_next_signal_is_heard(frames: int) -> None:
    """Even in a guard without signals of default kinds, what a first stop could not do the second does."""
    ended = run(
        DEEP
        + f"""
with guard(interrupt=False) as g:
    g.callback(print, "callback", flush=True)
    near_the_limit({frames}, lambda: signal.raise_signal(signal.SIGTERM))
    ready()
    g.wait(60)
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["callback"], 143), ended.err
    assert ended.seconds < 7, ended.err


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 6, 8, 10, 14])
def test_a_request_close_to_the_limit_can_be_repeated(frames: int) -> None:
    """`request_stop` that fails with RecursionError has begun nothing, or all: asked again, main is stopped."""
    ended = run(
        DEEP
        + f"""
ready()
with guard() as g:
    g.callback(print, "callback", flush=True)
    near_the_limit({frames}, lambda: g.request_stop("deep", status=3))
    g.request_stop("again", status=3)
    while True: time.sleep(0.05)
"""
    )
    assert (ended.out, ended.status) == (["callback"], 3), ended.err
    assert ended.seconds < 7, ended.err


@pytest.mark.parametrize("frames", [2, 4, 6, 8, 10, 14, 20, 30])
def test_a_guard_that_is_used_close_to_the_limit_loses_no_callback(frames: int) -> None:
    """Entered, filled and left down there it may fail with RecursionError, but the guard around it runs all of its own."""
    ended = run(
        DEEP
        + f"""
def deep():
    with guard(hooks=()) as inner: inner.callback(int)
ready()
with guard(hooks=()) as g:
    g.callback(print, "first", flush=True)
    near_the_limit({frames}, deep)
    g.callback(print, "last", flush=True)
print(callable(signal.getsignal(signal.SIGTERM)), flush=True)
"""
    )
    assert ended.out[:2] == ["last", "first"], ended.err
    assert ended.status == 0, ended.err
