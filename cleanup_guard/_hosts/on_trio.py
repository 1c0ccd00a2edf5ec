"""Guards in tasks of trio.

The guarded task runs in a cancel scope that is entered with its first guard: a stop cancels that, with all tasks in nurseries
inside. Cancellation there is a state, not an event: nobody can swallow it for longer than to the next checkpoint. Who does so
at each, and handles none of them when the loop looks, has let go of the stop.
"""

from __future__ import annotations

import weakref
from contextvars import copy_context

import trio

from cleanup_guard._ground.clock import inf
from cleanup_guard._ground.errors import CallbackInterrupted
from cleanup_guard._hosts.host import POLL, Host, is_bound_to_task
from cleanup_guard._hosts.suspended import is_on_its_way
from cleanup_guard._process.native import in_main
from cleanup_guard._stop.running import IN_CALLBACK
from cleanup_guard._stop.stack import AsyncCallback
from cleanup_guard._stop.token import MARK, Pulse, is_ours

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from types import TracebackType
    from typing import Any, TypeVar

    from cleanup_guard._ground.once import Waiters
    from cleanup_guard._process.process import Process
    from cleanup_guard._stop.stop import Stop

    T = TypeVar("T")


class Flight:
    """A callback that the loop awaits: it can be cancelled from any thread."""

    def __init__(self, host: TrioHost, scope: trio.CancelScope) -> None:
        self.host = host
        self.scope = scope
        self.task = trio.lowlevel.current_task()
        self._asked = False

    def cancel(self) -> None:
        """Cancel it. Any thread."""
        self._asked = True
        self.host.call_soon(self._cancel)

    def _cancel(self) -> None:
        self._asked = False
        self.scope.cancel()

    def holds_thread(self) -> bool:
        """Whether its code is running right now, rather than waiting; in other threads: whether it may be."""
        return _current_task() is self.task if in_main() else self._asked


class Entered:
    """A `with` for a scope that was entered before."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope

    def __enter__(self) -> trio.CancelScope:
        return self._scope

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return bool(self._scope.__exit__(kind, error, trace))


class TrioHost(Host):
    """See `Host`."""

    wraps_exceptions: bool = True

    def __init__(self, process: Process) -> None:
        super().__init__(process)
        self.task = self.key = trio.lowlevel.current_task()
        self.token = trio.lowlevel.current_trio_token()
        self._ended = False
        self._untold = -1  # up to how many steps of the task it has not run since it was cancelled
        self._pulse = Pulse()  # of the exception that has left it
        self.shields: set[trio.CancelScope] = set()
        self.scope = trio.CancelScope()
        self.scope.__enter__()

    @property
    def alive(self) -> bool:
        """Whether the task can still be cancelled. Any thread."""
        return not self._ended

    def call_soon(self, function: Callable[[], object]) -> bool:
        """Have the loop call a function, from any thread. Returns whether there still is a loop."""
        try:
            self.token.run_sync_soon(function)
        except trio.RunFinishedError:
            return False
        return True

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin a task that nobody waits for, in the loop."""
        trio.lowlevel.spawn_system_task(function, context=copy_context())

    @property
    def may_be_interrupted(self) -> bool:
        """Whether a task of the program runs. Trio's own code does not survive an exception."""
        return _current_task() is not None

    def cancel_task(self, stop: Stop) -> None:  # noqa: ARG002
        """Cancel everything inside the guard, in the loop."""
        task: Any = self.task
        self._untold = task._schedule_points
        if _current_task() is task:
            self._untold += 1  # it is in one, which trio counts at the end
        self.scope.cancel()

    def is_on_its_way(self) -> bool:
        """Whether the task is shielded, or waits for the tasks of a nursery, or handles a `Cancelled`, or is just about to.

        Trio runs what is due in random order: the task may come after whoever asks.
        """
        task: Any = self.task
        if task._schedule_points <= self._untold:
            return True
        if not task._cancel_status.effectively_cancelled:
            return True
        if not all(nursery._nested_child_running for nursery in task.child_nurseries):
            return True
        return is_on_its_way(task.coro, _is_cancelled)

    @property
    def holds(self) -> bool:
        """Whether the loop keeps the stop's exception, until all other tasks have ended. Any thread."""
        return self._pulse.beats and self.call_soon(lambda: None)

    def lift_shields(self) -> None:
        """Critical sections hold the stop back no more. Any thread."""
        self.call_soon(self._lift_shields)

    def _lift_shields(self) -> None:
        for scope in self.shields:
            scope.shield = False

    # -- leaving a guard --

    def open_scope(self) -> trio.CancelScope:
        """A scope around a context manager. It shields the exit: one that began only then would not nest with the manager's."""
        scope = trio.CancelScope()
        scope.__enter__()
        return scope

    async def wait(self, pending: AsyncCallback | Callable[[], bool]) -> object:
        """Await what a step needs, shielded."""
        if isinstance(pending, AsyncCallback):
            return await self._await(pending)
        with trio.CancelScope(shield=True):
            while not pending():
                await trio.sleep(POLL)
        return None

    async def _await(self, callback: AsyncCallback) -> object:
        here = trio.lowlevel.current_task() is self.task
        if is_bound_to_task(callback):
            if not here:
                callback.take_awaitable().close()  # a take-over, after which the process ends
                return None
            if callback.scope is None:
                # A scope of ours would not nest with its own. So nothing can cancel it, and this one is never entered.
                callback.flight = Flight(self, trio.CancelScope())
                return await callback.take_awaitable()
        value: object = None
        with Entered((callback.scope if here else None) or self.open_scope()) as scope:
            scope.shield = True
            callback.flight = Flight(self, scope)
            try:
                value = await callback.take_awaitable()
            finally:
                callback.flight = None
        if scope.cancelled_caught:
            raise CallbackInterrupted
        return value

    @property
    def is_root(self) -> bool:
        """The first exception that leaves a task of trio ends all others: it is the last guard's, whichever task that is in."""
        return False

    def go_on(self, exception: BaseException, error: BaseException | None) -> bool:  # noqa: ARG002
        """The stop goes on upwards from the task's outermost guard."""
        token = exception.__dict__.get(MARK)
        if token is not None:  # else it ends a loop in another thread
            self._pulse.follow(token)
        raise exception

    def pass_on(self, error: BaseException | None) -> bool:  # noqa: ARG002
        """The stop goes on as a cancellation: the next checkpoint raises it."""
        return False

    async def be_told(self) -> None:
        """A guard inside another one was left while a stop came: the next checkpoint tells the task."""
        if self.members and not self.asking.cancels and self.process.stop is not None:
            self.asking.cancel()

    def is_cancellation(self, error: BaseException) -> bool:
        """Whether main ended as a cancelled task does."""
        inner: tuple[BaseException, ...] | None = getattr(error, "exceptions", None)
        return (
            all(map(self.is_cancellation, inner))
            if inner
            else is_ours(error) or isinstance(error, trio.Cancelled)
        )

    def left(self, error: BaseException | None, raised: BaseException | None) -> bool:  # noqa: ARG002
        """The outermost guard was left: so is its scope."""
        if self.members or self._ended:
            return False
        self._ended = True
        return bool(
            self.scope.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)
        )

    # -- after the loop --

    def run_without_loop(self, awaitable: Awaitable[T]) -> T:
        """Await something where no loop runs, in a new one."""

        async def wait() -> T:
            return await awaitable

        return trio.run(wait)


