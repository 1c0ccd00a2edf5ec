"""`on_exit`, `unregister` and `current_guard`: for code that knows nothing of the guards around it."""

from __future__ import annotations

import sys

from cleanup_guard._guard.decorate import awaits, called
from cleanup_guard._guard.guard import Guard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from typing_extensions import ParamSpec

    P = ParamSpec("P")
    T = TypeVar("T")


def current_guard() -> Guard | None:
    """The guard that `on_exit` registers on: the innermost of this task or thread, else of main, else the program's, else None.

    Any thread.

    Example:
        >>> with guard(name="app") as g:
        ...     current_guard() is g
        True
    """
    if "cleanup_guard._guard.stay" not in sys.modules:
        return None  # no guard has been entered
    from cleanup_guard._guard.stay import current_stay

    stay = current_stay()
    return None if stay is None else stay.guard


def on_exit(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Callable[P, T]:
    """Register a callback on the current guard, or without one on a guard for the process that is set up on the spot.

    A drop-in for `atexit.register` that also runs on SIGTERM and SIGINT, and before the interpreter waits for threads.
    Usable as a decorator. Any thread. Where somebody else stops the program (a server, a job runner) it runs when that has
    ended. Without any guard Ctrl-C stays what it is: KeyboardInterrupt unwinds main, and the callbacks run at the end. In a
    thread other than main SIGTERM is taken as soon as main runs a line of Python.

    Args:
        function: what to call. Its arguments follow. A coroutine function needs a guard that was entered with `async with`.

    Returns:
        The function.

    Raises:
        TypeError: it is not callable, or a coroutine function that no guard here could await.
        RuntimeError: the guard is done.

    Example:
        >>> @guard
        ... def main() -> None:
        ...     on_exit(print, "database closed")
        ...     print("working")
        >>> main()
        working
        database closed
    """
    must_await = awaits(function)
    current = current_guard()
    if current is None:
        if must_await:
            raise TypeError(
                f"callback {called(function)!r} is an async function, and no guard is active that could await it: "
                "register it inside `async with guard()`"
            )
        current = Guard(name="process")
        current._options.is_programs = True  # pyright: ignore[reportPrivateUsage]
        current._begin_stay().enter_for_program()  # pyright: ignore[reportPrivateUsage]
    else:
        stay = current._stay  # pyright: ignore[reportPrivateUsage]
        if stay is not None and stay.options.is_programs:
            stay.settle()
    return current.callback(function, *args, **kwargs)


def unregister(function: Callable[..., object]) -> int:
    """Undo `on_exit`: remove every callback of this function from all guards, as `atexit.unregister` does. Thread-safe.

    Args:
        function: what was registered, compared with ==.

    Returns:
        How many were removed; a function that was never registered is no error.

    Example:
        >>> with guard():
        ...     _ = on_exit(print, "never printed")
        ...     unregister(print)
        1
    """
    if "cleanup_guard._guard.stay" not in sys.modules:
        return 0
    from cleanup_guard._guard.stay import everybody

    return sum(each.stack.discard(function) for each in everybody())
