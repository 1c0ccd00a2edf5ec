"""Which child is started and stopped when, with which signal, and when asking ends: all decisions about time and order.

The policy is told what happened (`signal`, `ended`) and what time it is (`step`), and acts on a `World`: a real one in
`_family.py` and `_household.py`, a fake one in tests. It reads no clock, and starts, signals and waits for nothing itself.
Whom of a child to tell is decided in `_telling.py`.

Rules:
1. One budget. Draining, asking, SIGKILL and callbacks are slices of one grace period, which ends before the platform's.
2. Children that do not depend on each other are asked together. One that another comes `after` is asked when that one is
   gone, or when its turn has come anyway: a stubborn child must not cost its neighbours their time to clean up.
3. Nobody is told to stop twice. A main process that catches the stop is told before anything is looked up.
4. Nobody is killed before the time for asking is over, unless its own grace or a person says so.
5. That everybody is gone is the kernel's word, never that of a look, which may miss somebody.
6. Who had to be killed is never reported as 0.
"""

from __future__ import annotations

from math import inf

from cleanup_guard._ground.clock import Budget
from cleanup_guard._supervise._telling import Telling

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Literal, Protocol

    from cleanup_guard._supervise._child import Child
    from cleanup_guard._supervise._telling import Kin
    from cleanup_guard._supervise._tree import Process

    class World(Protocol):
        """Processes, as the policy sees them."""

        blind: bool
        """Whether there is no /proc, so that only main processes and their groups can be told."""

        news: bool
        """Whether somebody has ended since the last look."""

        cost: float
        """Seconds that the last look took."""

        def is_empty(self) -> bool:
            """Whether nobody is left, for sure."""
            ...

        def ticks(self) -> int:
            """Now, on the clock of `Process.started`."""
            ...

        def main(self, child: Child) -> Process | None:
            """A look at a child's main process; None if it has just ended."""
            ...

        def below(self, child: Child, seconds: float) -> list[Process]:
            """A look at those below a main process; not at all of them, if it takes longer than so many seconds."""
            ...

        def look(self) -> list[Process]:
            """A look at everybody, parents before children."""
            ...

        def pipes(self, process: Process) -> tuple[set[str], set[str]]:
            """What a process reads and writes that is not ours, too."""
            ...

        def tell(self, process: Process, signum: int) -> None:
            """Send a signal to one process."""
            ...

        def signal(self, child: Child, signum: int, *, to_group: bool) -> None:
            """Send a signal to a child's main process, or to all of its process group."""
            ...

        def kill(self, child: Child, rest: Sequence[Process]) -> None:
            """SIGKILL to a child's group, and to the others of it."""
            ...

        def kill_everybody(self, rest: Sequence[Process]) -> None:
            """SIGKILL to everybody below us, these and those who were not seen."""
            ...

        def left_behind(self, child: Child, rest: Sequence[Process], *, stays: bool) -> None:
            """A child has ended by itself and others live: they are told to stop, or waited for."""
            ...


SIGINT, SIGKILL, SIGTERM, SIGCONT = 2, 9, 15, 18

DUPLICATE = 0.5
"""Seconds within which a repeated Ctrl-C is the same press."""

AGAIN = 0.25
"""Seconds between two looks at processes that do not report to us, once a stop has begun."""

KILL_AGAIN = 0.02
"""Seconds between two rounds of SIGKILL: somebody may have forked in the first."""

SAMPLING = 0.001
"""Seconds that looking at who is below a main process may hold up its being told."""

KILL = 0.9
KILL_BEFORE_CALLBACKS = 0.7
GIVE_UP_AFTER = 0.08
"""Shares of the usable budget: when asking ends, the same with callbacks to follow, and what SIGKILL gets to work then."""

GIVE_UP_WHEN_HURRIED = 5.0
"""Seconds that SIGKILL gets to work when a person cannot wait."""

JOB_CONTROL = frozenset({18, 20, 21, 22})
"""CONT, TSTP, TTIN, TTOU: as a terminal would, these go to the whole group."""

INSISTED, ABANDONED = 2, 3
"""Presses of Ctrl-C: the second ends the patience, the third everything."""


