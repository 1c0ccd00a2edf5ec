"""The timer that ends the process belongs to a stop that is in force: one that main has gone on after kills nobody later."""

from __future__ import annotations

import signal

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


def test_main_is_told_when_it_is_set() -> None:
    """The watcher has claimed to set it, and comes to it late: a callback that keeps the GIL has not begun before that."""
    ended = run(
        """
import ctypes
from cleanup_guard._process.last_resort import LastResort
from cleanup_guard._process.process import Process
main = threading.get_ident()
def late(method, seconds, in_main):
    def wrapper(*args):
        if (threading.get_ident() == main) is in_main: time.sleep(seconds)
        return method(*args)
    return wrapper
Process.claim_signal = late(Process.claim_signal, 0.3, True)
LastResort._set = late(LastResort._set, 1.0, False)
def hold_for_ever():
    lock = (ctypes.c_char * 128)()
    take = ctypes.PyDLL(None).pthread_mutex_lock
    take(lock); take(lock)
with guard(grace=5) as g:
    g.callback(hold_for_ever)
    ready()
    time.sleep(60)
""",
        signal.SIGTERM,
    )
    assert ended.status == 1
    assert "Timeout" in ended.err
