"""A line on stderr that never blocks.

Our own lines go there without Python's buffers: a full pipe that nobody reads loses them, a closed one is ignored, and a
handler or a lock of the program is never waited for (hazards H61, H67).
"""

from __future__ import annotations

import os
import select
import signal
import stat
import sys

from cleanup_guard._ground.unpatched import make_poll, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal

FD = 2
"""Stderr."""

CHUNK = 512
"""Bytes per write to a stderr that can block: POSIX promises a writable pipe room for this many (PIPE_BUF)."""


class Stderr:
    """Stderr for a report: every write returns at once.

    O_NONBLOCK belongs to the open file description, which we share with everybody who inherited it, so a pipe or terminal is
    opened anew through /proc. Where that is not possible (a socket, no /proc, another user's pipe) each small write asks
    `poll` first. Windows has nothing that could be asked, so a pipe there that nobody reads is waited for.
    """

    def __init__(self) -> None:
        # A process started with fd 2 closed has sys.__stderr__ None, and fd 2 may by now be a file of the program.
        self.gone: bool = sys.__stderr__ is None
        self.fileno: int = -1 if self.gone else _reopen()
        self._own = self.fileno > FD
        self.blocks: bool = not self._own and not self.gone and not _is_file(FD)

    def write(self, text: str) -> None:
        """Write what fits now; drop the rest."""
        if self.gone:
            return
        if sys.platform == "win32":
            self._write(text)
            return
        blocked = _signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])
        try:
            self._write(text)
        finally:
            if signal.SIGPIPE not in blocked:
                # A program that is used with `head` may have SIGPIPE at its default, which is death: take ours back.
                if signal.SIGPIPE in _signal.sigpending():
                    _signal.sigwait([signal.SIGPIPE])
                _signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPIPE])

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "backslashreplace")
        try:
            for start in range(0, len(data), CHUNK):
                if self.blocks and not _writable(self.fileno):
                    return
                write(self.fileno, data[start : start + CHUNK])
        except OSError:
            pass  # closed, full, or a terminal that hung up: a report is never worth an exception

    def safe_fileno(self) -> int | None:
        """A descriptor for a C-level writer that cannot ask first; None when a write could block for ever."""
        if self.gone or not _has_reader(self.fileno) or (self.blocks and not _writable(self.fileno)):
            return None
        return self.fileno

    def close(self) -> None:
        """Close what we opened."""
        if self._own:
            os.close(self.fileno)
            self._own = False
            self.gone = True


def _reopen() -> int:
    if sys.platform == "win32":
        return FD
    try:
        mode = os.fstat(2).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            return os.open("/proc/self/fd/2", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        pass
    return 2


def _is_file(fd: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError:
        return False


def _has_reader(fd: int) -> bool:
    if sys.platform == "win32":
        return True
    poll = make_poll()
    poll.register(fd, 0)
    return not poll.poll(0)  # POLLERR and POLLHUP are told without being asked for


def _writable(fd: int) -> bool:
    if sys.platform == "win32":
        return True
    poll = make_poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))


def write_line(text: str) -> None:
    """Write one line, or several, to stderr as they are, without blocking."""
    stderr = Stderr()
    stderr.write(f"cleanup_guard: {text}\n")
    stderr.close()
