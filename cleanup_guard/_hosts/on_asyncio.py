"""Guards in tasks of asyncio, on its own loops and uvloop's.

1. The cancellation carries a token as its message. It lives as long as the CancelledError does: in a `finally` that
   awaits, and in whatever the task itself was waiting for. When it is dead and the task goes on, it was swallowed; when it
   lives and nobody handles it (`suspended.py`), it was swallowed and kept.
2. An async callback is awaited in a task of its own, so that no cancellation of the guarded task reaches it. Exits of async
   context managers are awaited in the guarded task, because task groups and cancel scopes must be left where they were entered.
3. Only one exception may leave a loop, or those who close it do not get to cancel everybody. So the stop leaves through the
   task for which the loop runs; for a guard in any other one the loop raises it itself, and the task ends as cancelled.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from contextlib import nullcontext
from functools import partial

from cleanup_guard._ground.errors import CallbackInterrupted, CallbackLeftBehind
from cleanup_guard._ground.events import TasksLeft
from cleanup_guard._hosts.host import POLL, Host, is_bound_to_task
from cleanup_guard._hosts.suspended import is_on_its_way
from cleanup_guard._process.native import in_main
from cleanup_guard._process.roster import CONTEXT
from cleanup_guard._stop.running import IN_CALLBACK
from cleanup_guard._stop.stack import AsyncCallback
from cleanup_guard._stop.token import Pulse, Token, is_ours

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from contextlib import AbstractContextManager
    from typing import Any, TypeVar

    from cleanup_guard._ground.once import Waiters
    from cleanup_guard._process.process import Process
    from cleanup_guard._stop.stop import Stop

    T = TypeVar("T")

LEFT_BEHIND = 1.0
"""Seconds for which a cancelled callback may go on before the others have their turn."""

ARRIVES = 0.25
"""Seconds within which a task group that is being left has cancelled its tasks."""

LOOPS = ("asyncio.", "uvloop")
"""Where loops come from whose tasks are asyncio's own."""

ROOTS = ("_run_until_complete_cb", "run_until_complete.<locals>.done_cb")
"""What asyncio and uvloop have called when the task ends for which the loop runs."""


TASK: Any = asyncio.Task


class StopToken(Token):
    """The message of a CancelledError of ours."""

    __slots__ = ("_reason",)

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def __repr__(self) -> str:
        return self._reason


_SPAWNED: set[asyncio.Task[None]] = set()
"""Tasks of ours that nobody waits for: loops hold tasks weakly."""


class End(asyncio.Future[object]):
    """What the guarded task waits for: a cancellation does not end that, and is heard afterwards."""

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002
        """Not now."""
        return False


