"""The real `World` of a library: processes that were started here, in a program that has others of its own.

Rules:
1. Only what was started here is ever waited for, by pidfd: `waitpid(-1)` would steal statuses from `subprocess` and asyncio.
2. A child's main process stays a zombie until nobody of its group is left: as long as it does, the group's number is its own.
"""

from __future__ import annotations

import os
import sys

from cleanup_guard._supervise._tree import Process, Told, everybody, members

if sys.platform != "linux":
    raise NotImplementedError("supervising children needs Linux")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cleanup_guard._supervise._policy import Child

SIGKILL, SIGCONT = 9, 18

LONGEST_WAIT = 3600.0
"""Seconds after which a wait is begun anew: poll(2) takes no more than 24 days at once."""

LOST = 255
"""The status of a child that somebody else has reaped."""


def peek(pidfd: int) -> int | None:
    """How the process ended, as subprocess says it, without reaping it; None while it runs."""
    try:
        info = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return LOST
    if info is None:
        return None
    return info.si_status if info.si_code == os.CLD_EXITED else -info.si_status


def reap(pidfd: int) -> None:
    """Reap a process that has ended, and close its pidfd."""
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        pass  # somebody else has
    os.close(pidfd)


def signal_group(group: int, signum: int) -> None:
    """Send a signal to the process group of a child that is not reaped."""
    try:
        os.killpg(group, signum)
    except (ProcessLookupError, PermissionError):
        pass  # gone, or running as somebody else


class Household:
    """`World` for the policy of a `Supervisor`."""

    def __init__(self) -> None:
        self.killed: list[str] = []
        self._told = Told()
        self._told_groups: set[int] = set()

    def _rest(self, child: Child) -> list[Process]:
        return [process for process in members(child.pid or -1) if process.pid != child.pid]

    def has_group(self, child: Child) -> bool:
        return child.started and bool(self._rest(child))

    def has_strays(self) -> bool:
        return False

    def send(self, child: Child, signum: int, *, to_group: bool) -> None:
        assert child.pid is not None
        if child.sent is not None:
            self._told.begin()
            self._told_groups.add(child.pid)
            if to_group:
                self._told.note(self._rest(child), signum)
        self._signal(child.pid, signum, to_group=to_group)
        if child.sent is not None:
            self._signal(child.pid, SIGCONT, to_group=to_group)

    @staticmethod
    def _signal(pid: int, signum: int, *, to_group: bool) -> None:
        if to_group:
            signal_group(pid, signum)
            return
        try:
            os.kill(pid, signum)
        except (ProcessLookupError, PermissionError):
            pass  # gone, or running as somebody else

    def tell_rest(self, child: Child, signum: int, *, young: bool) -> None:
        due = [process for process in self._rest(child) if self._told.is_due(process, young=young)]
        self._told.note(due, signum)
        for process in due:
            self._signal(process.pid, signum, to_group=False)
            self._signal(process.pid, SIGCONT, to_group=False)

    def remind(self) -> None:
        theirs = [process for process in everybody() if process.group in self._told_groups and process.alive]
        for pid, signum in self._told.at_birth(theirs):
            self._signal(pid, signum, to_group=False)

    def tell_strays(self, signum: int, *, young: bool) -> None:
        """There are none: whoever has left for another session is not ours in somebody else's program."""

    def kill(self, child: Child) -> None:
        assert child.pid is not None
        if child.name not in self.killed:
            self.killed.append(child.name)
        signal_group(child.pid, SIGKILL)

    def kill_strays(self) -> None:
        """There are none."""
