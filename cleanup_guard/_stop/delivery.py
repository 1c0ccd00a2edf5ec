"""How a stop is delivered: from facts and the time, what is due now, and when to look again.

Everything that can go wrong with a stop is decided here: main does not notice it (the kernel chose another thread, main is in
C), swallows it, hides behind a critical section, hangs in a callback, or goes on when all is over. The watcher tells the
facts, and does what is decided (`World`); tests have a world and a clock of their own.

Rules:
1. While somebody else owns the stop (`Stop.theirs`) main is left alone until eight tenths of a grace period that is known.
   Then the stop becomes ours, is raised in main, and if that does not help a tenth later, taken over.
2. Ours is raised in main when the `on_stop` callbacks are over and no critical section, no work in flight and no cooperative
   main holds it back; from nine tenths on nothing holds it back.
   Before all that the program may serve on for a while (drain): it is ready no more, and nothing else happens to it.
3. A main that lets go of the stop and runs on is told again. One that has let go three times is taken over from at once, so
   that the callbacks have the rest of the time.
4. A main that has not run a line of Python since the stop is taken over from at half time; one that handles it, in a `finally`
   for example, at nine tenths; one that was held back until then, a little later; any other one at eight tenths.
5. These are shares of the time that is sure, because they are rescues. Permission lasts while there is hope: for what holds the
   stop back (rules 1 and 2), and half of what is left then for a main that was held back for longer than what is sure.
6. A Ctrl-C in a terminal has no end of time. A person is told for whom he waits, and may press again: a main that does not
   come to what is then to be raised in it is taken over from. The clock starts if another stop comes.
"""

from __future__ import annotations

from cleanup_guard._ground.clock import DEFAULT_GRACE, inf
from cleanup_guard._ground.events import (
    ClockStarted,
    HeldToTheEnd,
    HookLeftRunning,
    SteppedIn,
    StillRunning,
    StopRedelivered,
)
from cleanup_guard._stop.state import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from cleanup_guard._ground.clock import Budget
    from cleanup_guard._ground.events import Event
    from cleanup_guard._stop.stop import Stop

    class World(Protocol):
        """What a decision may do. The watcher is the real one."""

        def begin(self) -> None: ...  # announce the stop; once it is drained, start the on_stop callbacks
        def poke(self) -> None: ...  # have main run our handler, which looks what it may do
        def nudge(self) -> None: ...  # the same, but never with a signal that is somebody else's
        def ask_hosts(self) -> None: ...  # ask the loops to cancel their guarded tasks, once
        def insist(
            self, *, everybody: bool
        ) -> None: ...  # ask them again, or those who have let go of the stop
        def lift_shields(
            self,
        ) -> None: ...  # no critical section of a task, and no work, holds the stop back any more
        def prepare_death(self) -> None: ...  # load what dying of a signal needs
        def take_over(self) -> None: ...  # run the callbacks in a thread of ours
        def give_up(self) -> None: ...  # report, and end the process
        def forget(self) -> None: ...  # the program goes on: as if there had been no stop
        def where(self) -> str: ...  # where main is, for a person to read
        def tell(self, event: Event) -> None: ...


DEAD_FOR = 0.05
"""Seconds for which main must have let go of the stop until it counts as swallowed."""

FORGET_AFTER = 0.5
"""Seconds after which a program that goes on after its stop is believed to mean it."""

IMPATIENT, QUICK, SLOW_POKE = 0.1, 0.005, 0.05
"""For how many seconds pokes are quick, and the seconds between two pokes, then and later."""

AT_FIRST, EAGER = 0.01, 0.0003
"""The same for the first pokes of all: a main that waits in the library, for the end of a thread, is told at the third one."""

SETTLES, ARRIVES = 0.2, 1.0
"""Seconds after which main is helped to run somebody else's handler, and until when: a signal that comes just before a wait
does not end that. Not at once, because that handler may be a debugger's, which would stop at the help."""

BLOCKED = 1.0
"""Seconds of a grace period of 10 for which an event loop may leave a stop unanswered."""

A_WORD = 3.0
"""Seconds between two words to a person who waits in a terminal."""

IN_VAIN = 1.0
"""Seconds after which a main that a person wants to be interrupted, and that does not come to it, is taken over from."""

CHANCES = 5
"""The looks at an event loop that find no answer before it counts as blocked."""

WORK = "work in flight"
"""What holds a stop back where it is that, and nothing else."""

LETS_GO = 3
"""How often main may let go of the stop before it is taken over from."""


