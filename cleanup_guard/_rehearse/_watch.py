"""Follows a program and all its descendants, and notes who was there, what reached them, and how each of them ended."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass, field

if sys.platform != "linux":
    raise NotImplementedError("rehearsing a stop needs Linux")

from cleanup_guard._ground.names import name_of
from cleanup_guard._rehearse import _ptrace
from cleanup_guard._rehearse._seen import Handling, Heard, Seen

DULL = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
"""Signals that tell nothing about a stop."""

SYNCHRONOUS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGSYS}
STOPPING = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
LONGEST_STORY = 100
"""Signals that are kept of one process."""


@dataclass
class Follow:
    """A living process."""

    seen: Seen
    tasks: set[int] = field(default_factory=set[int])
    leaving: set[int] = field(default_factory=set[int])
    halted: bool = False
    fault: int = 0


class Watch:
    """The tracer. All its methods belong to the thread that made it, and all children of its process are its to reap.

    Args:
        signum: the stop signal.
        simulate: the first process is to be treated as the kernel treats PID 1, for it is none.

    Attributes:
        processes: who was there since the stop; before it, since the start.
        others: how our other children ended, by pid, as os.waitstatus_to_exitcode has it.
        kills_after: seconds after the stop from which on a SIGKILL to the first process is the platform's; None: we do that.
        awaits_stop: somebody else sends the stop: the next one from outside that reaches the first process is it.
        holds_programs: a program does not begin before it is known who the first is, or a simulation would begin late.
    """

    def __init__(self, signum: int, *, simulate: bool) -> None:
        self.processes: list[Seen] = []
        self.first: int | None = None
        self.status: int | None = None
        self.others: dict[int, int] = {}
        self.kills_after: float | None = None
        self.awaits_stop = False
        self.holds_programs = False
        self.signum = signum
        self.simulate = simulate
        self._living: dict[int, Follow] = {}
        self._owner: dict[int, int] = {}
        self._early: dict[int, int] = {}
        self._held: list[int] = []
        self._began = time.monotonic()
        self._stopped: float | None = None
        self._killing = False
        self._first_left = False
        self._childless = False

    # -- what is known ----------------------------------------------------------------------------------------

    @property
    def living(self) -> list[int]:
        """The pids, as we see them, of those who have not ended."""
        return list(self._living)

    @property
    def over(self) -> bool:
        """Whether nobody is left, nor anybody who has not been noticed yet."""
        return self._childless and not self._living

    @property
    def clock(self) -> float:
        """Seconds since the stop; before it, since the start."""
        return time.monotonic() - (self._began if self._stopped is None else self._stopped)

    # -- what we do -------------------------------------------------------------------------------------------

    def begin(self, pid: int, *, ours: bool) -> None:
        """Trace a process with all its threads; `ours` dies with us.

        Raises:
            OSError: it may not be traced.
        """
        _ptrace.seize(pid, kill_with_us=ours)
        self._meet(pid)
        # Who starts a thread or a process before we have got hold of him gives us no notice of it: look until all are known.
        while new := [tid for tid in _tasks(pid) if tid not in self._owner and not _is_ours(tid)]:
            for tid in new:
                try:
                    _ptrace.seize(tid, kill_with_us=ours)
                except ProcessLookupError:
                    continue
                self._meet(tid)
            self.look()

    def adopt(self) -> list[int]:
        """Trace all descendants of the first process that are there already. Returns the pids that may not be traced."""
        assert self.first is not None
        foreign: list[int] = []
        looks_in_vain = 0
        while looks_in_vain < LOOKS_IN_VAIN:
            self.look()
            looks_in_vain += 1
            for pid in descendants(self.first):
                if pid in self._living or pid in foreign or _is_ours(pid):
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
        self.first = pid
        if pid in self._living:
            self._living[pid].seen.parent = 0
        else:  # it ended before we learned that it is the first
            self.status = self._early.get(pid)
        started = self.clock
        for seen in self.processes:
            seen.born -= started
        self._began = time.monotonic()
        self.holds_programs = False
        while self._held:
            _ptrace.resume(self._held.pop())

    def stop(self) -> None:
        """The stop is sent now: note who is there, and what they do with it. A stop that was noted before was none."""
        readied = self.clock
        self._stopped = time.monotonic()
        for seen in self.processes:
            seen.born -= readied
            seen.ended -= readied
            seen.heard.clear()
        self.processes = [follow.seen for follow in self._living.values()]
        for pid in self._living:
            self._describe(pid)

    def send(self) -> None:
        """Send the stop signal to the first process, as a platform does."""
        if self.first in self._living:
            os.kill(self.first, self.signum)

    def kill(self) -> None:
        """SIGKILL to the first process, and to everybody else where no kernel does it; from now on who ends was killed."""
        self._killing = True
        for pid, follow in self._living.items():
            self._note_what_waits(pid, follow)
        for pid in self._living if self.simulate or self.first not in self._living else [self.first]:
            _send(pid, signal.SIGKILL)

    def kill_everybody(self) -> None:
        """SIGKILL to all that are left."""
        for pid in self._living:
            _send(pid, signal.SIGKILL)

    def look(self) -> None:
        """Take note of all that has happened. Does not wait."""
        while True:
            try:
                tid, status = os.waitpid(-1, os.WNOHANG | _ptrace.WALL)
            except ChildProcessError:
                self._childless = True
                return
            if tid == 0:
                return
            if os.WIFSTOPPED(status):
                self._stops(tid, os.WSTOPSIG(status), status >> 16)
            else:
                self._ends(tid, status)

    # -- what happens -----------------------------------------------------------------------------------------

    def _stops(self, tid: int, signum: int, event: int) -> None:
        if tid not in self._owner:
            self._meet(tid)
        if event == 0:
            _ptrace.resume(tid, self._hear(tid, signum))
            return
        if event == _ptrace.EVENT_STOP:
            follow = self._living[self._owner[tid]]
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
        status = _status(tid)
        pid = int(status.get("Tgid", tid))
        self._owner[tid] = pid
        follow = self._living.get(pid)
        if follow is None:
            parent = self._living.get(int(status.get("PPid", 0)))
            inner = int(status.get("NSpid", str(pid)).split()[-1])
            seen = Seen(inner, 0 if parent is None else parent.seen.pid, _argv(pid), born=self.clock)
            if not seen.argv and parent is not None:
                seen.argv = parent.seen.argv
            follow = self._living[pid] = Follow(seen)
            self.processes.append(seen)
        follow.tasks.add(tid)

    def _executes(self, tid: int) -> None:
        """All other threads are gone, and this one has got the process's pid (ptrace(2), "execve(2) under ptrace")."""
        follow = self._living[self._owner[tid]]
        for other in follow.tasks - {tid}:
            self._owner.pop(other, None)
        follow.tasks, follow.leaving = {tid}, set()
        follow.seen.argv = _argv(tid) or follow.seen.argv

    def _leaves(self, tid: int) -> None:
        pid = self._owner[tid]
        follow = self._living[pid]
        follow.leaving.add(tid)
        if pid == self.first and self.kills_after is not None:
            # The others are killed next, by the kernel, and are reported before this one.
            killed = os.WTERMSIG(_ptrace.message(tid)) == signal.SIGKILL
            self._killing = self._killing or (
                killed and self._stopped is not None and self.clock >= self.kills_after
            )
        if follow.tasks <= follow.leaving:
            if follow.seen.born > 0:
                self._describe(pid)
            if pid == self.first:
                self._first_left = True

    def _ends(self, tid: int, status: int) -> None:
        pid = self._owner.pop(tid, 0)
        follow = self._living.get(pid)
        if follow is None:
            self.others[tid] = os.waitstatus_to_exitcode(status)
            return
        follow.tasks.discard(tid)
        if tid != pid:
            return  # a thread; the one whose id is the process's is the last to be reported
        del self._living[pid]
        seen = follow.seen
        seen.ended = self.clock
        code = -follow.fault or os.waitstatus_to_exitcode(status)
        seen.status = abs(code)
        seen.how = "exited" if code >= 0 else "signal"
        if code == -signal.SIGKILL:
            if self._killing:
                seen.how = "killed"
            elif self._first_left and pid != self.first:
                seen.how = "torn-down"
        shown = 128 - code if code < 0 else code
        if self.first is None:
            self._early[pid] = shown
        if pid == self.first:
            self.status = shown
            self._first_left = True
            if self.simulate:
                self.kill_everybody()

    def _hear(self, tid: int, signum: int) -> int:
        """A signal is about to reach a thread. Returns the one that it gets: 0 for none."""
        follow = self._living[self._owner[tid]]
        info = _ptrace.siginfo(tid)
        inside = {
            seen.pid for seen in self.processes
        }  # who is outside of its namespace has no pid there, or is nobody's matter
        sender = None
        if info is not None and info.code in {_ptrace.SI_USER, _ptrace.SI_QUEUE, _ptrace.SI_TKILL}:
            sender = info.pid if info.pid in inside else None
        if self.awaits_stop and self._owner[tid] == self.first and signum == self.signum and sender is None:
            self.awaits_stop = False
            self.stop()
        if (
            self._stopped is not None
            and signum not in DULL
            and sender != follow.seen.pid  # one thread wakes another: CPython does, and we do
            and len(follow.seen.heard) < LONGEST_STORY
        ):
            follow.seen.heard.append(Heard(self.clock, name_of(signum), sender))
        if info is None or _handling(_status(tid), signum) == "catches":
            return signum
        if follow.seen.pid == 1:
            return self._as_for_pid_1(tid, signum, info)
        if self.simulate and self._owner[tid] == self.first:
            return signum if signum in SYNCHRONOUS and info.code > 0 else 0
        return signum

    def _as_for_pid_1(self, tid: int, signum: int, info: _ptrace.Siginfo) -> int:
        """What PID 1 of a namespace gets of what it does not catch: nothing (pid_namespaces(7)), but the kernel sees to that.

        With two exceptions, for a PID 1 that is traced: it can stop itself by SIGSTOP, and a fault, which else ends even PID 1,
        is repeated for ever (force_sig_info_to_task in kernel/signal.c: "users won't expect debugging to leave init killable").
        So we end it, and remember what for.
        """
        if signum in SYNCHRONOUS and info.code > 0:
            pid = self._owner[tid]
            self._living[pid].fault = signum
            _send(pid, signal.SIGKILL)
        return 0 if signum == signal.SIGSTOP and info.pid else signum

    def _note_what_waits(self, pid: int, follow: Follow) -> None:
        """A process that is stopped, and signals that have reached it but that it does not take: blocked, or stopped."""
        follow.seen.stopped = follow.halted
        status = _status(pid)
        waiting = int(status.get("SigPnd", "0"), 16) | int(status.get("ShdPnd", "0"), 16)
        if waiting >> (self.signum - 1) & 1:
            follow.seen.heard.append(Heard(self.clock, name_of(self.signum), None))

    def _describe(self, pid: int) -> None:
        seen = self._living[pid].seen
        seen.argv = _argv(pid) or seen.argv
        found: list[Handling] = [_attitude(pid, tid, self.signum) for tid in _tasks(pid)]
        # A signal to a process goes to any thread that does not block it.
        found.sort(key=lambda each: each == "blocks")
        seen.handling = found[0] if found else seen.handling


