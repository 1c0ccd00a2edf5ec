"""Functions of every kind, and how each is run inside a guard."""

from __future__ import annotations

import functools

from cleanup_guard._process import CALLERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
    from typing import Any, Protocol, TypeVar

    from typing_extensions import ParamSpec

    from cleanup_guard._guard import Guard

    P = ParamSpec("P")
    T = TypeVar("T")

    class RunsMain(Protocol):
        """A decorator that makes a plain function of a coroutine function."""

        def __call__(self, function: Callable[P, Coroutine[Any, Any, T]], /) -> Callable[P, T]: ...


COROUTINE, ITERABLE_COROUTINE, GENERATOR, ASYNC_GENERATOR = 0x80, 0x100, 0x20, 0x200
"""`inspect.CO_*`, without the 20 ms that importing inspect takes."""

LOOPS = ("asyncio", "uvloop", "trio")


def name_of(function: object) -> str:
    """What an error message calls it."""
    return str(getattr(function, "__qualname__", None) or repr(function))


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
    code = getattr(function, "__code__", None)
    flags: int = _flags(function) if code is None else code.co_flags
    if code is None:
        check_callable(function, "a callback")
    if flags & ASYNC_GENERATOR:
        raise TypeError(
            f"callback {name_of(function)!r} is an async generator function, which does nothing when it is called: "
            "register a coroutine function"
        )
    return bool(flags & COROUTINE)


def _flags(function: object) -> int:
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    if code is None:
        code = getattr(getattr(type(function), "__call__", None), "__code__", None)  # noqa: B004
    return getattr(code, "co_flags", 0)


def decorate(function: Callable[..., Any], new_guard: Callable[[], Guard]) -> Any:
    """Make a function of the same kind, each call of which runs inside a new guard.

    Raises:
        TypeError: it is not callable.
    """
    check_callable(function, "what guard decorates")
    flags = _flags(function)
    if flags & (COROUTINE | ITERABLE_COROUTINE):
        return _coroutine(function, new_guard)
    if flags & ASYNC_GENERATOR:
        return _async_generator(function, new_guard)
    wrapper = _generator(function, new_guard) if flags & GENERATOR else _function(function, new_guard)
    # It may be interrupted while the function it has called is one that is written in C.
    CALLERS.add(wrapper.__code__)
    return wrapper


def _function(function: Callable[..., Any], new_guard: Callable[[], Guard]) -> Any:
    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        with new_guard():
            return function(*args, **kwargs)

    return guarded


def _generator(function: Callable[..., Any], new_guard: Callable[[], Guard]) -> Any:
    @functools.wraps(function)
    def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        with new_guard():
            body: Generator[Any, Any, Any] = function(*args, **kwargs)
            return (yield from body)

    return generator


def _coroutine(function: Callable[..., Any], new_guard: Callable[[], Guard]) -> Any:
    @functools.wraps(function)
    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        async with new_guard():
            return await function(*args, **kwargs)

    return coroutine


def _async_generator(function: Callable[..., Any], new_guard: Callable[[], Guard]) -> Any:
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


def decorate_main(loop: str, guard: Guard) -> RunsMain:
    """See the option `run` of `guard`.

    Raises:
        ValueError: there is no such loop.
    """
    if loop not in LOOPS:
        raise ValueError(f"run must be one of {', '.join(map(repr, LOOPS))}, not {loop!r}")

    def decorator(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
        if not _flags(check_callable(function, "what guard decorates")) & (COROUTINE | ITERABLE_COROUTINE):
            raise TypeError(f"guard(run={loop!r}) runs an async def: {name_of(function)!r} is none")
        guarded: Callable[P, Coroutine[Any, Any, T]] = guard(function)

        @functools.wraps(function)
        def main(*args: P.args, **kwargs: P.kwargs) -> T:
            result: T = _RUN[loop](functools.partial(guarded, *args, **kwargs))
            return result

        return main

    return decorator


def _run_asyncio(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    import asyncio

    return asyncio.run(main())


def _run_uvloop(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    import asyncio

    try:
        import uvloop
    except ImportError:
        raise _missing("uvloop") from None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def _run_trio(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    try:
        import trio
    except ImportError:
        raise _missing("trio") from None
    return trio.run(main)


_RUN: dict[str, Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]] = {
    "asyncio": _run_asyncio,
    "uvloop": _run_uvloop,
    "trio": _run_trio,
}


def _missing(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"guard(run={name!r}) needs the package {name}: pip install {name}", name=name)
