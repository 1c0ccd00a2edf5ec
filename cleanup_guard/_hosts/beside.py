"""Callbacks of a group that run beside each other: async ones in tasks of their loop, all others in threads of their own."""

from __future__ import annotations

from contextvars import copy_context
from functools import partial

from cleanup_guard._process import native
from cleanup_guard._stop.running import Aside, take_steps, take_steps_with
from cleanup_guard._stop.stack import AsyncCallback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import Any, Protocol, TypeVar

    from cleanup_guard._stop.running import Pending, Steps

    T = TypeVar("T")

    class Loop(Protocol):
        """Where a guard is that was entered with `async with` (`host.py`)."""

        def spawn(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None: ...
        def wait(self, pending: AsyncCallback | Callable[[], bool]) -> Awaitable[object] | None: ...
        def wait_without_loop(self, pending: Pending) -> object: ...


TRIES = 100
"""How often a callback is begun again because something was raised between two of our lines."""


def begin_in_thread(aside: Aside, wait: Callable[[Pending], object]) -> None:
    """Begin it, with the context variables of whoever begins it. Where no thread is to be had it is called here.

    Args:
        aside: what is to be called.
        wait: takes a step in that thread.
    """

    def run() -> None:
        for _ in range(TRIES):
            try:
                take_steps(aside.steps(), wait)
                break
            except BaseException as error:
                aside.stumbled = error
        native.leaves()  # before who waits for it goes on, and may fork
        aside.end()

    context = copy_context()
    if not native.Thread(lambda: context.run(run), f"cleanup_guard {aside.callback.name}").start():
        take_steps(aside.steps(), wait)


def take_steps_in(loop: Loop, steps: Steps[T]) -> Coroutine[Any, Any, T]:
    """Take all steps in the running task."""
    return take_steps_with(steps, partial(_step, loop))


def _step(loop: Loop, pending: Pending) -> Awaitable[object] | None:
    """Begin a step in the running task. Returns what is left of it to be awaited."""
    if not isinstance(pending, Aside):
        return loop.wait(pending)
    if isinstance(pending.callback, AsyncCallback):
        pending.in_loop = True
        loop.spawn(lambda: _run(loop, pending))
    else:
        begin_in_thread(pending, loop.wait_without_loop)
    return None


async def _run(loop: Loop, aside: Aside) -> None:
    for _ in range(TRIES):
        try:
            await take_steps_in(loop, aside.steps())
            break
        except GeneratorExit:
            raise  # the loop has ended
        except BaseException as error:
            aside.stumbled = error
    aside.end()
