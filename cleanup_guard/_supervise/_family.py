"""The real `World` of the command: a process that may look at, signal and reap everybody below it.

Rules:
1. A process group is signalled as a whole only while its leader is ours and not reaped: until then its number cannot be
   anybody else's.
2. `kill(-1)` only as PID 1, and only with SIGKILL, when time is over: it is the one way that outruns a fork.
"""

from __future__ import annotations

import os
import sys

from cleanup_guard._supervise._tree import Process, Told, descendants

if sys.platform != "linux":
    raise NotImplementedError("supervising children needs Linux")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cleanup_guard._supervise._policy import Child

SIGKILL, SIGCONT = 9, 18


class Family:
    """Our children and all their descendants. `World` for the policy, and the one who reaps."""

    def __init__(self, children: list[Child]) -> None:
        self.children = children
        self.killed: list[Process] = []
        self.childless = False
        self.me = os.getpid()
        self._told = Told()
        self._seen: list[Process] | None = None

    # -- reaping --------------------------------------------------------------------------------------------------------

    def reap(self) -> list[tuple[int, int]]:
        """Collect everybody who has ended or stopped; nobody stays a zombie. Returns (pid, wait status) of each."""
        changed: list[tuple[int, int]] = []
        self._seen = None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                self.childless = True
                return changed
            self.childless = False
            if pid == 0:
                return changed
            changed.append((pid, status))

    def refresh(self) -> None:
        """Look anew when next asked."""
        self._seen = None

    @property
    def _descendants(self) -> list[Process]:
        if self._seen is None:
            self._seen = [] if self.childless else descendants(self.me)
        return self._seen

    def _group(self, child: Child) -> list[Process]:
        return [
            process
            for process in self._descendants
            if process.group == child.pid and process.pid != child.pid
        ]

    def _strays(self) -> list[Process]:
        groups = {child.pid for child in self.children}
        return [process for process in self._descendants if process.group not in groups]

    # -- World ----------------------------------------------------------------------------------------------------------

    def has_group(self, child: Child) -> bool:
        return bool(self._group(child))

    def has_strays(self) -> bool:
        return bool(self._strays())

    def send(self, child: Child, signum: int, *, to_group: bool) -> None:
        assert child.pid is not None
        if child.sent is not None:
            self._told.begin()
            if to_group:
                self._told.note(
                    self._group(child), signum
                )  # the child itself was not forked but spawned: it misses nothing
        target = -child.pid if to_group else child.pid
        _kill(target, signum)
        if child.sent is not None:
            _kill(target, SIGCONT)  # who is stopped takes a SIGTERM only then

    def tell_rest(self, child: Child, signum: int, *, young: bool) -> None:
        self._tell(self._group(child), signum, young=young)

    def tell_strays(self, signum: int, *, young: bool) -> None:
        self._tell(self._strays(), signum, young=young)

    def _tell(self, processes: list[Process], signum: int, *, young: bool) -> None:
        due = [process for process in processes if self._told.is_due(process, young=young)]
        self._told.note(due, signum)
        for process in due:
            _kill(process.pid, signum)
            _kill(process.pid, SIGCONT)

    def remind(self) -> None:
        for pid, signum in self._told.at_birth(self._descendants):
            _kill(pid, signum)

    def kill(self, child: Child) -> None:
        assert child.pid is not None
        if child.status is None:
            self.killed += [process for process in self._descendants if process.group == child.pid]
            _kill(-child.pid, SIGKILL)
        else:
            self._kill_each(self._group(child))

    def kill_strays(self) -> None:
        strays = self._strays()
        self._kill_each(strays)
        if strays and self.me == 1:
            _kill(-1, SIGKILL)

    def _kill_each(self, processes: list[Process]) -> None:
        for process in processes:
            self.killed.append(process)
            _kill(process.pid, SIGKILL)


def _kill(pid: int, signum: int) -> None:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        pass  # it has just ended, which is what we wanted
    except PermissionError:
        pass  # it runs as somebody else: as little ours to stop as it is for any other process of this user
