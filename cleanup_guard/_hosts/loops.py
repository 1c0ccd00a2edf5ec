"""Which loop runs here, and the entry points that run a main on a named one."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any, TypeVar

    from cleanup_guard._hosts.host import Backend

    T = TypeVar("T")


def backend() -> Backend:
    """The module for the loop that runs here.

    Raises:
        RuntimeError: none does.
    """
    trio = sys.modules.get("trio")
    if trio is not None:
        try:
            trio.lowlevel.current_task()
        except RuntimeError:
            pass
        else:
            from cleanup_guard._hosts import on_trio

            return on_trio
    if "asyncio" in sys.modules:
        from cleanup_guard._hosts import on_asyncio

        if on_asyncio.is_running():
            return on_asyncio
    raise RuntimeError(
        "this has to be awaited in a task of asyncio or trio, and no event loop is running here"
    )


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


RUN: dict[str, Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]] = {
    "asyncio": _run_asyncio,
    "uvloop": _run_uvloop,
    "trio": _run_trio,
}


def _missing(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"guard(run={name!r}) needs the package {name}: pip install {name}", name=name)
