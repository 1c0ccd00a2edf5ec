"""A stop that arrives while the exit net runs callbacks, where CPython allows no new thread any more (3.12.0 to 3.12.3)."""

from __future__ import annotations

import signal

import pytest
from support import child, run, swallowing

NET = """
def slow():
    ready()
    {slow}
    print("slow done", flush=True)
on_exit(print, "last", flush=True)
on_exit(slow)
current_guard().on_stop(print, "on_stop", flush=True)
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_on_stop_runs_and_the_callbacks_go_on(signum: int) -> None:
    """The stop is told, the callback in progress ends, the others run, and nothing is said of threads that cannot start."""
    ended = run(NET.format(slow="time.sleep(0.7)"), signum)
    assert sorted(ended.out) == ["last", "on_stop", "slow done"], ended.err
    assert ended.out.index("slow done") < ended.out.index("last")
    assert ended.status == (143 if signum == signal.SIGTERM else -signal.SIGINT)
    assert "Traceback" not in ended.err
    assert "SIG" in ended.err


def test_a_callback_that_hangs_is_interrupted() -> None:
    """The grace period is nearly over: it is interrupted, and the others run, with the stop's status."""
    with child(NET.format(slow="time.sleep(60)"), env={"CLEANUP_GUARD_GRACE": "3"}) as started:
        started.signal(signal.SIGTERM)
        ended = started.end()
    assert sorted(ended.out) == ["last", "on_stop"], ended.err
    assert ended.status == 143, ended.err


def test_a_callback_that_cannot_be_interrupted_is_reported() -> None:
    """The process ends in time, with the stop's status, and says what did not run."""
    with child(NET.format(slow=swallowing(4)), env={"CLEANUP_GUARD_GRACE": "3"}) as started:
        started.signal(signal.SIGTERM)
        ended = started.end()
    assert ended.out == ["on_stop"], ended.err
    assert ended.status == 143, ended.err
    assert "did not run: print" in ended.err


def test_a_million_callbacks_that_do_not_run_take_no_time() -> None:
    """Some are named, the rest are counted, and the status is still the stop's, not that of the last resort."""
    ended = run(
        f"""
def stubborn():
    {swallowing(4)}
with guard(grace=6) as g:
    for _ in range(10**6): g.callback(int)
    g.callback(stubborn)
    ready()
    time.sleep(60)
""",
        signal.SIGTERM,
    )
    assert ended.status == 143, ended.err[-2000:]
    assert "int, int, 999900 more" in ended.err


def test_time_limits_hold_there() -> None:
    """A callback's own time limit holds in the exit net."""
    ended = run(
        """
def spin():
    end = time.monotonic() + 30
    while time.monotonic() < end: pass
    print("ran to its end", flush=True)
g = Guard()
g.__enter__()
g.callback(print, "last", flush=True)
g.options(timeout=0.5).callback(spin)
ready()
"""
    )
    assert ended.out == ["last"], ended.err


def test_without_ctypes_a_late_stop_says_nothing_of_it() -> None:
    """Shortly before the end of its time what dying of the signal needs is loaded, and is not there: no traceback."""
    ended = run(
        """
sys.modules["_ctypes"] = None
with guard(grace=2) as g:
    with g.shield():
        ready()
        time.sleep(60)
""",
        signal.SIGINT,
    )
    assert "SIGINT" in ended.err
    assert "ImportError" not in ended.err
    assert ended.status in {-signal.SIGINT, 128 + signal.SIGINT}  # the latter if main was too slow
