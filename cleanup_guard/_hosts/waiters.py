"""Those who wait for a guard's stop, or its end: threads, and tasks of any loop."""

from __future__ import annotations

import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Waiters:
    """All wake at once. Any thread."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._wakers: list[Callable[[], object]] = []

    def wait(self, timeout: float | None) -> bool:
        """Wait in this thread, at most this many seconds. Returns whether it came."""
        return self._event.wait(timeout)

    @property
    def woken(self) -> bool:
        """Whether it has come."""
        return self._event.is_set()

    def add(self, waker: Callable[[], object]) -> None:
        """Have a function called, from any thread, when it comes."""
        self._wakers.append(waker)
        if self.woken:
            waker()

    def remove(self, waker: Callable[[], object]) -> None:
        """Undo `add`."""
        self._wakers.remove(waker)

    def wake(self) -> None:
        """It has come."""
        self._event.set()
        for waker in self._wakers[:]:
            waker()
