"""Which child is stopped when, in which order, with which signal, and when asking ends: all decisions, and nothing else.

The policy is told what happened (`signal`, `ended`) and what time it is (`step`), and acts on a `World`, which is the real one
in `_family.py` and a fake one in tests. It reads no clock, and starts, signals and waits for nothing itself.

Rules:
1. One budget. Draining, asking, SIGKILL and callbacks are slices of one grace period, which ends before the platform's.
2. Children that do not depend on each other are asked together. One that another comes `after` is asked when that one is
   gone, or when its turn has come anyway: a stubborn child must not cost its neighbours their time to clean up.
3. A process is told to stop once: a handler that raises would be raised out of its cleanup by a second time. One that was
   started after the stop is somebody's cleanup: it is told late. One that was told in its fork may have missed it, and is
   told again at half time, for lack of anything better than SIGKILL.
4. Nobody is killed before the time for asking is over, unless its own grace or a person says so.
5. Who had to be killed is never reported as 0.
"""

from __future__ import annotations

from math import inf

from cleanup_guard._ground.clock import Budget

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Literal, Protocol

    Scope = Literal["group", "main", "main-then-group"]

    class World(Protocol):
        """Processes, as the policy sees them."""

        def send(self, child: Child, signum: int, *, to_group: bool) -> None:
            """Send a signal to a child's main process, or to all of its process group."""
            ...

        def tell_rest(self, child: Child, signum: int, *, young: bool) -> None:
            """Tell those of a child's group to stop that have not been told: all, or but for the young ones."""
            ...

        def tell_strays(self, signum: int, *, young: bool) -> None:
            """The same for descendants that have left for other groups and sessions."""
            ...

        def remind(self) -> None:
            """Tell those once more to stop that were told right after they were forked, and may have missed it."""
            ...

        def kill(self, child: Child) -> None:
            """SIGKILL to everybody in a child's group."""
            ...

        def kill_strays(self) -> None:
            """SIGKILL to every other descendant."""
            ...

        def has_group(self, child: Child) -> bool:
            """Whether somebody of a child's group lives, its main process aside."""
            ...

        def has_strays(self) -> bool:
            """Whether a descendant lives that is in no child's group."""
            ...


SIGINT, SIGKILL, SIGTERM = 2, 9, 15

DUPLICATE = 1.0
"""Seconds within which a repeated stop is the same one."""

AGAIN = 0.25
"""Seconds between two looks at processes that do not report to us, once a stop has begun."""

KILL = 0.9
KILL_BEFORE_CALLBACKS = 0.7
GIVE_UP_AFTER = 0.08
"""Shares of the usable budget: when asking ends, the same with callbacks to follow, and what SIGKILL gets to work."""


class Child:
    """One child: what was asked for, and what became of it.

    `status` is as subprocess says it: negative for a death by signal, None while the main process runs or has not started.
    """

    __slots__ = (
        "after",
        "argv",
        "asked_at",
        "ended_at",
        "gone",
        "grace",
        "killed",
        "level",
        "name",
        "pid",
        "rest_told_at",
        "scope",
        "sent",
        "status",
        "stop_signal",
    )

    def __init__(
        self,
        name: str,
        argv: list[str] | None = None,
        *,
        after: Iterable[Child] = (),
        stop_signal: int | None = None,
        grace: float | None = None,
        scope: Scope = "group",
    ) -> None:
        self.name: str = name
        self.argv: list[str] = argv or []
        self.after: tuple[Child, ...] = tuple(after)
        self.stop_signal: int | None = stop_signal
        self.grace: float | None = grace
        self.scope: Scope = scope
        self.pid: int | None = None
        self.status: int | None = None
        self.ended_at: float = inf
        self.asked_at: float = inf
        self.rest_told_at: float = inf
        self.sent: int | None = None
        self.killed: bool = False
        self.gone: bool = False
        self.level: int = 0

    def __repr__(self) -> str:
        return f"<{self.name} pid={self.pid} status={self.status}>"

    @property
    def started(self) -> bool:
        """Whether it was started."""
        return self.pid is not None

    @property
    def running(self) -> bool:
        """Whether its main process runs."""
        return self.pid is not None and self.status is None

    @property
    def code(self) -> int:
        """Its exit status as a shell says it."""
        status = self.status or 0
        return status if status >= 0 else 128 - status


