"""Real pseudo-terminals: a program in one, keys that are pressed, and what it shows."""

from __future__ import annotations

import os
import pty
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from run.supervised import kill_marked
from support import PATIENCE, wait_until


class Screen:
    """A terminal with a program in it, that leads a session of its own, as a container's PID 1 does."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self.fd = fd
        self.text = ""
        self.status: int | None = None
        self._kept: int | None = None

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.fd, text.encode())

    def wait_for(self, text: str, times: int = 1) -> None:
        """Read the screen until a text is there so many times."""
        limit = time.monotonic() + PATIENCE
        while self.text.count(text) < times:
            assert time.monotonic() < limit, f"no {text!r} on the screen:\n{self.text}"
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:
                    raise AssertionError(f"the terminal was closed before {text!r}:\n{self.text}") from None

    def hang_up(self) -> None:
        """Be gone, as a window that is closed: the kernel sends SIGHUP. Nothing more can be read."""
        reader, writer = os.pipe()
        os.dup2(reader, self.fd)
        os.close(reader)
        self._kept = writer  # without an end of it

    def end(self) -> int:
        """Wait for the program's end. Returns its exit status."""
        wait_until(self._ended, "the end")
        assert self.status is not None
        return self.status

    def close(self) -> None:
        """Give back what it holds."""
        os.close(self.fd)
        if self._kept is not None:
            os.close(self._kept)

    def _ended(self) -> bool:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        while select.select([self.fd], [], [], 0)[0]:
            try:
                self.text += os.read(self.fd, 65536).decode(errors="replace")
            except OSError:
                break  # all have closed it
        return self.status is not None


@contextmanager
def screen(*words: str) -> Iterator[Screen]:
    """Run a command in a new terminal; it is gone afterwards."""
    key, value = "CLEANUP_GUARD_TEST", f"tty.{os.getpid()}.{time.monotonic_ns()}"
    pid, fd = pty.fork()
    if pid == 0:
        for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(signum, signal.SIG_DFL)
        os.execvpe(words[0], list(words), {**os.environ, key: value, "PS1": "prompt> "})
    shown = Screen(pid, fd)
    try:
        yield shown
    finally:
        if shown.status is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        shown.close()
        kill_marked(f"{key}={value}")
