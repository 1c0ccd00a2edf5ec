"""Which signals reach whom, and which of them a process gets."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING

if sys.platform != "linux":
    raise NotImplementedError("rehearsing a stop needs Linux")

from cleanup_guard._ground.names import name_of
from cleanup_guard._rehearse import _proc, _ptrace
from cleanup_guard._rehearse._kinds import STOPS
from cleanup_guard._rehearse._seen import Heard

if TYPE_CHECKING:
    from cleanup_guard._rehearse._register import Follow, Phase, Register, Target

DULL = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
"""Signals that tell nothing about a stop."""

SYNCHRONOUS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGSYS}
LONGEST_STORY = 100
"""Signals that are kept of one process."""

HURRY = 0.05
"""Seconds from a stop signal to SIGKILL in which a process that is traced may not have come to run."""


class Hearing:
    """Takes note of signals to processes that are traced, and sees to it that PID 1, real or simulated, gets what it should."""

    def __init__(self, target: Target, register: Register, phase: Phase) -> None:
        self._target = target
        self._register = register
        self._phase = phase

    def was_hurried(self, pid: int, follow: Follow) -> bool:
        """Whether a stop signal has reached one who is killed now, that it has not come to take: being traced takes time."""
        status = _proc.status(pid)
        if any(_proc.waits(status, signum) for signum in STOPS | {self._target.signum}):
            return True
        if follow.told is None:
            return False
        return (
            follow.seen.handling == "default" or time.monotonic() - follow.told < HURRY
        )  # the former dies of it

    def is_the_stop(self, tid: int, signum: int, info: _ptrace.Siginfo | None) -> bool:
        """Whether a signal that is about to reach a thread is the stop that somebody else was to send."""
        return (
            self._phase.awaits_stop
            and self._register.owner[tid] == self._target.first
            and signum == self._target.signum
            and self._sender(info) is None
        )

    def hear(self, tid: int, signum: int, info: _ptrace.Siginfo | None) -> int:
        """A signal is about to reach a thread. Returns the one that it gets: 0 for none."""
        follow = self._register.follow(tid)
        sender = self._sender(info)
        is_own = sender == follow.seen.pid  # one thread wakes another: CPython does, and we do
        if not is_own:
            self._note_signal(follow, signum, sender)
        if info is None or _proc.handling(_proc.status(tid), signum) == "catches":
            return signum
        follow.seen.raised = follow.seen.raised or (is_own and signum == self._target.signum)
        if follow.seen.pid == 1:
            return self._as_for_pid_1(tid, signum, info)
        if self._target.simulate and self._register.owner[tid] == self._target.first:
            return signum if signum in SYNCHRONOUS and info.code > 0 else 0
        return signum

    def _sender(self, info: _ptrace.Siginfo | None) -> int | None:
        """The pid of who sent a signal, as the program sees it; who is outside of its namespace has none there."""
        if info is None or info.code not in {_ptrace.SI_USER, _ptrace.SI_QUEUE, _ptrace.SI_TKILL}:
            return None
        return info.pid if info.pid in self._register.pids else None

    def _note_signal(self, follow: Follow, signum: int, sender: int | None) -> None:
        if not self._phase.stopped or signum in DULL:
            return
        if len(follow.seen.heard) < LONGEST_STORY:
            follow.seen.heard.append(Heard(self._phase.clock, name_of(signum), sender))
        if signum in STOPS or signum == self._target.signum:
            follow.told = time.monotonic()

    def _as_for_pid_1(self, tid: int, signum: int, info: _ptrace.Siginfo) -> int:
        """What PID 1 of a namespace gets of what it does not catch: nothing (pid_namespaces(7)), but the kernel sees to that.

        With two exceptions, for a PID 1 that is traced: it can stop itself by SIGSTOP, and a fault, which else ends even PID 1,
        is repeated for ever (force_sig_info_to_task in kernel/signal.c: "users won't expect debugging to leave init killable").
        So we end it, and remember what for.
        """
        if signum in SYNCHRONOUS and info.code > 0:
            pid = self._register.owner[tid]
            self._register.living[pid].fault = signum
            _proc.send(pid, signal.SIGKILL)
        return 0 if signum == signal.SIGSTOP and info.pid else signum

    def note_what_waits(self, pid: int, follow: Follow) -> None:
        """A process that is stopped, and signals that have reached it but that it does not take: blocked, or stopped."""
        follow.seen.stopped = follow.halted
        follow.seen.later = _proc.attitude(pid, self._target.signum)
        if _proc.waits(_proc.status(pid), self._target.signum):
            follow.seen.heard.append(Heard(self._phase.clock, name_of(self._target.signum), None))
