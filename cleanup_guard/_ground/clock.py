"""Time as a value: how long a stop may take, and when each step of it is due.

Every instant is on the monotonic clock, in seconds; the clock is an argument, so tests move it. `None` means
"no limit".
"""

from __future__ import annotations

from math import inf, isfinite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    Clock = Callable[[], float]

DEFAULT_GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL unless the platform says otherwise: docker's default."""

GRACE_VARIABLE = "CLEANUP_GUARD_GRACE"


def seconds(value: float | timedelta | None, what: str) -> float | None:
    """Convert a duration to seconds, once, at the edge.

    Raises:
        TypeError: it is neither a number, a timedelta nor None.
        ValueError: it is negative, infinite or not a number.
    """
    if value is None:
        return None
    convert = getattr(value, "total_seconds", None)
    if convert is not None:
        value = float(convert())
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} must be a number of seconds, a timedelta or None, not {value!r}")
    if not isfinite(value) or value < 0:
        raise ValueError(f"{what} must be 0 or more seconds (None for no limit), not {value!r}")
    return float(value)


def grace_from_environment(environ: dict[str, str]) -> tuple[bool, float | None]:
    """Read CLEANUP_GUARD_GRACE: (is it set, seconds or None for no limit).

    Raises:
        ValueError: it is set to something that is no duration.
    """
    text = environ.get(GRACE_VARIABLE, "").strip()
    if not text:
        return False, None
    if text.lower() == "none":
        return True, None
    try:
        grace = seconds(float(text), GRACE_VARIABLE)
    except ValueError:
        grace = 0.0
    if not grace:
        raise ValueError(
            f"the environment variable {GRACE_VARIABLE} must be a number of seconds such as 30, or none: it is {text!r}"
        )
    return True, grace


class Budget:
    """What a grace period is spent on. Nothing here waits: it only says at which instant each step is due.

    The guard ends a safety margin (a tenth, between 0.05 and 2 s) before the platform's SIGKILL, because a
    throttled container needs time to die, too. Shares are of what remains after that margin.
    """

    __slots__ = ("began", "grace", "margin", "stepped_in")

    HOOKS = 0.2  # on_stop hooks may hold back the stop this long
    STUCK = 0.5  # main has not run one line of Python since the stop: the watcher runs the callbacks
    TAKE_OVER = 0.8  # main has not come back: the watcher runs the callbacks; a stop of somebody else's is ours from now on
    FORCE = 0.9  # critical sections and cooperative mains are interrupted; a `finally` is not waited for any longer
    INTERRUPT = 0.9  # the callback in progress is interrupted, so that the others have their turn
    LATE = 0.95  # main was interrupted at last, and has not come back either

    INSTANTS = (HOOKS, STUCK, TAKE_OVER, FORCE, LATE, 1.0)
    """The shares at which something is due."""

    def __init__(self, grace: float | None, began: float) -> None:
        self.grace: float | None = grace
        self.stepped_in: bool = False  # into a stop that was somebody else's, at TAKE_OVER
        self.began: float = began
        self.margin: float = 0.0 if grace is None else min(max(0.1 * grace, 0.05), 2.0, grace / 2)

    def at(self, share: float) -> float:
        """The instant at which this share of the usable budget is spent (infinity without a limit)."""
        if self.grace is None:
            return inf
        return self.began + share * (self.grace - self.margin)

    @property
    def end(self) -> float:
        """When the guard reports and ends the process."""
        return self.at(1.0)

    @property
    def last_resort(self) -> float:
        """When the C-level timer ends a process whose interpreter cannot run any more."""
        return inf if self.grace is None else self.began + self.grace - self.margin / 2

    @property
    def last_moment(self) -> float:
        """When it ends one whose interpreter does run and is busy ending itself: with another status, but in time."""
        return inf if self.grace is None else self.began + self.grace - self.margin / 8

    def remaining(self, now: float) -> float | None:
        """Seconds until the callback in progress would be interrupted; None without a limit, never negative."""
        if self.grace is None:
            return None
        return max(0.0, self.at(self.INTERRUPT) - now)

    def callback_limit(self, started: float, timeout: float | None) -> float:
        """When a callback that started at this instant is interrupted.

        One that starts when the interrupt is already due gets half of what is left, so that a slow
        predecessor does not rob it of its turn.
        """
        own = inf if timeout is None else started + timeout
        shared = max(self.at(self.INTERRUPT), started + (self.end - started) / 2)
        return min(own, shared)
