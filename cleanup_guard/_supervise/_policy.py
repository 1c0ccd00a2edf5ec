"""Which child is started and stopped when, with which signal, and when asking ends: all decisions about time and order.

The policy is told what happened (`signal`, `ended`) and what time it is (`step`), and acts on a `World`: a real one in
`_family.py` and `_household.py`, a fake one in tests. It reads no clock, and starts, signals and waits for nothing itself.
What was asked for is in `_terms.py`; what is sent to whom, as long as there is time for asking, is decided in `_asking.py`,
and whom of a child to tell in `_telling.py`.

Rules:
1. One budget. Draining, asking, SIGKILL and callbacks are slices of one grace period, which ends before the platform's.
2. Children that do not depend on each other are asked together. One that another comes `after` is asked when that one is
   gone, or when its turn has come anyway: a stubborn child must not cost its neighbours their time to clean up.
3. Nobody is told to stop twice, nor whom the platform has told. A main process that catches the stop is told before anything
   is looked up.
4. Nobody is killed before the time for asking is over, unless its own grace or a person says so.
5. That everybody is gone is the kernel's word, never that of a look, which may miss somebody.
6. Who had to be killed is never reported as 0.
"""

from __future__ import annotations

from cleanup_guard._ground.clock import inf
from cleanup_guard._supervise._asking import Asking
from cleanup_guard._supervise._terms import SIGINT, SIGKILL, Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cleanup_guard._ground.clock import Budget
    from cleanup_guard._supervise._asking import World
    from cleanup_guard._supervise._child import Child
    from cleanup_guard._supervise._terms import Terms

KILL_AGAIN = 0.02
"""Seconds between two rounds of SIGKILL: somebody may have forked in the first."""


