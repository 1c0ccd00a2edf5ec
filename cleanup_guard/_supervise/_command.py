"""`cleanup-guard run`: owns its process, so it may block every signal, adopt every orphan and reap whoever ends.

One thread, one place to wait: `sigtimedwait`. A signal is never handled, only fetched, so nothing can interrupt anything, and
none that arrives while children are being started is lost. SIGCHLD is one of them. Between signals no instruction is executed.

Signals must have been blocked before this is imported: see `_cli/_run.py`.
"""

from __future__ import annotations

import os
import sys
import time
from math import inf

from cleanup_guard._ground.clock import Budget
from cleanup_guard._ground.kernel import PR_SET_PDEATHSIG, prctl
from cleanup_guard._supervise._family import Family
from cleanup_guard._supervise._policy import Policy
from cleanup_guard._supervise._procfile import words
from cleanup_guard._supervise._spawn import (
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
    from collections.abc import Mapping, Sequence

    from cleanup_guard._supervise._options import Options
    from cleanup_guard._supervise._policy import Child
    from cleanup_guard._supervise._prefix import Labels
    from cleanup_guard._supervise._terminal import Terminal
else:
    import _signal

SI_KERNEL = 0x80
"""`si_code` of a signal that nobody sent: a key was pressed, or the terminal hung up."""

LAST_OUTPUT = 1.0
"""Seconds for labelled output to be read after the last child has ended."""


class Command:
    """One run of `cleanup-guard run`.

    Args:
        options: what was asked for.
        mask: the signals that were blocked when the process started.
    """

    def __init__(self, options: Options, mask: set[int]) -> None:
        self.options = options
        self.family = Family(options.children)
        self.policy = Policy(
            options.children,
            self.family,
            grace=options.grace,
            drain=options.drain,
            when_one_exits=options.when_one_exits,
            wait_all=options.wait_all,
            callbacks=bool(options.on_exit),
            stop_signals=options.stop_signals,
            rewrite=options.rewrite,
        )
        self.told: Budget | None = None  # the platform's deadline, once it has sent its stop signal
        self.labels: Labels | None = None
        self.terminal: Terminal | None = None
        self._mask = mask if options.inherit_signals else set[int]()
        self._ignored = _ignored()
        self._awaited = _signal.valid_signals() - NOT_AWAITED
        self._cwd = _cwd()
        self._answers: dict[int, int] = {}  # wait status by pid, of callbacks

    def main(self) -> int:
        """Start everybody, wait for everybody, run the callbacks. Returns the exit status."""
        try:
            files = [find(child.argv[0], os.environ.get("PATH")) for child in self.options.children]
        except CannotStart as error:
            _say(str(error))
            return error.status
        self._prepare()
        self._start(files)
        try:
            self._supervise()
        finally:
            if self.terminal is not None:
                self.terminal.take_back()
        self._report()
        failed = self._run_callbacks()
        if self.labels is not None:
            self.labels.finish(LAST_OUTPUT)
        return self._exit_status(failed=failed)

    def _prepare(self) -> None:
        _signal.signal(
            _signal.SIGCHLD, _signal.SIG_DFL
        )  # inherited as ignored, it would have the kernel reap for us
        become_subreaper()
        keep_fds_to_ourselves()
        if len(self.options.children) == 1 and os.isatty(0):
            from cleanup_guard._supervise._terminal import Terminal

            self.terminal = Terminal.find()
        if self.options.prefix:
            from cleanup_guard._supervise._prefix import Labels

            self.labels = Labels(child.name for child in self.options.children)

    # -- starting -------------------------------------------------------------------------------------------------------

    def _start(self, files: Sequence[str]) -> None:
        for child, file in zip(self.options.children, files, strict=True):
            if self._told_to_stop():
                break  # nobody who has not begun owes a cleanup
            try:
                child.pid = self._spawn(child, file)
            except CannotStart as error:
                _say(f"{child.name}: {error}")
                self.policy.ended(child, error.status, time.monotonic())
                self.policy.stop(f"{child.name} could not be started", time.monotonic())
                break
        if self.labels is not None:
            self.labels.start()
        os.chdir("/")  # whoever wants to unmount where we were started may

    def _told_to_stop(self) -> bool:
        """Whether a stop has arrived that counts. One that is pending may not: it may be hushed, or rewritten to nothing."""
        while self.policy.budget is None:
            info = _signal.sigtimedwait(self._awaited & self.options.stop_signals, 0)
            if info is None:
                return False
            self._take(info.si_signo, info.si_code)
        return True

    def _spawn(self, child: Child, file: str) -> int:
        environ = self._environ(child)
        dup = [] if self.labels is None else self.labels.pipes(child.name)
        keep = self._ignored if self.options.inherit_signals else set[int]()
        if self.terminal is None and self.options.pdeathsig is None:
            return spawn(file, child.argv, environ, dup=dup, mask=self._mask, keep_ignored=keep)
        prepare = self._prepare_child
        return fork_spawn(
            file, child.argv, environ, dup=dup, mask=self._mask, keep_ignored=keep, prepare=prepare
        )

    def _prepare_child(self) -> None:
        """In the child, before the exec."""
        if self.terminal is not None:
            self.terminal.give(os.getpid())
        if self.options.pdeathsig is not None:
            prctl(PR_SET_PDEATHSIG, self.options.pdeathsig)
            if os.getppid() != self.family.me:  # it has died in between, and we were not told
                os.kill(os.getpid(), _signal.SIGKILL)

    def _environ(self, child: Child) -> Mapping[str, str]:
        """Our environment. A guard in the child learns how much of the grace period is its own."""
        if self.options.grace is None:
            return os.environ
        budget = Budget(self.options.grace, 0.0)
        share = budget.at(self.policy.kill_share) - self.options.drain
        return {
            **os.environ,
            "CLEANUP_GUARD_GRACE": f"{min(share, inf if child.grace is None else child.grace):.6g}",
        }

    # -- waiting --------------------------------------------------------------------------------------------------------

    def _supervise(self) -> None:
        due = self._step()
        while not self.policy.done:
            self._fetch(due)
            due = self._step()

    def _step(self) -> float:
        self.family.refresh()
        return self.policy.step(time.monotonic())

    def _fetch(self, due: float) -> None:
        """Wait for a signal, at the longest until an instant, and deal with it."""
        left = max(0.0, due - time.monotonic())
        info = (
            _signal.sigwaitinfo(self._awaited) if left == inf else _signal.sigtimedwait(self._awaited, left)
        )
        if info is not None:
            self._take(info.si_signo, info.si_code)

    def _take(self, signum: int, code: int) -> None:
        if signum == _signal.SIGCHLD:
            self._reap()
        elif not self._hushed(signum, code):
            self._signalled(signum)

    def _hushed(self, signum: int, code: int) -> bool:
        """Whether it was ignored when we started, which is somebody's wish: `nohup`, or `&` in a script and then Ctrl-C.

        Who sends SIGINT or SIGQUIT with `kill` means it.
        """
        if signum not in self._ignored:
            return False
        return signum == _signal.SIGHUP or code == SI_KERNEL

    def _signalled(self, signum: int) -> None:
        now = time.monotonic()
        if (
            self.told is None
            and signum in self.options.stop_signals
            and self.options.rewrite.get(signum) != 0
        ):
            self.told = Budget(self.options.grace, now)
        if self.terminal is not None and signum == _signal.SIGCONT and self.terminal.is_ours():
            self._resume()
        self.policy.signal(signum, now)

    def _resume(self) -> None:
        child = self.options.children[0]
        if self.terminal is not None and child.running and child.pid is not None:
            self.terminal.resume(child.pid)

    def _reap(self) -> None:
        by_pid = {child.pid: child for child in self.options.children}
        for pid, status in self.family.reap():
            child = by_pid.get(pid)
            if os.WIFSTOPPED(status):
                if child is not None and self.terminal is not None:
                    self.terminal.stopped(pid, os.WSTOPSIG(status))
            elif child is not None:
                self.policy.ended(child, os.waitstatus_to_exitcode(status), time.monotonic())
            else:
                self._answers[pid] = status

    # -- afterwards -----------------------------------------------------------------------------------------------------

    def _report(self) -> None:
        """Say what an operator must know: who had to be killed, and which of several ended the others."""
        policy = self.policy
        if policy.stop_signum is None and len(self.options.children) > 1 and policy.when_one_exits == "stop":
            _say(f"stopped, because {policy.reason}")
        if not policy.anybody_killed or policy.budget is None:
            return
        names = {child.pid: child.name for child in self.options.children}
        killed = dict.fromkeys(
            f"{names.get(each.group, 'descendant')}: {each.name} (pid {each.pid})"
            for each in self.family.killed
        )
        seconds = time.monotonic() - policy.budget.began
        _say(f"killed, because still running {seconds:.1f} s after the stop began: {', '.join(killed)}")

    def _run_callbacks(self) -> bool:
        """Run the commands of --on-exit in their order. Returns whether one failed."""
        failures = [self._run_callback(text) for text in self.options.on_exit]
        return any(failures)

    def _run_callback(self, text: str) -> bool:
        argv = words(text)
        try:
            _go_to(self._cwd)
            pid = spawn(find(argv[0], os.environ.get("PATH")), argv, os.environ)
        except CannotStart as error:
            _say(f"--on-exit {text!r}: {error}")
            return True
        status, late = self._wait_for_callback(pid)
        if status == 0 and not late:
            return False
        code = status if status >= 0 else 128 - status
        _say(
            f"--on-exit {text!r} "
            + ("was stopped: the grace period was over" if late else f"failed with status {code}")
        )
        return True

    def _wait_for_callback(self, pid: int) -> tuple[int, bool]:
        """Wait for it, tell it to stop when its time is over, and kill it when all is. Returns (status, was it late)."""
        started = time.monotonic()
        asked = killed = False
        while pid not in self._answers:
            now, budget = time.monotonic(), self.told
            limit = inf if budget is None else budget.callback_limit(started, None)
            end = inf if budget is None else budget.end
            if now >= end and not killed:
                killed = True
                os.kill(-pid, _signal.SIGKILL)
            elif now >= limit and not asked:
                asked = True
                os.kill(-pid, _signal.SIGTERM)
            self._fetch(inf if killed else end if asked else limit)
        return os.waitstatus_to_exitcode(self._answers.pop(pid)), asked or killed

    def _exit_status(self, *, failed: bool) -> int:
        status = self.policy.status
        if status == 0 and failed and self.told is None:
            return 1
        if self.policy.anybody_killed or any(
            child.status == -_signal.SIGKILL for child in self.options.children
        ):
            return self.options.map_exit.get(status, status) or status
        return self.options.map_exit.get(status, status)


NOT_AWAITED = frozenset(
    getattr(_signal, name)
    for name in (
        *("SIGKILL", "SIGSTOP"),  # nobody can
        *(
            "SIGSEGV",
            "SIGBUS",
            "SIGFPE",
            "SIGILL",
            "SIGTRAP",
            "SIGABRT",
            "SIGSYS",
        ),  # our own, should they ever come
        *("SIGPIPE", "SIGXFSZ", "SIGTTIN", "SIGTTOU"),  # answers to what we do ourselves
    )
)


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


def _say(text: str) -> None:
    from cleanup_guard._ground.stderr import write_line

    write_line(text)
