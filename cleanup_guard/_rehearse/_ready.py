"""When the program is ready to be stopped."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from cleanup_guard._ground.foreign import quoted, shown
from cleanup_guard._rehearse import _proc

QUIET = 0.5
"""Seconds without work in any process after which a program is taken for settled, if nothing better is known."""

SETTLED = 5.0
"""Seconds after which a program is stopped that never is quiet, if nothing better is known."""


@dataclass(frozen=True)
class Wish:
    """What to wait for before the stop; all that is given must be true.

    Attributes:
        text: it is in the output.
        tcp: a port on which somebody listens.
        file: a path that appears, or that is written anew.
        after: seconds that have passed since the start; None: no matter.
        timeout: seconds after which we give up.
    """

    text: str | None = None
    tcp: int | None = None
    file: str | None = None
    after: float | None = None
    timeout: float = 60.0

    @property
    def anything(self) -> bool:
        """Whether there is something to wait for."""
        return any(each is not None for each in (self.text, self.tcp, self.file, self.after))

    def missing(self, seconds: float, output: bytes, pid: int, known: Stamp) -> str:
        """What is not yet so, for a message; empty if the program is ready."""
        if self.text is not None and os.fsencode(self.text) not in output:
            return f"did not print {quoted(self.text)}"
        if self.tcp is not None and not listens(self.tcp, pid):
            return f"did not listen on port {self.tcp}"
        if self.file is not None and stamp(self.file, pid) in {None, known}:
            return f"did not write {shown(self.file)}"
        if self.after is not None and seconds < self.after:
            return f"ran less than {self.after:g} s"
        return ""


Stamp = tuple[int, int] | None
"""What tells a file from the one that was there before."""


def stamp(path: str, pid: int) -> Stamp:
    """Of a file as a process sees it; None if it is not there."""
    try:
        found = os.stat(_proc.inside(f"/proc/{pid}/root", os.path.abspath(path)))
    except OSError:
        try:
            found = os.stat(path)
        except OSError:
            return None
    return (found.st_ino, found.st_mtime_ns)


def listens(port: int, pid: int | str = "self") -> bool:
    """Whether somebody in a process's network listens on a TCP port. Nobody is connected to, so nobody is disturbed."""
    wanted = f":{port:04X}"
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{name}", encoding="ascii") as file:
                rows = [line.split() for line in file]
        except OSError:
            continue
        if any(
            len(row) > LISTENING[0] and row[1].endswith(wanted) and row[3] == LISTENING[1] for row in rows
        ):
            return True
    return False


LISTENING = (3, "0A")
"""Where a socket's state stands in /proc/PID/net/tcp, and what it is for one that listens (proc(5))."""


@dataclass
class Quiet:
    """Notices when nobody works any more."""

    _before: dict[int, int] = field(default_factory=dict[int, int])
    _since: float = field(default_factory=time.monotonic)

    def look(self, pids: list[int]) -> bool:
        """Whether the same processes have been there for a while, and none of them has used the processor."""
        now = {pid: _ticks(pid) for pid in pids}
        if not now or now != self._before:
            self._before, self._since = now, time.monotonic()
        return time.monotonic() - self._since >= QUIET


def _ticks(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return -1
    return int(fields[11]) + int(fields[12])