class Policy:
    """The decisions for one set of children, from the first start to the last end. See the rules of this module.

    Args:
        children: all of them, in start order; `add` takes later ones.
        world: whom to act on.
        grace: seconds between the platform's stop signal and its SIGKILL; None for no limit.
        drain: seconds between a stop signal and the first child being asked, for load balancers to notice.
        when_one_exits: whether the others are stopped, or go on.
        wait_all: whether descendants are waited for, too.
        callbacks: whether time must be left for callbacks.
        stop_signals: those that mean a stop; all others are forwarded.
        rewrite: which signal to send instead of one that arrives; 0 for none.
        open_ended: whether more children may come when all have ended.
    """

    def __init__(
        self,
        children: Iterable[Child],
        world: World,
        *,
        grace: float | None = 10.0,
        drain: float = 0.0,
        when_one_exits: Literal["stop", "wait"] = "stop",
        wait_all: bool = True,
        callbacks: bool = False,
        stop_signals: Iterable[int] = (SIGTERM, SIGINT),
        rewrite: Mapping[int, int] | None = None,
        open_ended: bool = False,
    ) -> None:
        self.children: list[Child] = []
        self.world = world
        self.grace = grace
        self.drain = drain
        self.when_one_exits = when_one_exits
        self.wait_all = wait_all
        self.kill_share = KILL_BEFORE_CALLBACKS if callbacks else KILL
        self.stop_signals = frozenset(stop_signals)
        self.rewrite = dict(rewrite or {})
        self.open_ended = open_ended
        self.budget: Budget | None = None
        self.reason: str | None = None
        self.stop_signum: int | None = None  # the one that came from outside
        self.hurried_at = inf
        self.done = False
        self.strays_killed = False
        self._signum: int | None = None  # what is sent to children without a stop signal of their own
        self._counted_at = -inf
        self._failed: int | None = None
        self._strays_told_at = inf
        self._ask_from = -inf
        self._reminded = False
        for child in children:
            self.add(child)

    # -- what happens ---------------------------------------------------------------------------------------------------

    def add(self, child: Child) -> None:
        """Take one more child, which comes after children that are here already."""
        self.children.append(child)
        for each in reversed(self.children):
            later = [other.level for other in self.children if each in other.after]
            each.level = 1 + max(later) if later else 0

    def ended(self, child: Child, status: int, now: float) -> None:
        """A child's main process has ended, or could not be started."""
        child.status = status
        child.ended_at = now
        if child.code and self._failed is None and not self._excused(child):
            self._failed = child.code

    def _excused(self, child: Child) -> bool:
        """Whether a failure is only that the child did what we asked for, and nobody else had."""
        return self.stop_signum is None and child.sent is not None and child.code == 128 + child.sent

    def signal(self, signum: int, now: float) -> None:
        """A signal has arrived: a stop, a repeated stop, or one to pass on."""
        wanted = self.rewrite.get(signum, signum)
        if wanted == 0:
            return
        if signum not in self.stop_signals:
            for child in self.children:
                if child.running:
                    self.world.send(child, wanted, to_group=child.scope == "group")
        elif self.budget is None:
            self.stop_signum = signum
            self._counted_at = now
            self.stop(f"signal {signum}", now, wanted, drain=self.drain)
        elif signum == SIGINT and self.stop_signum in (SIGINT, None):
            self._insist(now)

    def _insist(self, now: float) -> None:
        """A person presses Ctrl-C: the second press, a second later or more, is meant."""
        if self._counted_at == -inf:
            self._counted_at = now
        elif now - self._counted_at >= DUPLICATE:
            self.hurried_at = min(self.hurried_at, now)

    def stop(self, reason: str, now: float, signum: int | None = None, *, drain: float = 0.0) -> None:
        """Begin the stop, unless it has begun."""
        if self.budget is None:
            self.reason = reason
            self._signum = signum
            self.budget = Budget(self.grace, now)
            self._ask_from = now + drain

    # -- what follows ---------------------------------------------------------------------------------------------------

    def step(self, now: float) -> float:
        """Do all that is due. Returns the instant at which to call again if nothing happens before; infinity for never."""
        self._notice_ends(now)
        due = min((self._tend_rest(child, now) for child in self.children if child.started), default=inf)
        if self.budget is not None:
            due = min(due, self._drive(now))
        self.done = self._is_done(now)
        return due

    def _notice_ends(self, now: float) -> None:
        for child in self.children:
            if (
                not child.gone
                and child.status is not None
                and not (self.wait_all and self.world.has_group(child))
            ):
                child.gone = True
        ended = [child for child in self.children if child.status is not None]
        everybody = len(ended) == len(self.children) and not self.open_ended
        if ended and (self.when_one_exits == "stop" or everybody):
            first = min(ended, key=lambda child: child.ended_at)
            self.stop(f"{first.name} ended with {first.code}", now)

    def _tend_rest(self, child: Child, now: float) -> float:
        """The main process has ended and left somebody behind: they are told, and killed when their time is over."""
        if child.gone or child.status is None:
            return inf
        if child.rest_told_at == inf:
            child.rest_told_at = now
        late = now >= self._middle(child.rest_told_at)
        self.world.tell_rest(child, self._signal_for(child), young=late or child.sent is None)
        kill_at = min(self._kill_at(child), inf if self.budget else self._own_end(child))
        if now >= kill_at:
            self._kill(child)
        return now + AGAIN

    def _own_end(self, child: Child) -> float:
        """When leftovers of a child that ended by itself are killed while the others go on."""
        grace = self.grace if child.grace is None else child.grace
        return inf if grace is None else child.rest_told_at + grace

    def _middle(self, began: float) -> float:
        return inf if self.budget is None else began + (self.kill_at - began) / 2

    @property
    def kill_at(self) -> float:
        """When the time for asking is over."""
        return inf if self.budget is None else min(self.budget.at(self.kill_share), self.hurried_at)

    def _kill_at(self, child: Child) -> float:
        asked = min(child.asked_at, child.rest_told_at)
        return min(self.kill_at, inf if child.grace is None else asked + child.grace)

    def _signal_for(self, child: Child) -> int:
        return child.stop_signal or self._signum or SIGTERM

    def _drive(self, now: float) -> float:
        due = min(self.kill_at, self._remind(now))
        for child in reversed(self.children):
            if child.running:
                due = min(due, self._ask_or_kill(child, now))
        if self.wait_all:
            due = min(due, self._tend_strays(now))
        return due if due > now else now + AGAIN

    def _remind(self, now: float) -> float:
        if self._reminded:
            return inf
        at = self._middle(self._ask_from)
        if now < at:
            return at
        self._reminded = True
        self.world.remind()
        return inf

    def _ask_or_kill(self, child: Child, now: float) -> float:
        if child.asked_at == inf:
            turn = self._turn(child)
            if (
                now < turn
                and (now < self._ask_from or not self._all_gone_after(child))
                and now < self.kill_at
            ):
                return turn
            self._ask(child, now)
        if child.scope == "main-then-group":
            middle = self._middle(child.asked_at)
            if now >= middle:
                self.world.tell_rest(child, self._signal_for(child), young=True)
            elif now < self._kill_at(child):
                return min(middle, self._kill_at(child))
        if now >= self._kill_at(child):
            self._kill(child)
        return self._kill_at(child)

    def _ask(self, child: Child, now: float) -> None:
        child.asked_at = now
        child.sent = self._signal_for(child)
        self.world.send(child, child.sent, to_group=child.scope == "group")

    def _turn(self, child: Child) -> float:
        """When a child is asked even if those that come after it are still there."""
        if child.level == 0:
            return self._ask_from
        levels = 1 + max(each.level for each in self.children)
        if self.budget is None or self.kill_at == inf:
            return inf
        return self._ask_from + (self.kill_at - self._ask_from) * child.level / levels

    def _all_gone_after(self, child: Child) -> bool:
        return all(other.gone or not other.started for other in self.children if child in other.after)

    def _kill(self, child: Child) -> None:
        child.killed = True
        self.world.kill(child)

    def _tend_strays(self, now: float) -> float:
        """Descendants in other sessions: their parents may see to them, so they are told when these are gone, or late."""
        if not self.world.has_strays():
            return inf
        alone = all(child.gone or not child.started for child in self.children)
        if now < self._ask_from or not (alone or now >= self._middle(self._ask_from)):
            return min(now + AGAIN if alone else inf, max(self._ask_from, self._middle(self._ask_from)))
        self._strays_told_at = min(self._strays_told_at, now)
        late = self.stop_signum is None or now >= self._middle(self._ask_from)
        self.world.tell_strays(self._signum or SIGTERM, young=late)
        if now >= self.kill_at:
            self.strays_killed = True
            self.world.kill_strays()
        return now + AGAIN

    def _is_done(self, now: float) -> bool:
        budget = self.budget
        gone = all(child.gone or not child.started for child in self.children)
        if budget is None:
            return gone and self.open_ended
        if gone and not (self.wait_all and self.world.has_strays()):
            return True
        give_up = max(
            budget.at(self.kill_share + GIVE_UP_AFTER), self.hurried_at + 1 if self.hurried_at < inf else -inf
        )
        return now >= min(give_up, budget.end)

    @property
    def status(self) -> int:
        """The exit status of it all: the only child's own, or the first failure; never 0 when somebody was killed."""
        if len(self.children) == 1 and self.children[0].status is not None:
            status = self.children[0].code
        elif self.stop_signum is not None and not any(child.started for child in self.children):
            status = 128 + self.stop_signum
        else:
            status = self._failed or 0
        return status or (128 + SIGKILL if self.anybody_killed else 0)

    @property
    def anybody_killed(self) -> bool:
        """Whether SIGKILL was sent to anybody."""
        return self.strays_killed or any(child.killed for child in self.children)