class Flight:
    """A callback that the loop awaits: it can be cancelled from any thread.

    Args:
        loop: the loop.
        tasks: the task that awaits it; none yet if it gets one of its own, by `begin`.
    """

    __slots__ = ("_begins", "_end", "_pulse", "_tasks", "cancels", "left_behind", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, *tasks: asyncio.Task[Any]) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self._tasks: list[asyncio.Task[Any]] = [*tasks]
        self._begins: bool = False  # somebody else makes the task, which may take its first step there
        self._end: End | None = None
        self._pulse: Pulse | None = None
        self.cancels: int = 0
        self.left_behind: bool = False  # it is waited for no longer

    @property
    def task(self) -> asyncio.Task[Any]:
        """The task that awaits the callback."""
        return self._tasks[0]

    def begin(self, callback: AsyncCallback) -> None:
        """Await it in a task of its own, unless that has begun (see `_stop/stack.py`).

        The task takes its first step in here if it can. It is kept before that, so that whoever is cut short in it finds it.
        """
        tasks = self._tasks
        if tasks and self._has_begun:
            return
        name = f"cleanup_guard {callback.name}"
        if not tasks and not _may_begin_at_once(self.loop):
            self._begins = True
            try:
                create = partial(self.loop.create_task, name=name)
                tasks.extend(map(create, map(_contain, callback.returned or ())))
            finally:
                self._begins = False
            return
        if not tasks:
            tasks.append(TASK.__new__(TASK))
        for awaitable in callback.returned or ():
            TASK.__init__(tasks[0], _contain(awaitable), loop=self.loop, name=name, eager_start=True)

    @property
    def _has_begun(self) -> bool:
        """Whether there is a task, and not only the memory for one."""
        if not self._tasks:
            return False
        try:
            self.task.get_loop()
        except RuntimeError:
            return False
        return True

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for it any longer."""
        return self.left_behind or self.task.done()

    async def until_over(self) -> None:
        """Wait until it is over, for a turn of the loop at least."""
        if self.is_over:
            await asyncio.sleep(0)
            return
        if self._end is None:
            end = End(loop=self.loop)
            # C code, which no exception of a signal handler stops.
            self.task.add_done_callback(end.set_result)
            self._end = end
        await self._end

    def cancel(self) -> None:
        """Cancel it, again if it has swallowed that. Any thread."""
        _call_soon(self.loop, self._cancel)

    def _cancel(self) -> None:
        if not self._has_begun or self.is_over or (self._pulse is not None and self._pulse.beats):
            return
        if not self.cancels:
            self.loop.call_later(LEFT_BEHIND, self.leave_behind)
        self.cancels += 1
        token = StopToken("time is over")
        self._pulse = _pulse_of(token)
        self.task.cancel(token)

    def leave_behind(self) -> None:
        """Wait for it no longer."""
        self.left_behind = True
        end = self._end
        if end is not None and not (end.done() or self.task.done()):
            self.task.remove_done_callback(end.set_result)
            end.set_result(None)

    def holds_thread(self) -> bool:
        """Whether its code is running right now, rather than waiting."""
        return self._begins or asyncio.current_task(self.loop) in self._tasks


class AsyncioHost(Host):
    """See `Host`."""

    _pulse: Pulse | None = None  # of the stop
    _before: weakref.WeakSet[asyncio.Task[Any]] | None = None
    _missed: BaseException | None = None

    def __init__(self, process: Process, task: asyncio.Task[Any]) -> None:
        super().__init__(process)
        self.loop = asyncio.get_running_loop()
        self.task = self.key = task
        if sys.version_info < (3, 12) and self.is_root:
            self._before = weakref.WeakSet(asyncio.all_tasks())

    @property
    def alive(self) -> bool:
        """Whether the task can still be cancelled. Any thread."""
        return self.loop.is_running() and not self.task.done()

    def call_soon(self, function: Callable[[], object]) -> bool:
        """Have the loop call a function, from any thread. Returns whether the loop runs."""
        return self.loop.is_running() and _call_soon(self.loop, function)

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin a task that nobody waits for, in the loop."""
        task = self.loop.create_task(function(), name="cleanup_guard")
        _SPAWNED.add(task)
        task.add_done_callback(_SPAWNED.discard)

    # -- the stop --

    def cancel_task(self, stop: Stop) -> None:
        """Cancel the task, in the loop, between two of its steps."""
        token = StopToken(stop.reason)
        self._pulse = _pulse_of(token)
        self.task.cancel(token)

    def is_on_its_way(self) -> bool:
        """Whether the CancelledError is alive, and not merely kept."""
        pulse = self._pulse
        if pulse is None or not pulse.beats:
            return False
        return is_on_its_way(self.task, lambda error: any(map(pulse.is_of, error.args)))

    # -- leaving a guard --

    def wait(self, pending: AsyncCallback | Callable[[], bool]) -> Awaitable[object] | None:
        """Await what a step needs. A cancellation that comes meanwhile waits until all steps are taken."""
        if not isinstance(pending, AsyncCallback):
            return self._wait_until(pending)
        if pending.kind == "exit":
            return self._await_here(pending)
        return self._begin_apart(pending)

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        with _out_of_reach_of_anyio():
            while not condition():
                try:
                    await asyncio.sleep(POLL)
                except asyncio.CancelledError as error:
                    self._missed = error

    def _begin_apart(self, callback: AsyncCallback) -> Awaitable[object] | None:
        """Await a callback in a task of its own. Whoever is cut short in here goes on with the same one."""
        flight = callback.flight
        if not isinstance(flight, Flight):
            callback.flight = flight = Flight(self.loop)
        flight.begin(callback)
        if flight.is_over and not getattr(self.task, "_must_cancel", False):
            _land(callback, flight)
            return None
        # It goes on, or somebody has cancelled the guarded task, which hears of it where it awaits.
        return self._await_apart(callback, flight)

    async def _await_apart(self, callback: AsyncCallback, flight: Flight) -> None:
        with _out_of_reach_of_anyio():
            while True:
                try:
                    await flight.until_over()
                except asyncio.CancelledError as error:
                    self._missed = error
                if flight.is_over:
                    break
        _land(callback, flight)

    async def _await_here(self, callback: AsyncCallback) -> object:
        """Await an exit of an async context manager, which must be left in the task that entered it."""
        task = asyncio.current_task()
        assert task is not None  # the host's own, except in a take-over
        if task is not self.task and is_bound_to_task(callback):
            callback.take_awaitable().close()  # after the take-over the process ends
            return None
        callback.flight = flight = Flight(self.loop, task)
        try:
            return await callback.take_awaitable()
        except asyncio.CancelledError:
            if flight.cancels:
                raise CallbackInterrupted from None
            raise
        finally:
            callback.flight = None
            flight.leave_behind()
            for _ in range(flight.cancels):
                task.uncancel()

    @property
    def is_root(self) -> bool:
        """Whether the loop runs until this task ends, so that what it raises is raised by `asyncio.run`."""
        for callback, _ in getattr(self.task, "_callbacks", None) or ():
            if getattr(callback, "__qualname__", "").endswith(ROOTS):
                return True
        return False

    def go_on(self, exception: BaseException, error: BaseException | None) -> bool:
        """The stop goes on upwards from the task's outermost guard: what `__aexit__` returns or raises."""
        if self.is_root:
            while self.asking.cancels:
                self.asking.cancels -= 1
                self.task.uncancel()
            raise exception
        if self.in_main:
            # What raises it is no function of ours: in a line of that, somebody's signal handler might raise something else.
            self.loop.call_soon((_ for _ in ()).throw, exception)
        return self.pass_on(error)

    def pass_on(self, error: BaseException | None) -> bool:
        """The stop goes on as a cancellation, to guards around in the same task and to those who await it."""
        if (error is not None and self.is_cancellation(error)) or self.members:
            return False
        raise asyncio.CancelledError

    async def be_told(self) -> None:
        """A guard inside another one was left while a stop came: the task is told of it here."""
        if self.members and not self.asking.cancels and self.process.stop is not None:
            self.asking.insist()
            while self.process.is_wanted:
                await asyncio.sleep(POLL)

    def others_are_uncritical(self) -> bool:
        """Whether no other task is in a critical section that a stop must wait for."""
        roster, delivery = self.process.roster, self.process.delivery
        return delivery.forced or roster.shields <= _SHIELDS.get(self.task, 0)

    def is_cancellation(self, error: BaseException) -> bool:
        """Whether main ended as a cancelled task does."""
        return isinstance(error, asyncio.CancelledError)

    def left(self, error: BaseException | None, raised: BaseException | None) -> bool:
        """A guard was left. If somebody else cancelled the task meanwhile, that goes on now, unless it is already under way."""
        missed, self._missed = self._missed, None
        if missed is not None and raised is None and not isinstance(error, asyncio.CancelledError):
            raise missed
        return False

    def tasks_left(self) -> TasksLeft | None:
        """The tasks that were begun inside the guards of the loop's main task, which ends the loop, and go on."""
        if not self.is_root:
            return None
        guarded = {id(task) for task in list(self.process.roster.hosts)}
        left = [
            task
            for task in asyncio.all_tasks(self.loop)
            if id(task) not in guarded and not task.cancelling() and self._begun_inside(task)
        ]
        return TasksLeft(names=tuple(sorted(map(_describe, left)))) if left else None

    def _begun_inside(self, task: asyncio.Task[Any]) -> bool:
        if sys.version_info < (3, 12):
            return self._before is not None and task not in self._before
        around = task.get_context().get(CONTEXT, ())
        return any(member in around for member in list(self.members))

    # -- after the loop --

    def let_task_leave(self) -> None:
        """If main's loop was stopped while the task was leaving a guard, have it leave that; if it was closed, give it up."""
        if not (self.in_main and in_main() and self.leaving) or self.loop.is_running() or self.task.done():
            return
        if self.loop.is_closed():
            coroutine: Any = self.task.get_coro()
            if coroutine is not None:  # a task that has begun eagerly may have none
                coroutine.close()
            return

        async def wait() -> None:
            while self.leaving and not self.task.done():
                await asyncio.sleep(POLL)

        try:
            self.loop.run_until_complete(wait())
        except BaseException as error:
            # A stop that goes on from the task goes on at the end of the process all the same.
            if not is_ours(error):
                raise

    def run_without_loop(self, awaitable: Awaitable[T]) -> T:
        """Await something where no loop runs: in the task's loop if that has merely stopped, else in a new one."""

        async def wait() -> T:
            return await awaitable

        if in_main() == self.in_main and not self.loop.is_closed() and not self.loop.is_running():
            return self.loop.run_until_complete(wait())
        with asyncio.Runner() as runner:
            return runner.run(wait())


