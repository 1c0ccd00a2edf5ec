"""`cleanup-guard run`: owns its process, so it may block every signal, adopt every orphan and reap whoever ends.

One thread, one place to wait: `sigtimedwait`. A signal is never handled, only fetched, so nothing can interrupt anything, and
none that arrives while children are being started is lost. SIGCHLD is one of them. Between signals no instruction is executed.

Signals must have been blocked before this is imported: see `_cli/_run.py`.
"""

from __future__ import annotations

import os
import sys
import time

from cleanup_guard._ground.clock import BY_HAND, GRACE_VARIABLE, Budget, Grace, inf
from cleanup_guard._ground.foreign import shown
from cleanup_guard._ground.here import FOREGROUND_VARIABLE
from cleanup_guard._ground.kernel import PR_SET_PDEATHSIG, call, prctl
from cleanup_guard._ground.names import SIGINT, name_of
from cleanup_guard._supervise._family import Family
from cleanup_guard._supervise._options import REFUSED
from cleanup_guard._supervise._policy import Policy
from cleanup_guard._supervise._ready import LOOK_AGAIN
from cleanup_guard._supervise._sender import is_platform
from cleanup_guard._supervise._spawn import (
    STDERR,
    CannotStart,
    become_subreaper,
    find,
    fork_spawn,
    keep_fds_to_ourselves,
    spawn,
)

if sys.platform != "linux":
    raise NotImplementedError("cleanup-guard run needs Linux: it waits for signals with sigtimedwait")

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Mapping

    from cleanup_guard._supervise._callbacks import Callbacks
    from cleanup_guard._supervise._child import Child
    from cleanup_guard._supervise._options import Options
    from cleanup_guard._supervise._output import Output
    from cleanup_guard._supervise._terminal import Terminal
else:
    import _signal

SI_KERNEL = 0x80
"""`si_code` of a signal that nobody sent: a key was pressed, or the terminal hung up."""

LAST_OUTPUT = 1.0
"""Seconds for output that we pass on to be read after the last child has ended."""

LONGEST_WAIT = 3600.0
"""Seconds after which a wait is begun anew: what sigtimedwait(2) takes has an end, what --grace takes has none."""

WRONG_USAGE = 2


