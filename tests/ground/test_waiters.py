"""All who wait wake at once, whoever wakes them, and nobody who is cut short keeps the others from it."""

from __future__ import annotations

import sys
import threading
import time
from types import FrameType
from typing import Any

from cleanup_guard._ground import once
from cleanup_guard._ground.once import Waiters


def test_threads_wake_at_once() -> None:
    """All of them, and who comes later does not wait."""
    waiters, woken = Waiters(), list[bool]()
    threads = [threading.Thread(target=lambda: woken.append(waiters.wait(60))) for _ in range(5)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    waiters.wake()
    for thread in threads:
        thread.join(60)
    assert woken == [True] * 5
    assert waiters.wait(60)
    assert waiters.wait(None)
    assert time.monotonic() - began < 30
    assert waiters._wakers == []


def test_a_wait_has_an_end() -> None:
    """At once for 0, and then it has not come."""
    waiters = Waiters()
    assert not waiters.wait(0)
    assert not waiters.wait(0.01)
    assert not waiters.woken
    waiters.wake()
    assert waiters.wait(1e300)


def test_functions_are_called() -> None:
    """Those that were added, and those that are added when it has come; not those that were removed."""
    waiters, called = Waiters(), list[str]()
    stays, goes, late = (lambda name=name: called.append(name) for name in ("stays", "goes", "late"))
    waiters.add(stays)
    waiters.add(goes)
    waiters.remove(goes)
    waiters.wake()
    waiters.add(late)
    assert called == ["stays", "late"]


class Alarm(Exception):
    """What somebody's signal handler raises."""


def test_who_is_cut_short_at_any_line_holds_nothing() -> None:
    """An exception in the middle of `wake` or `wait`: another thread wakes whoever waits, and waits for nobody."""
    for at in range(1, 30):
        waiters, left = Waiters(), [at]

        def trace(frame: FrameType, event: str, argument: object, left: list[int] = left) -> Any:
            if frame.f_code.co_filename not in (once.__file__, threading.__file__):
                return None
            if event == "line":
                left[0] -= 1
                if not left[0]:
                    raise Alarm
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            waiters.wait(0)
            waiters.wake()
        except Alarm:
            pass
        finally:
            sys.settrace(before)
        waiting = threading.Thread(target=waiters.wait, args=(60,), daemon=True)
        waiting.start()
        waking = threading.Thread(target=waiters.wake, daemon=True)
        waking.start()
        waking.join(30)
        waiting.join(30)
        assert not waking.is_alive(), at
        assert not waiting.is_alive(), at
