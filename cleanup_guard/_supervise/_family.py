"""The real `World` of the command: a process that may look at, signal and reap everybody below it.

Rules:
1. A pid is an identity only as long as nobody has reaped it. A main process is ours until we have; everybody else is
   signalled through a pidfd, after another look at who it is.
2. A process group is signalled as a whole while its leader is ours and not reaped: until then its number cannot be anybody
   else's. Without /proc also right after that, and when the time is over, because there is no other way.
3. `kill(-1)` only as PID 1, and only with SIGKILL, when time is over: it is the one way that outruns a fork.
4. No loop over what the programs below us do is without a bound.
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
    from collections.abc import Callable, Iterable, Sequence

    from cleanup_guard._supervise._child import Child
    from cleanup_guard._supervise._tree import Process

SIGKILL, SIGCONT = 9, 18

AT_ONCE = 500
"""Processes that are reaped before we look at anything else."""

LEVELS, MANY = 3, 200
"""Generations that one round of SIGKILL goes down, and children beyond which it does not: whoever has lost its parents is
our own child in the next round."""


class Family:
    """Our children and all their descendants. `World` for the policy, and the one who reaps.

    Args:
        children: the programs.
        observe: told of each signal that is sent: (number, to whom).
        report: told, in a sentence, what an operator should know.
    """

    def __init__(
        self,
        children: list[Child],
        *,
        observe: Callable[[int, str], None] = lambda _signum, _to: None,
        report: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.children = children
        self.killed: dict[tuple[int, int], tuple[str, Process]] = {}
        self.news = False
        self.more = False
        self.cost = 0.0
        self.me = os.getpid()
        self.blind = not _tree.is_ours()
        self._childless = False
        self._told_ahead: dict[Child, int] = {}
        self._observe = observe
        self._report = report
        self._refused: set[int] = set()
        self._our_pipes: set[str] = set()
        if not self.blind:
            reads, writes = _tree.pipes(self.me)
            self._our_pipes = reads | writes
            _tree.has_children_files()  # asked now, not when a stop has come

    # -- reaping --------------------------------------------------------------------------------------------------------

    def reap(self) -> list[tuple[int, int]]:
        """Collect who has ended or stopped; nobody stays a zombie. Returns (pid, wait status) of each.

        After many at once it returns with `more` set, so that a program that forks in a loop keeps us from nothing.
        """
        changed: list[tuple[int, int]] = []
        self.more = False
        for _ in range(AT_ONCE):
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                self._childless = True
                return changed
            self._childless = False
            if pid == 0:
                return changed
            self.news = True
            changed.append((pid, status))
        self.more = True
        return changed

    def is_empty(self) -> bool:
        return self._childless

    def started(self) -> None:
        """There is a child again."""
        self._childless = False

    # -- looking --------------------------------------------------------------------------------------------------------

    def ticks(self) -> int:
        return _tree.ticks()

    def hears_alone(self, child: Child, signum: int) -> bool:
        return child in self._told_ahead or _tree.hears_alone(child.pid or -1, signum)

    def main(self, child: Child) -> Process | None:
        process = _tree.look_closely(child.pid or -1)
        return process if process is not None and process.alive else None

    def below(self, child: Child, seconds: float) -> list[Process]:
        until = time.monotonic() + seconds
        return _tree.descendants(_tree.children(child.pid or -1), until=until)

    def look(self) -> list[Process]:
        if self.blind or self._childless:
            return []
        began = time.monotonic()
        found = _tree.descendants(_tree.children(self.me))
        self.cost = time.monotonic() - began
        return found

    def pipes(self, process: Process) -> tuple[set[str], set[str]]:
        reads, writes = _tree.pipes(process.pid)
        return reads - self._our_pipes, writes - self._our_pipes

    # -- telling --------------------------------------------------------------------------------------------------------

    def tell_ahead(self, first: Iterable[tuple[Child, int]]) -> None:
        """A first stop has arrived: tell those main processes of whom the policy has foreseen that it asks them at once.

        To come to that takes it as long as all the rest: what it executes and reads has long left the processor's caches.
        """
        for child, signum in first:
            if child.status is None and child.pid is not None and _tree.hears_alone(child.pid, signum):
                self._kill(child.pid, signum)
                self._told_ahead[child] = signum

    def tell(self, process: Process, signum: int) -> None:
        self._send(process, signum)

    def signal(self, child: Child, signum: int, *, to_group: bool) -> None:
        assert child.pid is not None
        if not to_group and self._told_ahead.get(child) == signum:
            del self._told_ahead[child]
        else:
            self._kill(-child.pid if to_group else child.pid, signum)
        self._observe(signum, f"{'the group of ' if to_group else ''}{child.name} (pid {child.pid})")

    def _send(self, process: Process, signum: int) -> bool:
        """Signal one process, if it still is the one that was seen."""
        self._observe(signum, f"{process.name} (pid {process.pid})")
        try:
            return _tree.signal_one(process, signum)
        except PermissionError:
            self._say_refused(process.pid)
            return False

    def _kill(self, pid: int, signum: int) -> None:
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            pass  # it has just ended, which is what we wanted
        except PermissionError:
            self._say_refused(abs(pid))

    def _say_refused(self, pid: int) -> None:
        if pid not in self._refused:
            self._refused.add(pid)
            self._report(f"pid {pid} may not be signalled: it runs as another user, and we lack CAP_KILL")

    def left_behind(self, child: Child, rest: Sequence[Process], *, stays: bool) -> None:
        told = (
            "we stay as long as they do" if stays else "they are told to stop (--stay waits for them instead)"
        )
        self._report(f"{child.name} ended with {child.code} and left others behind: {_names(rest)}; {told}")

    # -- killing --------------------------------------------------------------------------------------------------------

    def kill(self, child: Child, rest: Sequence[Process]) -> None:
        main = None if self.blind or not child.running else _tree.look(child.pid or -1)
        self._record(child.name, [*([main] if main is not None and main.alive else []), *rest])
        if child.running and child.pid is not None:
            self._observe(SIGKILL, f"the group of {child.name} (pid {child.pid})")
            self._kill(-child.pid, SIGKILL)
        for process in rest:
            self._send(process, SIGKILL)

    def kill_everybody(self, rest: Sequence[Process]) -> None:
        self._record("descendant", rest)
        if self.me == 1:
            self._observe(SIGKILL, "everybody")
            self._kill(-1, SIGKILL)
            return
        if self.blind:
            for child in self.children:
                if child.pid is not None:
                    self._kill(-child.pid, SIGKILL)
            return
        self._kill_below(self.me, LEVELS)

    def _kill_below(self, pid: int, levels: int) -> None:
        """Kill the children of a process, and theirs. Our own need no second look: nobody but us can reap them."""
        pids = _tree.children(pid)
        for each in pids:
            if pid == self.me:
                self._kill(each, SIGKILL)
        if levels == 0 or len(pids) > MANY:
            return  # those below will be ours in the next round
        groups = {child.pid for child in self.children}
        for each in pids:
            process = _tree.look(each)
            if process is None or process.parent != pid:
                continue
            if process.group in (each, *groups):  # a group is killed faster than it forks
                self._kill(-process.group, SIGKILL)
            self._kill_below(each, levels - 1)
            if pid != self.me and process.alive:
                self._send(process, SIGKILL)

    def victims(self) -> str:
        """Who had to be killed."""
        owners, processes = (
            [f"{name}: " for name, _ in self.killed.values()],
            [process for _, process in self.killed.values()],
        )
        return _names(processes, owners) or "somebody who was not seen"

    def _record(self, name: str, processes: Iterable[Process]) -> None:
        for process in processes:
            self.killed.setdefault(process.key, (name, process))


def _names(processes: Sequence[Process], owners: Sequence[str] = ()) -> str:
    from cleanup_guard._ground.foreign import shown

    named = [
        f"{owner}{shown(each.name)} (pid {each.pid})"
        for each, owner in zip(processes[:MOST], owners or [""] * MOST, strict=False)
    ]
    more = len(processes) - MOST
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")


MOST = 10
"""Processes that are named in one line."""
