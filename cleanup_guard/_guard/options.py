"""What a guard was asked for, checked once. What checks it is loaded when there is something to check."""

from __future__ import annotations

from enum import Enum
from os import fspath

from cleanup_guard._guard.decorate import check_callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta
    from os import PathLike

    from cleanup_guard._ground.clock import Grace
    from cleanup_guard._ground.events import Hook
    from cleanup_guard._stop.stop import ExitStatus


class Default(Enum):
    """Stands for an argument that was not given."""

    GRACE = "the platform's grace period, or CLEANUP_GUARD_GRACE"

    def __repr__(self) -> str:
        return self.value


class Options:
    """The options of one guard. `hooks` None is the default hook, which is not loaded before it is needed."""

    __slots__ = (
        "drain",
        "exit_status",
        "exit_timeout",
        "grace",
        "hooks",
        "insist",
        "interrupt",
        "is_programs",
        "name",
        "ready_file",
        "signals",
    )

    def __init__(
        self,
        *,
        grace: float | timedelta | Default | None,
        signals: Iterable[int] | None,
        interrupt: bool,
        insist: bool,
        exit_status: ExitStatus,
        exit_timeout: float | timedelta | None,
        hooks: Iterable[Hook] | None,
        name: str | None,
        drain: float | timedelta | None,
        ready_file: str | PathLike[str] | None,
    ) -> None:
        self.grace: Grace | None = None if isinstance(grace, Default) else _grace(grace)
        self.signals: tuple[int, ...] | None = None if signals is None else _caught(signals)
        self.interrupt: bool = bool(interrupt)
        self.insist: bool = bool(insist)
        self.exit_status: ExitStatus = _exit_status(exit_status)
        self.exit_timeout: float | None = _seconds(exit_timeout, "exit_timeout")
        self.hooks: tuple[Hook, ...] | None = (
            None if hooks is None else tuple(check_callable(hook, "a hook") for hook in hooks)
        )
        self.name: str | None = name
        self.drain: float | None = _seconds(drain, "drain")
        self.ready_file: str | None = None if ready_file is None else fspath(ready_file)
        self.is_programs: bool = False  # of the guard that `on_exit` sets up where there is none


def options_of(  # noqa: PLR0917  # called for every guard: keywords cost
    grace: float | timedelta | Default | None,
    signals: Iterable[int] | None,
    interrupt: bool,  # noqa: FBT001  # as above
    insist: bool,  # noqa: FBT001  # as above
    exit_status: ExitStatus,
    exit_timeout: float | timedelta | None,
    hooks: Iterable[Hook] | None,
    name: str | None,
    drain: float | timedelta | None,
    ready_file: str | PathLike[str] | None,
) -> Options:
    """The options of a guard; those of one that was asked for nothing are made once."""
    if (
        grace is GRACE
        and signals is None
        and interrupt is True
        and insist is False
        and exit_status is None
        and exit_timeout is None
        and hooks is None
        and name is None
        and drain is None
        and ready_file is None
    ):
        return DEFAULTS
    return Options(
        grace=grace,
        signals=signals,
        interrupt=interrupt,
        insist=insist,
        exit_status=exit_status,
        exit_timeout=exit_timeout,
        hooks=hooks,
        name=name,
        drain=drain,
        ready_file=ready_file,
    )


def _grace(grace: float | timedelta | None) -> Grace:
    from cleanup_guard._ground.clock import Grace

    period = _seconds(grace, "grace")
    if period == 0:
        raise ValueError("grace must be more than 0 seconds: with none there is no time to run a callback")
    return Grace(period, source="guard(grace=)")


def _seconds(duration: float | timedelta | None, what: str) -> float | None:
    if duration is None:
        return None
    from cleanup_guard._ground.clock import seconds

    return seconds(duration, what)


def _caught(signals: Iterable[int]) -> tuple[int, ...]:
    from cleanup_guard._ground.names import caught

    return caught(signals)


HIGHEST_STATUS = 255
"""What a parent can be told."""


def _exit_status(status: ExitStatus) -> ExitStatus:
    if status is None or status == "signal" or (type(status) is int and 0 <= status <= HIGHEST_STATUS):
        return status
    raise ValueError(f"exit_status must be None, a number from 0 to 255, or 'signal', not {status!r}")


GRACE = Default.GRACE

DEFAULTS = Options(
    grace=GRACE,
    signals=None,
    interrupt=True,
    insist=False,
    exit_status=None,
    exit_timeout=None,
    hooks=None,
    name=None,
    drain=None,
    ready_file=None,
)