class Policy:
    """The decisions for one set of children, from the first start to the last end. See the rules of this module.

    Args:
        children: all of them, in start order; `add` takes later ones.
        world: whom to act on.
        terms: what was asked for.
    """

    def __init__(self, children: Iterable[Child], world: World, terms: Terms) -> None:
        self.children: list[Child] = list(children)
        self.world = world
        self.terms = terms
        self.stopping = Stop(terms)
        self.done = False
        self.anybody_killed = False
        self._asking = Asking(self.children, world, terms, self.stopping)
        self._failed: int | None = None

    # -- what happens ---------------------------------------------------------------------------------------------------

    @property
    def budget(self) -> Budget | None:
        """What the stop has to be done in; None before it."""
        return self.stopping.budget

    def add(self, child: Child) -> None:
        """Take one more child, which comes after children that are here already."""
        self.children.append(child)

    def startable(self) -> list[Child]:
        """Who may be started now: all who are to be started before are ready."""
        if self.budget is not None:
            return []
        return [
            child
            for child in self.children
            if not child.started
            and child.status is None
            and all(other.started and (other.ready is None or other.ready.seen) for other in child.after)
        ]

    def ended(self, child: Child, status: int, now: float) -> None:
        """A child's main process has ended, or could not be started."""
        child.status = status
        child.ended_at = now
        if child.code and self._failed is None and not self._excused(child):
            self._failed = child.code

    def _excused(self, child: Child) -> bool:
        """Whether a failure is only that the child did what we asked for, and nobody else had."""
        return self.stopping.signum is None and child.sent is not None and child.code == 128 + child.sent

    def signal(self, signum: int, now: float, *, by_hand: bool = False, told_elsewhere: bool = False) -> None:
        """A signal has arrived: a stop, a repeated stop, or one to pass on. Who is to be asked first is asked at once.

        Args:
            signum: the signal.
            now: the time.
            by_hand: a person has pressed a key for it, in a terminal.
            told_elsewhere: the platform has sent it to every process.
        """
        wanted = self.terms.rewrite.get(signum, signum)
        if wanted == 0:
            return
        if signum not in self.terms.stop_signals:
            self.forward(wanted, now)
            return
        if self.budget is None:
            self.stopping.signum = signum
            self.stopping.told_elsewhere = signum if told_elsewhere else None
            self.stopping.begin(f"signal {signum}", now, wanted, drain=self.terms.drain, by_hand=by_hand)
            self._ask_in_turns(now)
        elif signum != SIGINT:
            self.stopping.start_clock(now)
        if signum == SIGINT:
            self.stopping.press(now)

    def foresee(self, signum: int) -> list[tuple[Child, int]]:
        """Which main processes a first stop by this signal asks when it arrives, if they run then, and with what; in order."""
        wanted = self.terms.rewrite.get(signum, signum)
        if not wanted or self.terms.drain:
            return []
        return [
            (child, child.stop_signal or wanted)
            for child in reversed(self.children)
            if self._is_last(child) and not self._asking.is_for_groups(child)
        ]

    def forward(self, signum: int, now: float, only: Child | None = None) -> None:
        """Pass on a signal that is no stop, to all children or to one."""
        self._asking.forward(signum, now, only)

    def stop(self, reason: str, now: float, *, seem_told: int | None = None) -> None:
        """Begin the stop, unless it has begun.

        Args:
            reason: why.
            now: the time.
            seem_told: the signal that the children seem to have had from elsewhere: they are told at half time.
        """
        if self.budget is None:
            self.stopping.told_elsewhere, self.stopping.told_surely = seem_told, seem_told is None
        self.stopping.begin(reason, now, None, drain=0.0)

    # -- what follows ---------------------------------------------------------------------------------------------------

    def step(self, now: float) -> float:
        """Do all that is due. Returns the instant at which to call again if nothing happens before; infinity for never."""
        self._notice_ends(now)
        due = min(self._ask_in_turns(now), self._asking.tend(now))
        self._notice_ends(now)
        due = min(due, self._end_by_force(now))
        self.done = self._is_done(now)
        return due if due > now else now + KILL_AGAIN

    def _notice_ends(self, now: float) -> None:
        """The end of some may be a reason to stop the others, and nothing is left to do for who is gone."""
        self._notice_gone()
        ended = [
            child
            for child in self.children
            if child.status is not None and (child.gone or not self.terms.stay)
        ]
        everybody = len(ended) == len(self.children) and not self.terms.open_ended
        if ended and (self.terms.when_one_exits == "stop" or everybody):
            first = min(ended, key=lambda child: child.ended_at)
            self.stop(f"{first.name} ended with {first.code}", now)

    def _notice_gone(self) -> None:
        empty = not self.terms.wait_all or self.world.is_empty()
        for child in self.children:
            if child.status is not None and (empty or not child.started):
                child.gone = True

    # -- asking ---------------------------------------------------------------------------------------------------------

    def _ask_in_turns(self, now: float) -> float:
        """Ask those whose turn it is. Returns when the next one's is."""
        return min((self._ask_in_turn(child, now) for child in reversed(self.children)), default=inf)

    def _ask_in_turn(self, child: Child, now: float) -> float:
        if self.budget is None or not child.running or child.asked_at < inf:
            return inf
        turn = self._turn(child)
        begun = now >= self.stopping.ask_from
        if now < turn and not (begun and self._all_gone_after(child)) and now < self.kill_at:
            return turn
        self._asking.ask(child, now)
        return inf

    def _turn(self, child: Child) -> float:
        """When a child is asked even if those that come after it are still there."""
        if self._is_last(child):
            return self.stopping.ask_from
        level = self._level(child)
        levels = 1 + max(self._level(each) for each in self.children)
        begun, rescue_at = self.stopping.ask_from, self.stopping.rescue_at
        if rescue_at == inf:
            return inf
        return begun + max(0.0, rescue_at - begun) * level / levels

    def _is_last(self, child: Child) -> bool:
        """Whether nobody comes after it, so that it is asked first."""
        return not any(child in other.after for other in self.children)

    def _level(self, child: Child) -> int:
        """How many there are in the longest chain of those that come after it."""
        return max((1 + self._level(other) for other in self.children if child in other.after), default=0)

    def _all_gone_after(self, child: Child) -> bool:
        return all(other.gone or not other.started for other in self.children if child in other.after)

    # -- the end --------------------------------------------------------------------------------------------------------

    @property
    def kill_at(self) -> float:
        """When the time for asking is over."""
        return self.stopping.kill_at

    def _kill_at(self, child: Child) -> float:
        """When a child's own time is over, or that of those whom it left behind while the others go on."""
        grace = child.grace
        if self.budget is None:
            grace = None if self.terms.stay else self.terms.grace.hope if grace is None else grace
        return min(self.kill_at, inf if grace is None else self._asking.since(child) + grace)

    def _end_by_force(self, now: float) -> float:
        due = self.kill_at
        for child in self.children:
            if child.gone or not child.started:
                continue
            at = self._kill_at(child)
            if now >= at:
                self._kill(child)
                at = now + KILL_AGAIN
            due = min(due, at)
        if now >= self.kill_at and self.terms.wait_all and not self.world.is_empty():
            rest = self._asking.seen(None)
            self.anybody_killed = self.anybody_killed or bool(rest) or self.world.blind
            self.world.kill_everybody(rest)
            due = now + KILL_AGAIN
        return due

    def _kill(self, child: Child) -> None:
        rest = [each for each in self._asking.seen(child) if each.pid != child.pid]
        if child.running or rest:
            child.killed = self.anybody_killed = True
            self.world.kill(child, rest)

    def _is_done(self, now: float) -> bool:
        gone = all(child.gone or not child.started for child in self.children)
        if self.budget is None:
            return gone and self.terms.open_ended
        if gone and (not self.terms.wait_all or self.world.is_empty()):
            return True
        return self.stopping.is_over(now)

    @property
    def status(self) -> int:
        """The exit status of it all: the only child's own, or the first failure; never 0 when somebody was killed."""
        if len(self.children) == 1 and self.children[0].status is not None:
            status = self.children[0].code
        elif self.stopping.signum is not None and not any(child.started for child in self.children):
            status = 128 + self.stopping.signum
        else:
            status = self._failed or 0
        return status or (128 + SIGKILL if self.anybody_killed else 0)