def _pulse_of(token: StopToken) -> Pulse:
    pulse = Pulse()
    pulse.follow(token)
    return pulse


def is_running() -> bool:
    """Whether this is called in a task."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


def host_here(process: Process) -> AsyncioHost:
    """The host of the running task, made on its first guard."""
    task = asyncio.current_task()
    assert task is not None
    host = process.roster.hosts.get(task)
    return host if isinstance(host, AsyncioHost) else AsyncioHost(process, task)


async def wait_for_stop(waiters: Waiters, timeout: float | None) -> bool:  # noqa: ASYNC109  # as threading has it
    """See `Guard.stopped`."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()

    def wake() -> None:
        _call_soon(loop, event.set)

    waiters.add(wake)
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        return waiters.woken
    finally:
        waiters.remove(wake)
    return True


_SHIELDS: weakref.WeakKeyDictionary[asyncio.Task[Any], int] = weakref.WeakKeyDictionary()
"""How many critical sections each task is in."""


async def enter_shield(process: Process) -> object:
    """Begin a critical section, unless a stop waits for others to end: then this one waits to be cancelled."""
    task = asyncio.current_task()
    assert task is not None
    depth = _SHIELDS.get(task, 0)
    if depth == 0:
        await _let_stop_pass(process, task)
    _SHIELDS[task] = depth + 1
    process.roster.shields += 1
    return task


