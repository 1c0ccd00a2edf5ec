"""`Guard`: a stack of cleanup callbacks that runs on return, exception, SIGTERM and SIGINT. The module that users see.

`guard` is one name for all uses: `@guard`, `@guard(grace=30)`, `with guard() as g`. `on_exit` registers on the current guard.
"""

from __future__ import annotations

import functools
from types import FunctionType

from cleanup_guard._ground.once import Waiters
from cleanup_guard._guard.decorate import AWAITED, awaits, called, decorate, decorate_main, entry_of, kind_of
from cleanup_guard._guard.in_sight import StopInSight
from cleanup_guard._guard.options import Default, options_of
from cleanup_guard._stop.stack import AsyncCallback, Callback, CallbackStack, proper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from datetime import timedelta
    from os import PathLike
    from types import TracebackType
    from typing import Any, Literal, Self, TypeVar, overload

    from typing_extensions import ParamSpec

    from cleanup_guard._ground.events import Hook
    from cleanup_guard._guard.decorate import RunsMain
    from cleanup_guard._guard.options import Options
    from cleanup_guard._guard.registrar import Registrar
    from cleanup_guard._guard.stay import Stay

    P = ParamSpec("P")
    T = TypeVar("T")
    F = TypeVar("F", bound="Callable[..., Any]")
else:

    def overload(function):
        """What `typing.overload` is at run time; typing itself is not imported for it."""
        return function


