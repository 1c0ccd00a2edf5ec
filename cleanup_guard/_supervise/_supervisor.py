"""`Supervisor`: children of a Python program, which are stopped when it stops, and end it when they fail.

One thread waits for all children, by pidfd; everybody else talks to it through a lock and an eventfd. It steps aside around
`os.fork`, because a second thread makes that warn from Python 3.12 on.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
import weakref
from math import inf

from cleanup_guard._ground.clock import DEFAULT_GRACE, grace_from_environment, seconds
from cleanup_guard._guard import Default, Guard, current_guard
from cleanup_guard._supervise import _policy
from cleanup_guard._supervise._household import LONGEST_WAIT, Household, peek, reap
from cleanup_guard._supervise._spawn import find, spawn

if sys.platform != "linux":
    raise NotImplementedError("cleanup_guard.Supervisor needs Linux: it waits for its children by pidfd")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import timedelta
    from types import TracebackType
    from typing import IO, Literal, Self

    from cleanup_guard._supervise._policy import Scope

    File = int | IO[bytes] | IO[str]


class Child:
    """One child of a `Supervisor`. Made by `Supervisor.start`; may be looked at from any thread.

    Attributes:
        name: what reports call it.
        pid: its process id, and that of its process group.
        started: when it was started, in seconds on the monotonic clock.
    """

    def __init__(self, supervisor: Supervisor, inner: _policy.Child, pidfd: int) -> None:
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
        """Send a signal to its process group (to its main process, if it was started with another `signal_to`).

        Args:
            signum: the signal. Nothing happens if the child has ended.
        """
        self._supervisor.send_signal(self, signum)


class Supervisor:
    """Starts children, forwards the stop of this program to them, and waits until they and their process groups are gone.

    For `with`. Leaving the block stops the children that still run. Inside a guard, its stop asks the children first, and a
    child that fails ends main with the child's status. Never touches a process that it has not started. Any thread.

    Args:
        grace: seconds that the children have to stop, until SIGKILL; None for no limit. The environment variable
            CLEANUP_GUARD_GRACE wins over it. In a guard's stop they get what its grace period leaves, if that is less.
        when_one_exits: whether the others are stopped ("stop"), or go on ("wait").

    Raises:
        ValueError, TypeError: an argument makes no sense.
    """

    def __init__(
        self,
        *,
        grace: float | timedelta | Default | None = Default.GRACE,
        when_one_exits: Literal["stop", "wait"] = "stop",
    ) -> None:
        if when_one_exits not in ("stop", "wait"):
            raise ValueError(f"when_one_exits must be 'stop' or 'wait', not {when_one_exits!r}")
        told, from_environment = grace_from_environment(dict(os.environ))
        wanted = DEFAULT_GRACE if isinstance(grace, Default) else seconds(grace, "grace")
        self._grace = from_environment if told else wanted
        self._household = Household()
        self._policy = _policy.Policy(
            (), self._household, grace=self._grace, when_one_exits=when_one_exits, open_ended=True
        )
        self._lock = threading.RLock()
        self._done = threading.Event()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread: threading.Thread | None = None
        self._pause = False
        self._closed = False
        self._foreign = False
        self._guard: Guard | None = None
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
        signal_to: Scope = "group",
        env: Mapping[str, str] | None = None,
        stdin: File | None = None,
        stdout: File | None = None,
        stderr: File | None = None,
    ) -> Child:
        """Start a child, in a process group of its own, with an empty signal mask and default dispositions.

        Args:
            program: looked up on PATH. Its arguments follow.
            name: what reports call it; by default the program's own name.
            after: children that are stopped only when this one is gone.
            stop_signal: what asks it to stop, instead of SIGTERM.
            grace: seconds after which it is killed, if that is sooner than the supervisor's.
            signal_to: whom signals reach: "group", "main", or "main-then-group".
            env: its environment; None for ours.
            stdin, stdout, stderr: a file or descriptor to have instead of ours.

        Returns:
            The child.

        Raises:
            FileNotFoundError, PermissionError: there is no such program, or it cannot be executed.
            RuntimeError: the supervisor stops or has stopped.
            ValueError, TypeError: an argument makes no sense.
        """
        from cleanup_guard._supervise._oneoff import as_os_error, descriptor

        environ = os.environ if env is None else env
        dup = [(descriptor(file), fd) for fd, file in enumerate((stdin, stdout, stderr)) if file is not None]
        own_grace = seconds(grace, "grace")
        with self._lock:
            if self._closed or self._policy.budget is not None:
                raise RuntimeError(f"{program!r} was not started: {self!r} is stopping or has stopped")
            self._join_guard()
            inner = _policy.Child(
                name or os.path.basename(program),
                after=[child.inner for child in after],
                stop_signal=stop_signal,
                grace=own_grace,
                scope=signal_to,
            )
            with as_os_error():
                file = find(program, environ.get("PATH"))
                inner.pid = spawn(file, [program, *args], environ, dup=dup)
            child = Child(self, inner, os.pidfd_open(inner.pid))
            self._policy.add(inner)
            self._done.clear()
            self.children += (child,)
            self._run_thread()
            self._poke()
        return child

    def wait(self, timeout: float | timedelta | None = None) -> int:
        """Wait until all children are gone: because they ended, or because one did and the others were stopped.

        Args:
            timeout: seconds; None waits without limit.

        Returns:
            The exit status of it all: the only child's own, or that of the first to fail; 128+n for a signal.

        Raises:
            TimeoutError: it has passed, and some child is still there.
        """
        if self.children and not self._done.wait(seconds(timeout, "timeout")):
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
            guard = self._guard
            left = None if guard is None else guard.remaining()
            if guard is not None:
                self._policy.kill_share = _policy.KILL_BEFORE_CALLBACKS
            if left is not None:
                self._policy.grace = left if self._policy.grace is None else min(left, self._policy.grace)
            self._policy.stop(reason, time.monotonic())
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
                    self._policy.hurried_at = time.monotonic()
                self._poke()
                self._done.wait()
                self._release()
                raise
        self._release()

    def __enter__(self) -> Self:
        """Take part in the current guard, if there is one."""
        with self._lock:
            self._join_guard()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what still runs, and wait for it."""
        self.close()

    def send_signal(self, child: Child, signum: int) -> None:
        """See `Child.send_signal`."""
        with self._lock:
            if child.running:
                self._household.send(child.inner, signum, to_group=child.inner.scope == "group")

    # -- the guard ------------------------------------------------------------------------------------------------------

    def _join_guard(self) -> None:
        guard = current_guard()
        if self._guard is not None or guard is None or guard.stopping:
            return
        self._guard = guard
        guard.callback(self.close)  # for who does not use `with`
        guard.on_stop(self.stop, "the guard is stopping")

    def _tell_guard(self, failed: Child) -> None:
        """A child has failed: main is to end."""
        guard = self._guard
        if guard is not None and not guard.stopping:
            try:
                guard.request_stop(f"{failed.name} ended with {failed.inner.code}", status=failed.inner.code)
            except RuntimeError:
                pass  # the guard was left in this very moment

    def _release(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            thread, self._thread = self._thread, None
            guard, self._guard = self._guard, None
        if guard is not None:
            guard.unregister(self.close)
        self._poke()
        if thread is not None:
            thread.join()
        os.close(self._wake)
        FORKS.discard(self)

    # -- the thread -----------------------------------------------------------------------------------------------------

    def _poke(self) -> None:
        try:
            os.eventfd_write(self._wake, 1)
        except OSError:
            pass  # it is closed: nobody is left to wake

    def _run_thread(self) -> None:
        if self._thread is None:
            self._pause = False
            self._thread = threading.Thread(target=self._watch, name="cleanup_guard supervisor", daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        from cleanup_guard import _signals

        _signals.block_all()
        while not self._pause and not self._closed:
            with self._lock:
                failed = self._notice_ends()
                due = self._policy.step(time.monotonic())
                self._reap_gone()
                if self._policy.done and not self._done.is_set():
                    self._report()
                    self._done.set()
                    due = inf
                waiting = [self._wake, *(child.pidfd for child in self.children if child.running)]
            if failed is not None and self._policy.when_one_exits == "stop":
                self._tell_guard(failed)
            self._sleep(waiting, inf if self._done.is_set() else due)

    def _notice_ends(self) -> Child | None:
        """Record who has ended. Returns the first that failed by itself."""
        failed = None
        for child in self.children:
            status = peek(child.pidfd) if child.running else None
            if status is not None:
                self._policy.ended(child.inner, status, time.monotonic())
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
        self._pause = True
        self._lock.release()
        if thread is not None and thread is not threading.current_thread():
            self._poke()
            thread.join()
            self._resume = True

    _resume = False

    def resume(self) -> None:
        """After a fork, in the parent."""
        with self._lock:
            self._pause = False
            if self._resume and not self._closed:
                self._resume = False
                self._run_thread()

    def disown(self) -> None:
        """After a fork, in the child: these are somebody else's children."""
        self._lock = threading.RLock()
        self._foreign = True
        self._thread = None
        self._guard = None


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
