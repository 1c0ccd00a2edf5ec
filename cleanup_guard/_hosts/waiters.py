"""Those who wait for a guard's stop, or its end: threads, and tasks of any loop.

Who wakes them takes no lock: somebody's signal handler may raise inside `Event.set`, and its lock is then held for ever (hazard
H12), by main, with the watcher waiting for it. So each thread that waits brings a lock of its own, which is only released.
"""

from __future__ import annotations

import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Waiters:
    """All wake at once. Any thread.

    Attributes:
        woken: it has come.
    """

    def __init__(self) -> None:
        self.woken: bool = False
        self._wakers: list[Callable[[], object]] = []

    def wait(self, timeout: float | None) -> bool:
        """Wait in this thread, at most this many seconds. Returns whether it came."""
        if self.woken:
            return True
        gate = threading.Lock()
        gate.acquire()

        def open_gate() -> None:
            try:
                gate.release()
            except RuntimeError:
                pass  # it is open

        self.add(open_gate)
        try:
            gate.acquire(timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX))
        finally:
            self.remove(open_gate)
        return self.woken

    def add(self, waker: Callable[[], object]) -> None:
        """Have a function called, from any thread, when it comes; perhaps twice."""
        self._wakers.append(waker)
        if self.woken:
            waker()

    def remove(self, waker: Callable[[], object]) -> None:
        """Undo `add`."""
        self._wakers.remove(waker)

    def wake(self) -> None:
        """It has come. Doing it again wakes whom the first time has missed."""
        self.woken = True
        for waker in self._wakers[:]:
            waker()
