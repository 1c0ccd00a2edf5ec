"""What happens once, whichever threads and handlers take part: a claim that only one wins, and what others wait for."""

from __future__ import annotations

from itertools import islice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Once:
    """To be had once. Any thread, any handler: nothing here waits.

    Who has it is decided by `list.pop()`, one C call that no signal and no other thread can split (hazard H63).
    """

    __slots__ = ("free",)

    def __init__(self) -> None:
        self.free: list[None] = [None]

    def claim(self) -> bool:
        """Try to be the one. Returns whether the caller is."""
        try:
            self.free.pop()
        except IndexError:
            return False
        return True

    def claim_into(self, hand: list[None]) -> bool:
        """As `claim`, for who must know that he has it even if an exception cuts him short: then his hand is not empty.

        He gives it back by `once.free[:] = hand`, which calls nothing, so that no exception comes before it is done.
        """
        try:
            hand.extend(islice(iter(self.free.pop, self), 1))
        except IndexError:
            return False
        return True

    @property
    def claimed(self) -> bool:
        """Whether somebody has it."""
        return not self.free

    def give_back(self) -> None:
        """Let somebody else have it. Only for who has it, or who knows that nobody uses it any more."""
        self.free[:] = [None]


class Waiters:
    """Those who wait for a guard's stop, or its end: threads, and tasks of any loop. All wake at once. Any thread.

    Who wakes them takes no lock: somebody's signal handler may raise inside `Event.set`, and its lock is then held for ever
    (hazard H12), by main, with the watcher waiting for it. So each thread that waits brings a lock of its own, which is only
    released.

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
        import threading  # as it is now: gevent replaces its locks

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
