"""Who of everybody is told what, and when somebody has gone: one child asked, a signal passed on, and those around them.

When a child's turn comes, and when its time is over, is decided in `_policy`; whom of its processes to tell, in `_telling`.
This acts on a `World`: a real one in `_family.py` and `_household.py`, a fake one in tests.
"""

from __future__ import annotations

from cleanup_guard._ground.clock import inf
from cleanup_guard._supervise._telling import Telling
from cleanup_guard._supervise._terms import SIGCONT, SIGTERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from cleanup_guard._supervise._child import Child
    from cleanup_guard._supervise._telling import Kin
    from cleanup_guard._supervise._terms import Stop, Terms
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

        def hears_alone(self, child: Child, signum: int) -> bool:
            """Whether a main process is seen, at a glance, to catch a signal and to have nobody below it."""
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


AGAIN = 0.25
"""Seconds between two looks at processes that do not report to us, once a stop has begun."""

SAMPLING = 0.001
"""Seconds that looking at who is below a main process may hold up its being told."""

JOB_CONTROL = frozenset({18, 20, 21, 22})
"""CONT, TSTP, TTIN, TTOU: as a terminal would, these go to the whole group."""


class Asking:
    """What is sent to whom, as long as there is time for asking, and what was seen of them. See the rules of `_policy`.

    Args:
        children: all of them; the list grows when one is added.
        world: whom to act on.
        terms: what was asked for.
        stopping: what is known about the stop.
    """

    def __init__(self, children: list[Child], world: World, terms: Terms, stopping: Stop) -> None:
        self._children = children
        self._world = world
        self._terms = terms
        self._stopping = stopping
        self._telling = Telling()
        self._doubted: dict[Child, list[Process]] = {}  # who seems to have been told elsewhere
        self._kin: Kin | None = None
        self._look_at = -inf
        self._not_before = -inf

    # -- asking ---------------------------------------------------------------------------------------------------------

    def ask(self, child: Child, now: float) -> None:
        """Ask a child to stop. Who catches it is told at once; otherwise it is `tend` that tells, after a look."""
        world = self._world
        ticks = world.ticks()
        self._telling.begin(ticks, now)
        child.asked_at = now
        child.sent = signum = self._signal_for(child)
        if signum == self._stopping.told_elsewhere:
            told = self._telling.kin(world.look(), self._children).of(child)
            self._telling.note(told)
            if not self._stopping.told_surely:
                self._doubted[child] = told
            self._kin = None  # who has come since is looked for
            return
        if self.is_for_groups(child):
            self._signal(child, signum, to_group=child.scope != "main")
            self._telling.note_group(world.look(), child)
            return
        if world.hears_alone(child, signum):
            self._signal(child, signum, to_group=False)  # everything else has time
            self._telling.note_catcher(world.main(child))
        else:
            self._ask_after_a_look(child, signum, ticks)
        self._kin = None  # look anew

    def _ask_after_a_look(self, child: Child, signum: int, ticks: int) -> None:
        main = self._world.main(child)
        if main is not None and (self._telling.catches(main, signum) or child.scope != "tree"):
            self._telling.sample(child, self._world.below(child, SAMPLING), signum, ticks)
            self._signal(child, signum, to_group=False)
            self._telling.note([main])

    def is_for_groups(self, child: Child) -> bool:
        """Whether a child's group is told as a whole: it was wanted so, or nobody can be looked at."""
        return self._world.blind or child.scope == "group"

    def _signal_for(self, child: Child | None) -> int:
        own = None if child is None else child.sent or child.stop_signal
        return own or self._stopping.sent or SIGTERM

    # -- passing on -----------------------------------------------------------------------------------------------------

    def forward(self, signum: int, now: float, only: Child | None = None) -> None:
        """Pass on a signal that is no stop, to all children or to one."""
        for child in self._children if only is None else [only]:
            if child.started and not child.gone:
                self._forward(child, signum, now)
        if only is None and self._nobody_runs and not (self._world.blind or self._world.is_empty()):
            for process in self._telling.forwarded(self._look(now), None, signum):
                self._world.tell(process, signum)

    @property
    def _nobody_runs(self) -> bool:
        """Whether only those live whom main processes have left behind."""
        return all(child.status is not None for child in self._children)

    def _forward(self, child: Child, signum: int, now: float) -> None:
        to_group = self.is_for_groups(child) or signum in JOB_CONTROL
        if child.running and (to_group or child.scope != "tree"):
            self._world.signal(child, signum, to_group=to_group and child.scope != "main")
            return
        main = self._world.main(child) if child.running else None
        caught = main is not None and main.hears(signum)
        if caught:
            self._world.signal(child, signum, to_group=False)
        kin = self._look(now)
        for process in self._telling.forwarded(kin, child, signum, caught=caught):
            if not (caught and process.pid == child.pid):
                self._world.tell(process, signum)

    # -- telling the others ---------------------------------------------------------------------------------------------

    def _look(self, now: float) -> Kin:
        """Look at everybody, unless the last look was so dear, and so short ago, that there would be time for nothing else."""
        if self._kin is None or now >= self._not_before:
            self._world.news = False
            self._kin = self._telling.kin(self._world.look(), self._children)
            self._not_before = now + 2 * self._world.cost
            self._look_at = now + max(AGAIN, 4 * self._world.cost)
        return self._kin

    def tend(self, now: float) -> float:
        """Tell whoever is to be told and has not been, and notice of whom nobody is left. Returns when to do so again."""
        leaving = self._leaving()
        asked = [child for child in self._children if child.running and child.asked_at < inf]
        strays = self._has_strays()
        if not (leaving or asked or strays):
            return inf
        if self._world.blind:
            self._tend_unseen(leaving, now)
            return inf
        if self._kin is not None and now < self._look_again:
            return self._look_again
        kin = self._look(now)
        for child in leaving:
            self._tend_rest(kin, child, now)
        for child in asked:
            self._doubt(child, now)
            self._tell(kin, child, now, since=child.asked_at)
        if strays:
            self._tell_strays(kin, now)
        return self._look_at

    def _doubt(self, child: Child, now: float) -> None:
        """Who seemed to have been told elsewhere, and is still there at half time, may not have been."""
        if child in self._doubted and now >= self._stopping.doubted_from(child.asked_at):
            self._telling.forget(self._doubted.pop(child))

    def _leaving(self) -> list[Child]:
        """Those whose main process has ended, and of whom others may be left."""
        return [child for child in self._children if child.status is not None and not child.gone]

    def _has_strays(self) -> bool:
        """Whether somebody may be there whose descent is not known, and is to stop, too."""
        return self._stopping.budget is not None and self._terms.wait_all and not self._world.is_empty()

    @property
    def _look_again(self) -> float:
        """From when on there is something to see."""
        return self._not_before if self._world.news else self._look_at

    def _tend_rest(self, kin: Kin, child: Child, now: float) -> None:
        """The main process has ended and may have left somebody behind."""
        rest = kin.of(child)
        left = rest + (kin.of(None) if self._nobody_runs else [])
        if child.rest_told_at == inf:
            if left and child.sent is None and self._stopping.signum is None:
                self._world.left_behind(child, left, stays=self._terms.stay)
            child.rest_told_at = now
        if not (left if self._terms.stay else rest) and not self._world.news:
            child.gone = True
        elif not self._terms.stay or self._stopping.budget is not None:
            self._tell(kin, child, now, since=self.since(child))

    def since(self, child: Child) -> float:
        """When a child, or those whom it left behind, were first asked."""
        asked = min(child.asked_at, child.rest_told_at)
        return asked if self._stopping.budget is None else max(asked, self._stopping.budget.began)

    def _tend_unseen(self, leaving: list[Child], now: float) -> None:
        """Without a look there is only the group, whose number is nobody else's right after the end of its leader."""
        for child in leaving:
            child.rest_told_at = now
            child.gone = True
            if child.sent is None or child.scope == "main":
                self._signal(child, self._signal_for(child), to_group=True)

    def _tell(self, kin: Kin, child: Child | None, now: float, *, since: float) -> None:
        signum = self._signal_for(child)
        due = self._telling.due(
            kin,
            child,
            signum,
            now=now,
            ticks=self._world.ticks(),
            over=self._stopping.share_over(since, now),
            end=self._stopping.kill_at,
            others={} if child is None else self._others(child),
            pipes=self._world.pipes,
        )
        self._telling.note(due)
        for process in due:
            self._world.tell(process, signum)
        for process in kin.of(child):
            if process in due or process.suspended:
                self._world.tell(process, SIGCONT)

    def _others(self, child: Child) -> dict[Child | None, int]:
        """Who else is being stopped, and with what."""
        others: list[Child | None] = [
            other
            for other in self._children
            if other is not child and not other.gone and min(other.asked_at, other.rest_told_at) < inf
        ]
        if self._has_strays():
            others.append(None)
        return {other: self._signal_for(other) for other in others}

    def _signal(self, child: Child, signum: int, *, to_group: bool) -> None:
        """Tell a main process, or its group, to stop. Who is suspended takes a signal only when it goes on."""
        self._world.signal(child, signum, to_group=to_group)
        self._world.signal(child, SIGCONT, to_group=to_group)

    def _tell_strays(self, kin: Kin, now: float) -> None:
        """Those whose descent is not known: somebody may need them until the children are gone, but not for ever.

        Who waits for what they have to say needs nothing else of them.
        """
        alone = all(
            child.gone or not child.started or self._telling.only_reads(kin, child)
            for child in self._children
        )
        asked_from = max(
            self._stopping.ask_from, self._stopping.budget.began if self._stopping.budget else now
        )
        if now >= asked_from and (alone or now >= self._stopping.middle(asked_from)):
            self._tell(kin, None, now, since=asked_from)

    def seen(self, child: Child | None) -> list[Process]:
        """Who belonged to a child in the last look; to None, those whose descent is not known any more."""
        return [] if self._kin is None else self._kin.of(child)
