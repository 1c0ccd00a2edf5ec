"""Guards on an event loop: what is different when main is a task. asyncio is here, trio in `_trio.py`.

The stop itself, its clock and its callbacks are those of any guard. What an event loop changes:

1. Nothing is raised in main's frame, where some other task may be running. The watcher asks the loop to cancel the guarded
   task (`call_soon_threadsafe`, which also wakes a loop that waits: hazard H57), and the loop does it between two steps.
   Only if the loop does not answer, because a task blocks it, the stop is raised in main as it is without a loop.
2. The cancellation carries a token as its message. It lives as long as the CancelledError does: in a `finally` that
   awaits, and in whatever the task itself was waiting for. When it is dead and the task goes on, it was swallowed.
3. An async callback is awaited in a task of its own, so that no cancellation of the guarded task reaches it. Exits of async
   context managers are awaited in the guarded task, because task groups and cancel scopes must be left where they were entered.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from math import inf

from cleanup_guard._errors import CallbackInterrupted, CallbackLeftBehind, SignalExit
from cleanup_guard._events import StopRedelivered, TasksLeft
from cleanup_guard._process import Token, in_main
from cleanup_guard._stack import Callback
from cleanup_guard._state import Move, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import Any, TypeVar

    from cleanup_guard._guard import Guard
    from cleanup_guard._process import Process
    from cleanup_guard._stack import Steps

    T = TypeVar("T")

POLL = 0.005
"""Seconds between two looks at what has no wakeup of its own: a hook in a thread, the end of another guard."""

PATIENCE = 0.2
"""Seconds for which a loop may leave another thread's request unanswered before it counts as blocked."""

LEFT_BEHIND = 1.0
"""Seconds for which a cancelled callback may go on before the others have their turn."""

DEAD_FOR = 0.05
"""Seconds after the death of its exception at which a cancellation counts as swallowed."""

ROOTS = ("_run_until_complete_cb", "run_until_complete.<locals>.done_cb")
"""What asyncio and uvloop have called when the task ends for which the loop runs."""


class StopToken(Token):
    """The message of a CancelledError that is a stop's."""

    __slots__ = ("_reason",)

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def __repr__(self) -> str:
        return self._reason


