"""The timer that ends the process belongs to a stop that is in force: one that main has gone on after kills nobody later."""

from __future__ import annotations

from support import run

PROGRAM = """
import os, time
from cleanup_guard._ground.clock import Budget
from cleanup_guard._process.last_resort import LastResort
from cleanup_guard._stop.stop import Stop

def a_stop(grace):
    return Stop(15, "SIGTERM", status=143, budget=Budget(grace, time.monotonic()))

def descriptors():
    return [fd for fd in range(100) if os.path.exists(f"/proc/self/fd/{fd}")]

ready()
before = descriptors()
"""


def test_a_stop_that_is_over_when_its_timer_is_set() -> None:
    """Main goes on after a stop while the watcher is about to set the timer: it is taken back, with its descriptors."""
    ended = run(
        PROGRAM
        + """
resort = LastResort(lambda: None)
resort.arm(a_stop(0.2), time.monotonic())
assert descriptors() == before
time.sleep(0.5)
print("alive")
"""
    )
    assert (ended.status, ended.out) == (0, ["alive"]), ended.err


def test_the_next_stop_keeps_its_own() -> None:
    """The timer of an old stop is taken back, and the one of the stop that has come since is set again."""
    ended = run(
        PROGRAM
        + """
new = a_stop(0.5)
now = [None]
resort = LastResort(lambda: now[0])
now[0] = new
resort.arm(new, time.monotonic())
resort.arm(a_stop(60), time.monotonic())
time.sleep(60)
"""
    )
    assert ended.status == 1
    assert "Timeout" in ended.err


def test_who_is_about_to_set_it_is_not_relied_on() -> None:
    """The watcher has claimed that, and waits for the GIL, which a callback may keep: main sets it before it is told."""
    ended = run(
        PROGRAM
        + """
stop = a_stop(0.5)
assert stop.armed.claim()
LastResort(lambda: stop).arm(stop, time.monotonic())
time.sleep(60)
"""
    )
    assert ended.status == 1
    assert "Timeout" in ended.err