class Facts:
    """What the watcher sees at one moment.

    Attributes:
        state: where the process stands.
        announced: the on_stop callbacks are over, or have used up their time.
        may_tell: main may be told (see `Delivery.may_tell`).
        noticed: main has run our handler since the stop.
        held: what holds the stop back, for a person to read: a critical section, work, a main that cooperates; None if nothing.
        handling: main is on its way out because of the stop (only looked at while it unwinds, and when all is done).
        in_tasks: main runs an event loop with guarded tasks in it.
        asked_at: when that loop was asked and has not answered since; infinity if it owes no answer.
        exiting: the interpreter is shutting down.
        hook: the on_stop callback that is running.
        running: callbacks in progress, each with when it began.
    """

    __slots__ = (
        "announced",
        "asked_at",
        "exiting",
        "handling",
        "held",
        "hook",
        "in_tasks",
        "may_tell",
        "noticed",
        "running",
        "state",
    )

    def __init__(
        self,
        state: State,
        *,
        announced: bool = True,
        may_tell: bool = True,
        noticed: bool = False,
        held: str | None = None,
        handling: bool = True,
        in_tasks: bool = False,
        asked_at: float = inf,
        exiting: bool = False,
        hook: str | None = None,
        running: Sequence[tuple[str, float]] = (),
    ) -> None:
        self.state: State = state
        self.announced: bool = announced
        self.may_tell: bool = may_tell
        self.noticed: bool = noticed
        self.held: str | None = held
        self.handling: bool = handling
        self.in_tasks: bool = in_tasks
        self.asked_at: float = asked_at
        self.exiting: bool = exiting
        self.hook: str | None = hook
        self.running: Sequence[tuple[str, float]] = running