class Terms:
    """What was asked for, for all children together.

    Attributes:
        grace: seconds between the platform's stop signal and its SIGKILL; None for no limit.
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
        grace: float | None = 10.0,
        drain: float = 0.0,
        when_one_exits: Literal["stop", "wait"] = "stop",
        wait_all: bool = True,
        stay: bool = False,
        callbacks: bool = False,
        stop_signals: Iterable[int] = (SIGTERM, SIGINT),
        rewrite: Mapping[int, int] | None = None,
        open_ended: bool = False,
    ) -> None:
        self.grace = grace
        self.drain = drain
        self.when_one_exits = when_one_exits
        self.wait_all = wait_all
        self.stay = stay
        self.kill_share = KILL_BEFORE_CALLBACKS if callbacks else KILL
        self.stop_signals = frozenset(stop_signals)
        self.rewrite = dict(rewrite or {})
        self.open_ended = open_ended


class Stop:
    """What is known about the stop: why, since when, and how patient people are."""

    def __init__(self) -> None:
        self.budget: Budget | None = None
        self.reason: str = ""
        self.signum: int | None = None  # the one that came from outside
        self.sent: int | None = None  # what is sent to children without a stop signal of their own
        self.ask_from = -inf
        self.hurried_at = inf
        self.presses = 0
        self._pressed_at = -inf

    def press(self, now: float) -> None:
        """Ctrl-C was pressed, perhaps by the same press as the last."""
        if now - self._pressed_at >= DUPLICATE:
            self.presses += 1
            if self.presses >= INSISTED:
                self.hurried_at = min(self.hurried_at, now)
        self._pressed_at = now


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
        self.stopping = Stop()
        self.done = False
        self.anybody_killed = False
        self.telling = Telling()
        self._failed: int | None = None
        self._kin: Kin | None = None
        self._look_at = -inf
        self._not_before = -inf

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

    def signal(self, signum: int, now: float) -> None:
        """A signal has arrived: a stop, a repeated stop, or one to pass on."""
        wanted = self.terms.rewrite.get(signum, signum)
        if wanted == 0:
            return
        if signum not in self.terms.stop_signals:
            self.forward(wanted, now)
            return
        if self.budget is None:
            self.stopping.signum = signum
            self.stop(f"signal {signum}", now, wanted, drain=self.terms.drain)
        if signum == SIGINT:
            self.stopping.press(now)

    def forward(self, signum: int, now: float, only: Child | None = None) -> None:
        """Pass on a signal that is no stop, to all children or to one."""
        for child in self.children if only is None else [only]:
            if child.started and not child.gone:
                self._forward(child, signum, now)
        if only is None and self._nobody_runs and not (self.world.blind or self.world.is_empty()):
            for process in self.telling.forwarded(self._look(now), None, signum):
                self.world.tell(process, signum)

    @property
    def _nobody_runs(self) -> bool:
        """Whether only those live whom main processes have left behind."""
        return all(child.status is not None for child in self.children)

    def _forward(self, child: Child, signum: int, now: float) -> None:
        to_group = self.world.blind or child.scope == "group" or signum in JOB_CONTROL
        if child.running and (to_group or child.scope != "tree"):
            self.world.signal(child, signum, to_group=to_group and child.scope != "main")
            return
        main = self.world.main(child) if child.running else None
        caught = main is not None and main.hears(signum)
        if caught:
            self.world.signal(child, signum, to_group=False)
        kin = self._look(now)
        for process in self.telling.forwarded(kin, child, signum):
            if not (caught and process.pid == child.pid):
                self.world.tell(process, signum)

    def stop(self, reason: str, now: float, signum: int | None = None, *, drain: float = 0.0) -> None:
        """Begin the stop, unless it has begun."""
        stopping = self.stopping
        if stopping.budget is None:
            stopping.reason = reason
            stopping.sent = signum
            stopping.budget = Budget(self.terms.grace, now)
            stopping.ask_from = now + drain

    # -- what follows ---------------------------------------------------------------------------------------------------

    def step(self, now: float) -> float:
        """Do all that is due. Returns the instant at which to call again if nothing happens before; infinity for never."""
        self._notice_ends(now)
        due = min((self._ask_in_turn(child, now) for child in reversed(self.children)), default=inf)
        due = min(due, self._tend(now))
        self._notice_ends(now)
        due = min(due, self._end_by_force(now))
        self.done = self._is_done(now)
        return due if due > now else now + KILL_AGAIN

    def _notice_ends(self, now: float) -> None:
        empty = not self.terms.wait_all or self.world.is_empty()
        for child in self.children:
            if child.status is not None and (empty or not child.started):
                child.gone = True
        ended = [
            child
            for child in self.children
            if child.status is not None and (child.gone or not self.terms.stay)
        ]
        everybody = len(ended) == len(self.children) and not self.terms.open_ended
        if ended and (self.terms.when_one_exits == "stop" or everybody):
            first = min(ended, key=lambda child: child.ended_at)
            self.stop(f"{first.name} ended with {first.code}", now)

    # -- asking ---------------------------------------------------------------------------------------------------------

    def _ask_in_turn(self, child: Child, now: float) -> float:
        if self.budget is None or not child.running or child.asked_at < inf:
            return inf
        turn = self._turn(child)
        begun = now >= self.stopping.ask_from
        if now < turn and not (begun and self._all_gone_after(child)) and now < self.kill_at:
            return turn
        self._ask(child, now)
        return inf

    def _ask(self, child: Child, now: float) -> None:
        """Ask a child to stop. Who catches it is told at once; otherwise it is `_tend` that tells, after a look."""
        world = self.world
        ticks = world.ticks()
        self.telling.begin(ticks, now)
        child.asked_at = now
        child.sent = signum = self._signal_for(child)
        if world.blind or child.scope == "group":
            self._signal(child, signum, to_group=child.scope != "main")
            self.telling.note_group(world.look(), child)
            return
        main = world.main(child)
        if main is not None and (self.telling.catches(main, signum) or child.scope != "tree"):
            self.telling.sample(world.below(child, SAMPLING), ticks)
            self._signal(child, signum, to_group=False)
            self.telling.note([main])
        self._kin = None  # look anew

    def _turn(self, child: Child) -> float:
        """When a child is asked even if those that come after it are still there."""
        level = self._level(child)
        if level == 0:
            return self.stopping.ask_from
        levels = 1 + max(self._level(each) for each in self.children)
        if self.kill_at == inf:
            return inf
        return self.stopping.ask_from + (self.kill_at - self.stopping.ask_from) * level / levels

    def _level(self, child: Child) -> int:
        """How many there are in the longest chain of those that come after it."""
        return max((1 + self._level(other) for other in self.children if child in other.after), default=0)

    def _all_gone_after(self, child: Child) -> bool:
        return all(other.gone or not other.started for other in self.children if child in other.after)

    def _signal_for(self, child: Child | None) -> int:
        own = None if child is None else child.sent or child.stop_signal
        return own or self.stopping.sent or SIGTERM

    # -- telling the others ---------------------------------------------------------------------------------------------

    def _look(self, now: float) -> Kin:
        """Look at everybody, unless the last look was so dear, and so short ago, that there would be time for nothing else."""
        if self._kin is None or now >= self._not_before:
            self.world.news = False
            self._kin = self.telling.kin(self.world.look(), self.children)
            self._not_before = now + 2 * self.world.cost
            self._look_at = now + max(AGAIN, 4 * self.world.cost)
        return self._kin

    def _tend(self, now: float) -> float:
        """Tell whoever is to be told and has not been, and notice of whom nobody is left."""
        leaving = [child for child in self.children if child.status is not None and not child.gone]
        asked = [child for child in self.children if child.running and child.asked_at < inf]
        strays = self.budget is not None and self.terms.wait_all and not self.world.is_empty()
        if not (leaving or asked or strays):
            return inf
        if self.world.blind:
            for child in leaving:
                self._tend_unseen(child, now)
            return inf
        if self._kin is not None and now < (self._not_before if self.world.news else self._look_at):
            return self._not_before if self.world.news else self._look_at
        kin = self._look(now)
        for child in leaving:
            self._tend_rest(kin, child, now)
        for child in asked:
            self._tell(kin, child, now, since=child.asked_at)
        if strays:
            self._tell_strays(kin, now)
        return self._look_at

    def _tend_rest(self, kin: Kin, child: Child, now: float) -> None:
        """The main process has ended and may have left somebody behind."""
        rest = kin.of(child)
        left = rest + (kin.of(None) if self._nobody_runs else [])
        if child.rest_told_at == inf:
            if left and child.sent is None and self.stopping.signum is None:
                self.world.left_behind(child, left, stays=self.terms.stay)
            child.rest_told_at = now
        if not (left if self.terms.stay else rest) and not self.world.news:
            child.gone = True
        elif not self.terms.stay or self.budget is not None:
            self._tell(kin, child, now, since=self._since(child))

    def _since(self, child: Child) -> float:
        """When a child, or those whom it left behind, were first asked."""
        asked = min(child.asked_at, child.rest_told_at)
        return asked if self.budget is None else max(asked, self.budget.began)

    def _tend_unseen(self, child: Child, now: float) -> None:
        """Without a look there is only the group, whose number is nobody else's right after the end of its leader."""
        child.rest_told_at = now
        child.gone = True
        if child.sent is None or child.scope == "main":
            self._signal(child, self._signal_for(child), to_group=True)

    def _tell(self, kin: Kin, child: Child | None, now: float, *, since: float) -> None:
        signum = self._signal_for(child)
        late = now >= self._middle(since)
        due = self.telling.due(
            kin,
            child,
            signum,
            now=now,
            ticks=self.world.ticks(),
            late=late,
            end=self.kill_at,
            pipes=self.world.pipes,
        )
        self.telling.note(due)
        for process in due:
            self.world.tell(process, signum)
        for process in kin.of(child):
            if process in due or process.suspended:
                self.world.tell(process, SIGCONT)

    def _signal(self, child: Child, signum: int, *, to_group: bool) -> None:
        """Tell a main process, or its group, to stop. Who is suspended takes a signal only when it goes on."""
        self.world.signal(child, signum, to_group=to_group)
        self.world.signal(child, SIGCONT, to_group=to_group)

    def _tell_strays(self, kin: Kin, now: float) -> None:
        """Those whose descent is not known: somebody may need them until the children are gone, but not for ever."""
        alone = all(child.gone or not child.started for child in self.children)
        asked_from = max(self.stopping.ask_from, self.budget.began if self.budget else now)
        if now >= asked_from and (alone or now >= self._middle(asked_from)):
            self._tell(kin, None, now, since=asked_from)

    def _middle(self, began: float) -> float:
        return began + (self.kill_at - began) / 2

    # -- the end --------------------------------------------------------------------------------------------------------

    @property
    def kill_at(self) -> float:
        """When the time for asking is over."""
        if self.budget is None:
            return inf
        return min(self.budget.at(self.terms.kill_share), self.stopping.hurried_at)

    def _kill_at(self, child: Child) -> float:
        """When a child's own time is over, or that of those whom it left behind while the others go on."""
        grace = child.grace
        if self.budget is None:
            grace = None if self.terms.stay else self.terms.grace if grace is None else grace
        return min(self.kill_at, inf if grace is None else self._since(child) + grace)

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
            rest = [] if self._kin is None else self._kin.of(None)
            self.anybody_killed = self.anybody_killed or bool(rest) or self.world.blind
            self.world.kill_everybody(rest)
            due = now + KILL_AGAIN
        return due

    def _kill(self, child: Child) -> None:
        rest = [] if self._kin is None else [each for each in self._kin.of(child) if each.pid != child.pid]
        if child.running or rest:
            child.killed = self.anybody_killed = True
            self.world.kill(child, rest)

    def _is_done(self, now: float) -> bool:
        gone = all(child.gone or not child.started for child in self.children)
        if self.budget is None:
            return gone and self.terms.open_ended
        if gone and (not self.terms.wait_all or self.world.is_empty()):
            return True
        return now >= self._give_up_at(self.budget) or self.stopping.presses >= ABANDONED

    def _give_up_at(self, budget: Budget) -> float:
        """When SIGKILL has had its time to work: all that is left where no callbacks follow."""
        if self.stopping.hurried_at < inf:
            return self.stopping.hurried_at + GIVE_UP_WHEN_HURRIED
        if self.terms.kill_share == KILL:
            return budget.last_resort
        return min(budget.at(self.terms.kill_share + GIVE_UP_AFTER), budget.end)

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