class Command:
    """One run of `cleanup-guard run`.

    Args:
        options: what was asked for.
        mask: the signals that were blocked when the process started.
    """

    def __init__(self, options: Options, mask: set[int]) -> None:
        self.options = options
        self._ignored = _ignored()
        self.family = Family(options.children, observe=self._observe, report=_say)
        self.policy = Policy(options.children, self.family, options.terms)
        plain = (
            options.stop_signals - self._ignored - {_signal.SIGTSTP}
        )  # those that are a stop, whoever sends them
        self._first = {} if options.platform_tells else {each: self.policy.foresee(each) for each in plain}
        self.told: Budget | None = None  # the platform's deadline, once it has sent its stop signal
        self.output: Output | None = None
        self.terminal: Terminal | None = None
        self.callbacks: Callbacks | None = None
        self._mask = mask if options.inherit_signals else set[int]()
        self._awaited = _signal.valid_signals() - (NOT_AWAITED - options.stop_signals - set(options.rewrite))
        self._cwd = _cwd()
        self._journal: list[str] | None = [] if "--verbose" in options.flags else None

    def main(self) -> int:
        """Start everybody, wait for everybody, run the callbacks. Returns the exit status."""
        try:
            for child in self.options.children:
                find(child.argv[0], self._environ(child).get("PATH"))
            self._prepare()
        except CannotStart as error:
            _say(str(error))
            return error.status
        try:
            self._supervise()
        finally:
            if self.terminal is not None:
                self.terminal.take_back(*(child.pid for child in self.options.children))
        self._report()
        failed = self._run_callbacks()
        if self.output is not None:
            self.output.finish(LAST_OUTPUT)
        self._write_journal()
        return self._exit_status(failed=failed)

    def _prepare(self) -> None:
        _signal.signal(
            _signal.SIGCHLD, _signal.SIG_DFL
        )  # inherited as ignored, it would have the kernel reap for us
        if self.options.pdeathsig is not None and call("getpid") != self.family.me:
            raise CannotStart("--pdeathsig cannot be had here: prctl(2) is out of reach", WRONG_USAGE)
        self._adopt()
        keep_fds_to_ourselves()
        self._reap()  # we may have been executed by somebody who had children
        if os.isatty(0):
            from cleanup_guard._supervise._terminal import Terminal

            self.terminal = Terminal.find()
        self._prepare_output()
        if self.options.on_exit:
            # Loaded now: at the end there may be no descriptor for it.
            from cleanup_guard._supervise import _callbacks  # noqa: F401  # pyright: ignore[reportUnusedImport]

    def _adopt(self) -> None:
        """Have orphans become our children, and say what cannot be had here."""
        missing = (
            [] if become_subreaper() else ["orphans cannot be adopted (prctl), so they are not waited for"]
        )
        if self.family.blind:
            missing.append(
                "/proc is not there or not ours, so who has left its program's process group is not told to stop"
            )
        if missing:
            _say(f"here {'; and '.join(missing)}")

    def _prepare_output(self) -> None:
        """Have pipes for output that is labelled, or that shows that a program is ready."""
        labelled = "--prefix" in self.options.flags
        if labelled or any(child.ready and child.ready.kind == "text" for child in self.options.children):
            from cleanup_guard._supervise._output import Output

            try:
                self.output = Output([child.name for child in self.options.children] if labelled else [])
            except OSError as error:
                raise CannotStart(f"output cannot be read: {error.strerror}", CANNOT) from None

    # -- starting -------------------------------------------------------------------------------------------------------

    def _start_all(self) -> None:
        """Start whoever may be."""
        startable = self.policy.startable()
        if not startable:
            return
        while startable:
            if self._told_to_stop():
                return  # nobody who has not begun owes a cleanup
            child = startable[0]
            try:
                child.pid = self._spawn(child)
            except CannotStart as error:
                _say(f"{child.name}: {error}")
                self.policy.ended(child, error.status, time.monotonic())
                self.policy.stop(f"{child.name} could not be started", time.monotonic())
                return
            self.family.started()
            startable = self.policy.startable()
        if all(child.started for child in self.options.children):
            _go_to("/")  # whoever wants to unmount where we were started may

    def _told_to_stop(self) -> bool:
        """Whether a stop has arrived that counts. One that is pending may not: it may be hushed, or rewritten to nothing."""
        while self.policy.budget is None:
            info = _signal.sigtimedwait(self._awaited & self.options.stop_signals, 0)
            if info is None:
                return False
            self._take(info)
        return True

    def _spawn(self, child: Child) -> int:
        environ = self._environ(child)
        file = find(child.argv[0], environ.get("PATH"))
        dup: list[tuple[int, int]] = []
        try:
            if self.output is not None and ("--prefix" in self.options.flags or child.ready is not None):
                dup = self.output.pipes(child.name, child.ready)
        except OSError as error:
            raise CannotStart(f"its output cannot be read: {error.strerror}", CANNOT) from None
        keep = self._ignored if self.options.inherit_signals else set[int]()
        try:
            if not self._lends and self.options.pdeathsig is None:
                return spawn(file, child.argv, environ, dup=dup, mask=self._mask, keep_ignored=keep)
            prepare = self._prepare_child
            return fork_spawn(
                file, child.argv, environ, dup=dup, mask=self._mask, keep_ignored=keep, prepare=prepare
            )
        finally:
            if self.output is not None:
                self.output.close(dup)
                self.output.start()

    @property
    def _lends(self) -> bool:
        """Whether the terminal is lent to the only child."""
        return self.terminal is not None and len(self.options.children) == 1

    def _prepare_child(self) -> None:
        """In the child, before the exec."""
        if self.terminal is not None and self._lends and self.terminal.is_ours():
            self.terminal.give(os.getpid())
        if self.options.pdeathsig is not None:
            prctl(PR_SET_PDEATHSIG, self.options.pdeathsig)
            if os.getppid() != self.family.me:  # it has died in between, and we were not told
                os.kill(os.getpid(), _signal.SIGKILL)

    def _environ(self, child: Child) -> Mapping[str, str]:
        """Our environment and the child's own. A guard in the child learns how much of the grace period is its own."""
        environ = {**os.environ, **child.environ}
        if self.options.grace.sure is not None:
            share = self.policy.stopping.share(self.options.drain).within(Grace(child.grace))
            environ[GRACE_VARIABLE] = share.text
        if self.terminal is not None and not self._lends:
            environ[FOREGROUND_VARIABLE] = str(os.getpgrp())
        return environ

    # -- waiting --------------------------------------------------------------------------------------------------------

    def _supervise(self) -> None:
        while True:
            self._start_all()
            due = self.policy.step(time.monotonic())
            if self.policy.done:
                return
            self._fetch(min(due, self._look_for_signs()))

    def _look_for_signs(self) -> float:
        """See whether those who are waited for are ready. Returns when to look again."""
        waiting = [child for child in self.options.children if not child.started and child.status is None]
        if self.policy.budget is not None or not waiting:
            return inf
        awaited = {other.name: other for child in waiting for other in child.after if other.started}
        for other in awaited.values():
            if other.ready is not None and not other.ready.seen and other.ready.look():
                self._note(f"{other.name} is ready")
        return time.monotonic() if self.policy.startable() else time.monotonic() + LOOK_AGAIN

    def _fetch(self, due: float) -> None:
        """Wait for a signal, at the longest until an instant, and deal with it. A stop comes before whatever floods us."""
        self._write_journal()
        info = _signal.sigtimedwait(self._awaited & self.options.stop_signals, 0)
        if info is None:
            left = 0.0 if self.family.more else max(0.0, due - time.monotonic())
            if left == inf:
                info = _signal.sigwaitinfo(self._awaited)
            else:
                info = _signal.sigtimedwait(self._awaited, min(left, LONGEST_WAIT))
        if info is not None:
            first = self._first.get(info.si_signo)
            if first and self.policy.stopping.budget is None:
                self.family.tell_ahead(first)
            self._take(info)
        if info is not None or self.family.more:
            self._reap()

    def _take(self, info: _signal.struct_siginfo) -> None:
        signum, code = info.si_signo, info.si_code
        if signum == _signal.SIGCHLD or self._hushed(signum, code):
            return
        if self._journal is not None:
            self._note(f"{name_of(signum)} from {_sender(info)}")
        if signum == _signal.SIGTSTP and code == SI_KERNEL and self.terminal is not None and not self._lends:
            self._suspend_all(self.terminal)
        else:
            self._signalled(signum, info)

    def _hushed(self, signum: int, code: int) -> bool:
        """Whether it was ignored when we started, which is somebody's wish: `nohup`, or `&` in a script and then Ctrl-C.

        Who sends SIGINT or SIGQUIT with `kill` means it.
        """
        if signum not in self._ignored:
            return False
        return signum == _signal.SIGHUP or code == SI_KERNEL

    def _signalled(self, signum: int, info: _signal.struct_siginfo) -> None:
        now = time.monotonic()
        by_hand = _is_key(info)
        if self.options.is_stop(signum) and _sets_clock(signum, self.told):
            self.told = Budget(BY_HAND if by_hand else self.options.grace, now)
        if self._lends and self.terminal is not None and signum == _signal.SIGCONT:
            child = self.options.children[0]
            if child.running and child.pid is not None and self.terminal.is_ours():
                self.terminal.resume(child.pid)
        self.policy.signal(
            signum, now, by_hand=by_hand, told_elsewhere=_is_told_elsewhere(info, self.options)
        )

    def _suspend_all(self, terminal: Terminal) -> None:
        """Ctrl-Z with several programs: where a shell can resume us, all of us stop; where none can, nobody does."""
        from cleanup_guard._supervise._terminal import is_a_job

        if is_a_job():
            self.policy.signal(_signal.SIGTSTP, time.monotonic())
            terminal.suspend(None)
            self.policy.signal(_signal.SIGCONT, time.monotonic())

    def _reap(self) -> None:
        by_pid = {child.pid: child for child in self.options.children if child.running}
        for pid, status in self.family.reap():
            child = by_pid.get(pid)
            if os.WIFSTOPPED(status):
                if child is not None and self.terminal is not None and self._lends:
                    self.terminal.stopped(pid, os.WSTOPSIG(status))
            elif child is not None:
                del by_pid[pid]  # the number may be somebody else's from now on
                self.policy.ended(child, os.waitstatus_to_exitcode(status), time.monotonic())
            elif self.callbacks is not None and pid == self.callbacks.awaited:
                self.callbacks.ended(status)

    # -- afterwards -----------------------------------------------------------------------------------------------------

    def _report(self) -> None:
        """Say what an operator must know: who had to be killed, and which of several ended the others."""
        policy = self.policy
        several = len(self.options.children) > 1 and policy.terms.when_one_exits == "stop"
        if policy.stopping.signum is None and several:
            _say(f"stopped, because {policy.stopping.reason}")
        if policy.anybody_killed and policy.budget is not None:
            seconds = time.monotonic() - policy.budget.began
            _say(
                f"killed, because still running {seconds:.1f} s after the stop began: {self.family.victims()}"
            )

    def _run_callbacks(self) -> bool:
        """Run the commands of --on-exit in their order. Returns whether one failed."""
        if not self.options.on_exit:
            return False
        from cleanup_guard._supervise._callbacks import Callbacks

        stopping = self.policy.stopping
        if self._lends and self.options.children[0].code == INTERRUPTED:
            stopping.press(time.monotonic())  # the key that ended it was for it alone, and came only to it
        reason = stopping.reason if stopping.signum is None else name_of(stopping.signum)
        environ = {
            **os.environ,
            "CLEANUP_GUARD_STATUS": str(self._exit_status(failed=False)),
            "CLEANUP_GUARD_REASON": reason,
        }
        _go_to(self._cwd)
        self.callbacks = Callbacks(
            self.options.on_exit,
            environ,
            wait=self._fetch,
            budget=lambda: self.told,
            stopping=stopping,
            say=_say,
        )
        return self.callbacks.run()

    def _exit_status(self, *, failed: bool) -> int:
        status = self.policy.status
        if status == 0 and failed and self.told is None:
            return 1
        mapped = self.options.map_exit.get(status, status)
        killed = self.policy.anybody_killed or any(
            child.status == -_signal.SIGKILL for child in self.options.children
        )
        return (mapped or status) if killed else mapped

    # -- telling what happens -------------------------------------------------------------------------------------------

    def _observe(self, signum: int, to: str) -> None:
        if self._journal is not None:
            self._note(f"{name_of(signum)} to {to}")

    def _note(self, text: str) -> None:
        """Have it written when there is time for it: nothing is told later because of it."""
        if self._journal is not None:
            now = time.time()
            clock = time.strftime("%H:%M:%S", time.localtime(now))
            self._journal.append(f"{clock}.{int(now % 1 * 1000):03} {text}")

    def _write_journal(self) -> None:
        if self._journal:
            for line in self._journal:
                _say(line)
            self._journal.clear()


