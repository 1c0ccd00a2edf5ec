"""Whose stop is it? Decided from what is installed for a signal.

| what is there | whose stop |
|---|---|
| the default, or Python's own handler of SIGINT | ours |
| an event loop's own way with Ctrl-C (it cancels the main task, which the guard does itself) | ours |
| what an event loop of uvloop's has left behind when it was closed | ours |
| what our plugin of pytest puts in the place of the default | ours |
| ignored | nobody's: a signal that was ignored and is named is ours |
| any other Python handler, the one too by which a loop hears of `add_signal_handler` | theirs |
| a handler in C, which Python cannot call | theirs, and nothing is taken |
"""

from __future__ import annotations

from enum import Enum

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal


class Owner(Enum):
    """Who stops the program."""

    OURS = "the guard"
    THEIRS = "somebody else"


LOOPS = ("asyncio.runners", "trio._core._ki", "anyio._backends._asyncio")
"""Modules whose handlers are a loop's own way with Ctrl-C."""

PYTEST_PLUGIN = "cleanup_guard._pytest_plugin"
"""The module whose handler stands for the default in a run of pytest: the code under test has it as in a program."""


def owner_of(handler: object) -> Owner:
    """Who owns the stop where this handler is installed."""
    if handler is None:
        return Owner.THEIRS
    if not callable(handler) or handler is _signal.default_int_handler:
        return Owner.OURS
    is_ours = is_loops(handler) or is_tests(handler) or _is_left_behind(handler)
    return Owner.OURS if is_ours else Owner.THEIRS


def is_loops(handler: object) -> bool:
    """Whether a handler is an event loop's own way with Ctrl-C."""
    handler = getattr(handler, "func", handler)  # asyncio's is a partial
    return str(getattr(handler, "__module__", "")) in LOOPS


def is_tests(handler: object) -> bool:
    """Whether a handler is what our plugin of pytest puts in the place of the default."""
    return getattr(handler, "__module__", None) == PYTEST_PLUGIN


def _is_left_behind(handler: object) -> bool:
    """Whether a handler would wake a loop that was closed: uvloop leaves it in place."""
    loop = getattr(handler, "__self__", None)
    return type(loop).__module__.startswith("uvloop") and loop is not None and bool(loop.is_closed())