def host_here(process: Process) -> TrioHost:
    """The host of the running task, made on its first guard."""
    task = trio.lowlevel.current_task()
    host = process.roster.hosts.get(task)
    return host if isinstance(host, TrioHost) else TrioHost(process)


async def wait_for_stop(waiters: Waiters, timeout: float | None) -> bool:  # noqa: ASYNC109  # as threading has it
    """See `Guard.stopped`."""
    token = trio.lowlevel.current_trio_token()
    event = trio.Event()

    def wake() -> None:
        try:
            token.run_sync_soon(event.set)
        except trio.RunFinishedError:
            pass

    waiters.add(wake)
    try:
        with trio.CancelScope(deadline=inf if timeout is None else trio.current_time() + timeout):
            await event.wait()
            return True
    finally:
        waiters.remove(wake)
    return waiters.woken


_SHIELDS: weakref.WeakKeyDictionary[trio.lowlevel.Task, int] = weakref.WeakKeyDictionary()
"""How many critical sections each task is in."""


async def enter_shield(process: Process) -> trio.CancelScope:
    """Begin a critical section, unless a stop has come: then this is where the task is cancelled."""
    task = trio.lowlevel.current_task()
    depth = _SHIELDS.get(task, 0)
    if depth == 0:
        await _let_stop_pass(process)
    _SHIELDS[task] = depth + 1
    process.roster.shields += 1
    scope = trio.CancelScope(shield=True)
    scope.__enter__()
    for host in list(process.roster.hosts.values()):
        if isinstance(host, TrioHost):
            host.shields.add(scope)
    return scope


async def leave_shield(process: Process, held: object, *, failed: bool) -> None:
    """End a critical section."""
    scope: Any = held
    scope.__exit__(None, None, None)
    for host in list(process.roster.hosts.values()):
        if isinstance(host, TrioHost):
            host.shields.discard(scope)
    task = trio.lowlevel.current_task()
    _SHIELDS[task] -= 1
    process.roster.shields -= 1
    process.deliver()
    if not failed and not _SHIELDS[task]:
        await _let_stop_pass(process)


async def _let_stop_pass(process: Process) -> None:
    """Where no critical section holds a stop back, the task is cancelled, or others are told of it first."""
    if not IN_CALLBACK.get():
        while process.is_wanted and process.delivery.times == 0:
            await trio.sleep(POLL)
    await trio.lowlevel.checkpoint_if_cancelled()


def _is_cancelled(error: BaseException) -> bool:
    inner: tuple[BaseException, ...] | None = getattr(error, "exceptions", None)
    return any(map(_is_cancelled, inner)) if inner else isinstance(error, trio.Cancelled)


def _current_task() -> trio.lowlevel.Task | None:
    """The task whose step this thread is in."""
    try:
        return trio.lowlevel.current_task()
    except RuntimeError:
        return None