CANNOT, INTERRUPTED = 126, 130

NOT_AWAITED = (
    frozenset(
        int(getattr(_signal, name))
        for name in ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGABRT", "SIGSYS")
    )
    | REFUSED
) - {int(_signal.SIGCHLD)}
"""Those that are left alone unless somebody asks for them: our own, should they ever come."""


def _ignored() -> set[int]:
    """The signals that our caller had us ignore. Python itself ignores SIGPIPE and SIGXFSZ, so these do not tell."""
    ours = {_signal.SIGPIPE, _signal.SIGXFSZ}
    return {
        signum for signum in _signal.valid_signals() - ours if _signal.getsignal(signum) == _signal.SIG_IGN
    }


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "/"  # it was removed


def _go_to(folder: str) -> None:
    try:
        os.chdir(folder)
    except OSError:
        pass  # it was removed or unmounted: we are in /, which is as good as any


def _is_key(info: _signal.struct_siginfo) -> bool:
    """Whether a person has pressed Ctrl-C in a terminal."""
    return info.si_signo == SIGINT and info.si_code == SI_KERNEL


def _sets_clock(signum: int, told: Budget | None) -> bool:
    """Whether a stop is the first, or the first that is no Ctrl-C after a person's, which has no end."""
    return told is None or (told.period.by_hand and signum != SIGINT)


def _is_told_elsewhere(info: _signal.struct_siginfo, options: Options) -> bool:
    """Whether the platform has told every process itself."""
    return options.platform_tells and is_platform(info.si_pid)


def _sender(info: _signal.struct_siginfo) -> str:
    """Who has sent a signal, as far as the kernel says."""
    if info.si_code > 0 or info.si_pid == 0:
        return "the kernel or another namespace"
    from cleanup_guard._supervise._tree import look

    process = look(info.si_pid)
    name = "" if process is None else f" ({process.name})"
    return f"pid {info.si_pid}{name}, uid {info.si_uid}"


def _say(text: str) -> None:
    line = shown(text, limit=None)
    try:
        from cleanup_guard._ground.stderr import write_line

        write_line(line)
    except (ImportError, OSError):  # there is no descriptor left to read a module with
        os.write(STDERR, f"cleanup_guard: {line}\n".encode())
