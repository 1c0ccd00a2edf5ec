"""Guards on an event loop: what is different when main is a task. `on_asyncio.py` and `on_trio.py` say it to their loops.

The stop itself, its clock and its callbacks are those of any guard. What an event loop changes:

1. Nothing is raised in main's frame, where some other task may be running. The watcher asks the loop to cancel the guarded
   task, which also wakes a loop that waits (hazard H57), and the loop does it between two steps of the task. Only if
   the loop does not answer, because somebody blocks it, the stop is raised in main as it is without a loop.
2. What waits in a guard's exit is awaited, protected from any cancellation. See `Steps`.
3. Callbacks of a guard whose loop has ended, or is blocked when the watcher takes over, are awaited in a new loop.
"""

from __future__ import annotations

import threading

from cleanup_guard._ground.clock import inf
from cleanup_guard._ground.once import Once
from cleanup_guard._hosts.beside import begin_in_thread
from cleanup_guard._process import native
from cleanup_guard._process.native import in_main
from cleanup_guard._stop.history import UNWINDING
from cleanup_guard._stop.running import Aside
from cleanup_guard._stop.stack import AsyncCallback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from contextlib import AbstractContextManager
    from typing import Any, Protocol, TypeVar

    from cleanup_guard._ground.events import TasksLeft
    from cleanup_guard._ground.once import Waiters
    from cleanup_guard._process.process import Process
    from cleanup_guard._process.roster import Member
    from cleanup_guard._stop.running import Pending
    from cleanup_guard._stop.stop import Stop

    T = TypeVar("T")

    class Backend(Protocol):
        """A module for one kind of loop. Its functions are called inside one."""

        def host_here(self, process: Process) -> Host: ...
        async def wait_for_stop(self, waiters: Waiters, timeout: float | None) -> bool: ...  # noqa: ASYNC109
        async def enter_shield(self, process: Process) -> object: ...
        async def leave_shield(self, process: Process, held: object, *, failed: bool) -> None: ...


POLL = 0.005
"""Seconds between two looks at what has no wakeup of its own: a hook in a thread, the end of another guard."""

TRIES = 100
"""How often a task is cancelled anew because somebody's signal handler raised in the middle of it."""


def is_bound_to_task(callback: AsyncCallback) -> bool:
    """Whether this is the exit of a task group, nursery or scope of a library for loops, which only its own task can leave."""
    manager = next(iter(getattr(callback.function, "args", ())), None)
    return type(manager).__module__.startswith(("asyncio.", "trio.", "anyio."))


