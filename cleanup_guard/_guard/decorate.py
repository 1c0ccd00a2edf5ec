"""Functions of every kind, and how each is run inside a guard."""

from __future__ import annotations

import functools
from types import CodeType, FunctionType, MethodType

from cleanup_guard._stop.stack import CALLERS, AsyncCallback, Callback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from typing import Any, Protocol, TypeVar

    from typing_extensions import ParamSpec

    from cleanup_guard._stop.stack import Entry

    P = ParamSpec("P")
    T = TypeVar("T")

    class RunsMain(Protocol):
        """A decorator that makes a plain function of a coroutine function."""

        def __call__(self, function: Callable[P, Coroutine[Any, Any, T]], /) -> Callable[P, T]: ...


COROUTINE, ITERABLE_COROUTINE, GENERATOR, ASYNC_GENERATOR = 0x80, 0x100, 0x20, 0x200
"""`inspect.CO_*`, without the 20 ms that importing inspect takes."""

AWAITED = COROUTINE | ASYNC_GENERATOR

LOOPS = ("asyncio", "uvloop", "trio")


def called(function: object) -> str:
    """What an error message calls it, whatever it does when it is asked for its name."""
    try:
        return str(getattr(function, "__qualname__", None) or repr(function))
    except BaseException as error:
        from cleanup_guard._stop.token import came_by_signal

        if came_by_signal(error):
            raise
        return f"{type(function).__qualname__} object"


def check_callable(function: T, what: str) -> T:
    """Refuse what cannot be called.

    Raises:
        TypeError: it is not callable.
    """
    if not callable(function):
        raise TypeError(f"{what} must be callable, not {function!r}")
    return function


def awaits(function: object) -> bool:
    """Whether what a callback returns must be awaited.

    Raises:
        TypeError: it can be neither called nor awaited.
    """
    check_callable(function, "a callback")
    flags = _flags(function)
    if flags & ASYNC_GENERATOR:
        raise TypeError(
            f"callback {called(function)!r} is an async generator function, which does nothing when it is called: "
            "register a coroutine function"
        )
    return bool(flags & COROUTINE)


def _flags(function: object) -> int:
    """What its code says that it is; nothing if it cannot be asked, as a proxy of nothing cannot."""
    if type(function) is FunctionType:
        return function.__code__.co_flags
    try:
        return _flags_of_code(function)
    except Exception:
        return 0


def _flags_of_code(function: object) -> int:
    while isinstance(function, functools.partial):
        function = function.func
    # Whoever answers every attribute (xmlrpc's and Pyro's proxies) has none of these.
    inner = function.__func__ if isinstance(function, MethodType) else function
    code = getattr(inner, "__code__", None)
    if not isinstance(code, CodeType):
        code = getattr(getattr(type(inner), "__call__", None), "__code__", None)  # noqa: B004
    return code.co_flags if isinstance(code, CodeType) else 0


def entry_of(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Entry:
    """What is registered for a function: nearly everybody's is only to be called, and is not even wrapped without arguments.

    What is written in C is: it may be interrupted in the code of ours that calls it (`CALLERS`).

    Raises:
        TypeError: it can be neither called nor awaited.
    """
    inner = _without_self(function)
    if type(inner) is FunctionType and not inner.__code__.co_flags & AWAITED:
        return functools.partial(function, *args, **kwargs) if args or kwargs else function
    return kind_of(function)(function, args, kwargs)


def _without_self(function: object) -> object:
    """The function of a method. Only its type is asked for: a proxy may raise at anything else."""
    return function.__func__ if type(function) is MethodType else function


def kind_of(function: object) -> type[Callback]:
    """The kind of callback for a function.

    Raises:
        TypeError: it can be neither called nor awaited.
    """
    return AsyncCallback if awaits(function) else Callback


def decorate(function: Callable[..., Any], new_guard: Callable[[], Any]) -> Any:
    """Make a function of the same kind, each call of which runs inside a new guard.

    Raises:
        TypeError: it is not callable.
    """
    _refuse_to_decorate(function)
    flags = _flags(function)
    if flags & (COROUTINE | ITERABLE_COROUTINE):
        return _coroutine(function, new_guard)
    if flags & ASYNC_GENERATOR:
        return _async_generator(function, new_guard)
    wrapper = _generator(function, new_guard) if flags & GENERATOR else _function(function, new_guard)
    # It may be interrupted while the function it has called is one that is written in C.
    CALLERS.add(wrapper.__code__)
    return wrapper


def _refuse_to_decorate(function: object) -> None:
    """Refuse what would silently become something else.

    Raises:
        TypeError: it is not a function or method that can be called.
    """
    if isinstance(function, (staticmethod, classmethod)):
        kind: str = type(function).__name__  # pyright: ignore[reportUnknownArgumentType]
        raise TypeError(
            f"guard decorates functions, not a {kind} object: put @{kind} above @guard, so that guard is next to the function"
        )
    check_callable(function, "what guard decorates")
    if isinstance(function, type):
        raise TypeError(
            f"guard decorates functions, and {called(function)} is a class: guard the method that does the work"
        )


def _function(function: Callable[..., Any], new_guard: Callable[[], AbstractContextManager[Any]]) -> Any:
    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        with new_guard():
            return function(*args, **kwargs)

    return guarded


def _generator(function: Callable[..., Any], new_guard: Callable[[], AbstractContextManager[Any]]) -> Any:
    @functools.wraps(function)
    def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        with new_guard():
            body: Generator[Any, Any, Any] = function(*args, **kwargs)
            return (yield from body)

    return generator


def _coroutine(
    function: Callable[..., Any], new_guard: Callable[[], AbstractAsyncContextManager[Any]]
) -> Any:
    @functools.wraps(function)
    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        async with new_guard():
            return await function(*args, **kwargs)

    return coroutine


def _async_generator(
    function: Callable[..., Any], new_guard: Callable[[], AbstractAsyncContextManager[Any]]
) -> Any:
    @functools.wraps(function)
    async def async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        async with new_guard():
            body: AsyncGenerator[Any, Any] = function(*args, **kwargs)
            try:
                each = await body.__anext__()
                while True:
                    try:
                        sent = yield each
                    except GeneratorExit:
                        await body.aclose()
                        raise
                    except BaseException as error:
                        each = await body.athrow(error)
                    else:
                        each = await body.asend(sent)
            except StopAsyncIteration:
                return

    return async_generator


def decorate_main(loop: str, guard: Callable[[Any], Any]) -> RunsMain:
    """See the option `run` of `guard`.

    Raises:
        ValueError: there is no such loop.
    """
    if loop not in LOOPS:
        raise ValueError(f"run must be one of {', '.join(map(repr, LOOPS))}, not {loop!r}")

    def decorator(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
        if not _flags(check_callable(function, "what guard decorates")) & (COROUTINE | ITERABLE_COROUTINE):
            raise TypeError(f"guard(run={loop!r}) runs an async def: {called(function)!r} is none")
        guarded: Callable[P, Coroutine[Any, Any, T]] = guard(function)

        @functools.wraps(function)
        def main(*args: P.args, **kwargs: P.kwargs) -> T:
            from cleanup_guard._hosts.loops import RUN

            result: T = RUN[loop](functools.partial(guarded, *args, **kwargs))
            return result

        return main

    return decorator
