"""What was asked for of all children together, and what is known about the stop: since when, why, and until when.

Pure: the time is told. What follows from it is decided in `_policy`.
"""

from __future__ import annotations

from cleanup_guard._ground.clock import BY_HAND, Budget, Grace, inf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Literal

SIGINT, SIGKILL, SIGTERM, SIGCONT = 2, 9, 15, 18

DUPLICATE = 0.5
"""Seconds within which a repeated Ctrl-C is the same press."""

KILL = 0.9
KILL_BEFORE_CALLBACKS = 0.7
GIVE_UP_AFTER = 0.08
"""Shares of the usable budget: when asking ends, the same with callbacks to follow, and what SIGKILL gets to work then."""

GIVE_UP_WHEN_HURRIED = 5.0
"""Seconds that SIGKILL gets to work when a person cannot wait."""

DOUBT = 5.0
"""Seconds for which who seems to have been told is left alone, where there is no half time."""

INSISTED, ABANDONED = 2, 3
"""Presses of Ctrl-C: the second ends the patience, the third everything."""


class Terms:
    """What was asked for, for all children together.

    Attributes:
        grace: what the platform gives between its stop signal and its SIGKILL.
        drain: seconds between a stop signal and the first child being asked, for load balancers to notice.
        when_one_exits: whether the others are stopped, or go on.
        wait_all: whether descendants are waited for, too.
        stay: whether a child counts as there as long as anybody whom it has started is.
        kill_share: which share of the usable budget asking gets.
        stop_signals: those that mean a stop; all others are forwarded.
        rewrite: which signal to send instead of one that arrives; 0 for none.
        open_ended: whether more children may come when all have ended.
    """

    def __init__(
        self,
        *,
        grace: Grace | float | None = 10.0,
        drain: float = 0.0,
        when_one_exits: Literal["stop", "wait"] = "stop",
        wait_all: bool = True,
        stay: bool = False,
        callbacks: bool = False,
        stop_signals: Iterable[int] = (SIGTERM, SIGINT),
        rewrite: Mapping[int, int] | None = None,
        open_ended: bool = False,
    ) -> None:
        self.grace: Grace = grace if isinstance(grace, Grace) else Grace(grace)
        self.drain = drain
        self.when_one_exits = when_one_exits
        self.wait_all = wait_all
        self.stay = stay
        self.kill_share = KILL_BEFORE_CALLBACKS if callbacks else KILL
        self.stop_signals = frozenset(stop_signals)
        self.rewrite = dict(rewrite or {})
        self.open_ended = open_ended


class Stop:
    """What is known about the stop: why, since when, how patient people are, and what follows for how long it may take.

    Args:
        terms: what was asked for. It may change until the stop begins.
    """

    def __init__(self, terms: Terms) -> None:
        self.budget: Budget | None = None
        self.reason: str = ""
        self.signum: int | None = None  # the one that came from outside
        self.told_elsewhere: int | None = None  # what the platform has sent to everybody, not only to us
        self.told_surely = True  # as the kernel says; else it seems so
        self.sent: int | None = None  # what is sent to children without a stop signal of their own
        self.ask_from = -inf
        self.hurried_at = inf
        self.presses = 0
        self._pressed_at = -inf
        self._terms = terms

    def begin(
        self, reason: str, now: float, signum: int | None, *, drain: float, by_hand: bool = False
    ) -> None:
        """It begins, unless it has begun; what a person has begun in a terminal has no end."""
        if self.budget is None:
            self.reason = reason
            self.sent = signum
            self.budget = Budget(BY_HAND if by_hand else self._terms.grace, now)
            self.ask_from = now + drain

    def start_clock(self, now: float) -> None:
        """After a person somebody stops us who will kill."""
        if self.budget is not None and self.budget.period.by_hand:
            self.budget = Budget(self._terms.grace, now)

    def press(self, now: float) -> None:
        """Ctrl-C was pressed, perhaps by the same press as the last."""
        if now - self._pressed_at >= DUPLICATE:
            self.presses += 1
            if self.presses >= INSISTED:
                self.hurried_at = min(self.hurried_at, now)
        self._pressed_at = now

    def share(self, drain: float) -> Grace:
        """What of the grace period is a child's own."""
        terms, budget = self._terms, Budget(self._terms.grace, 0.0)
        sure, hope = budget.sure(terms.kill_share), budget.hope(terms.kill_share)
        return Grace(sure - drain, (sure if terms.kill_share != KILL else hope) - drain, source="run")

    @property
    def kill_at(self) -> float:
        """When the time for asking is over: that which is sure if callbacks wait, else that which is hoped for."""
        if self.budget is None:
            return inf
        callbacks = self._terms.kill_share != KILL
        end = self.budget.sure if callbacks else self.budget.hope
        return min(end(self._terms.kill_share), self.hurried_at)

    @property
    def rescue_at(self) -> float:
        """When those who wait for others must have had their turn: all of it is done in the time that is sure."""
        if self.budget is None:
            return inf
        return min(self.budget.sure(self._terms.kill_share), self.hurried_at)

    def middle(self, began: float) -> float:
        """When half of the time for asking is over, for who was asked at that instant."""
        return began + max(0.0, self.rescue_at - began) / 2

    def doubted_from(self, began: float) -> float:
        """When who seemed to be told elsewhere, at that instant, is told after all, if he is still there."""
        middle = self.middle(began)
        return middle if middle < inf else began + DOUBT

    def share_over(self, began: float, now: float) -> float:
        """How much of the time for asking is over, for who was asked at that instant: 1 is all of it."""
        return 0.0 if self.kill_at in (inf, began) else (now - began) / (self.kill_at - began)

    def is_over(self, now: float) -> bool:
        """Whether nobody is waited for any more: SIGKILL has had its time, or a person wants it so."""
        return self.budget is not None and (now >= self._give_up_at(self.budget) or self.presses >= ABANDONED)

    def _give_up_at(self, budget: Budget) -> float:
        """When SIGKILL has had its time to work: all that is left where no callbacks follow."""
        if self.hurried_at < inf:
            return self.hurried_at + GIVE_UP_WHEN_HURRIED
        if self._terms.kill_share == KILL:
            return budget.last_resort
        return min(budget.sure(self._terms.kill_share + GIVE_UP_AFTER), budget.end)
