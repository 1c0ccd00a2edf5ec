"""The only place that touches signal dispositions: take, put back, unblock, and the pipe that signals write to.

Rules:
1. What was there before is put back only if ours is still in place (trio, hazard H70).
2. An inherited SIG_IGN for SIGINT and SIGHUP (`nohup`, `&` in a script) is respected unless the caller insists (H3).
3. A stop signal that the process was born with blocked is unblocked: `signal.signal` does not do that (H4).
4. The wakeup fd of somebody else keeps getting its bytes (H23), of a signal that is ours the first one.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading

if sys.platform == "win32":
    # Nobody can send SIGTERM there, and what a console sends instead comes on a thread of its own, for five seconds.
    raise ImportError(
        "cleanup_guard guards processes on Linux and macOS: Windows has no signals that it could catch"
    )

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType
    from typing import Any

    Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None

SIGINT, SIGTERM = int(signal.SIGINT), int(signal.SIGTERM)
default_int_handler = signal.default_int_handler

# Windows has no SIGTERM that anybody could send; SIGBREAK is Ctrl-Break, and what a console sends when it closes.
DEFAULT_SIGNALS: tuple[int, ...] = (SIGTERM, SIGINT)

HUSHED = frozenset((signal.SIGINT, signal.SIGHUP))
"""Signals whose inherited SIG_IGN is somebody's wish."""


class Handlers:
    """Signal dispositions that we took, and what was there before. Main thread only, except for `lost`."""

    def __init__(self, handler: Callable[[int, FrameType | None], None]) -> None:
        self._handler = handler
        self.previous: dict[int, Handler] = {}

    def take(self, signums: Iterable[int], *, insist: bool) -> list[int]:
        """Install the handler for those that are not ours yet; all or none.

        Args:
            signums: signals that `check` has let through.
            insist: take SIGINT and SIGHUP even if they were ignored when the process started.

        Returns:
            The signals that were taken.
        """
        taken: list[int] = []
        try:
            for signum in signums:
                if signum in self.previous:
                    continue
                before = signal.getsignal(signum)
                if before is signal.SIG_IGN and signum in HUSHED and not insist:
                    continue
                taken.append(signum)
                self.previous[signum] = before
                signal.signal(signum, self._handler)
            self._unblock(taken)
        except BaseException:
            self.give_back(taken)
            raise
        return taken

    @staticmethod
    def _unblock(signums: list[int]) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signums)

    def give_back(self, signums: Iterable[int]) -> list[int]:
        """Put back what was there before. Returns the signals that somebody else had taken from us, which are left alone."""
        lost: list[int] = []
        for signum in signums:
            before = self.previous.get(signum)
            if self.lost(signum):
                lost.append(signum)
            elif signal.getsignal(signum) is self._handler:
                # None: a handler installed from C, which Python cannot put back. The default at least lets the signal work.
                signal.signal(signum, signal.SIG_DFL if before is None else before)
            self.previous.pop(signum, None)
        return lost

    def lost(self, signum: int) -> bool:
        """Whether a signal that we took now has somebody else's handler."""
        return signum in self.previous and signal.getsignal(signum) is not self._handler

    def ignore(self) -> None:
        """Ignore what is still ours. Unlike a Python handler SIG_IGN survives the end of the interpreter (H35)."""
        for signum in self.previous:
            if not self.lost(signum):
                signal.signal(signum, signal.SIG_IGN)


class WakeupPipe:
    """A pipe that the C-level handler writes each signal's number to, even while main is stuck in C.

    `wake` may be called from a handler and from any thread; `open` and `close` from the main thread, `read` from one thread.
    """

    POKE = b"\0"

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._poll = select.poll()
        self._poll.register(self._reader, select.POLLIN)
        self._previous = -1
        self._wired = False

    def wire(self) -> None:
        """Become the process's wakeup fd, once; what was there before gets its bytes from us."""
        if self._wired:
            return
        self._previous = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._wired = True

    def unwire(self) -> None:
        """Put the previous wakeup fd back, unless somebody has replaced ours."""
        if self._wired:
            self._wired = False
            try:
                found = signal.set_wakeup_fd(self._previous, warn_on_full_buffer=False)
            except (OSError, ValueError):  # its owner has closed it, as an event loop does
                found = signal.set_wakeup_fd(-1)
            if found not in (self._writer, self._previous):
                signal.set_wakeup_fd(found, warn_on_full_buffer=False)

    def wake(self) -> None:
        """End the reader's wait."""
        try:
            os.write(self._writer, self.POKE)
        except OSError:
            pass  # full: the reader wakes anyway; closed: nobody is left to wake

    def wait(self, timeout: float | None) -> bytes:
        """Wait at most this many seconds (None: for ever) and return the numbers of the signals that arrived."""
        self._poll.poll(None if timeout is None else max(0.0, timeout * 1000))
        try:
            data = os.read(self._reader, 65536)
        except BlockingIOError:
            return b""
        return data.replace(self.POKE, b"")

    def forward(self, signum: int) -> None:
        """Give a signal to the wakeup fd that was there before."""
        if self._previous != -1:
            try:
                os.write(self._previous, bytes((signum,)))
            except OSError:
                pass  # theirs is full or closed, as it would be without us

    def close(self) -> None:
        """Close both ends."""
        os.close(self._reader)
        os.close(self._writer)


def block_all() -> None:
    """Block all signals in the calling thread, so that the kernel gives them to main (H19)."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def poke(thread: int, signum: int) -> None:
    """Interrupt the system call that a thread is in: only `pthread_kill` does (H20)."""
    signal.pthread_kill(thread, signum)


def in_main_thread() -> bool:
    """Whether signals can be taken here."""
    return threading.current_thread() is threading.main_thread()
