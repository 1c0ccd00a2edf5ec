"""Time as a value: how long a stop may take, and when each step of it is due.

Every instant is on the monotonic clock, in seconds; the clock is an argument, so tests move it. `None` means
"no limit".
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    Clock = Callable[[], float]

inf = float("inf")
"""What never comes, or has no end. Not from `math`, which is a library of its own to load, of 100 KB, on many a system."""

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
    if not 0 <= value < inf:
        raise ValueError(f"{what} must be 0 or more seconds (None for no limit), not {value!r}")
    return float(value)


def grace_from_environment(environ: Mapping[str, str]) -> Grace | None:
    """Read CLEANUP_GUARD_GRACE: one number of seconds, two (`10..30`: for sure, in hope), or none for no limit.

    Returns:
        What it says; None if it is not set.

    Raises:
        ValueError: it is set to something that is no duration.
    """
    text = environ.get(GRACE_VARIABLE, "").strip()
    if not text:
        return None
    if text.lower() == "none":
        return Grace(None, source=GRACE_VARIABLE)
    low, dots, high = text.partition("..")
    try:
        sure, hope = (seconds(float(each), GRACE_VARIABLE) for each in (low, high if dots else low))
    except ValueError:
        sure = hope = None
    if not sure or not hope or sure > hope:
        raise ValueError(
            f"the environment variable {GRACE_VARIABLE} must be a number of seconds such as 30, or none: it is {text!r}"
        )
    return Grace(sure, hope, source=GRACE_VARIABLE)


GIVEN, READ, GUESSED = "given", "read", "guessed"
"""How a grace period is known: somebody said it, the platform was asked, or it is what the platform is known for."""


class Grace:
    """A grace period, and how it is known.

    Attributes:
        sure: seconds in which a rescue has to be done: the shortest period that is ordinary here; None for no limit.
        hope: seconds until which work that goes well may go on; never less than `sure`, and None if that is.
        known: GIVEN, READ or GUESSED.
        source: what it is given by, or read from.
        where: where the program runs, with what that is recognised by, such as "on Kubernetes (KUBERNETES_SERVICE_HOST)".
        note: what an operator should know besides.
        by_hand: a person stops the program in the foreground of a terminal, where nobody sends SIGKILL.
        drain: seconds for which requests still arrive after the signal, as a platform is known for.
    """

    __slots__ = ("by_hand", "drain", "hope", "known", "note", "source", "sure", "where")

    def __init__(
        self,
        sure: float | None,
        hope: float | None = None,
        *,
        known: str = GIVEN,
        source: str = "the program",
        where: str = "",
        note: str = "",
        by_hand: bool = False,
        drain: float = 0.0,
    ) -> None:
        self.sure: float | None = sure
        self.hope: float | None = sure if hope is None else hope
        self.known: str = known
        self.source: str = source
        self.where: str = where
        self.note: str = note
        self.by_hand: bool = by_hand
        self.drain: float = drain

    def within(self, other: Grace | None) -> Grace:
        """The same, but for no longer than another one, which is a person's if that is."""
        if other is not None and other.by_hand:
            return other
        if other is None or other.sure is None or other.hope is None:
            return self
        if self.sure is None or self.hope is None:
            return other
        return Grace(min(self.sure, other.sure), min(self.hope, other.hope), source=other.source)

    @property
    def told(self) -> bool:
        """Whether it is more than a guess."""
        return self.known != GUESSED

    @property
    def text(self) -> str:
        """Both numbers as CLEANUP_GUARD_GRACE takes them."""
        if self.sure is None or self.hope is None:
            return "none"
        return f"{self.sure:.6g}" if self.sure == self.hope else f"{self.sure:.6g}..{self.hope:.6g}"

    @property
    def how(self) -> str:
        """How it is known, in words that differ for what is given, read and guessed."""
        if self.by_hand:
            return "press Ctrl-C again to interrupt what is running, a third time to leave"
        if self.known == GUESSED:
            known = f"guessed; {GRACE_VARIABLE} says it better"
        else:
            known = f"{self.known} {'by' if self.known == GIVEN else 'from'} {self.source}"
        return f"{known} ({self.note})" if self.note else known


BY_HAND = Grace(None, where="in the foreground of a terminal", by_hand=True)
"""Ctrl-C there: nobody will send SIGKILL, whatever a platform does otherwise."""


def how_long(sure: float | None, hope: float | None) -> str:
    """How much time there is to clean up, for a person to read."""
    if sure is None or hope is None:
        return "no time limit"
    if sure == hope:
        return f"{hope:g} s to clean up"
    return f"{sure:g} s to clean up for sure, up to {hope:g} s in hope"


