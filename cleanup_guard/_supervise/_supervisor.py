"""`Supervisor`: children of a Python program, which are stopped when it stops, and end it when they fail.

One thread waits for all children, by pidfd; everybody else talks to it through a lock and an eventfd. It steps aside around
`os.fork`, because a second thread makes that warn from Python 3.12 on.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
import weakref
from contextlib import contextmanager

from cleanup_guard._ground.clock import Grace, inf, seconds
from cleanup_guard._ground.here import own_asked
from cleanup_guard._ground.platforms import grace_here
from cleanup_guard._guard.options import Default
from cleanup_guard._supervise import _child
from cleanup_guard._supervise._household import LONGEST_WAIT, Household, peek, reap, signal_group
from cleanup_guard._supervise._policy import Policy
from cleanup_guard._supervise._ready import LOOK_AGAIN
from cleanup_guard._supervise._ready import parse as parse_sign
from cleanup_guard._supervise._spawn import NOT_FOUND, CannotStart, find, spawn
from cleanup_guard._supervise._terms import KILL_BEFORE_CALLBACKS, Terms
from cleanup_guard._supervise._tie import Tie, sent_to_everybody

if sys.platform != "linux":
    raise NotImplementedError("cleanup_guard.Supervisor needs Linux: it waits for its children by pidfd")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping
    from datetime import timedelta
    from types import TracebackType
    from typing import IO, Literal, Self

    from cleanup_guard._supervise._child import Scope
    from cleanup_guard._supervise._output import Output

    File = int | IO[bytes] | IO[str]


LAST_OUTPUT = 1.0
"""Seconds for output that we pass on to be read after the last child has ended."""

BEFORE_A_FORK = 0.1
"""Seconds for the thread that passes on output to step aside."""


class Child:
    """One child of a `Supervisor`. Made by `Supervisor.start`; may be looked at from any thread.

    Attributes:
        name: what reports call it.
        pid: its process id, and that of its process group.
        started: when it was started, in seconds on the monotonic clock.

    Example:
        >>> with Supervisor() as children:
        ...     child = children.start("sh", "-c", "exit 3", name="job")
        ...     children.wait()
        3
        >>> child.name, child.running, child.status
        ('job', False, 3)
    """

    def __init__(self, supervisor: Supervisor, inner: _child.Child, pidfd: int) -> None:
        assert inner.pid is not None
        self.name: str = inner.name
        self.pid: int = inner.pid
        self.started: float = time.monotonic()
        self.inner = inner
        self.pidfd = pidfd
        self._supervisor = supervisor

    def __repr__(self) -> str:
        state = "running" if self.running else f"ended with {self.status}"
        return f"<Child {self.name!r} pid {self.pid}, {state}>"

    @property
    def running(self) -> bool:
        """Whether its main process runs."""
        return self.inner.status is None

    @property
    def status(self) -> int | None:
        """How its main process ended, as `subprocess` says it: negative for a death by signal; None while it runs."""
        return self.inner.status

    @property
    def ended(self) -> float | None:
        """When its main process ended, in seconds on the monotonic clock; None while it runs."""
        return None if self.inner.status is None else self.inner.ended_at

    @property
    def killed(self) -> bool:
        """Whether it, or somebody in its group, had to be killed because it did not stop in time."""
        return self.inner.killed

    def send_signal(self, signum: int) -> None:
        """Send a signal to those of its process group whom no program of it sees to (or as `signal_to` was asked for).

        Args:
            signum: the signal. Nothing happens if the child has ended.
        """
        self._supervisor.send_signal(self, signum)


def _grace(own: float | Default | None) -> Grace:
    """The grace period in force."""
    return grace_here(
        own_asked(), None if isinstance(own, Default) else Grace(own, source="Supervisor(grace=)")
    )


class Supervisor:
    """Starts children, forwards the stop of this program to them, and waits until they and their process groups are gone.

    For `with`. Leaving the block stops the children that still run. Inside a guard, its stop asks the children first, and a
    child that fails ends main with the child's status. Where there is no guard, main's `with` block holds one, so that a stop
    of the program ends the block and not just Python. Never touches a process that it has not started. Any thread.

    Args:
        grace: seconds that the children have to stop, until SIGKILL; None for no limit. The environment variable
            CLEANUP_GUARD_GRACE wins over it. The default is the platform's, as for a guard. In a guard's stop they get what its
            grace period leaves, if that is less.
        when_one_exits: whether the others are stopped ("stop"), or go on ("wait").

    Raises:
        ValueError, TypeError: an argument makes no sense.

    Example:
        >>> with Supervisor(grace=10) as children:
        ...     database = children.start("sleep", "0.1", name="database")
        ...     web = children.start("sleep", "0.1", name="web", after=[database])
        ...     children.wait()
        0
    """

    def __init__(
        self,
        *,
        grace: float | timedelta | Default | None = Default.GRACE,
        when_one_exits: Literal["stop", "wait"] = "stop",
    ) -> None:
        if when_one_exits not in ("stop", "wait"):
            raise ValueError(f"when_one_exits must be 'stop' or 'wait', not {when_one_exits!r}")
        self._own_grace = grace if isinstance(grace, Default) else seconds(grace, "grace")
        if not hasattr(os, "pidfd_open"):
            raise NotImplementedError(
                "cleanup_guard.Supervisor needs pidfds, which this Python was built without"
            )
        self._household = Household()
        terms = Terms(grace=_grace(self._own_grace), when_one_exits=when_one_exits, open_ended=True)
        self._policy = Policy((), self._household, terms)
        self._lock = threading.RLock()
        self._done = threading.Event()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._output: Output | None = None
        self._thread: threading.Thread | None = None
        self._paused = False
        self._closed = False
        self._foreign = False
        self._tie = Tie()
        self.children: tuple[Child, ...] = ()
        FORKS.add(self)

    def __repr__(self) -> str:
        return f"<Supervisor of {len(self.children)} children, {'closed' if self._closed else 'open'}>"

    # -- for users ------------------------------------------------------------------------------------------------------

    def start(
        self,
        program: str,
        *args: str,
        name: str | None = None,
        after: Iterable[Child] = (),
        stop_signal: int | None = None,
        grace: float | timedelta | None = None,
        signal_to: Scope = "tree",
        ready: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: File | None = None,
        stdout: File | None = None,
        stderr: File | None = None,
    ) -> Child:
        """Start a child, in a process group of its own, with an empty signal mask and default dispositions.

        Args:
            program: looked up on PATH. Its arguments follow.
            name: what reports call it; by default the program's own name.
            after: children that are waited for, until they are ready, before this one is started; they are stopped when it
                is gone.
            stop_signal: what asks it to stop, instead of SIGTERM.
            grace: seconds after which it is killed, if that is sooner than the supervisor's.
            signal_to: whom signals reach: "tree", everybody once, but below a program that catches the signal that one passes
                it on; "group", the whole process group at once; "main"; or "main-then-group".
            ready: what shows that it is ready: a text in its output, which passes through this program then; "tcp:PORT"; or
                "file:PATH". Otherwise it is when it has been started.
            env: its environment; None for ours.
            stdin, stdout, stderr: a file or descriptor to have instead of ours.

        Returns:
            The child.

        Raises:
            FileNotFoundError, PermissionError: there is no such program, or it cannot be executed.
            RuntimeError: the supervisor stops or has stopped, or one of `after` ended before it was ready.
            OSError: there are no descriptors left.
            ValueError, TypeError: an argument makes no sense.
        """
        files = (stdin, stdout, stderr)
        inner = _child.Child(
            name or os.path.basename(program),
            [program, *args],
            after=[child.inner for child in after],
            stop_signal=stop_signal,
            grace=seconds(grace, "grace"),
            scope=signal_to,
            ready=None if ready is None else parse_sign(ready),
        )
        for child in after:
            self._wait_until_ready(child)
        with self._lock:
            self._refuse_late(program)
            self._tie.join(self.close, self.stop)
            child = Child(self, inner, self._spawn(inner, os.environ if env is None else env, files))
            self._policy.add(inner)
            self._household.children.append(inner)
            self._done.clear()
            self.children += (child,)
            self._run_thread()
            self._poke()
        return child

    def _refuse_late(self, program: str) -> None:
        if self._closed or self._policy.budget is not None:
            raise RuntimeError(f"{program!r} was not started: {self!r} is stopping or has stopped")

    def _wait_until_ready(self, child: Child) -> None:
        sign = child.inner.ready
        while sign is not None and not sign.look():
            self._refuse_late(child.name)
            if not child.running:
                raise RuntimeError(f"{child.name!r} ended with {child.inner.code} before it was ready")
            time.sleep(LOOK_AGAIN)

    def _spawn(self, inner: _child.Child, environ: Mapping[str, str], files: tuple[File | None, ...]) -> int:
        """Start a child. Returns its pidfd, for which a place is kept: a child that cannot be watched is none."""
        dup = [(_descriptor(file), fd) for fd, file in enumerate(files) if file is not None]
        place = os.dup(self._wake)
        read: list[tuple[int, int]] = []
        try:
            if inner.ready is not None and inner.ready.kind == "text":
                targets = {1: 1, 2: 2} | {its: ours for ours, its in dup}
                read = self._reading().pipes(inner.name, inner.ready, (targets[1], targets[2]))
                dup = [(ours, its) for ours, its in dup if its == 0] + read
            with _as_os_error():
                file = find(inner.argv[0], environ.get("PATH"))
                inner.pid = spawn(file, inner.argv, environ, dup=dup)
        finally:
            os.close(place)
            if self._output is not None:
                self._output.close(read)
                self._output.start()
        try:
            return os.pidfd_open(inner.pid)
        except OSError:
            signal_group(inner.pid, signal.SIGKILL)
            os.waitpid(inner.pid, 0)
            raise

    def _reading(self) -> Output:
        if self._output is None:
            from cleanup_guard._supervise._output import Output

            self._output = Output()
        return self._output

    def wait(self, timeout: float | timedelta | None = None) -> int:
        """Wait until all children are gone: because they ended, or because one did and the others were stopped.

        Args:
            timeout: seconds; None waits without limit.

        Returns:
            The exit status of it all: the only child's own, or that of the first to fail; 128+n for a signal.

        Raises:
            TimeoutError: it has passed, and some child is still there.
        """
        limit = seconds(timeout, "timeout")
        if self.children and not self._done.wait(
            None if limit is None else min(limit, threading.TIMEOUT_MAX)
        ):
            raise TimeoutError(f"{self!r}: children are still running")
        return self._policy.status

    @property
    def status(self) -> int | None:
        """What `wait` would return; None while there are children."""
        return self._policy.status if self._done.is_set() else None

    def stop(self, reason: str = "stop requested") -> None:
        """Ask the children to stop, and return at once: `wait` waits. Stopping again does nothing. Any thread."""
        with self._lock:
            if self._policy.budget is not None or self._foreign:
                return
            terms = self._policy.terms
            if self._tie.others is not None:
                terms.kill_share = KILL_BEFORE_CALLBACKS
            terms.grace = terms.grace.within(self._tie.left)
            self._policy.stop(reason, time.monotonic(), seem_told=sent_to_everybody())
        self._poke()

    def close(self) -> None:
        """Stop the children and wait until they are gone. Closing again does nothing. Any thread."""
        if self._foreign:
            return
        self.stop("the supervisor was closed")
        if self.children:
            try:
                self._done.wait()
            except KeyboardInterrupt:
                with self._lock:
                    self._policy.stopping.hurried_at = time.monotonic()
                self._poke()
                self._done.wait()
                self._release()
                raise
        self._release()

    def __enter__(self) -> Self:
        """Take part in the current guard; in main without one, hold one for the time of the block."""
        self._tie.hold(self._own_grace)
        with self._lock:
            self._tie.join(self.close, self.stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what still runs, and wait for it."""
        own, self._tie.own = self._tie.own, None
        if own is None:
            self.close()
        else:
            own.__exit__(kind, error, trace)  # which closes, as its callback

    def send_signal(self, child: Child, signum: int) -> None:
        """See `Child.send_signal`."""
        with self._lock:
            if child.running:
                self._policy.forward(signum, time.monotonic(), child.inner)

    def _release(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            thread, self._thread = self._thread, None
            guard, self._tie.guard = self._tie.guard, None
        if guard is not None:
            guard.unregister(self.close)
        self._poke()
        if thread is not None:
            thread.join()
        os.close(self._wake)
        if self._output is not None:
            self._output.finish(LAST_OUTPUT)
            self._output.give_up()
        FORKS.discard(self)

    # -- the thread -----------------------------------------------------------------------------------------------------

    def _poke(self) -> None:
        try:
            os.eventfd_write(self._wake, 1)
        except OSError:
            pass  # it is closed: nobody is left to wake

    def _run_thread(self) -> None:
        if self._thread is None:
            self._paused = False
            self._thread = threading.Thread(target=self._watch, name="cleanup_guard supervisor", daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        from cleanup_guard._process import signals

        signals.block_all()
        while not self._paused and not self._closed:
            with self._lock:
                failed = self._notice_ends()
                due = self._policy.step(time.monotonic())
                self._reap_gone()
                if self._policy.done and not self._done.is_set():
                    self._report()
                    self._done.set()
                    due = inf
                waiting = [self._wake, *(child.pidfd for child in self.children if child.running)]
            if failed is not None and self._policy.terms.when_one_exits == "stop":
                self._tie.fail(f"{failed.name} ended with {failed.inner.code}", failed.inner.code)
            self._sleep(waiting, inf if self._done.is_set() else due)

    def _notice_ends(self) -> Child | None:
        """Record who has ended. Returns the first that failed by itself."""
        failed = None
        for child in self.children:
            status = peek(child.pidfd) if child.running else None
            if status is not None:
                self._policy.ended(child.inner, status, time.monotonic())
                self._household.news = True
                if status and child.inner.sent is None:
                    failed = failed or child
        return failed

    def _reap_gone(self) -> None:
        for child in self.children:
            if child.pidfd >= 0 and (child.inner.gone or (self._policy.done and not child.running)):
                reap(child.pidfd)
                child.pidfd = -1

    @staticmethod
    def _sleep(fds: list[int], due: float) -> None:
        poll = select.poll()
        for fd in fds:
            poll.register(fd, select.POLLIN)
        left = min(due - time.monotonic(), LONGEST_WAIT)
        poll.poll(None if due == inf else max(0.0, left * 1000 + 1))
        try:
            os.eventfd_read(fds[0])
        except (BlockingIOError, OSError):
            pass

    def _report(self) -> None:
        if self._household.killed:
            from cleanup_guard._ground.stderr import write_line

            write_line(f"killed, because they did not stop in time: {', '.join(self._household.killed)}")

    # -- forks ----------------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Before a fork: have no thread."""
        self._lock.acquire()
        thread, self._thread = self._thread, None
        self._paused = True
        self._lock.release()
        if thread is not None and thread is not threading.current_thread():
            self._poke()
            thread.join()
            self._resume = True
        if self._output is not None:
            self._output.pause(BEFORE_A_FORK)

    _resume = False

    def resume(self) -> None:
        """After a fork, in the parent."""
        with self._lock:
            self._paused = False
            if self._resume and not self._closed:
                self._resume = False
                self._run_thread()
            if self._output is not None and not self._closed:
                self._output.start()

    def disown(self) -> None:
        """After a fork, in the child: these are somebody else's children."""
        self._lock = threading.RLock()
        self._foreign = True
        self._thread = None
        self._tie.guard = None
        self._output = None


@contextmanager
def _as_os_error() -> Generator[None]:
    """Say that a program cannot be started as `subprocess` does."""
    try:
        yield
    except CannotStart as error:
        kind = FileNotFoundError if error.status == NOT_FOUND else PermissionError
        raise kind(str(error)) from None


def _descriptor(file: File) -> int:
    """The descriptor of a file, or what was passed, if it is one."""
    if isinstance(file, int):
        if file < 0:
            raise ValueError(f"only descriptors and files can be passed on here, not {file!r}")
        return file
    return file.fileno()


class Forks:
    """The supervisors that step aside around a fork."""

    def __init__(self) -> None:
        self._all: weakref.WeakSet[Supervisor] = weakref.WeakSet()
        self._registered = False

    def add(self, supervisor: Supervisor) -> None:
        """From now on it does."""
        self._all.add(supervisor)
        if not self._registered:
            self._registered = True
            os.register_at_fork(
                before=self._before, after_in_parent=self._in_parent, after_in_child=self._in_child
            )

    def discard(self, supervisor: Supervisor) -> None:
        """It has no thread any more."""
        self._all.discard(supervisor)

    def _before(self) -> None:
        for each in list(self._all):
            each.pause()

    def _in_parent(self) -> None:
        for each in list(self._all):
            each.resume()

    def _in_child(self) -> None:
        for each in list(self._all):
            each.disown()


FORKS = Forks()