LOOKS_IN_VAIN = 2
"""Looks at all processes without a new one after which nobody is missing: one may have missed who just lost his parent."""


def descendants(pid: int) -> list[int]:
    """The pids of all that descend from a process, parents before their children."""
    children: dict[int, list[int]] = {}
    for name in _listed("/proc"):
        if name.isdecimal():
            children.setdefault(int(_status(int(name)).get("PPid", 0)), []).append(int(name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found[1:]


def glimpse(pid: int, signum: int) -> Seen:
    """What can be seen of a process without tracing it."""
    status = _status(pid)
    seen = Seen(int(status.get("NSpid", str(pid)).split()[-1]), int(status.get("PPid", 0)), _argv(pid))
    seen.handling = _handling(status, signum)
    # Whether it waits for a signal that it blocks, or does not catch, is for those to see who may trace it.
    if seen.handling not in {"catches", "ignores"}:
        seen.handling = "unknown"
    return seen


def _is_ours(tid: int) -> bool:
    """Whether we trace it: as a child of one whom we trace it may not have been reported yet."""
    return _status(tid).get("TracerPid") == str(os.getpid())


def _send(pid: int, signum: int) -> None:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        pass  # ended, and is reported next


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _argv(pid: int) -> list[str]:
    text = _read(f"/proc/{pid}/cmdline").rstrip(b"\0").decode("utf-8", "replace")
    return text.split("\0") if text else []


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _tasks(pid: int) -> list[int]:
    return [int(name) for name in _listed(f"/proc/{pid}/task")]


def _status(tid: int) -> dict[str, str]:
    text = _read(f"/proc/{tid}/status").decode("utf-8", "replace")
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def _attitude(pid: int, tid: int, signum: int) -> Handling:
    """What a thread does with a signal, where one that takes it with sigwait(3) or by a signalfd(2) catches it."""
    found = _handling(_status(tid), signum)
    if found != "blocks" and _read(f"/proc/{tid}/wchan").startswith(b"do_sigtimedwait"):
        return "catches"  # the kernel unblocks what is waited for meanwhile
    if found == "blocks":
        for fd in _listed(f"/proc/{pid}/fdinfo"):
            mask = _read(f"/proc/{pid}/fdinfo/{fd}").partition(b"sigmask:")[2].split()
            if mask and int(mask[0], 16) >> (signum - 1) & 1:
                return "catches"
    return found


def _handling(status: dict[str, str], signum: int) -> Handling:
    words: tuple[tuple[str, Handling], ...] = (
        ("SigBlk", "blocks"),
        ("SigIgn", "ignores"),
        ("SigCgt", "catches"),
    )
    for name, word in words:
        if int(status.get(name, "0"), 16) >> (signum - 1) & 1:
            return word
    return "default"
