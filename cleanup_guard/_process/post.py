"""Where the watcher stands: its thread, and the pipe at which that waits.

To start a thread and to wait for its end takes longer than all the rest of a guard. So when the last guard is left the post is
parked: the thread goes on waiting, and the next guard takes the post over without a word to it. If none comes, it ends by
itself and closes the pipe.

Rules:
1. Parked is only a watcher to which nothing has happened: it has seen no signal, has none to see, and is as good as a new one.
2. While it is parked there is a token in its berth. Who parks it, takes it over or ends it puts that there, takes it away or
   moves it to the end by one C call, which no signal and no other thread can split. So it is on duty, parked, or at its
   end, wherever somebody's signal handler cuts its owner short.
3. Nobody takes it for a watcher meanwhile: `Watch` says that there is none.
"""

from __future__ import annotations

import os
from time import monotonic

from cleanup_guard._ground.once import Once
from cleanup_guard._process import native
from cleanup_guard._process.signals import block_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Collection
    from typing import Protocol

    from cleanup_guard._process.signals import WakeupPipe
    from cleanup_guard._process.tally import Tally

    class Looks(Protocol):
        """The watcher, seen from its post (`watch.py`)."""

        tally: Tally
        pasts: deque[tuple[dict[int, int], Collection[int] | None]]
        prepares_at: float

        def begin_anew(self) -> None: ...
        def look_safely(self, signums: bytes) -> float | None: ...


LASTS = 0.05
"""Seconds for which it stays parked: to start a thread for a guard that comes later is not a thousandth of the time."""


class Post:
    """One watcher, its pipe, and its thread, if there is one.

    Whoever changes it holds the lock of `Watch`, or is main's handler.

    Attributes:
        watcher: who looks.
        pipe: where its thread waits.
        thread: that thread; None where none is to be had, and while a fork is under way.
    """

    __slots__ = ("_berth", "_ended", "_leaves", "_pid", "_sleeps", "_until", "pipe", "thread", "watcher")

    def __init__(self, watcher: Looks, pipe: WakeupPipe) -> None:
        self.watcher: Looks = watcher
        self.pipe: WakeupPipe = pipe
        self.thread: native.Thread | None = None
        self._leaves = Once()  # claimed: the thread is to end; each has its own
        self._pid = os.getpid()
        self._until = 0.0
        self._sleeps = False  # the thread waits without an end
        self._berth = Once()
        self._berth.claim()  # not parked yet
        self._ended: list[None] = []

    @property
    def on_duty(self) -> bool:
        """Whether it is not parked."""
        return not (self._berth.free or self._ended)

    @property
    def _is_here(self) -> bool:
        """Whether it is this process's: where C code has forked it knew nothing of hooks that come before."""
        return self._pid == os.getpid()

    def start(self, first: float = 0.0) -> None:
        """Start its thread.

        Args:
            first: seconds until the first look, if there is nothing to see before.
        """
        leaves = self._leaves = Once()
        thread = native.Thread(lambda: self._stand(leaves, first), "cleanup_guard watcher", bare=True)
        self.thread = thread if thread.start() else None

    def _stand(self, leaves: Once, timeout: float | None) -> None:
        block_all()
        while not leaves.claimed:
            self._sleeps = timeout is None
            signums = self.pipe.wait(timeout)
            if not signums and not self._berth.claimed:
                timeout = self._until - monotonic()
                if timeout <= 0 and self._berth.claim_into(self._ended):  # nobody has taken it over in time
                    self.pipe.close()
                    return
            elif signums or not leaves.claimed:  # what was read is not to be lost, also at a fork
                timeout = self.watcher.look_safely(signums)

    def end(self) -> None:
        """End the thread, if there is one, and wait for it."""
        self.send_off()
        self.wait_for_end()

    def wait_for_end(self) -> None:
        """Wait for the thread, if there is one, which is about to end."""
        if self.thread is not None and self._is_here:
            self.thread.join()

    def send_off(self) -> None:
        """Have the thread end, without a wait."""
        self._leaves.claim()
        self.pipe.wake()

    def close(self) -> None:
        """End it, and close the pipe."""
        self.end()
        self.pipe.close()

    def park(self) -> bool:
        """Leave it to the next guard, for a moment, once the pipe is not the process's wakeup fd any more.

        What came before that has been read if the pipe is empty, and looked at if the thread waits again.

        Returns:
            Whether it is parked. Else something has happened, or happens now, or there is no thread that would end it.
        """
        if self.thread is None:
            return False
        self._until = monotonic() + LASTS
        self._berth.give_back()
        if self.pipe.is_empty and self.pipe.waits and self.watcher.tally.untouched:
            if self._sleeps:
                self.pipe.wake()
            return True
        return False

    def take(self) -> bool:
        """Have it on duty again, if it is parked.

        Returns:
            False if its time was over, and the thread closes the pipe and ends; or if it is another process's.
        """
        return (self._is_here and self._berth.claim()) or self.on_duty