class Guard(StopInSight):
    """A LIFO stack of cleanup callbacks, run exactly once, whatever ends the program.

    It speaks `contextlib.ExitStack`'s vocabulary, so that code moves over unchanged.

    A guard is used once: as a `with` or `async with` block, or as a decorator, which makes a guard of its own for every call.
    In a task of asyncio or trio use `async with`: a stop then cancels the task, and callbacks may be coroutine functions.

    During a stop the switch interval of the GIL is short (`sys.setswitchinterval`): busy threads do not hold up callbacks.

    Args:
        grace: seconds between the platform's stop signal and its SIGKILL (None: no limit). The guard is done a safety margin
            earlier. The environment variable CLEANUP_GUARD_GRACE wins over it. Of nested guards the outermost that names one
            decides.
        signals: the stop signals; by default SIGTERM and SIGINT, except that an ignored SIGINT stays ignored. () takes
            none: such a guard may be entered in any thread, and still learns of a stop that another guard received.
        interrupt: raise the stop in main (the default), or let main look at `stopping`, `wait`, `sleep` or `stopped`.
        insist: a stop signal for which somebody else's handler was there before is that one's to deal with: it is called, and
            main goes on until it ends in the way of whoever set it. True: it is called, and then main is stopped.
        exit_status: None for 128 + signal (death by SIGINT for Ctrl-C), a number for platforms that want it (0), or
            "signal" to die of the signal itself once the interpreter has shut down.
        exit_timeout: seconds for all callbacks together when main returned or raised; None for no limit.
        hooks: called with each event record, from a thread of ours; None for `log_event`, () for silence.
        name: what reports call this guard.
        drain: seconds for which the program serves on when a stop has come, ready no more, before anything happens to it: until
            whoever balances the load has heard of it. At most half of the grace period; Ctrl-C again ends it. None: no time.
        ready_file: is there while the program is ready (see `ready`), for probes that look for a file.

    Raises:
        TypeError, ValueError: an argument makes no sense; the message says which and why.

    Example:
        >>> with guard(grace=10) as g:
        ...     _ = g.callback(print, "database closed")
        ...     _ = g.options(timeout=2, name="flush").callback(print, "flushed")
        ...     g.pending
        ['flush', 'print']
        flushed
        database closed
    """

    _popped: bool = False  # made by pop_all and not entered since

    def __init__(
        self,
        *,
        grace: float | timedelta | Default | None = Default.GRACE,
        signals: Iterable[int] | None = None,
        interrupt: bool = True,
        insist: bool = False,
        exit_status: int | Literal["signal"] | None = None,
        exit_timeout: float | timedelta | None = None,
        hooks: Iterable[Hook] | None = None,
        name: str | None = None,
        drain: float | timedelta | None = None,
        ready_file: str | PathLike[str] | None = None,
    ) -> None:
        self._set_up(
            options_of(
                grace,
                signals,
                interrupt,
                insist,
                exit_status,
                exit_timeout,
                hooks,
                name,
                drain,
                ready_file,
            )
        )

    def _set_up(self, options: Options) -> None:
        self._options = options
        self._stack = CallbackStack()
        self._stop_hooks: list[Callback] = []
        self._waiters = Waiters()

    @classmethod
    def _with(cls, options: Options) -> Guard:
        """A new guard with options that have been checked already."""
        guard = cls.__new__(cls)
        guard._set_up(options)
        return guard

    def __repr__(self) -> str:
        name = f" {self._options.name!r}" if self._options.name else ""
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
        if (
            type(function) is FunctionType
            and not (args or kwargs or function.__code__.co_flags & AWAITED)
            and self._stack.push(function)
        ):
            return function  # as nearly everybody's, and without a call more
        entry = entry_of(function, args, kwargs)
        if isinstance(entry, Callback) or not self._stack.push(entry):
            self._register(proper(entry))
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
        self._register(AsyncCallback(function, args, kwargs))
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
            raise TypeError(f"{called(exit)!r} must be awaited: push it with push_async_exit")
        label = type(exit).__qualname__ + ".__exit__" if method is not None else None
        self._register(Callback(function, (), {}, "exit", label=label))
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
        self._register(callback)

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
        stay = self._stay
        scope = None if stay is None or not stay.host.in_loop else stay.host.open_scope()
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

    def options(
        self,
        *,
        timeout: float | timedelta | None = None,
        name: str | None = None,
        parallel: str | None = None,
    ) -> Registrar:
        """Options for one callback, kept apart from the callback's own keywords: `g.options(timeout=2).callback(f, x=1)`.

        Args:
            timeout: seconds after which it is interrupted; the others still run. During a stop the grace period counts, too.
            name: what reports call it.
            parallel: callbacks registered one right after the other with the same word here run at the same time: plain
                functions in threads, async ones as tasks. What was registered after them has run by then, and what was
                registered before them waits for the last one. One that is interrupted and does not end is left behind.

        Returns:
            An object whose `callback` registers with these options.

        Raises:
            TypeError: an option is of the wrong type.
            ValueError: a negative timeout.
        """
        from cleanup_guard._guard.registrar import Registrar

        return Registrar(self._register, timeout, name, parallel)

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
        moved = Guard._with(self._options)
        stay = self._stay
        if stay is not None and not stay.process.foreign:
            moved._stay, moved._popped = moved._make_stay(), True
            moved._stay.adopt_from(stay)
        self._stack.move_to(moved._stack)  # last: from here on the exit nets know of it
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
        self._refuse_if_done(called(function))
        hook = kind_of(function)(function, args, kwargs)
        self._refuse_awaiting(hook.name if isinstance(hook, AsyncCallback) else None)
        self._stop_hooks.append(hook)
        return function

    def _register(self, callback: Callback) -> None:
        stay = self._stay
        if stay is not None and stay.process.foreign:
            raise RuntimeError(
                f"callback {callback.name!r} was not registered: this guard belongs to the parent of a fork. "
                "Use a guard of the child's own."
            )
        if stay is not None and isinstance(callback, AsyncCallback) and not stay.host.in_loop:
            self._refuse_awaiting(callback.name)
        if not self._stack.push(callback):
            self._refuse(callback.name)
        if callback.timeout is not None and stay is not None:
            stay.process.watch.need()

    def _refuse_awaiting(self, name: str | None) -> None:
        if name is not None and self._stay is not None and not self._stay.host.in_loop:
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

    # -- entering and leaving --

    def __enter__(self) -> Self:
        """Take the signals and become the current guard.

        Raises:
            RuntimeError: it was used before, or signals cannot be taken because this is not the main thread.
            TypeError: one of its callbacks must be awaited.
            ValueError: CLEANUP_GUARD_GRACE is no duration.
        """
        if self._stop_hooks or self._stack.callbacks:
            self._refuse_async()
        self._begin_stay().enter(None)
        return self

    def _refuse_async(self) -> None:
        awaited = self._stack.awaited
        for hook in self._stop_hooks:
            if awaited is None and isinstance(hook, AsyncCallback):
                awaited = hook.name
        if awaited is not None:
            raise TypeError(
                f"callback {awaited!r} is an async function: enter the guard with `async with`, not `with`"
            )

    async def __aenter__(self) -> Self:
        """As `__enter__`, in a task of asyncio or trio, which a stop then cancels.

        Raises:
            RuntimeError, ValueError: as `__enter__`.
        """
        from cleanup_guard._hosts.loops import backend

        find_host = backend().host_here
        stay = self._begin_stay()
        try:
            stay.enter(find_host)
        except BaseException as error:
            if stay.host is not None:
                stay.host.left(None, error)
            raise
        return self

    def _begin_stay(self) -> Stay:
        if self._popped and self._stay is not None:
            self._stay.process.roster.remove(self._stay)
            self._stay, self._popped = None, False
        if self._stay is not None or self._stack.closed:
            raise RuntimeError(f"{self!r} was entered before: a guard is used once, make a new one")
        self._stay = self._make_stay()
        return self._stay

    def _make_stay(self) -> Stay:
        make = _STAY[0] if _STAY else _load_stay()
        return make(self, self._stack, self._options, self._stop_hooks, self._waiters)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Run the callbacks, last registered first, and give the signals back.

        Raises:
            CleanupError: callbacks failed on a normal exit.
            SignalExit, KeyboardInterrupt: a stop has arrived, and main did not end because of it.
        """
        stay = self._stay
        if stay is None or stay.process.foreign or stay.left:
            return False
        return stay.leave(error)

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
        stay = self._stay
        if stay is None or not stay.host.in_loop or stay.process.foreign or stay.left:
            return False
        return await stay.departure.leave_in_task(error)

    async def aclose(self) -> None:
        """`close` for a guard with async callbacks: leave it now. Closing again does nothing.

        Raises:
            CleanupError: callbacks failed.
        """
        stay = self._stay
        if stay is not None and not stay.host.in_loop:
            self.close()
        elif stay is not None:
            await self.__aexit__(None, None, None)
        elif not self._stack.closed:
            from cleanup_guard._hosts.loops import backend

            self._stay = stay = self._make_stay()
            await stay.aclose_alone(backend().host_here(stay.process))

    def close(self) -> None:
        """Run the callbacks now, as leaving the `with` block would. Closing again does nothing.

        Raises:
            CleanupError: callbacks failed.
            RuntimeError: the guard was entered with `async with`, or has callbacks that must be awaited.
        """
        stay = self._stay
        in_loop = stay is not None and stay.host.in_loop and not stay.left
        if in_loop or self._stack.awaited:
            raise RuntimeError(f"{self!r} has to be awaited: use `await guard.aclose()`")
        if stay is not None:
            self.__exit__(None, None, None)
        elif not self._stack.closed:
            self._stay = self._make_stay()
            self._stay.close_alone()

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
        decorated: F = decorate(function, functools.partial(Guard._with, self._options))
        return decorated


_STAY: list[type[Stay]] = []
"""The class, once the first guard has been entered: until then nothing of it is loaded."""


def _load_stay() -> type[Stay]:
    from cleanup_guard._guard.stay import Stay

    _STAY.append(Stay)
    return Stay


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
    insist: bool = ...,
    exit_status: int | Literal["signal"] | None = ...,
    exit_timeout: float | timedelta | None = ...,
    hooks: Iterable[Hook] | None = ...,
    name: str | None = ...,
    drain: float | timedelta | None = ...,
    ready_file: str | PathLike[str] | None = ...,
) -> RunsMain: ...
@overload
def guard(  # noqa: F811  # as above
    *,
    grace: float | timedelta | Default | None = ...,
    signals: Iterable[int] | None = ...,
    interrupt: bool = ...,
    insist: bool = ...,
    exit_status: int | Literal["signal"] | None = ...,
    exit_timeout: float | timedelta | None = ...,
    hooks: Iterable[Hook] | None = ...,
    name: str | None = ...,
    drain: float | timedelta | None = ...,
    ready_file: str | PathLike[str] | None = ...,
) -> Guard: ...
def guard(  # noqa: F811  # as above
    function: Callable[..., Any] | None = None,
    /,
    *,
    run: str | None = None,
    grace: float | timedelta | Default | None = Default.GRACE,
    signals: Iterable[int] | None = None,
    interrupt: bool = True,
    insist: bool = False,
    exit_status: int | Literal["signal"] | None = None,
    exit_timeout: float | timedelta | None = None,
    hooks: Iterable[Hook] | None = None,
    name: str | None = None,
    drain: float | timedelta | None = None,
    ready_file: str | PathLike[str] | None = None,
) -> Any:
    """Run cleanup callbacks on return, exception, SIGTERM and SIGINT: `@guard`, `@guard(...)`, `with guard() as g`.

    In a task of asyncio or trio: `@guard` on an `async def`, `async with guard() as g`.

    Args:
        function: with `@guard`, the function to guard; generator, coroutine and async generator functions, too.
        run: with `@guard(run="asyncio")` on `async def main()`, the event loop that runs it: "asyncio", "uvloop" or "trio".
            What is decorated becomes a plain function, which returns what the coroutine returned.
        grace: seconds between the platform's stop signal and its SIGKILL; None: no limit. `Guard` says more of each option.
        signals: the stop signals; None for SIGTERM and SIGINT, () for none.
        interrupt: whether the stop is raised in main.
        insist: whether main is stopped although somebody else's handler was there before.
        exit_status: None for 128 + signal, a number, or "signal" to die of the signal.
        exit_timeout: seconds for all callbacks together when there is no stop; None: no limit.
        hooks: called with each event record; None for `log_event`, () for silence.
        name: what reports call it.
        drain: seconds for which the program serves on, ready no more, when a stop has come.
        ready_file: is there while the program is ready.

    Returns:
        The guarded function, or a `Guard`, which is a context manager and a decorator.

    Raises:
        TypeError, ValueError: what is decorated or an option makes no sense.
        ModuleNotFoundError: uvloop or trio is not installed.

    Example:
        >>> @guard(grace=10)
        ... def main() -> str:
        ...     on_exit(print, "database closed")
        ...     return "done"
        >>> main()
        database closed
        'done'
    """
    options = options_of(
        grace, signals, interrupt, insist, exit_status, exit_timeout, hooks, name, drain, ready_file
    )
    made = Guard._with(options)  # pyright: ignore[reportPrivateUsage]
    if run is not None:
        return decorate_main(run, made)
    return made if function is None else made(function)
