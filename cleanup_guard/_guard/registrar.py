"""Options for one callback: see `Guard.options`."""

from __future__ import annotations

from cleanup_guard._guard.decorate import awaits, kind_of
from cleanup_guard._stop.stack import AsyncCallback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVar

    from typing_extensions import ParamSpec

    from cleanup_guard._stop.stack import Callback

    P = ParamSpec("P")
    T = TypeVar("T")


class Registrar:
    """Registers callbacks with a timeout and a name, without taking keywords from the callbacks: see `Guard.options`."""

    def __init__(
        self, register: Callable[[Callback], object], timeout: float | None, name: str | None
    ) -> None:
        self._register = register
        self._timeout = timeout
        self._name = name

    def callback(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Callable[P, T]:
        """As `Guard.callback`."""
        self._register(kind_of(function)(function, args, kwargs, "callback", self._timeout, self._name))
        return function

    def push_async_callback(
        self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Callable[P, Awaitable[T]]:
        """As `Guard.push_async_callback`."""
        awaits(function)
        self._register(AsyncCallback(function, args, kwargs, "callback", self._timeout, self._name))
        return function