class Delivery:
    """The delivery of one stop.

    Attributes:
        times: how often the stop was raised in main, or its tasks were cancelled.
        forced: nothing holds the stop back any more.
        insisted: a person pressed Ctrl-C again.
        blocked: the event loop does not answer: the stop is raised in main as it is without a loop.
        took_over: the callbacks run in a thread of ours.
        over: all has been done; nothing more is due.
    """

    def __init__(self) -> None:
        self.times: int = 0
        self.forced: bool = False
        self.insisted: bool = False
        self.blocked: bool = False
        self.took_over: bool = False
        self.over: bool = False
        self._done: set[str] = set()  # what is done once
        self._let_go_since: float | None = None
        self._let_go_of = 0  # the time of which main has let go, counted as `times` is
        self._let_go = 0
        self._held_until = -inf
        self._person = Person()
        self._next_poke = 0.0
        self._unanswered = 0

    # -- facts for the handler --

    @property
    def told(self) -> bool:
        """Whether main has been told, and has not been seen to let go of it.

        Main counts the one and the watcher the other, so that neither can undo what the other has just said.
        """
        return self.times > self._let_go_of

    def may_tell(
        self, stop: Stop, *, announced: bool, shielded: bool, cooperates: bool, working: bool = False
    ) -> bool:
        """Whether main may be told now.

        Args:
            stop: the stop.
            announced: the on_stop callbacks are over.
            shielded: main is in a critical section.
            cooperates: main looks for the stop itself.
            working: work that it waits for is in flight in another thread.
        """
        if stop.theirs is not None:
            return False
        if self.forced or shielded:
            return self.forced
        return self.insisted or (announced and not cooperates and not working)

    def raised(self) -> None:
        """The stop has been raised in main, or its tasks were cancelled."""
        self.insisted = False
        self._let_go_since = None
        self.times += 1

    def lets_go(self, times: int) -> None:
        """Main has let go of the stop, told so often, and runs on: it is to be told again."""
        self._let_go_of = times
        self._let_go_since = None
        self._let_go += 1

    def becomes_ours(self, stop: Stop, budget: Budget) -> None:
        """Whoever owned the stop has given it to us: from now on this budget counts."""
        stop.becomes_ours(budget)
        self.over = self.forced = False

    # -- one look --

    def look(self, now: float, stop: Stop, facts: Facts, world: World) -> float:
        """Do what is due.

        Returns:
            When to look again.
        """
        self._begin(now, stop, world)
        if self.over:
            return inf
        budget = stop.budget
        if now >= budget.end:
            self.over = True
            world.give_up()
            return inf
        if facts.hook is not None and now >= stop.hooks_until and self._is_first("hook"):
            world.tell(HookLeftRunning(name=facts.hook, seconds=now - budget.began))
        if now >= budget.sure(budget.TAKE_OVER) and self._is_first("prepare"):
            world.prepare_death()
        due = min((at for at in (stop.drain_until, stop.hooks_until) if at > now), default=inf)
        due = min(due, budget.due_after(now), self._person.look(now, stop, facts, world))
        if stop.theirs is not None:
            return min(due, self._look_at_theirs(now, stop, facts, world))
        return min(due, self._look_at_ours(now, stop, facts, world))

    def _begin(self, now: float, stop: Stop, world: World) -> None:
        if not stop.drained:
            if self._is_first("drain"):
                world.begin()
            if now < stop.drain_until and not self.insisted:
                return
            stop.end_drain()
        if self._is_first("begin"):
            world.begin()

    def _is_first(self, what: str) -> bool:
        """Whether this is to be done now, and never again."""
        if what in self._done:
            return False
        self._done.add(what)
        return True

    def _look_at_ours(self, now: float, stop: Stop, facts: Facts, world: World) -> float:
        budget = stop.budget
        if facts.held is not None and facts.state is State.STOPPING:
            self._held_until = now
        if not self.forced and now >= budget.hope(budget.FORCE):
            self.forced = True
            world.lift_shields()
            if facts.held is not None and facts.state is State.STOPPING:
                self._done.add("held")
                if facts.held != WORK:  # which has just been named, piece by piece
                    world.tell(HeldToTheEnd(what=facts.held, seconds=now - budget.began, where=world.where()))
        if facts.may_tell:
            world.ask_hosts()
        if facts.state is State.STOPPING:
            return self._urge(now, stop, facts, world)
        if facts.state is State.UNWINDING:
            return self._look_for_swallowing(now, stop, facts, world)
        return self._look_for_survival(now, facts, world) if facts.state is State.DONE else inf

    def _look_at_theirs(self, now: float, stop: Stop, facts: Facts, world: World) -> float:
        """Somebody else stops the program. We step in when he is late, and only if the grace period is known."""
        budget = stop.budget
        if facts.state is State.DONE:
            return self._look_for_survival(now, facts, world)
        if facts.state is not State.STOPPING:
            return inf
        if now < budget.hope(budget.TAKE_OVER):
            if facts.noticed or now - budget.began >= ARRIVES:
                return inf
            if now - budget.began < SETTLES:
                return budget.began + SETTLES
            world.nudge()
            return now + SLOW_POKE
        world.tell(SteppedIn(seconds=now - budget.began, handler=str(stop.theirs), where=world.where()))
        stop.becomes_ours(budget)
        budget.stepped_in = True
        self.forced = True
        world.poke()
        return now + QUICK

    def _urge(self, now: float, stop: Stop, facts: Facts, world: World) -> float:
        """Main should raise the stop and has not: it is in C, or the signal went to another thread, or it was held back."""
        budget = stop.budget
        stuck = not facts.noticed and facts.held is None and not budget.stepped_in
        if (
            (stuck and now >= budget.sure(budget.STUCK))
            or self._person.insists_in_vain(now, facts, insisted=self.insisted)
            or now >= self._take_over_at(budget, facts)
            or self._let_go >= LETS_GO
        ):
            self._take_over(world)
            return inf
        if not facts.may_tell:
            if facts.noticed:
                return now + SLOW_POKE if facts.announced else inf
        elif facts.in_tasks:
            return self._ask_tasks(now, stop, facts, world)
        return self._poke_regularly(now, stop, world)

    def _ask_tasks(self, now: float, stop: Stop, facts: Facts, world: World) -> float:
        """The loop has been asked to cancel the guarded tasks; if it does not answer, interrupt what blocks it."""
        budget = stop.budget
        sure = budget.period.sure
        patience = BLOCKED if sure is None else BLOCKED * sure / DEFAULT_GRACE
        if facts.asked_at < inf:
            self._unanswered += 1
            # A whole process that was frozen for a while has had no chance to answer.
            if now - facts.asked_at >= patience and self._unanswered >= CHANCES:
                self.blocked = True
        elif self.times and not self.told:  # it has let go of the stop, and could not be told again then
            world.insist(everybody=False)
        return self._poke_regularly(now, stop, world) if self.blocked else now + SLOW_POKE

    def _poke_regularly(self, now: float, stop: Stop, world: World) -> float:
        if now >= self._next_poke:
            world.poke()
            pause = QUICK if now - stop.budget.began < IMPATIENT else SLOW_POKE
            self._next_poke = now + (EAGER if now - stop.budget.began < AT_FIRST else pause)
        return self._next_poke

    def _look_for_swallowing(self, now: float, stop: Stop, facts: Facts, world: World) -> float:
        """Main is being told as long as it handles the stop; one that has let go of it and runs on is told again."""
        if now >= self._take_over_at(stop.budget, facts):
            self._take_over(world)
            return inf
        if self.insisted:
            return self._insist(now, stop, facts, world)
        times = self.times
        if not self._has_let_go(now, facts, DEAD_FOR):
            return now + DEAD_FOR / 2
        self.lets_go(times)
        if self._let_go >= LETS_GO:
            self._take_over(world)
            return inf
        world.tell(StopRedelivered(times=times + 1))
        if facts.in_tasks:
            self.blocked = False
            self._unanswered = 0
            world.insist(everybody=False)
            return now + SLOW_POKE
        return self._poke_regularly(now, stop, world)

    def _insist(self, now: float, stop: Stop, facts: Facts, world: World) -> float:
        """A person insists: what main does on its way out is interrupted."""
        if not facts.in_tasks:
            return self._poke_regularly(now, stop, world)
        self.insisted = False
        world.insist(everybody=True)
        return now + SLOW_POKE

    def _look_for_survival(self, now: float, facts: Facts, world: World) -> float:
        """Cleanup is complete. If main handles the stop no more and does not exit, the program means to go on."""
        if facts.exiting or not self._has_let_go(now, facts, FORGET_AFTER):
            return now + DEAD_FOR
        self.over = True
        world.forget()
        return inf

    def _has_let_go(self, now: float, facts: Facts, patience: float) -> bool:
        """Whether main has been seen without the stop for so long."""
        since = self._let_go_since
        if facts.handling:
            since = self._let_go_since = None
        elif since is None:
            since = self._let_go_since = now
        return since is not None and now - since >= patience

    def _take_over_at(self, budget: Budget, facts: Facts) -> float:
        """When to take over from a main that has not come back."""
        if budget.stepped_in:
            return budget.hope(budget.INTERRUPT)
        if "held" in self._done or (facts.held is not None and facts.state is State.STOPPING):
            return budget.hope(budget.LATE)
        handles = facts.state is State.UNWINDING and facts.handling
        due = budget.sure(budget.FORCE if handles else budget.TAKE_OVER)
        # What was held back with permission for longer than that has half of what is left from then on.
        return (
            max(due, self._held_until + (budget.end - self._held_until) / 2)
            if self._held_until > due
            else due
        )

    def _take_over(self, world: World) -> None:
        if not self.took_over:
            self.took_over = True
            world.take_over()


