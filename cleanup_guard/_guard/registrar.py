"""Options for one callback: see `Guard.options`."""

from __future__ import annotations

from cleanup_guard._ground.clock import seconds
from cleanup_guard._guard.decorate import awaits, kind_of
from cleanup_guard._stop.stack import AsyncCallback, Callback, GroupedCallback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta
    from typing import Any, TypeVar

    from typing_extensions import ParamSpec

    P = ParamSpec("P")
    T = TypeVar("T")


class Registrar:
    """Registers callbacks with options, without taking keywords from the callbacks: see `Guard.options`."""

    def __init__(
        self,
        register: Callable[[Callback], object],
        timeout: float | timedelta | None,
        name: str | None,
        group: object,
    ) -> None:
        if not (group is None or isinstance(group, str)):
            raise TypeError(f'parallel must be a name that neighbours share, such as "pools", not {group!r}')
        self._add = register
        self._timeout = seconds(timeout, "timeout")
        self._name = name
        self._group: str | None = group

    def callback(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Callable[P, T]:
        """As `Guard.callback`."""
        self._register(kind_of(function), function, args, kwargs)
        return function

    def push_async_callback(
        self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Callable[P, Awaitable[T]]:
        """As `Guard.push_async_callback`."""
        awaits(function)
        self._register(AsyncCallback, function, args, kwargs)
        return function

    def _register(
        self,
        kind: type[Callback],
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        if self._group is not None and kind is Callback:
            kind = GroupedCallback
        callback = kind(function, args, kwargs, "callback", self._timeout, self._name)
        if isinstance(callback, GroupedCallback):
            callback.group = self._group
        self._add(callback)