async def leave_shield(process: Process, held: object, *, failed: bool) -> None:
    """End a critical section. A guarded task is told of a stop here."""
    task: Any = held
    _SHIELDS[task] -= 1
    process.roster.shields -= 1
    process.deliver()
    if task in process.roster.hosts and not failed and not _SHIELDS[task]:
        await _let_stop_pass(process, task)


async def _let_stop_pass(process: Process, task: asyncio.Task[Any]) -> None:
    if process.stop is None or IN_CALLBACK.get():
        return
    while process.is_wanted and process.delivery.times == 0 and not task.cancelling():
        await asyncio.sleep(POLL)
    # A task group tells its tasks once its own task has been told.
    limit = process.clock() + ARRIVES
    while process.delivery.times and not task.cancelling() and process.clock() < limit:
        await asyncio.sleep(POLL)


def _out_of_reach_of_anyio() -> AbstractContextManager[object]:
    """A cancelled scope of anyio cancels the tasks in it again and again, until they leave it."""
    anyio = sys.modules.get("anyio")
    return nullcontext() if anyio is None else anyio.CancelScope(shield=True)


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> bool:
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:  # it is closed
        return False
    return True


def _may_begin_at_once(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a task can take its first step where it is made, as those in C of 3.12 can, and nobody else makes this loop's."""
    if sys.version_info < (3, 12) or asyncio.Task.__module__ != "_asyncio":
        return False
    return loop.get_task_factory() is None and type(loop).__module__.startswith(LOOPS)


def _land(callback: AsyncCallback, flight: Flight) -> None:
    """It is over: raise what it raised."""
    task = flight.task
    callback.land()
    if not task.done():
        raise CallbackLeftBehind
    failure = asyncio.CancelledError() if task.cancelled() else task.result()
    if failure is None:
        return
    if flight.cancels and isinstance(failure, asyncio.CancelledError):
        raise CallbackInterrupted
    raise failure


async def _contain(awaitable: Awaitable[object]) -> BaseException | None:
    """Await a callback. Not even its SystemExit leaves the task, for that would leave the loop as well."""
    try:
        await awaitable
    except BaseException as error:
        return error
    return None


def _describe(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    function = getattr(coroutine, "__qualname__", type(coroutine).__qualname__)
    return f"{function} ({task.get_name()})"