class Host:
    """A task with guards in it: all guards of one task share it."""

    wraps_exceptions: bool = False
    """Whether the loop wraps what a task raises in an exception group, which hides an exit status from Python."""

    in_loop: bool = True
    leaving: int = 0
    """Guards that the task is leaving: nothing cuts their callbacks short."""

    _asking: Asking | None = None

    def __init__(self, process: Process) -> None:
        self.process = process
        self.in_main: bool = in_main()
        self.members: dict[Member, None] = {}  # outermost first
        # Of another guard, whose stop is not this task's business.
        self.in_callback: bool = process.in_callback

    @property
    def asking(self) -> Asking:
        """Asks the task to end: one, whoever has the first question. Nobody has one before a stop."""
        if self._asking is not None:
            return self._asking
        first: Asking = self.__dict__.setdefault("_asking", Asking(self))
        return first

    # -- what each kind of loop does in its own way --

    @property
    def alive(self) -> bool:
        """Whether the task can still be cancelled. Any thread."""
        raise NotImplementedError

    def call_soon(self, function: Callable[[], object]) -> bool:
        """Have the loop call a function, from any thread. Returns whether there still is a loop."""
        raise NotImplementedError

    def cancel_task(self, stop: Stop) -> None:
        """Cancel the task, in its loop."""
        raise NotImplementedError

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin a task that nobody waits for and that raises nothing, in the loop."""
        raise NotImplementedError

    def wait(self, pending: AsyncCallback | Callable[[], bool]) -> Awaitable[object] | None:
        """What is to be awaited for a step, protected from cancellation; None if it is over."""
        raise NotImplementedError

    def open_scope(self) -> AbstractContextManager[object] | None:
        """What has to be entered before an async context manager, and is left after it, if anything has."""
        return None

    def run_without_loop(self, awaitable: Awaitable[T]) -> T:
        """Await something in a thread where no loop runs."""
        raise NotImplementedError

    def is_cancellation(self, error: BaseException) -> bool:
        """Whether main ended as a cancelled task does."""
        raise NotImplementedError

    @property
    def is_root(self) -> bool:
        """Whether the loop runs until this task ends, so that what it raises is raised by whoever runs the loop."""
        raise NotImplementedError

    def go_on(self, exception: BaseException, error: BaseException | None) -> bool:
        """The stop goes on upwards from the task's outermost guard: what `__aexit__` returns or raises."""
        raise NotImplementedError

    def pass_on(self, error: BaseException | None) -> bool:
        """The stop goes on as a cancellation, to guards around in the same task and to those who await it."""
        raise NotImplementedError

    async def be_told(self) -> None:
        """A guard inside another one was left while a stop came: the task is told of it here."""
        raise NotImplementedError

    def others_are_uncritical(self) -> bool:
        """Whether no other task is in a critical section that a stop must wait for."""
        return True

    def left(self, error: BaseException | None, raised: BaseException | None) -> bool:
        """A guard was left with this exception, and raises that one. Returns whether the first goes no further."""
        raise NotImplementedError

    @property
    def may_be_interrupted(self) -> bool:
        """Whether an exception can be raised in main right now, without harm to the loop itself. Main's signal handler only."""
        return True

    def is_on_its_way(self) -> bool:
        """Whether the task, which waits, is on its way out because of the stop. In its loop."""
        raise NotImplementedError

    @property
    def holds(self) -> bool:
        """Whether its loop keeps the stop's exception until the loop ends. Any thread."""
        return False

    def lift_shields(self) -> None:
        """Critical sections hold the stop back no more. Any thread."""

    def tasks_left(self) -> TasksLeft | None:
        """The tasks that were begun inside, go on, and have nobody who waits for them."""
        return None

    # -- leaving --

    def let_task_leave(self) -> None:
        """At the end of the process: the task may be in the middle of leaving a guard, in a loop that does not run any more."""

    def wait_without_loop(self, pending: Pending) -> object:
        """Take a step in a thread where no loop runs."""
        if isinstance(pending, Aside):
            pending.begin_anew()
            begin_in_thread(pending, self.wait_without_loop)
            return None
        if isinstance(pending, AsyncCallback):
            return self.run_without_loop(pending.take_awaitable())
        while not pending():
            native.sleep(0.001)
        return None

    def others_are_clean(self) -> bool:
        """Whether no other task of this thread has guards that are entered."""
        for each in list(self.process.roster.hosts.values()):
            if isinstance(each, Host) and each is not self and each.in_main == self.in_main and each.members:
                return False
        return True

    # -- for other threads --

    def run_here(self, start: Callable[[], Coroutine[Any, Any, object]], patience: float) -> bool:
        """Have the loop run a coroutine to its end, from another thread. Returns whether the loop took it in time.

        Args:
            start: gives the coroutine.
            patience: seconds in which the loop must have begun with it.

        Raises:
            BaseException: whatever the coroutine raised.
        """
        taken, ended = threading.Event(), threading.Event()
        errors: list[BaseException] = []
        offer = Once()

        async def run() -> None:
            try:
                await start()
            except BaseException as error:
                errors.append(error)
            finally:
                ended.set()

        def begin() -> None:
            if offer.claim():  # else it took too long
                taken.set()
                self.spawn(run)

        if not self.call_soon(begin):
            return False
        in_time = taken.wait(min(max(0.0, patience), threading.TIMEOUT_MAX))
        if not in_time and offer.claim():
            return False
        ended.wait()
        if errors:
            raise errors[0]
        return True


class Asking:
    """Asks a task's loop to cancel it, and what came of that. Any thread.

    Attributes:
        asked_at: when it was asked and has not answered since; infinity if it owes no answer.
        cancels: how often the task was cancelled by us.
    """

    __slots__ = ("_host", "_looks", "_on_its_way", "_once", "asked_at", "cancels")

    def __init__(self, host: Host) -> None:
        self._host: Host = host
        self.asked_at: float = inf
        self.cancels: int = 0
        self._once: Once = Once()
        self._on_its_way: bool = True  # when it was last looked at
        self._looks: bool = False  # the loop is to look

    def ask(self) -> None:
        """Ask it, once."""
        host = self._host
        if not host.in_callback and host.members and self._once.claim():
            self.insist()

    def insist(self) -> None:
        """Ask it, be it again."""
        self.asked_at = self._host.process.clock()
        self._host.call_soon(self.cancel)

    def cancel(self) -> None:
        """Cancel the task, in its loop, whatever somebody's signal handler raises meanwhile; that goes on afterwards."""
        foreign: BaseException | None = None
        for _ in range(TRIES):
            try:
                self._cancel()
                break
            except BaseException as error:
                foreign = error
        if foreign is not None:
            raise foreign

    def _cancel(self) -> None:
        host, process = self._host, self._host.process
        stop = process.stop
        self.asked_at = inf
        if stop is None or host.in_callback or not host.alive or host.leaving or not host.members:
            return
        if not process.may_tell:
            self._once.give_back()  # a shield was entered meanwhile
            return
        if host.in_main:
            process.delivery.raised()
            stop.history.enters(UNWINDING, process.clock())
        self.cancels += 1
        self._on_its_way = True  # until something else is seen
        host.cancel_task(stop)

    @property
    def handling(self) -> bool:
        """Whether the task is on its way out because of the stop, or has not been told of it.

        It is looked at in its loop, between two of its steps: this is what was seen last.
        """
        host = self._host
        if not self.cancels or host.leaving or not host.alive:
            return True
        if not self._looks:
            self._looks = True
            if not host.call_soon(self._look):
                self._looks = False
        return self._on_its_way

    def _look(self) -> None:
        self._looks = False
        self._on_its_way = self._host.is_on_its_way()

    def withdraw(self) -> None:
        """The stop was raised in main: the task is not to be cancelled as well."""
        self._once.claim()
