"""Follows a program and all its descendants, and notes who was there, what reached them, and how each of them ended."""

from __future__ import annotations

import os
import signal
import sys
from itertools import islice

if sys.platform != "linux":
    raise NotImplementedError("rehearsing a stop needs Linux")

from cleanup_guard._rehearse import _kinds, _proc, _ptrace
from cleanup_guard._rehearse._hearing import Hearing
from cleanup_guard._rehearse._register import MOST_KEPT, Follow, Phase, Register, Target
from cleanup_guard._rehearse._seen import How, Seen
from cleanup_guard._rehearse._strangers import Strangers

STOPPING = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}

MOST_EXECUTED = 8
"""Command lines that are kept of one process."""

MOST_LOOKED_INTO = 200
"""Processes that are looked at more closely: what they have, and what they do with the stop in the end."""

MOST_EVENTS = 2000
"""Events that are taken note of in one look: they may come faster than that, and there is other work."""

MOST_LOOKS = 200
"""Looks at somebody who may start new threads or processes faster than they are got hold of."""

LOOKS_IN_VAIN = 2
"""Looks at all processes without a new one after which nobody is missing: one may have missed who just lost his parent."""


class Onlooker:
    """The tracer. All its methods belong to the thread that made it, and all children of its process are its to reap.

    Args:
        signum: the stop signal.
        simulate: the first process is to be treated as the kernel treats PID 1, for it is none.

    Attributes:
        target: what the stop goes to.
        status: with which its first process ended, as a platform shows it.
        others: how our other children ended, by pid, as os.waitstatus_to_exitcode has it.
        helpers: those of our other children that may outlive the program.
        holds_programs: a program does not begin before it is known who the first is, or a simulation would begin late.
        busy: there is more to take note of than there was time for.
        events: how much was to be taken note of since the stop: each has cost the program some time.
    """

    def __init__(self, signum: int, *, simulate: bool) -> None:
        self.target = Target(signum, simulate)
        self.status: int | None = None
        self.others: dict[int, int] = {}
        self.helpers: set[int] = set()
        self.holds_programs = False
        self.busy = False
        self.events = 0
        self.register = Register()
        self.phase = Phase()
        self._early: dict[int, int] = {}
        self._held: list[int] = []
        self._hearing = Hearing(self.target, self.register, self.phase)
        self._strangers = Strangers(self.target, self.register, self.phase)
        self._childless = False

    # -- what is known ----------------------------------------------------------------------------------------

    @property
    def processes(self) -> list[Seen]:
        """Who was there since the stop; before it, who is there. The first to be noticed comes first."""
        return self.register.kept

    @property
    def living(self) -> list[int]:
        """The pids, as we see them, of those who have not ended."""
        return list(self.register.living)

    @property
    def over(self) -> bool:
        """Whether nobody is left, nor anybody who has not been noticed yet; helpers of ours aside."""
        if self.register.living or self._childless:
            return not self.register.living
        helpers = [pid for pid in self.helpers if pid not in self.others]
        if not helpers:
            return False
        others = set(_proc.descendants(os.getpid())).difference(helpers, *map(_proc.descendants, helpers))
        return not any(map(_proc.is_alive, others))

    @property
    def clock(self) -> float:
        """Seconds since the stop; before it, since the start."""
        return self.phase.clock

    # -- what we do -------------------------------------------------------------------------------------------

    def begin(self, pid: int, *, ours: bool) -> None:
        """Trace a process with all its threads; `ours` dies with us.

        Raises:
            OSError: it may not be traced.
        """
        _ptrace.seize(pid, kill_with_us=ours)
        self._meet(pid)
        # Who starts a thread or a process before we have got hold of him gives us no notice of it: look until all are known.
        for _ in range(MOST_LOOKS):
            new = [
                tid
                for tid in _proc.tasks(pid)
                if tid not in self.register.owner and not _proc.is_traced_by_us(tid)
            ]
            if not new:
                return
            for tid in new:
                try:
                    _ptrace.seize(tid, kill_with_us=ours)
                except ProcessLookupError:
                    continue
                self._meet(tid)
            self.look()

    def adopt(self) -> list[int]:
        """Trace all descendants of the first process that are there already. Returns the pids that may not be traced."""
        assert self.target.first is not None
        foreign: list[int] = []
        looks_in_vain = 0
        for _ in range(MOST_LOOKS):
            if looks_in_vain == LOOKS_IN_VAIN:
                break
            self.look()
            looks_in_vain += 1
            for pid in _proc.descendants(self.target.first):
                if pid in self.register.living or pid in foreign or _proc.is_traced_by_us(pid):
                    continue
                looks_in_vain = 0
                try:
                    self.begin(pid, ours=False)
                except ProcessLookupError:
                    pass
                except PermissionError:
                    foreign.append(pid)
        return foreign

    def is_first(self, pid: int) -> None:
        """This is the process that the stop will go to."""
        self.target.first = pid
        if pid in self.register.living:
            self.register.living[pid].seen.parent = 0
        else:  # it ended before we learned that it is the first
            self.status = self._early.get(pid)
        started = self.phase.begin()
        for seen in self.register.kept:
            seen.born -= started
        self.holds_programs = False
        while self._held:
            _ptrace.resume(self._held.pop())

    def stop(self) -> None:
        """The stop is sent now: note who is there, and what they do with it. A stop that was noted before was none."""
        readied = self.phase.begin()
        self.phase.stopped = True
        self.events = 0
        self.register.only_the_living()
        for follow in self.register.living.values():
            follow.seen.born -= readied
            follow.seen.heard.clear()
        for pid in islice(self.register.living, MOST_KEPT):
            self._describe(pid)
        for pid, follow in islice(self.register.living.items(), MOST_LOOKED_INTO):
            argv = follow.seen.argv
            script = _kinds.script(argv) if _kinds.is_scripted(argv) else ""
            follow.seen.has = _proc.possession(pid, script)
        self._strangers.find()

    def add(self, some: list[Seen]) -> None:
        """There are others, who are not watched."""
        for seen in some:
            self.register.keep(seen)

    def send(self, signum: int, *, everybody: bool = False) -> None:
        """Send a signal to the first process, or to all, as platforms do."""
        for pid in list(self.register.living):
            if pid not in self.helpers and (everybody or pid == self.target.first):
                _proc.send(pid, signum)

    def kill(self) -> None:
        """SIGKILL to the first process, and to everybody else where no kernel does it; from now on who ends was killed."""
        self.phase.killing = True
        for pid, follow in islice(self.register.living.items(), MOST_LOOKED_INTO):
            self._hearing.note_what_waits(pid, follow)
        self._strangers.settle("killed")
        for pid in (
            self.register.living
            if self.target.simulate or self.target.first not in self.register.living
            else [self.target.first]
        ):
            _proc.send(pid, signal.SIGKILL)

    def kill_everybody(self) -> None:
        """SIGKILL to all that are left, and to who comes from now on, before he has done anything."""
        self.phase.ending = True
        for pid in self.register.living:
            _proc.send(pid, signal.SIGKILL)

    def look(self) -> None:
        """Take note of what has happened, or of a part of it if there is much. Does not wait."""
        self.busy = False
        for _ in range(MOST_EVENTS):
            try:
                tid, status = os.waitpid(-1, os.WNOHANG | _ptrace.WALL)
            except ChildProcessError:
                self._childless = True
                return
            if tid == 0:
                return
            self.events += 1
            if os.WIFSTOPPED(status):
                self._stops(tid, os.WSTOPSIG(status), status >> 16)
            else:
                self._ends(tid, status)
        self.busy = True

    # -- what happens -----------------------------------------------------------------------------------------

    def _stops(self, tid: int, signum: int, event: int) -> None:
        if tid not in self.register.owner:
            self._meet(tid)
            if self.phase.ending:
                _proc.send(self.register.owner[tid], signal.SIGKILL)
        if event == 0:
            info = _ptrace.siginfo(tid)
            if self._hearing.is_the_stop(tid, signum, info):
                self.phase.awaits_stop = False
                self.stop()
            _ptrace.resume(tid, self._hearing.hear(tid, signum, info))
            return
        if event == _ptrace.EVENT_STOP:
            follow = self.register.follow(tid)
            follow.halted = signum in STOPPING
            if follow.halted:
                _ptrace.listen(tid)
                return
        if event == _ptrace.EVENT_EXEC:
            self._executes(tid)
            if self.holds_programs:
                self._held.append(tid)
                return
        elif event == _ptrace.EVENT_EXIT:
            self._leaves(tid)
        _ptrace.resume(tid)

    def _meet(self, tid: int) -> None:
        """A thread that we did not know: of a process that we know, or the first of a new one."""
        status = _proc.status(tid)
        pid = int(status.get("Tgid", tid))
        self.register.owner[tid] = pid
        follow = self.register.living.get(pid)
        if follow is None:
            parent = self.register.living.get(int(status.get("PPid", 0)))
            inner = int(status.get("NSpid", str(pid)).split()[-1])
            argv = _proc.argv(pid)
            if parent is not None and (not argv or argv == parent.seen.argv):
                argv = parent.seen.argv  # one for all: there may be many
            seen = Seen(inner, 0 if parent is None else parent.seen.pid, argv, born=self.clock)
            follow = self.register.enter(pid, seen)
        follow.tasks.add(tid)

    def _executes(self, tid: int) -> None:
        """All other threads are gone, and this one has got the process's pid (ptrace(2), "execve(2) under ptrace")."""
        follow = self.register.follow(tid)
        for other in follow.tasks - {tid}:
            self.register.owner.pop(other, None)
        follow.tasks, follow.leaving = {tid}, set()
        follow.seen.argv = _proc.argv(tid) or follow.seen.argv
        if len(follow.seen.executed) < MOST_EXECUTED:
            follow.seen.executed.append(follow.seen.argv)

    def _leaves(self, tid: int) -> None:
        pid = self.register.owner[tid]
        follow = self.register.living[pid]
        follow.leaving.add(tid)
        status = _ptrace.message(tid)
        if pid == self.target.first:
            self.phase.note_kill(
                status
            )  # the others are killed next, by the kernel, and are reported before this one
        if follow.tasks <= follow.leaving:
            if follow.seen.born > 0:
                self._describe(pid)
            if os.WTERMSIG(status) == signal.SIGKILL and not self.phase.killing:
                follow.seen.hurried = self._hearing.was_hurried(pid, follow)
            if pid == self.target.first:
                self.phase.first_left = True
                self._strangers.settle("torn-down")

    def _ends(self, tid: int, status: int) -> None:
        pid = self.register.owner.pop(tid, 0)
        follow = self.register.living.get(pid)
        if follow is None:
            self.others[tid] = os.waitstatus_to_exitcode(status)
            return
        follow.tasks.discard(tid)
        if tid != pid:
            return  # a thread; the one whose id is the process's is the last to be reported
        del self.register.living[pid]
        self._note_end(pid, follow, status)
        if pid == self.target.first:
            self.phase.first_left = True
            if self.target.simulate:
                self.kill_everybody()

    def _note_end(self, pid: int, follow: Follow, status: int) -> None:
        seen = follow.seen
        seen.ended = self.clock
        code = -follow.fault or os.waitstatus_to_exitcode(status)
        seen.status = abs(code)
        seen.how = self._how(pid, code)
        shown = 128 - code if code < 0 else code
        if self.target.first is None:
            self._early[pid] = shown
        if pid == self.target.first:
            self.status = shown
        elif not self.phase.stopped:
            if seen.how != "torn-down":  # it is none of those whom the stop is about
                self.register.forget(seen)
        elif code == 0 and seen.born > 0:
            self.register.make_room(seen)

    def _how(self, pid: int, code: int) -> How:
        if code >= 0:
            return "exited"
        if code == -signal.SIGKILL and self.phase.killing:
            return "killed"
        if code == -signal.SIGKILL and self.phase.first_left and pid != self.target.first:
            return "torn-down"
        return "signal"

    def _describe(self, pid: int) -> None:
        seen = self.register.living[pid].seen
        argv = _proc.argv(pid)
        seen.argv = argv if argv and argv != seen.argv else seen.argv
        seen.handling = _proc.attitude(pid, self.target.signum) or seen.handling
