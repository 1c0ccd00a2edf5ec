"""`Guard`: a stack of cleanup callbacks that runs on return, exception, SIGTERM and SIGINT. The module that users see.

`guard` is one name for all uses: `@guard`, `@guard(grace=30)`, `with guard() as g`. `on_exit` registers on the current guard.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from contextvars import ContextVar
from enum import Enum

from cleanup_guard import _signals
from cleanup_guard._decorate import (
    ASYNC_GENERATOR,
    COROUTINE,
    awaits,
    check_callable,
    decorate,
    decorate_main,
    name_of,
)
from cleanup_guard._exits import NETS, LastWord, close_watcher, release
from cleanup_guard._forks import FORK_HOOKS
from cleanup_guard._ground.clock import grace_from_environment, seconds
from cleanup_guard._ground.errors import CleanupError, SignalExit
from cleanup_guard._ground.events import Finished, MainFailed
from cleanup_guard._ground.names import caught
from cleanup_guard._last_act import LastAct
from cleanup_guard._process import REGISTRY, Process, forget, hush_traceback, in_main, is_ours
from cleanup_guard._report import OUTBOX, Reporter, log_event
from cleanup_guard._run import Run
from cleanup_guard._stack import AsyncCallback, Callback, CallbackStack, Outcome, run_all, take_steps
from cleanup_guard._state import Move, State
from cleanup_guard._watcher import Watcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from datetime import timedelta
    from types import TracebackType
    from typing import Any, Literal, Self, TypeVar, overload

    from typing_extensions import ParamSpec

    from cleanup_guard._async import Host
    from cleanup_guard._decorate import RunsMain
    from cleanup_guard._ground.events import Hook
    from cleanup_guard._process import Stop
    from cleanup_guard._stack import Steps

    P = ParamSpec("P")
    T = TypeVar("T")
    F = TypeVar("F", bound="Callable[..., Any]")
else:

    def overload(function):
        """What `typing.overload` is at run time; typing itself is not imported for it."""
        return function


ANNOUNCEMENT = 0.1
"""Seconds that a line on stderr may keep main waiting."""


class Default(Enum):
    """Stands for an argument that was not given."""

    GRACE = "the platform's grace period: 10 s, or CLEANUP_GUARD_GRACE"

    def __repr__(self) -> str:
        return self.value


class Options:
    """What a guard was asked for, checked once."""

    __slots__ = ("exit_status", "exit_timeout", "grace", "has_grace", "hooks", "interrupt", "name", "signals")

    def __init__(  # noqa: PLR0917  # called in one place
        self,
        grace: float | timedelta | Default | None,
        signals: Iterable[int] | None,
        interrupt: bool,  # noqa: FBT001
        exit_status: int | Literal["signal"] | None,
        exit_timeout: float | timedelta | None,
        hooks: Iterable[Hook] | None,
        name: str | None,
    ) -> None:
        self.has_grace: bool = not isinstance(grace, Default)
        self.grace: float | None = None if isinstance(grace, Default) else _positive(seconds(grace, "grace"))
        self.signals: tuple[int, ...] | None = None if signals is None else caught(signals)
        self.interrupt: bool = bool(interrupt)
        self.exit_status: int | str | None = _exit_status(exit_status)
        self.exit_timeout: float | None = seconds(exit_timeout, "exit_timeout")
        self.hooks: tuple[Hook, ...] = (
            (log_event,) if hooks is None else tuple(check_callable(hook, "a hook") for hook in hooks)
        )
        self.name: str | None = name


def _positive(grace: float | None) -> float | None:
    if grace == 0:
        raise ValueError("grace must be more than 0 seconds: with none there is no time to run a callback")
    return grace


HIGHEST_STATUS = 255
"""What a parent can be told."""


def _exit_status(status: int | str | None) -> int | str | None:
    if status is None or status == "signal" or (type(status) is int and 0 <= status <= HIGHEST_STATUS):
        return status
    raise ValueError(f"exit_status must be None, a number from 0 to 255, or 'signal', not {status!r}")


class Guard:
    """A LIFO stack of cleanup callbacks, run exactly once, whatever ends the program.

    It speaks `contextlib.ExitStack`'s vocabulary, so that code moves over unchanged.

    A guard is used once: as a `with` or `async with` block, or as a decorator, which makes a guard of its own for every call.
    In a task of asyncio or trio use `async with`: a stop then cancels the task, and callbacks may be coroutine functions.

    Args:
        grace: seconds between the platform's stop signal and its SIGKILL (None: no limit). The guard is done a safety margin
            earlier. The environment variable CLEANUP_GUARD_GRACE wins over it. Of nested guards the outermost that names one
            decides.
        signals: the stop signals; by default SIGTERM and SIGINT, except that an ignored SIGINT stays ignored. () takes
            none: such a guard may be entered in any thread, and still learns of a stop that another guard received.
        interrupt: raise the stop in main (the default), or let main look at `stopping`, `wait`, `sleep` or `stopped`.
        exit_status: None for 128 + signal (death by SIGINT for Ctrl-C), a number for platforms that want it (0), or
            "signal" to die of the signal itself once the interpreter has shut down.
        exit_timeout: seconds for all callbacks together when main returned or raised; None for no limit.
        hooks: called with each event record, from a thread of ours; None for `log_event`, () for silence.
        name: what reports call this guard.

    Raises:
        TypeError, ValueError: an argument makes no sense; the message says which and why.
    """

    def __init__(
        self,
        *,
        grace: float | timedelta | Default | None = Default.GRACE,
        signals: Iterable[int] | None = None,
        interrupt: bool = True,
        exit_status: int | Literal["signal"] | None = None,
        exit_timeout: float | timedelta | None = None,
        hooks: Iterable[Hook] | None = None,
        name: str | None = None,
    ) -> None:
        self.stop_hooks: list[Callback] = []
        self.use(Options(grace, signals, interrupt, exit_status, exit_timeout, hooks, name))
        self._stack = CallbackStack()
        self._process: Process | None = None
        self.host: Host | None = None  # the task it was entered in with `async with`
        self._waiters = threading.Event()
        self._wakers: list[Callable[[], object]] = []
        self._cleaned = threading.Event()
        self._outcome: Outcome | None = None
        self._taken: list[int] = []
        self._inside_cleanup = (
            False  # entered in a callback, or while main unwinds: the stop is raised elsewhere
        )
        self.left: bool = False
        self.popped: bool = False  # made by pop_all and not entered since

    def use(self, options: Options) -> None:
        """Take over options that have been checked already."""
        self.settings: Options = options
        self.reporter: Reporter = Reporter(options.hooks)

    def __repr__(self) -> str:
        name = f" {self.settings.name!r}" if self.settings.name else ""
        return f"<Guard{name} {self.state}, {len(self._stack)} callbacks>"

    # -- registering --

    def callback(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Callable[P, T]:
        """Register a callback; the one registered last runs first. Thread-safe.

        Once this has returned the callback is run exactly once, unless it is unregistered or moved. Usable as a decorator.

        Args:
            function: what to call. Its arguments follow. A coroutine function is awaited, for which the guard must be entered
                with `async with`.

        Returns:
            The function.

        Raises:
            TypeError: it is not callable, or a coroutine function and the guard was entered with `with`.
            RuntimeError: the guard is done.
        """
        self.register(_kind_of(function)(function, args, kwargs))
        return function

    def push_async_callback(
        self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Callable[P, Awaitable[T]]:
        """As `callback`, for anything that returns an awaitable. It is awaited in a task of its own.

        Args:
            function: what to call and await. Its arguments follow.

        Returns:
            The function.

        Raises:
            TypeError: it is not callable, or the guard was entered with `with`.
            RuntimeError: the guard is done.
        """
        awaits(function)
        self.register(AsyncCallback(function, args, kwargs))
        return function

    def push(self, exit: T) -> T:  # noqa: A002  # ExitStack's name for it
        """Register the `__exit__` of a context manager, or a function with its signature. Thread-safe.

        It is told the exception that main ended with, and may suppress it by returning true, but not a stop.

        Args:
            exit: a context manager that is already entered, or a function of three arguments.

        Returns:
            What was passed.

        Raises:
            TypeError: it is neither.
            RuntimeError: the guard is done.
        """
        method = getattr(type(exit), "__exit__", None)
        function: Any = functools.partial(method, exit) if method is not None else exit
        if awaits(function):
            raise TypeError(f"{name_of(exit)!r} must be awaited: push it with push_async_exit")
        label = type(exit).__qualname__ + ".__exit__" if method is not None else None
        self.register(Callback(function, (), {}, "exit", label=label))
        return exit

    def push_async_exit(self, exit: T) -> T:  # noqa: A002  # AsyncExitStack's name for it
        """As `push`, for the `__aexit__` of an async context manager, or a function like it. It is awaited in the guarded task.

        Args:
            exit: an async context manager that is already entered, or a function of three arguments that returns an awaitable.

        Returns:
            What was passed.

        Raises:
            TypeError: it is neither, or the guard was entered with `with`.
            RuntimeError: the guard is done.
        """
        self._push_async_exit(exit, None)
        return exit

    def _push_async_exit(self, exit: object, scope: object) -> None:  # noqa: A002  # as above
        method = getattr(type(exit), "__aexit__", None)
        function: Any = functools.partial(method, exit) if method is not None else exit
        awaits(function)
        label = type(exit).__qualname__ + ".__aexit__" if method is not None else None
        callback = AsyncCallback(function, (), {}, "exit", label=label)
        callback.scope = scope
        self.register(callback)

    async def enter_async_context(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Enter an async context manager and register its exit, with no gap between the two.

        A stop may cancel its `__aenter__`, which then has to undo what it has begun, as in any `async with`.

        Args:
            manager: the async context manager.

        Returns:
            What its `__aenter__` returned.

        Raises:
            TypeError: it is not an async context manager, or the guard was entered with `with`.
            RuntimeError: the guard is done.
        """
        kind = type(manager)
        if not (hasattr(kind, "__aenter__") and hasattr(kind, "__aexit__")):
            raise TypeError(
                f"{kind.__qualname__} object is not an async context manager: it has no __aenter__ and __aexit__"
            )
        name = f"{kind.__qualname__}.__aexit__"
        self._refuse_awaiting(name)
        self._refuse_if_done(name)
        scope = None if self.host is None else self.host.open_scope()
        try:
            value = await kind.__aenter__(manager)
            try:
                self._push_async_exit(manager, scope)
            except BaseException as error:  # the guard was left meanwhile
                await kind.__aexit__(manager, type(error), error, error.__traceback__)
                raise
        except BaseException as error:
            if scope is not None:
                scope.__exit__(type(error), error, error.__traceback__)
            raise
        return value

    def enter_context(self, manager: AbstractContextManager[T]) -> T:
        """Enter a context manager and register its exit, with no gap between the two: a stop waits until both are done.

        Args:
            manager: the context manager.

        Returns:
            What its `__enter__` returned.

        Raises:
            TypeError: it is not a context manager.
            RuntimeError: the guard is done.
        """
        kind = type(manager)
        if not (hasattr(kind, "__enter__") and hasattr(kind, "__exit__")):
            raise TypeError(
                f"{kind.__qualname__} object is not a context manager: it has no __enter__ and __exit__"
            )
        self._refuse_if_done(f"{kind.__qualname__}.__exit__")
        with self.shield():
            value = kind.__enter__(manager)
            self.push(manager)
        return value

    def options(self, *, timeout: float | timedelta | None = None, name: str | None = None) -> Registrar:
        """Options for one callback, kept apart from the callback's own keywords: `g.options(timeout=2).callback(f, x=1)`.

        Args:
            timeout: seconds after which it is interrupted; the others still run. During a stop the grace period counts, too.
            name: what reports call it.

        Returns:
            An object whose `callback` registers with these options.
        """
        return Registrar(self, seconds(timeout, "timeout"), name)

    def unregister(self, function: Callable[..., object]) -> int:
        """Remove every callback of a function, as `atexit.unregister` does. Thread-safe; unknown functions are no error.

        Args:
            function: what was registered, compared with ==.

        Returns:
            How many were removed. A callback that already runs is not.
        """
        return self._stack.discard(function)

    def pop_all(self) -> Guard:
        """Move all callbacks to a new guard, which runs them when it is closed or left, at the latest when the process ends.

        Returns:
            The new guard; this one is empty and still usable.
        """
        moved = _copy(self.settings)
        moved._stack, moved.host = self._stack.move(), self.host
        process = self._process
        if process is not None and not self.left and not process.foreign:
            # Below the guards that are entered: it outlives them, holds on to their signals, and the exit net finds it there.
            moved._process, moved.popped = process, True
            moved._taken = self._taken[:]
            (process.guards if self in process.guards else process.elsewhere).insert(0, moved)
        return moved

    def on_stop(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Callable[P, T]:
        """Register a callback for the start of a stop: flip readiness, stop taking work, tell systemd. Thread-safe.

        They run in the order of registration, in a thread of their own while main still runs, and hold back the stop until
        they have returned, though not for longer than a fifth of the grace period. They do not run on a normal exit.

        Args:
            function: what to call. Its arguments follow. A coroutine function is run by the event loop.

        Returns:
            The function.

        Raises:
            TypeError: it is not callable, or a coroutine function and the guard was entered with `with`.
            RuntimeError: the guard is done.
        """
        self._refuse_if_done(name_of(function))
        hook = _kind_of(function)(function, args, kwargs)
        self._refuse_awaiting(hook.name if isinstance(hook, AsyncCallback) else None)
        self.stop_hooks.append(hook)
        return function

    def register(self, callback: Callback) -> None:
        if self.foreign:
            raise RuntimeError(
                f"callback {callback.name!r} was not registered: this guard belongs to the parent of a fork. "
                "Use a guard of the child's own."
            )
        if isinstance(callback, AsyncCallback):
            self._refuse_awaiting(callback.name)
        if not self._stack.push(callback):
            self._refuse(callback.name)
        if callback.timeout is not None and self._process is not None:
            _watch(self._process)

    def _refuse_awaiting(self, name: str | None) -> None:
        if name is not None and self._process is not None and self.host is None:
            raise TypeError(
                f"callback {name!r} is an async function, which a guard entered with `with` cannot await: "
                "enter it with `async with`, or register a plain function"
            )

    def _refuse_if_done(self, name: str) -> None:
        if self._stack.closed:
            self._refuse(name)

    def _refuse(self, name: str) -> None:
        raise RuntimeError(
            f"callback {name!r} was not registered: {self!r} is done. Register before main ends, or use a new guard."
        )

    # -- the stop, as main and its threads see it --

    @property
    def state(self) -> str:
        """A word for a log line: "new", "running", "leaving", "stopping", "unwinding", "cleaning up" or "done"."""
        if self._stack.closed:
            return State.DONE.value
        if self._process is None:
            return "new"
        return self._process.machine.state.value

    @property
    def stopping(self) -> bool:
        """Whether a stop has arrived, or this guard has begun its cleanup. Any thread; costs next to nothing."""
        process = self._process
        return self.left or (process is not None and process.stop is not None)

    @property
    def reason(self) -> str | None:
        """What stopped the process: the signal's name or what `request_stop` was told; None as long as nothing has."""
        process = self._process
        stop = None if process is None else process.stop
        return None if stop is None else stop.reason

    def wait(self, timeout: float | timedelta | None = None) -> bool:
        """Wait for the stop, or for the guard to begin its cleanup. Any thread; all waiters wake at once.

        Args:
            timeout: seconds; None waits without limit.

        Returns:
            Whether it came.
        """
        return self._waiters.wait(seconds(timeout, "timeout")) or self.stopping

    def sleep(self, duration: float | timedelta) -> bool:
        """Sleep, but no longer than until a stop. Any thread.

        Args:
            duration: seconds.

        Returns:
            True if it slept to the end, False if there is a stop: `while g.sleep(5): work()`.
        """
        return not self.wait(duration)

    async def stopped(self, timeout: float | timedelta | None = None) -> bool:  # noqa: ASYNC109  # as `wait` has it
        """`wait` for coroutines: `while not await g.stopped(timeout=5): work()`. On any event loop, in any thread.

        Args:
            timeout: seconds; None waits without limit.

        Returns:
            Whether the stop, or the guard's cleanup, came.
        """
        from cleanup_guard._async import backend

        return await backend().wait_for_stop(self, seconds(timeout, "timeout"))

    def add_waker(self, waker: Callable[[], object]) -> None:
        """Have a function called, from any thread, when `wait` would return."""
        self._wakers.append(waker)
        if self._waiters.is_set():
            waker()

    def remove_waker(self, waker: Callable[[], object]) -> None:
        """Undo `add_waker`."""
        self._wakers.remove(waker)

    def remaining(self) -> float | None:
        """Seconds left of the grace period for callbacks, the safety margin already taken off. Any thread.

        Returns:
            None where there is no limit: no stop has arrived, or `grace=None`. Never negative.
        """
        process = self._process
        stop = None if process is None else process.stop
        return None if process is None or stop is None else stop.budget.remaining(process.clock())

    def request_stop(self, reason: str = "stop requested", *, status: int = 0) -> bool:
        """Stop the process as a signal would, without one: on_stop, unwinding, callbacks, inside the grace period. Any thread.

        Args:
            reason: said in the report, and by `SignalExit`.
            status: the exit status of the process.

        Returns:
            Whether this call began the stop; False if one was under way.

        Raises:
            RuntimeError: the guard is not entered.
        """
        process = self._process
        if process is None or self.left:
            raise RuntimeError(f"request_stop({reason!r}) has no process to stop: {self!r} is not entered")
        if not process.claim_stop(None, reason, status, os.getpid()):
            return False
        _watch(process)
        if process.handlers.previous:
            process.deliver()
        return True

    def shield(self) -> Shield:
        """A critical section, for `with` and `async with`: a stop that arrives inside is delivered when the outermost one ends.

        Only main is ever interrupted, so in another thread it does nothing. When seven tenths of the grace period have passed
        the stop is delivered all the same.

        In a task use `async with`: once a stop has come, no task begins a section that would hold it back further, but
        waits at the entry until it is cancelled.
        """
        return Shield(self._process)

    # -- entering and leaving --

    def __enter__(self) -> Self:
        """Take the signals and become the current guard.

        Raises:
            RuntimeError: it was used before, or signals cannot be taken because this is not the main thread.
            TypeError: one of its callbacks must be awaited.
            ValueError: CLEANUP_GUARD_GRACE is no duration.
        """
        awaited = self._stack.awaited or next(
            (hook.name for hook in self.stop_hooks if isinstance(hook, AsyncCallback)), None
        )
        if awaited is not None:
            raise TypeError(
                f"callback {awaited!r} is an async function: enter the guard with `async with`, not `with`"
            )
        self._enter(None)
        return self

    async def __aenter__(self) -> Self:
        """As `__enter__`, in a task of asyncio or trio, which a stop then cancels.

        Raises:
            RuntimeError, ValueError: as `__enter__`.
        """
        from cleanup_guard._async import backend

        try:
            self._enter(backend().host_here)
        except BaseException as error:
            if self.host is not None:
                self.host.left(None, error)
            raise
        CONTEXT.set((*CONTEXT.get(), self))
        return self

    def _enter(self, find_host: Callable[[Process], Host] | None) -> None:
        if self.popped:
            self._adopt()
        if self._process is not None or self._stack.closed:
            raise RuntimeError(f"{self!r} was entered before: a guard is used once, make a new one")
        grace_from_environment(os.environ)  # type: ignore[arg-type]
        main = in_main()
        if not main and self.settings.signals != ():
            raise RuntimeError(
                f"a guard was entered in thread {threading.current_thread().name!r}, where no signal would ever reach it: "
                "enter it in the main thread, or pass signals=()"
            )
        process = REGISTRY.get()
        if process.machine.state is State.DONE and main:
            forget(process)
            process = REGISTRY.get()
        NETS.stretch()
        FORK_HOOKS.register()
        told_already = process.machine.state is State.UNWINDING
        if find_host is not None:
            self.host = find_host(process)
            told_already = told_already and bool(self.host.guards)
            self.host.guards.append(self)
        self._inside_cleanup = process.in_callback or told_already
        if main:
            self._enter_in_main(process)
        else:
            self._process = process
            process.elsewhere.append(self)
            _THREADS.guards.append(self)

    def _adopt(self) -> None:
        """What `pop_all` made is entered: from now on it is a guard like any other."""
        process = self._process
        assert process is not None
        for guards in (process.guards, process.elsewhere):
            if self in guards:
                guards.remove(self)
        self._process = None
        self.popped = False

    def _enter_in_main(self, process: Process) -> None:
        self._process = process
        process.guards.append(self)
        process.machine.fire(Move.ENTER)
        try:
            signums = self.settings.signals
            wanted = _signals.DEFAULT_SIGNALS if signums is None else signums
            self._taken = process.handlers.take(wanted, insist=signums is not None)
            if self._taken:
                _watch(process)
        except BaseException:
            take_steps(self._leave(None), self._block)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Run the callbacks, last registered first, and give the signals back.

        Raises:
            CleanupError: callbacks failed on a normal exit.
            SignalExit, KeyboardInterrupt: a stop has arrived, and main did not end because of it.
        """
        process = self._process
        if process is None or process.foreign or self.left:
            return False
        return take_steps(self._leave(error), self._block)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Run the callbacks, last registered first, awaiting those that are async, and give the signals back.

        A cancellation that comes from elsewhere meanwhile is raised when they are done.

        Raises:
            CleanupError: callbacks failed on a normal exit.
            SignalExit, KeyboardInterrupt: a stop has arrived, and this task is the one for which the loop runs.
            asyncio.CancelledError: a stop has arrived, and this is another task. The loop raises the stop itself.
        """
        process, host = self._process, self.host
        if process is None or host is None or process.foreign or self.left:
            return False
        CONTEXT.set(tuple(each for each in CONTEXT.get() if each is not self))
        host.leaving += 1
        try:
            suppressed = await host.take_steps(self._leave(error))
        except BaseException as raised:
            host.left(error, raised)
            raise
        finally:
            host.leaving -= 1
        suppressed = host.left(None if suppressed else error, None) or suppressed
        if suppressed or error is None:
            await host.be_told()
        return suppressed

    async def aclose(self) -> None:
        """`close` for a guard with async callbacks: leave it now. Closing again does nothing.

        Raises:
            CleanupError: callbacks failed.
        """
        if self.host is None and self._process is not None:
            self.close()
            return
        if self._process is None and not self._stack.closed:
            from cleanup_guard._async import backend

            self.host = backend().host_here(self._enter_alone())
            self.host.guards.append(self)
        await self.__aexit__(None, None, None)

    def close(self) -> None:
        """Run the callbacks now, as leaving the `with` block would. Closing again does nothing.

        Raises:
            CleanupError: callbacks failed.
            RuntimeError: the guard was entered with `async with`, or has callbacks that must be awaited.
        """
        if (self.host is not None or self._stack.awaited) and not self.left:
            raise RuntimeError(f"{self!r} has to be awaited: use `await guard.aclose()`")
        if self._process is not None:
            self.__exit__(None, None, None)
        elif not self._stack.closed:
            self._enter_alone()
            take_steps(self._leave(None), self._block)

    def _enter_alone(self) -> Process:
        """Be entered with no signals and no stop, only to be left."""
        self._process = process = Process()
        process.guards.append(self)
        process.machine.fire(Move.ENTER)
        return process

    def leave_at_exit(self) -> None:
        """For the exit nets: as `__exit__`, but failures are told, not raised, and decide the exit status."""
        process = self._process
        assert process is not None
        outcome = take_steps(self._clean_up(None), self._block)
        if process.last_act is not None and self in process.guards:
            process.last_act.after_exit(outcome)
        self._detach(process)
        if process.stop is None and outcome.failures:
            LastWord(None, 1).say()

    def _leave(self, error: BaseException | None) -> Steps[bool]:
        process = self._process
        assert process is not None
        raises_stop = self in process.guards and not (self.popped or self._inside_cleanup)
        outcome = yield from self._clean_up(error)
        try:
            if isinstance(error, LastAct) and raises_stop:
                error.after(outcome)
        finally:
            self._detach(process)
        if process.stop is not None and raises_stop:
            return self._end_of_stop(process, error)
        host = self.host
        if (
            process.stop is not None
            and host is not None
            and host.cancels
            and not (self.popped or host.in_main)
        ):
            return self._end_of_loop(process.stop, host, error)
        _raise_failures(outcome, error)
        return outcome.suppressed

    def _clean_up(self, error: BaseException | None) -> Steps[Outcome]:
        process, host = self._process, self.host
        assert process is not None
        if self in process.guards:
            if process.stop is not None and not self.popped:
                self._leave_jumped_over(process)
            process.machine.fire(Move.LEAVE)
            if process.watcher is not None and not process.watcher.hooks_are_over():
                yield process.watcher.hooks_are_over
        if process.stop is not None:
            if host is not None and not host.others_are_uncritical():
                yield host.others_are_uncritical  # they may be using what the callbacks close
            process.announce()
            limit = time.monotonic() + ANNOUNCEMENT
            if not process.told:  # let the watcher say that a stop began before main says that it ended
                yield lambda: process.told or time.monotonic() >= limit
        self.left = True
        self.wake_waiters()
        yield from self._run_callbacks(error)
        if not self._cleaned.is_set():
            yield self._cleaned.is_set
        outcome, self._outcome = (
            self._outcome,
            None,
        )  # it holds main's exception, whose death the watcher waits for
        assert outcome is not None
        if host is not None and host.guards == [self]:
            yield from self._let_others_end(process, host)
        return outcome

    def _let_others_end(self, process: Process, host: Host) -> Steps[None]:
        """The task is about to be free of guards, and after a stop to end its loop, which cuts the other tasks short."""
        left = host.tasks_left()
        if left is not None:
            self.reporter.emit(left)
        if process.stop is not None and not host.others_are_uncritical():
            yield host.others_are_uncritical
        if process.stop is not None and host.is_root and not host.others_are_clean():
            yield host.others_are_clean

    def _leave_jumped_over(self, process: Process) -> None:
        """Guards inside this one that are still entered come first: CPython jumped over their exits (hazard H9)."""
        if self.host is not None:
            return  # its task is cancelled where it waits, which jumps over nothing
        inside = process.guards[process.guards.index(self) + 1 :]
        for guard in reversed(inside):
            if guard in process.guards and not (guard.host is not None and guard.host.alive):
                guard.leave_at_exit()

    def run_callbacks(self, error: BaseException | None) -> None:
        """Run what is left, unless somebody else has the turn. For the take-over."""
        host, process = self.host, self._process
        if host is not None and process is not None and process.stop is not None:
            budget, now = process.stop.budget, process.clock()
            patience = min(1.0, (budget.at(budget.INTERRUPT) - now) / 2)  # the callbacks need the rest
            if host.run_in_loop(lambda: host.take_steps(self._run_callbacks(error)), patience):
                return
        take_steps(self._run_callbacks(error), self._block)

    def _block(self, pending: AsyncCallback | Callable[[], bool]) -> object:
        """Wait in this thread."""
        if isinstance(pending, AsyncCallback):
            assert self.host is not None
            return self.host.run_without_loop(pending.awaitable)
        while not pending():
            time.sleep(0.001)
        return None

    def _run_callbacks(self, error: BaseException | None) -> Steps[None]:
        process = self._process
        assert process is not None
        if not self._stack.take_turn():
            return
        self.wake_waiters()
        limit = self.settings.exit_timeout if process.stop is None else None
        run = Run(process, self.reporter, limit, can_poke=bool(process.handlers.previous))
        process.runs.append(run)
        if limit is not None or (process.watcher is None and self._stack.has_timeouts):
            _watch(process)
        try:
            self._outcome = yield from run_all(self._stack, error, run)
        finally:
            process.runs.remove(run)
            self._count(process, run)
            self._cleaned.set()

    def _count(self, process: Process, run: Run) -> None:
        process.totals[0] += run.count
        process.totals[1] += run.failures
        if process.stop is None and self.reporter.wants_details:
            took = process.clock() - run.began_at
            self.reporter.emit(
                Finished(reason=None, callbacks=run.count, failures=run.failures, seconds=took)
            )

    def _detach(self, process: Process) -> None:
        """Leave the registry. The last one gives everything back, or after a stop holds on until the process is gone."""
        if self.host is not None and self in self.host.guards:
            self.host.guards.remove(self)
        if self in process.elsewhere:
            process.elsewhere.remove(self)
            if self in _THREADS.guards:
                _THREADS.guards.remove(self)
            if not process.guards and not process.elsewhere and process.stop is None:
                close_watcher(process)
            return
        stop = process.stop
        reporter = process.reporter()
        process.guards.remove(self)
        if stop is None:
            wanted = {signum for guard in process.guards for signum in guard._taken}
            for lost in process.handlers.give_back(signum for signum in self._taken if signum not in wanted):
                process.tell_replaced(lost)
        if any(guard.left for guard in process.guards):
            return  # inside a callback of an outer guard
        last = not process.guards
        process.machine.fire(Move.FINISH if last else Move.NEXT)
        if not last:
            return
        if stop is None:
            release(process)
        else:
            process.tell_finished(reporter)
        left = None if stop is None else stop.budget.remaining(process.clock())
        OUTBOX.drain(1.0 if left is None else min(1.0, left))

    @staticmethod
    def _end_of_loop(stop: Stop, host: Host, error: BaseException | None) -> bool:
        """A stop ends a loop in another thread; what its main task raises ends the thread, silently, and not the process."""
        if not host.ends_loop:
            return host.pass_on(error)
        return host.go_on(SystemExit(stop.status), error)  # threading is silent about no other exception

    def _end_of_stop(self, process: Process, error: BaseException | None) -> bool:
        """A stop goes on upwards: as main's exception if that is how main ended, else as a new one."""
        stop, host = process.stop, self.host
        assert stop is not None
        if host is not None and not host.ends_loop:
            return host.pass_on(error)
        status = process.exit_status if self.settings.exit_status is None else self.settings.exit_status
        if status == "signal" and stop.signum is not None and stop.signum != _signals.SIGINT:
            LastWord(stop.signum, stop.status).say()
        if host is not None and host.wraps_exceptions:
            dies = status == "signal" or (status is None and stop.signum == _signals.SIGINT)
            LastWord(stop.signum if dies else None, status if isinstance(status, int) else stop.status).say()
            hush_traceback()
        if is_ours(error) and (
            not isinstance(status, int) or (isinstance(error, SignalExit) and error.code == status)
        ):
            return False
        leaves = isinstance(error, (SystemExit, KeyboardInterrupt, GeneratorExit))
        if error is not None and not leaves and not (host is not None and host.is_cancellation(error)):
            self.reporter.emit(MainFailed(error=error))
            OUTBOX.drain(0.3)
        if host is not None:
            process.end_in_task()
            return host.go_on(process.make_exception(status if isinstance(status, int) else None), error)
        raise process.make_exception(status if isinstance(status, int) else None)

    @property
    def foreign(self) -> bool:
        """Whether this is a fork child, and the guard its parent's."""
        return self._process is not None and self._process.foreign

    def wake_waiters(self) -> None:
        """End every `wait`, `sleep` and `stopped`."""
        self._waiters.set()
        for waker in self._wakers[:]:
            waker()

    @property
    def pending(self) -> list[str]:
        """The names of the callbacks that have not run, in the order in which they would."""
        return self._stack.names()

    # -- decorating --

    def __call__(self, function: F) -> F:
        """Decorate a function, generator function or an async one: each call runs inside its own guard with these options.

        Args:
            function: what to guard. Its signature and type are kept.

        Returns:
            The guarded function. `current_guard()` is its guard while it runs.

        Raises:
            TypeError: it is not callable.
        """
        decorated: F = decorate(function, functools.partial(_copy, self.settings))
        return decorated


def _kind_of(function: object) -> type[Callback]:
    code = getattr(function, "__code__", None)
    if code is not None and not code.co_flags & (COROUTINE | ASYNC_GENERATOR):
        return Callback  # what nearly everybody registers
    return AsyncCallback if awaits(function) else Callback


class Registrar:
    """Registers callbacks with a timeout and a name, without taking keywords from the callbacks: see `Guard.options`."""

    def __init__(self, guard: Guard, timeout: float | None, name: str | None) -> None:
        self._guard = guard
        self._timeout = timeout
        self._name = name

    def callback(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Callable[P, T]:
        """As `Guard.callback`."""
        self._guard.register(
            _kind_of(function)(function, args, kwargs, "callback", self._timeout, self._name)
        )
        return function

    def push_async_callback(
        self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Callable[P, Awaitable[T]]:
        """As `Guard.push_async_callback`."""
        awaits(function)
        self._guard.register(AsyncCallback(function, args, kwargs, "callback", self._timeout, self._name))
        return function


class Shield:
    """See `Guard.shield`. May be nested and reused, not shared between threads or tasks."""

    def __init__(self, process: Process | None) -> None:
        self._process = process if process is not None and in_main() else None
        self._held: list[object] = []

    def __enter__(self) -> None:
        if self._process is not None:
            self._process.shields += 1

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        process = self._process
        if process is not None:
            process.shields -= 1
            if not process.foreign:
                process.deliver()

    async def __aenter__(self) -> None:
        from cleanup_guard._async import backend

        if self._process is not None:
            self._held.append(await backend().enter_shield(self._process))

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from cleanup_guard._async import backend

        process = self._process
        if process is not None and not process.foreign:
            await backend().leave_shield(process, self._held.pop(), failed=error is not None)


class Threads(threading.local):
    """The guards that were entered in this thread, if it is not main."""

    def __init__(self) -> None:
        self.guards: list[Guard] = []


_THREADS = Threads()

CONTEXT: ContextVar[tuple[Guard, ...]] = ContextVar("cleanup_guard", default=())
"""The guards that were entered with `async with` around what runs, outermost first; child tasks inherit it."""


def _copy(options: Options) -> Guard:
    guard = Guard()
    guard.use(options)
    return guard


def _watch(process: Process) -> None:
    """See to it that the watcher runs, and hears signals if there are any to hear."""
    with REGISTRY.lock:
        if process.watcher is None:
            process.watcher = Watcher(process)
            process.watcher.start()
        watcher = process.watcher
    if process.handlers.previous and in_main():
        watcher.pipe.wire()
    watcher.pipe.wake()


def _raise_failures(outcome: Outcome, error: BaseException | None) -> None:
    """After a normal exit: a callback's own `sys.exit` or Ctrl-C goes on as it is, everything else in one group."""
    if not outcome.failures:
        return
    for failure in reversed(outcome.failures):
        if not isinstance(failure, Exception):
            raise failure
    exceptions = [failure for failure in outcome.failures if isinstance(failure, Exception)]
    plural = "" if len(exceptions) == 1 else "s"
    group = CleanupError(f"{len(exceptions)} cleanup callback{plural} failed", exceptions)
    group.__context__ = error
    raise group


# -- the names that users import --


@overload
def guard(function: F, /) -> F: ...
@overload
def guard(  # noqa: F811  # ruff does not know our `overload`
    *,
    run: Literal["asyncio", "uvloop", "trio"],
    grace: float | timedelta | Default | None = ...,
    signals: Iterable[int] | None = ...,
    interrupt: bool = ...,
    exit_status: int | Literal["signal"] | None = ...,
    exit_timeout: float | timedelta | None = ...,
    hooks: Iterable[Hook] | None = ...,
    name: str | None = ...,
) -> RunsMain: ...
@overload
def guard(  # noqa: F811  # as above
    *,
    grace: float | timedelta | Default | None = ...,
    signals: Iterable[int] | None = ...,
    interrupt: bool = ...,
    exit_status: int | Literal["signal"] | None = ...,
    exit_timeout: float | timedelta | None = ...,
    hooks: Iterable[Hook] | None = ...,
    name: str | None = ...,
) -> Guard: ...
def guard(  # noqa: F811  # as above
    function: Callable[..., Any] | None = None, /, *, run: str | None = None, **options: Any
) -> Any:
    """Run cleanup callbacks on return, exception, SIGTERM and SIGINT: `@guard`, `@guard(...)`, `with guard() as g`.

    In a task of asyncio or trio: `@guard` on an `async def`, `async with guard() as g`.

    Args:
        function: with `@guard`, the function to guard; generator, coroutine and async generator functions, too.
        run: with `@guard(run="asyncio")` on `async def main()`, the event loop that runs it: "asyncio", "uvloop" or "trio".
            What is decorated becomes a plain function, which returns what the coroutine returned.
        **options: see `Guard`.

    Returns:
        The guarded function, or a `Guard`, which is a context manager and a decorator.

    Raises:
        TypeError, ValueError: what is decorated or an option makes no sense.
        ModuleNotFoundError: uvloop or trio is not installed.
    """
    made = Guard(**options)
    if run is not None:
        return decorate_main(run, made)
    return made if function is None else made(function)


def current_guard() -> Guard | None:
    """The guard that `on_exit` registers on: the innermost of this thread, else of main, else None. Any thread."""
    for each in reversed(_THREADS.guards):
        if not each.foreign:  # as those of a thread that has forked
            return each
    process = REGISTRY.process
    entered = [each for each in (process.guards[:] if process is not None else []) if not each.popped]
    around = CONTEXT.get()
    for each in reversed(entered):
        if each.host is None or each in around:
            return each
    return entered[-1] if entered else None  # in a task or callback that knows of none


def on_exit(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Callable[P, T]:
    """Register a callback on the current guard, or without one on a guard for the process that is set up on the spot.

    A drop-in for `atexit.register` that also runs on SIGTERM and SIGINT, and before the interpreter waits for threads.
    Usable as a decorator. Thread-safe, but the first use without any guard must be in the main thread.

    Args:
        function: what to call. Its arguments follow. A coroutine function needs a guard that was entered with `async with`.

    Returns:
        The function.

    Raises:
        TypeError: it is not callable, or a coroutine function that no guard here could await.
        RuntimeError: there is no guard, and this is not the main thread.
    """
    must_await = awaits(function)
    current = current_guard()
    if current is None:
        if must_await:
            raise TypeError(
                f"callback {name_of(function)!r} is an async function, and no guard is active that could await it: "
                "register it inside `async with guard()`"
            )
        if not in_main():
            raise RuntimeError(
                f"on_exit was called in thread {threading.current_thread().name!r} while no guard is active, and only the main "
                "thread can catch signals: guard main(), or call on_exit in the main thread first"
            )
        current = Guard(name="process")
        current.__enter__()
        NETS.stretch_in_child()
    return current.callback(function, *args, **kwargs)


def unregister(function: Callable[..., object]) -> int:
    """Undo `on_exit`: remove every callback of this function from all guards, as `atexit.unregister` does. Thread-safe.

    Args:
        function: what was registered, compared with ==.

    Returns:
        How many were removed; a function that was never registered is no error.
    """
    process = REGISTRY.process
    if process is None:
        return 0
    return sum(each.unregister(function) for each in (*process.guards, *process.elsewhere))
