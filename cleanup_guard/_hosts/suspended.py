"""Whether a task that waits is on its way out because of an exception, whoever else keeps that.

The interpreter knows what a thread handles (`_stop/token.py`). What a suspended coroutine handles is in nobody's thread, but
the garbage collector visits it. To be asked in the loop, between two steps of its tasks.

Rules:
1. In the frames of a program an exception that is only kept, in a variable or anywhere, is not handled. Libraries, task groups
   for example, keep one in a variable while they wait for their tasks, and are on their way.
2. What waits for something that is not known here counts as on its way: nobody is told again by mistake.
"""

from __future__ import annotations

import asyncio
import gc
import os
import types

from cleanup_guard._process.moment import is_stdlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType
    from typing import Any

LIBRARIES = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))
"""Where the code of packages is."""

BETWEEN = {
    "FutureIter",
    "anext_awaitable",
    "async_generator_asend",
    "async_generator_athrow",
    "coroutine_wrapper",
}
"""Types of what stands between who awaits and what is awaited."""

RESUMABLE: tuple[type[Any], ...] = (types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType)
LINKS = ("cr_await", "ag_await", "gi_yieldfrom")
FRAMES = ("cr_frame", "ag_frame", "gi_frame")


def is_on_its_way(awaitable: object, wanted: Callable[[BaseException], bool]) -> bool:
    """Whether a suspended task or coroutine, or what it waits for, handles an exception.

    Args:
        awaitable: the task or coroutine.
        wanted: whether an exception is the one that is asked for.
    """
    todo, seen = [awaitable], set[int]()
    while todo:
        each = todo.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        following = _awaited_by(each)
        if following is None or _handles(each, lambda error: _leads_to(error, wanted)):
            return True
        todo += following
    return False


def _awaited_by(each: Any) -> Iterable[object] | None:
    """What something waits for; None if that is not to be known."""
    if hasattr(
        each, "get_coro"
    ):  # a task, unless its cancellation is still to come: what it waits for goes on
        return None if getattr(each, "_must_cancel", False) else [each.get_coro()]
    if asyncio.isfuture(each):
        return list(getattr(each, "_children", ()))  # of `gather`
    if isinstance(each, RESUMABLE):
        awaited = next((getattr(each, link) for link in LINKS if hasattr(each, link)), None)
        return [] if awaited is None else [awaited]
    if type(each).__name__ in BETWEEN:
        return [found for found in gc.get_referents(each) if _waits(found)]
    return None


def _waits(found: object) -> bool:
    return asyncio.isfuture(found) or isinstance(found, RESUMABLE) or type(found).__name__ in BETWEEN


def _handles(each: object, wanted: Callable[[BaseException], bool]) -> bool:
    """Whether a coroutine or generator is in an `except`, `finally` or `__exit__` because of the exception."""
    frame: FrameType | None = next((getattr(each, name) for name in FRAMES if hasattr(each, name)), None)
    if frame is None:
        return False
    found = _count(gc.get_referents(each), wanted)
    filename = frame.f_code.co_filename
    if is_stdlib(filename) or any(each in filename for each in LIBRARIES):
        return found > 0
    # What it handles is visited beside its variables.
    return found > _count(list(frame.f_locals.values()), wanted)


def _count(objects: Iterable[object], wanted: Callable[[BaseException], bool]) -> int:
    return sum(isinstance(each, BaseException) and wanted(each) for each in objects)


def _leads_to(error: BaseException | None, wanted: Callable[[BaseException], bool]) -> bool:
    seen = set[int]()
    while error is not None and id(error) not in seen:
        if wanted(error):
            return True
        seen.add(id(error))
        error = error.__context__
    return False