class Flight:
    """A callback that the loop awaits: it can be cancelled from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        self.loop = loop
        self.task = task
        self.cancels = 0
        self.left_behind: asyncio.Future[None] = loop.create_future()
        self._token: weakref.ref[Token] | None = None

    def cancel(self) -> None:
        """Cancel it, again if it has swallowed that. Any thread."""
        call_soon(self.loop, self._cancel)

    def _cancel(self) -> None:
        if self.task.done() or (self._token is not None and self._token() is not None):
            return
        if not self.cancels:
            self.loop.call_later(LEFT_BEHIND, self._leave_behind)
        self.cancels += 1
        token = StopToken("time is over")
        self._token = weakref.ref(token)
        self.task.cancel(token)

    def _leave_behind(self) -> None:
        if not self.left_behind.done():
            self.left_behind.set_result(None)

    def holds_thread(self) -> bool:
        """Whether its code is running right now, rather than waiting."""
        return running_task(self.loop) is self.task


def call_soon(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> bool:
    """Have the loop call a function, from any thread. Returns whether there still is a loop."""
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:  # it is closed
        return False
    return True


def running_task(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any] | None:
    """The task whose step a loop is in, seen from any thread."""
    try:
        return asyncio.current_task(loop)
    except RuntimeError:
        return None


class AsyncioHost:
    """A task with guards in it: all guards of one task share it."""

    def __init__(self, process: Process) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.process = process
        self.loop = asyncio.get_running_loop()
        self.task: asyncio.Task[Any] = task
        self.thread: int = threading.get_ident()
        self.in_main: bool = in_main()
        self.guards: list[Guard] = []  # outermost first
        self.asked_at = inf
        self.answered = False
        self.cancels = 0  # of ours that the task still counts
        self._ask = [None]
        self._token: weakref.ref[Token] | None = None
        self._dead_since: float | None = None
        self._before: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet(asyncio.all_tasks())
        self._missed: BaseException | None = None

    # -- the stop --

    @property
    def alive(self) -> bool:
        """Whether the task can still be cancelled."""
        return not (self.task.done() or self.loop.is_closed())

    @property
    def leaving(self) -> bool:
        """Whether a guard of the task runs its callbacks: nothing cuts them short."""
        return any(guard.left for guard in self.guards)

    def ask(self, now: float) -> None:
        """Ask the loop to cancel the task, once. Any thread."""
        try:
            self._ask.pop()
        except IndexError:
            return
        self.asked_at = now
        call_soon(self.loop, self._cancel)

    def _cancel(self) -> None:
        """In the loop, between two steps of the task."""
        process = self.process
        self.answered = True
        stop = process.stop
        if stop is None or self.task.done() or self.leaving or not self.guards:
            return
        if not process.released:
            self._ask.append(None)  # a shield was entered meanwhile
            return
        if self.in_main:
            process.insisted = False
            if process.machine.state is State.STOPPING:
                process.machine.fire(Move.RAISE)
            process.deliveries += 1
        token = StopToken(stop.reason)
        self._token = weakref.ref(token)
        self._dead_since = None
        self.cancels += 1
        self.task.cancel(token)

    def withdraw(self) -> None:
        """The stop was raised in main: the task is not to be cancelled as well."""
        self._ask.clear()

    def look_for_swallowing(self, now: float, last_call: float) -> float:
        """Cancel again if the CancelledError is dead and the task goes on. Returns when to look again. Watcher only."""
        token = self._token
        if token is None or not self.alive or self.leaving:
            return inf
        if token() is not None and now < last_call:
            self._dead_since = None
            return min(now + DEAD_FOR / 2, last_call)
        if self._dead_since is None:
            self._dead_since = now
        if now - self._dead_since < DEAD_FOR:
            return now + DEAD_FOR / 2
        self._token = None
        self._dead_since = None
        self.process.reporter().emit(StopRedelivered(times=self.process.deliveries + 1))
        self.insist()
        return now + DEAD_FOR

    def insist(self) -> None:
        """Cancel again. Any thread."""
        call_soon(self.loop, self._cancel)

    # -- leaving a guard --

    async def take_steps(self, steps: Steps[T]) -> T:
        """Take all steps in the task. A cancellation that comes meanwhile waits until they are taken."""
        try:
            pending = next(steps)
            while True:
                try:
                    value = await self._wait(pending)
                except BaseException as error:
                    pending = steps.throw(error)
                else:
                    pending = steps.send(value)
        except StopIteration as end:
            result: T = end.value
        return result

    async def _wait(self, pending: Callback | Callable[[], bool]) -> object:
        if isinstance(pending, Callback):
            return await (self._await_here(pending) if pending.kind == "exit" else self._await_apart(pending))
        while not pending():
            try:
                await asyncio.sleep(POLL)
            except asyncio.CancelledError as error:
                self._missed = error
        return None

    async def _await_apart(self, callback: Callback) -> object:
        """Await a callback in a task of its own."""
        task = self.loop.create_task(_contain(callback.awaitable), name=f"cleanup_guard {callback.name}")
        callback.flight = flight = Flight(self.loop, task)
        try:
            while not (task.done() or flight.left_behind.done()):
                try:
                    await asyncio.wait((task, flight.left_behind), return_when=asyncio.FIRST_COMPLETED)
                except asyncio.CancelledError as error:
                    self._missed = error
        finally:
            callback.flight = callback.awaitable = None
        if not task.done():
            raise CallbackLeftBehind
        failure = asyncio.CancelledError() if task.cancelled() else task.result()
        if flight.cancels and isinstance(failure, asyncio.CancelledError):
            raise CallbackInterrupted
        if failure is not None:
            raise failure
        return None

    async def _await_here(self, callback: Callback) -> object:
        """Await an exit of an async context manager, which must be left in the task that entered it."""
        task = asyncio.current_task()
        assert task is not None  # the host's own, except in a take-over
        callback.flight = flight = Flight(self.loop, task)
        try:
            return await callback.awaitable
        except asyncio.CancelledError:
            if flight.cancels:
                raise CallbackInterrupted from None
            raise
        finally:
            callback.flight = callback.awaitable = None
            flight.left_behind.cancel()
            for _ in range(flight.cancels):
                task.uncancel()

    def others_are_clean(self) -> bool:
        """Whether no other task of this loop has guards that are entered."""
        process = self.process
        everybody = (*process.guards, *process.elsewhere)
        return not any(
            each.host is not None and each.host.guards and each.host.alive and self._is_neighbour(each)
            for each in everybody
        )

    def _is_neighbour(self, guard: Guard) -> bool:
        host = guard.host
        return isinstance(host, AsyncioHost) and host is not self and host.loop is self.loop

    @property
    def ends_loop(self) -> bool:
        """Whether the guard that was just left is the one that lets the stop go on: the outermost, in the last task."""
        return not self.guards and (self.is_root or self.others_are_clean())

    @property
    def is_root(self) -> bool:
        """Whether the loop runs until this task ends, so that what it raises is raised by `asyncio.run`."""
        callbacks = getattr(self.task, "_callbacks", None) or ()
        return any(getattr(callback, "__qualname__", "").endswith(ROOTS) for callback, _ in callbacks)

    def go_on(self, exception: BaseException, error: BaseException | None) -> bool:
        """The stop goes on upwards from the outermost guard of this task, as what `__aexit__` returns or raises.

        Only one exception may leave a loop, or those who close it do not get to cancel everybody. So it comes from the task
        for which the loop runs; for any other one the loop raises it itself, and the task ends as cancelled.
        """
        if self.is_root:
            while self.cancels:
                self.cancels -= 1
                self.task.uncancel()
            raise exception
        self.loop.call_soon(_raise, exception)
        return self.pass_on(error)

    def go_on_in_thread(self, error: BaseException | None) -> bool:
        """The same in a loop of another thread, whose end is not the process's: its main task ends the thread, silently."""
        stop = self.process.stop
        if stop is None or not (self.ends_loop and self.is_root):
            return self.pass_on(error)
        return self.go_on(SignalExit(stop.signum, stop.status, stop.reason), error)

    @staticmethod
    def pass_on(error: BaseException | None) -> bool:
        """Go on as a cancellation, for whoever is above in the same task or awaits it."""
        if isinstance(error, asyncio.CancelledError):
            return False
        raise asyncio.CancelledError

    @staticmethod
    def is_cancellation(error: BaseException | None) -> bool:
        """Whether main ended as a cancelled task does."""
        return isinstance(error, asyncio.CancelledError)

    def raise_missed(self, error: BaseException | None, *, suppressed: bool) -> None:
        """Somebody else cancelled the task during the cleanup: that goes on now, unless it is already under way."""
        missed, self._missed = self._missed, None
        if missed is not None and (suppressed or not isinstance(error, asyncio.CancelledError)):
            raise missed

    def tasks_left(self) -> TasksLeft | None:
        """The tasks that were begun since the first guard was entered, and go on."""
        left = [
            task
            for task in asyncio.all_tasks(self.loop)
            if task is not self.task and task not in self._before and not self._has_host(task)
        ]
        return TasksLeft(names=tuple(sorted(map(_describe, left)))) if left else None

    def _has_host(self, task: asyncio.Task[Any]) -> bool:
        everybody = (*self.process.guards, *self.process.elsewhere)
        return any(isinstance(each.host, AsyncioHost) and each.host.task is task for each in everybody)

    # -- for other threads, and after the loop --

    def run_in_loop(
        self, start: Callable[[], Coroutine[Any, Any, object]], patience: float = PATIENCE
    ) -> bool:
        """Have the loop run a coroutine to its end, from another thread. Returns whether the loop took it in time."""
        taken, ended = threading.Event(), threading.Event()

        async def run() -> None:
            try:
                await start()
            finally:
                ended.set()

        def begin() -> None:
            if not given_up:
                taken.set()
                tasks.append(self.loop.create_task(run(), name="cleanup_guard"))

        tasks: list[asyncio.Task[None]] = []  # the loop itself holds tasks weakly
        given_up: list[None] = []
        if not (self.loop.is_running() and call_soon(self.loop, begin)):
            return False
        if not taken.wait(patience):
            given_up.append(None)
            if not taken.is_set():
                return False
        ended.wait()
        return True

    def run_without_loop(self, awaitable: Awaitable[T]) -> T:
        """Await something where the task cannot: in the loop if it has merely stopped, else in a new one."""

        async def wait() -> T:
            return await awaitable

        if in_main() == self.in_main and not self.loop.is_closed() and not self.loop.is_running():
            return self.loop.run_until_complete(wait())
        with asyncio.Runner() as runner:
            return runner.run(wait())


async def _contain(awaitable: Awaitable[object]) -> BaseException | None:
    """Await a callback. Not even its SystemExit leaves the task, for that would leave the loop as well."""
    try:
        await awaitable
    except BaseException as error:
        return error
    return None


def _raise(exception: BaseException) -> None:
    raise exception


def _describe(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    function = getattr(coroutine, "__qualname__", type(coroutine).__qualname__)
    return f"{function} ({task.get_name()})"


def host_here(process: Process) -> AsyncioHost:
    """The host of the running task, made on its first guard."""
    task = asyncio.current_task()
    for guard in (*process.guards, *process.elsewhere):
        if guard.host is not None and guard.host.task is task and guard.host.guards:
            return guard.host
    return AsyncioHost(process)


async def wait_for_stop(guard: Guard, timeout: float | None) -> bool:
    """See `Guard.stopped`."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()

    def wake() -> None:
        call_soon(loop, event.set)

    guard.add_waker(wake)
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        return guard.stopping
    finally:
        guard.remove_waker(wake)
    return True
