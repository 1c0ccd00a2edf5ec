"""Who lives: the processes of this machine as /proc tells, and which of them descend from us.

A scan is not atomic: who forks meanwhile may be missed. So it only ever says whom to signal; that nobody is left is known from
`waitpid`, which says so for sure.
"""

from __future__ import annotations

import os
import sys

if sys.platform != "linux":
    raise NotImplementedError("supervising children needs Linux")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Process:
    """One line of /proc/PID/stat: what of it matters here."""

    __slots__ = ("executed", "group", "name", "parent", "pid", "started", "state")

    def __init__(
        self, *, pid: int, name: str, state: str, parent: int, group: int, executed: bool, started: int
    ) -> None:
        self.pid = pid
        self.name = name
        self.state = state
        self.parent = parent
        self.group = group
        self.executed = executed  # a program since it was forked
        self.started = started

    def __repr__(self) -> str:
        return f"<{self.name} {self.pid} {self.state}>"

    @property
    def key(self) -> tuple[int, int]:
        """What tells it from a later process with the same pid."""
        return (self.pid, self.started)

    @property
    def alive(self) -> bool:
        """Whether it runs, that is, is neither a zombie nor on its way to be one."""
        return self.state not in "ZX"


def look(pid: int) -> Process | None:
    """One process, or None if there is none with this pid."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return None
    # The name is in parentheses and may hold any character, parentheses and spaces included.
    head, _, tail = text.rpartition(")")
    if not tail:
        return None
    fields = tail.split()
    return Process(
        pid=pid,
        name=head.partition("(")[2],
        state=fields[0],
        parent=int(fields[1]),
        group=int(fields[2]),
        executed=not int(fields[6]) & PF_FORKNOEXEC,
        started=int(fields[19]),
    )


def everybody() -> Iterator[Process]:
    """All processes that /proc shows."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    for name in names:
        if name.isdecimal():
            found = look(int(name))
            if found is not None:
                yield found


def descendants(root: int) -> list[Process]:
    """Everybody alive below a process, parents before children."""
    children: dict[int, list[Process]] = {}
    for process in everybody():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    queue = [root]
    for pid in queue:
        for process in children.get(pid, ()):
            queue.append(process.pid)
            if process.alive:
                found.append(process)
    return found


def members(group: int) -> list[Process]:
    """Everybody alive in a process group."""
    return [process for process in everybody() if process.group == group and process.alive]


PF_FORKNOEXEC = 0x40
"""A flag of /proc/PID/stat: forked, and no program executed since."""

NEWBORN = 0.1
"""Seconds for which a fork may still miss what it is told: CPython forgets signals that reach a child in its fork (H40)."""


class Told:
    """Who has been told to stop. A second time may cost a cleanup, so it is kept for those who may have missed the first."""

    def __init__(self) -> None:
        self._keys: set[tuple[int, int]] = set()
        self._at_birth: dict[tuple[int, int], int] = {}
        self._ticks = os.sysconf("SC_CLK_TCK")
        self._began: int | None = None

    def begin(self) -> None:
        """The stop begins, unless it has begun: who is started from now on is young."""
        if self._began is None:
            self._began = self._now()

    def is_due(self, process: Process, *, young: bool) -> bool:
        """Whether a process is to be told: it has not been, and it is not young, or the young are to be told, too."""
        if process.key in self._keys:
            return False
        return young or self._began is None or process.started <= self._began

    def note(self, processes: Iterable[Process], signum: int) -> None:
        """These are being told now."""
        grown = self._now() - int(NEWBORN * self._ticks)
        for process in processes:
            self._keys.add(process.key)
            if process.started >= grown and not process.executed:
                self._at_birth[process.key] = signum

    def at_birth(self, processes: Iterable[Process]) -> list[tuple[int, int]]:
        """(pid, signal) of those among these who were told at their birth; each is named once."""
        named = [
            (process.pid, self._at_birth[process.key])
            for process in processes
            if process.key in self._at_birth
        ]
        self._at_birth.clear()
        return named

    def _now(self) -> int:
        import time

        return int(time.clock_gettime(time.CLOCK_BOOTTIME) * self._ticks)  # the clock of `Process.started`
