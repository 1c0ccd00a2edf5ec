"""The real `World` of a library: processes that were started here, in a program that has others of its own.

Rules:
1. Only what was started here is ever waited for, by pidfd: `waitpid(-1)` would steal statuses from `subprocess` and asyncio.
2. A child's main process stays a zombie until nobody of its group is left: as long as it does, the group's number is its own.
3. Whoever has left for another group or session is not ours in somebody else's program.
"""

from __future__ import annotations

import os
import sys
import time

from cleanup_guard._supervise import _tree

if sys.platform != "linux":
    raise NotImplementedError("supervising children needs Linux")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cleanup_guard._supervise._child import Child
    from cleanup_guard._supervise._tree import Process

SIGKILL = 9

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
        self.children: list[Child] = []
        self.news = False
        self.cost = 0.0
        self.blind = not _tree.is_ours()

    def is_empty(self) -> bool:
        return all(child.gone or not child.started for child in self.children)

    def ticks(self) -> int:
        return _tree.ticks()

    def hears_alone(self, child: Child, signum: int) -> bool:
        return _tree.hears_alone(child.pid or -1, signum)

    def main(self, child: Child) -> Process | None:
        process = _tree.look_closely(child.pid or -1)
        return process if process is not None and process.alive else None

    def below(self, child: Child, seconds: float) -> list[Process]:
        until = time.monotonic() + seconds
        found = _tree.descendants(_tree.children(child.pid or -1), until=until)
        return [process for process in found if process.group == child.pid]

    def look(self) -> list[Process]:
        """Everybody in the groups of our children. Who has lost its parents may be anywhere, so /proc is read as a whole."""
        if self.blind:
            return []
        began = time.monotonic()
        groups = {child.pid for child in self.children if not child.gone}
        pids = [process.pid for process in _tree.everybody() if process.group in groups and process.alive]
        closely = [found for pid in pids if (found := _tree.look_closely(pid)) is not None]
        self.cost = time.monotonic() - began
        return _tree.in_order([process for process in closely if process.alive and process.group in groups])

    def pipes(self, process: Process) -> tuple[set[str], set[str]]:
        return _tree.pipes(process.pid)

    def tell(self, process: Process, signum: int) -> None:
        try:
            _tree.signal_one(process, signum)
        except PermissionError:
            pass  # it runs as somebody else

    def signal(self, child: Child, signum: int, *, to_group: bool) -> None:
        assert child.pid is not None
        if to_group:
            signal_group(child.pid, signum)
            return
        try:
            os.kill(child.pid, signum)
        except (ProcessLookupError, PermissionError):
            pass  # gone, or running as somebody else

    def kill(self, child: Child, rest: Sequence[Process]) -> None:  # noqa: ARG002 - the group holds them all
        assert child.pid is not None
        if child.name not in self.killed:
            self.killed.append(child.name)
        signal_group(child.pid, SIGKILL)

    def kill_everybody(self, rest: Sequence[Process]) -> None:
        """They have been killed with their groups."""

    def left_behind(self, child: Child, rest: Sequence[Process], *, stays: bool) -> None:
        """What somebody else's program leaves behind is told when it is killed."""
