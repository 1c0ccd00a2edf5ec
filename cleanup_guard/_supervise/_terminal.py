"""The terminal: lent to the only child while it runs, and taken back in the state in which it was.

The child's process group is in the foreground, so Ctrl-C, Ctrl-Z and a new window size come to it from the kernel, once, and
never to us. What a shell does for its jobs is left to us: to notice that the child was stopped, and to stop, too, so that
whoever started us gets the terminal back. With nobody above to resume us, as in a container, the child is resumed at once.

Several children cannot share it: we keep the foreground, so Ctrl-C comes to us, and is passed on. Ctrl-Z suspends all of us
where a shell can resume us, and nobody where none can.
"""

from __future__ import annotations

import os
import sys
import termios

if sys.platform != "linux":
    raise NotImplementedError("supervising children needs Linux")

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import Any
else:
    import _signal

FD = 0


class Terminal:
    """Stdin, if it is the terminal that controls us. SIGTTOU must be blocked."""

    def __init__(self) -> None:
        self.group = os.getpgrp()
        self._ours = termios.tcgetattr(FD)

    @classmethod
    def find(cls) -> Terminal | None:
        """The terminal, or None if there is none. It may be somebody else's at the moment: `program &`, and later `fg`."""
        try:
            return cls() if os.isatty(FD) and os.tcgetpgrp(FD) >= 0 else None
        except (OSError, termios.error):
            return None

    def give(self, group: int) -> None:
        """Bring a process group to the foreground."""
        try:
            os.tcsetpgrp(FD, group)
        except OSError:
            pass  # the group has just ended, or the terminal has hung up

    def take_back(self, *borrowers: int | None) -> None:
        """Be in the foreground again, with the settings that the terminal had when we came, if one of these groups is there."""
        if self._foreground() in borrowers:
            self.give(self.group)
        if self.is_ours():
            self._set(self._ours)

    def _set(self, attributes: list[Any]) -> None:
        try:
            termios.tcsetattr(FD, termios.TCSADRAIN, attributes)
        except (OSError, termios.error):
            pass

    def _foreground(self) -> int:
        try:
            return os.tcgetpgrp(FD)
        except OSError:
            return -1

    def is_ours(self) -> bool:
        """Whether we, not the child, are in the foreground."""
        return self._foreground() == self.group

    def stopped(self, child: int, signum: int) -> None:
        """The child was stopped by this signal: stop with it, or have it go on.

        Args:
            child: its process group.
            signum: what stopped it. SIGSTOP is somebody's deliberate act and is left alone.
        """
        if signum == _signal.SIGSTOP:
            return
        foreground = self._foreground()
        wants = signum in (_signal.SIGTTIN, _signal.SIGTTOU)
        if wants and foreground in (self.group, child):
            self.resume(child)
        elif is_a_job():
            self.suspend(child)
        else:
            self.give(child)  # nobody would ever bring us to the foreground
            self.resume(child)

    def suspend(self, child: int | None) -> None:
        """Stop the whole job, as Ctrl-Z would have without us; returns when the shell has resumed it."""
        lent = child is not None and self._foreground() == child
        try:
            childs = termios.tcgetattr(FD)
        except (OSError, termios.error):
            childs = self._ours
        if lent:
            self.take_back(child)
        os.kill(0, _signal.SIGSTOP)
        if lent and self.is_ours():
            self._set(childs)
        if child is not None:
            self.resume(child)

    def resume(self, child: int) -> None:
        """Go on with the child, in the foreground if we are there."""
        if self.is_ours():
            self.give(child)
        try:
            os.kill(-child, _signal.SIGCONT)
        except OSError:
            pass


def is_a_job() -> bool:
    """Whether a shell above us would notice that we stopped: an orphaned process group has nobody to resume it."""
    parent = os.getppid()
    try:
        return parent > 0 and os.getsid(parent) == os.getsid(0) and os.getpgid(parent) != os.getpgrp()
    except OSError:
        return False