class Person:
    """Who has pressed Ctrl-C in a terminal, and waits."""

    __slots__ = ("_clock_started", "_insisted_since", "_next_word", "_waits")

    def __init__(self) -> None:
        self._waits = False
        self._clock_started = False
        self._next_word = 0.0
        self._insisted_since = inf

    def look(self, now: float, stop: Stop, facts: Facts, world: World) -> float:
        """Tell for whom he waits, every few seconds; then that there is an end to it, if one comes. Returns when next."""
        period = stop.budget.period
        if not period.by_hand:
            if self._waits and not self._clock_started:
                self._clock_started = True
                world.tell(
                    ClockStarted(sure=period.sure, grace=period.hope, where=period.where, how=period.how)
                )
            return inf
        if not self._waits:
            self._waits = True
            self._next_word = now + A_WORD
        if facts.state is State.DONE or stop.theirs is not None:
            return inf
        if now >= self._next_word:
            self._next_word = now + A_WORD
            running = [(f"callback {name}", began) for name, began in facts.running]
            for what, began in running or [(f"main ({world.where()})", stop.budget.began)]:
                world.tell(StillRunning(what=what, seconds=now - began))
        return self._next_word

    def insists_in_vain(self, now: float, facts: Facts, *, insisted: bool) -> bool:
        """Whether he has wanted main to be interrupted for a while, and main does not come to it."""
        if not (insisted and facts.may_tell) or facts.in_tasks:
            self._insisted_since = inf
        elif self._insisted_since == inf:
            self._insisted_since = now
        return now - self._insisted_since >= IN_VAIN


class Presses:
    """Counts how often a person has pressed Ctrl-C. Several SIGINTs within half a second are one press."""

    DUPLICATE = 0.5
    INSISTS = 2  # the press that interrupts what is in progress; the next one ends the process

    __slots__ = ("_last", "_presses", "_seen")

    def __init__(self, seen: int = 0) -> None:
        self._presses = 0
        self._seen = seen
        self._last = -inf

    def count(self, seen: int, now: float) -> int:
        """The number of a press that is new, told how many SIGINTs there have been; 0 if there is none."""
        if seen <= self._seen:
            return 0
        self._seen = seen
        if now - self._last < self.DUPLICATE:
            return 0
        self._last = now
        self._presses += 1
        return self._presses