class Budget:
    """What a grace period is spent on. Nothing here waits: it only says at which instant each step is due.

    There are two ends of it. Rescues (take over from a stuck main, interrupt a callback while others wait) are due in the time
    that is `sure`; permission to go on (a main that cooperates, a critical section, the last callback) lasts while there is
    `hope`.

    The guard ends a safety margin (a tenth, between 0.05 and 2 s) before the platform's SIGKILL, because a
    throttled container needs time to die, too. Shares are of what remains after that margin.
    """

    __slots__ = ("_hope", "_sure", "began", "margin", "period", "stepped_in")

    HOOKS = 0.2  # sure: on_stop hooks may hold back the stop this long
    STUCK = 0.5  # sure: main has not run one line of Python since the stop: the watcher runs the callbacks
    TAKE_OVER = 0.8  # sure: main has not come back: the watcher runs the callbacks; hope: a stop of somebody else's is ours
    FORCE = 0.9  # hope: critical sections and cooperative mains are interrupted; sure: a `finally` is not waited for any longer
    INTERRUPT = 0.9  # the callback in progress is interrupted; sure: so that the others have their turn; hope: the last one
    LATE = 0.95  # hope: main was interrupted at last, and has not come back either

    SURE = (HOOKS, STUCK, TAKE_OVER, FORCE)
    HOPE = (TAKE_OVER, FORCE, LATE, 1.0)
    """The shares at which something is due."""

    def __init__(self, period: Grace | float | None, began: float) -> None:
        self.period: Grace = period if isinstance(period, Grace) else Grace(period)
        self.stepped_in: bool = False  # into a stop that was somebody else's, at TAKE_OVER
        self.began: float = began
        sure, hope = self.period.sure, self.period.hope
        self.margin: float = _margin(hope)
        self._hope: float = inf if hope is None else hope - self.margin
        self._sure: float = self._hope if sure == hope else inf if sure is None else sure - _margin(sure)

    @property
    def grace(self) -> float | None:
        """Seconds until the platform's SIGKILL, at best; None for no limit."""
        return self.period.hope

    def sure(self, share: float) -> float:
        """The instant at which a rescue is due: this share of the time that is sure is spent (infinity without a limit)."""
        return self.began + share * self._sure

    def hope(self, share: float) -> float:
        """The instant at which a permission ends: this share of the time that is hoped for is spent."""
        return self.began + share * self._hope

    def due_after(self, now: float) -> float:
        """The next instant at which something is due."""
        instants = (*map(self.sure, self.SURE), *map(self.hope, self.HOPE))
        return min((at for at in instants if at > now), default=inf)

    @property
    def end(self) -> float:
        """When the guard reports and ends the process."""
        return self.hope(1.0)

    @property
    def last_resort(self) -> float:
        """When the C-level timer ends a process whose interpreter cannot run any more."""
        hope = self.period.hope
        return inf if hope is None else self.began + hope - self.margin / 2

    @property
    def last_moment(self) -> float:
        """When it ends one whose interpreter does run and is busy ending itself: with another status, but in time."""
        return inf if self.grace is None else self.began + self.grace - self.margin / 8

    def remaining(self, now: float, *, others_wait: bool = False) -> float | None:
        """Seconds until the callback in progress would be interrupted; None without a limit, never negative.

        Args:
            now: the time.
            others_wait: other callbacks are still to run.
        """
        if self.grace is None:
            return None
        end = self.sure if others_wait and now < self.sure(1.0) else self.hope
        return max(0.0, end(self.INTERRUPT) - now)

    def callback_limit(self, started: float, timeout: float | None, *, others_wait: bool = False) -> float:
        """When a callback that started at this instant is interrupted.

        One that starts when the interrupt is already due gets half of what is left, so that a slow
        predecessor does not rob it of its turn.

        Args:
            started: when it started.
            timeout: its own time limit.
            others_wait: other callbacks are still to run, and have only the time that is sure.
        """
        own = inf if timeout is None else started + timeout
        due, end = self.hope(self.INTERRUPT), self.end
        if others_wait and started < self.sure(1.0):
            due, end = self.sure(self.INTERRUPT), self.sure(1.0)
        elif others_wait:
            due = started  # what was sure is over, and what is left may be little: the others get half
        return min(own, max(due, started + (end - started) / 2))


def _margin(grace: float | None) -> float:
    return 0.0 if grace is None else min(max(0.1 * grace, 0.05), 2.0, grace / 2)
