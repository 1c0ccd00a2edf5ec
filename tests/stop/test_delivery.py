"""How a stop is delivered: each rule and each share of the budget, in a world and on a clock of the test's own."""

from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanup_guard._ground.clock import BY_HAND, Budget, Grace
from cleanup_guard._ground.events import (
    ClockStarted,
    Event,
    HeldToTheEnd,
    HookLeftRunning,
    SteppedIn,
    StopRedelivered,
)
from cleanup_guard._stop.delivery import (
    A_WORD,
    ARRIVES,
    AT_FIRST,
    BLOCKED,
    CHANCES,
    DEAD_FOR,
    EAGER,
    FORGET_AFTER,
    IN_VAIN,
    LETS_GO,
    QUICK,
    SETTLES,
    SLOW_POKE,
    WORK,
    Delivery,
    Facts,
    Presses,
)
from cleanup_guard._stop.state import State
from cleanup_guard._stop.stop import Stop

GRACE, BEGAN, SIGTERM = 10.0, 100.0, 15
USABLE = 9.0
"""Seconds of a grace period of ten that are left after the margin."""


class FakeWorld:
    """Notes what it is told to do."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.events: list[Event] = []

    def __getattr__(self, name: str) -> Any:
        return lambda **details: self.done.append(name if not details else f"{name} {details}")

    def where(self) -> str:
        """Where main is."""
        return "in job()"

    def tell(self, event: Event) -> None:
        """Note an event."""
        self.events.append(event)


class Stage:
    """One stop, with a clock that goes from look to look."""

    def __init__(self, *, grace: Grace | float | None = GRACE, theirs: str | None = None) -> None:
        self.stop = Stop(SIGTERM, "SIGTERM", status=143, budget=Budget(grace, BEGAN), theirs=theirs)
        self.delivery, self.world = Delivery(), FakeWorld()
        self.now = BEGAN

    def look(self, state: State = State.STOPPING, *, at: float | None = None, **facts: Any) -> list[str]:
        """Look once, at so many seconds after the stop if that is said. Returns what was done."""
        if at is not None:
            self.now = BEGAN + at
        if state is State.UNWINDING and not self.delivery.told:
            state = State.STOPPING  # as the facts would say
        before = len(self.world.done)
        self.due = self.delivery.look(self.now, self.stop, Facts(state, **facts), self.world)  # pyright: ignore[reportArgumentType]
        assert self.due > self.now
        return [each for each in self.world.done[before:] if each not in ("begin", "ask_hosts", "where")]

    def look_until(self, at: float, state: State = State.STOPPING, **facts: Any) -> list[str]:
        """Look whenever a look is due, up to so many seconds after the stop. Returns what was done."""
        before = len(self.world.done)
        while self.now < BEGAN + at:
            self.look(state, **facts)
            self.now = min(self.due, BEGAN + at)
        return self.world.done[before:]

    def raise_in_main(self) -> None:
        """Main is told."""
        self.delivery.raised()


def share(of: float) -> float:
    """So many seconds after the stop is this share of the usable time spent."""
    return of * USABLE


# -- work in flight ------------------------------------------------------------------------------------------------------


def test_work_in_flight_holds_the_stop_until_nine_tenths() -> None:
    """Then main is told, and which work is waited for no longer; a person who insists does not wait for it."""
    stop, delivery = Stop(SIGTERM, "SIGTERM", status=143, budget=Budget(GRACE, BEGAN)), Delivery()
    facts = {"announced": True, "shielded": False, "cooperates": False}
    assert not delivery.may_tell(stop, working=True, **facts)
    assert delivery.may_tell(stop, working=False, **facts)
    delivery.insisted = True
    assert delivery.may_tell(stop, working=True, **facts)
    stage = Stage()
    assert "lift_shields" not in stage.look_until(share(0.9) - 0.01, may_tell=False, held=WORK)
    assert "lift_shields" in stage.look(at=share(0.9), may_tell=False, held=WORK)
    assert stage.world.events == []
    assert stage.delivery.may_tell(stage.stop, working=True, **facts)


# -- drain ---------------------------------------------------------------------------------------------------------------


def drained_stage(drain: float) -> Stage:
    """A stage whose stop begins so many seconds late."""
    stage = Stage()
    stage.stop = Stop(SIGTERM, "SIGTERM", status=143, budget=Budget(GRACE, BEGAN), drain=drain)
    return stage


def test_a_stop_begins_when_the_drain_is_over() -> None:
    """Until then it is announced, and no more; on_stop callbacks have as long as ever, from then on."""
    stage = drained_stage(2.0)
    draining: dict[str, Any] = {"may_tell": False, "noticed": True, "announced": False}
    stage.look(**draining)
    assert stage.world.done == ["begin"]
    assert stage.due == BEGAN + share(0.2)
    stage.look_until(1.99, **draining)
    assert stage.due == BEGAN + 2.0
    assert stage.world.done.count("begin") == 1
    assert not stage.stop.drained
    stage.look(at=2.0, **draining)
    assert stage.world.done.count("begin") == 2
    assert stage.stop.drained
    hook: dict[str, Any] = {**draining, "hook": "flip"}
    stage.look_until(2.0 + share(0.2) - 0.01, **hook)
    assert stage.world.events == []
    stage.look(at=2.0 + share(0.2), **hook)
    assert [type(event) for event in stage.world.events] == [HookLeftRunning]


@pytest.mark.parametrize("drain", [5.0, 60.0, inf])
def test_a_drain_has_at_most_half_of_the_time(drain: float) -> None:
    """Rescues are not put off by it."""
    assert drained_stage(drain).stop.drain.seconds == share(0.5)
    assert (
        Stop(SIGTERM, "SIGTERM", status=143, budget=Budget(None, BEGAN), drain=drain).drain.seconds == drain
    )


def test_a_person_who_insists_ends_the_drain() -> None:
    """The stop begins at once."""
    stage = drained_stage(2.0)
    stage.look(may_tell=False, noticed=True)
    stage.delivery.insisted = True
    stage.look(at=0.7, noticed=True)
    assert stage.world.done.count("begin") == 2
    assert stage.stop.drained


def test_a_stop_of_somebody_else_has_no_drain() -> None:
    """He has begun already."""
    stop = Stop(15, "SIGTERM", status=143, budget=Budget(GRACE, BEGAN), theirs="server", drain=5.0)
    assert stop.drained


# -- rule 1: somebody else's stop ----------------------------------------------------------------------------------------


def test_somebody_elses_stop_is_left_alone_until_eight_tenths() -> None:
    """Nothing is done to main but that the stop is announced; then it becomes ours, and main is poked."""
    stage = Stage(theirs="server.on_signal")
    before = stage.look_until(share(0.8) - 0.01, may_tell=False, noticed=True)
    assert set(before) <= {"begin", "prepare_death"}
    assert stage.look(at=share(0.8), may_tell=False) == ["prepare_death", "poke"]
    assert stage.stop.theirs is None
    assert stage.delivery.forced
    assert [type(event) for event in stage.world.events] == [SteppedIn]
    assert str(stage.world.events[0]).startswith(
        "server.on_signal has not stopped the program after 7.2 s; stopping main in job()"
    )


def test_a_stop_that_became_ours_late_is_taken_over_a_tenth_later() -> None:
    """Main has had its warning: it is taken over from at nine tenths, not at once."""
    stage = Stage(theirs="server.on_signal")
    stage.look(at=share(0.8), may_tell=False)
    assert "take_over" not in stage.look_until(share(0.9) - 0.01)
    assert "take_over" in stage.look(at=share(0.9))


@pytest.mark.parametrize("grace", [None])
def test_nobody_steps_in_where_the_grace_period_is_not_known(grace: float | None) -> None:
    """A stop that is somebody else's has no budget unless one was told: no look is due any more."""
    stage = Stage(theirs="server.on_signal", grace=grace)
    assert stage.look(noticed=True) == []
    assert stage.due == inf
    assert stage.look(at=1e6, may_tell=False) == []
    assert stage.stop.theirs is not None


@pytest.mark.parametrize("grace", [GRACE, None])
def test_a_main_that_has_not_noticed_somebody_elses_signal_is_nudged(grace: float | None) -> None:
    """A signal that comes just before a wait does not end it; nudges do, a moment later, until a second is over."""
    stage = Stage(theirs="server.on_signal", grace=grace)
    assert stage.look() == []
    assert stage.due == BEGAN + SETTLES
    assert stage.look(at=SETTLES) == ["nudge"]
    assert stage.due == BEGAN + SETTLES + SLOW_POKE
    assert stage.look(at=0.25) == ["nudge"]
    assert stage.look(at=0.3, noticed=True) == []
    assert stage.look(at=0.35) == ["nudge"]
    assert stage.look(at=ARRIVES) == []


def test_somebody_elses_stop_that_main_has_cleaned_up_after_is_forgotten() -> None:
    """The program goes on after it: their handler meant no end."""
    stage = Stage(theirs="server.on_signal")
    assert "forget" not in stage.look_until(FORGET_AFTER - 0.01, State.DONE, handling=False)
    assert "forget" in stage.look_until(FORGET_AFTER + 0.2, State.DONE, handling=False)


def test_a_stop_that_is_given_to_us_has_the_budget_that_is_given_with_it() -> None:
    """Whoever has dealt with it and sends himself the signal with the default in place: all begins anew."""
    stage = Stage(theirs="coverage", grace=None)
    stage.look(may_tell=False)
    stage.delivery.becomes_ours(stage.stop, Budget(GRACE, BEGAN + 50))
    assert stage.stop.theirs is None
    assert stage.look(at=50.0, may_tell=True) == ["poke"]
    assert "take_over" in stage.look(at=50.0 + share(0.8))


# -- rule 2: when main may be told ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "may"),
    [
        ({}, True),
        ({"announced": False}, False),
        ({"shielded": True}, False),
        ({"cooperates": True}, False),
        ({"forced": True, "shielded": True}, True),
        ({"forced": True, "cooperates": True}, True),
        ({"forced": True, "announced": False}, True),
        ({"insisted": True, "cooperates": True}, True),
        ({"insisted": True, "announced": False}, True),
        ({"insisted": True, "shielded": True}, False),
        ({"theirs": True}, False),
        ({"theirs": True, "forced": True, "insisted": True}, False),
    ],
)
def test_when_main_may_be_told(facts: dict[str, bool], may: bool) -> None:
    """After the on_stop callbacks, out of critical sections; a cooperative main only if a person insists, or time is short."""
    stage = Stage(theirs="a server" if facts.get("theirs") else None)
    stage.delivery.forced, stage.delivery.insisted = facts.get("forced", False), facts.get("insisted", False)
    allowed = stage.delivery.may_tell(
        stage.stop,
        announced=facts.get("announced", True),
        shielded=facts.get("shielded", False),
        cooperates=facts.get("cooperates", False),
    )
    assert allowed is may


def test_the_stop_is_begun_once_and_main_is_poked_at_once() -> None:
    """The first look announces it; main is poked very quickly at first, then quickly, then slowly."""
    stage = Stage()
    assert stage.look_until(EAGER / 2) == ["begin", "ask_hosts", "poke"]
    assert stage.look_until(AT_FIRST).count("poke") == pytest.approx(AT_FIRST / EAGER, abs=2)
    quick = stage.look_until(0.1).count("poke")
    assert 14 <= quick <= 20
    assert stage.look_until(0.6).count("poke") == pytest.approx(0.5 / SLOW_POKE, abs=2)
    assert stage.world.done.count("begin") == 1


def test_a_main_that_may_not_be_told_and_knows_is_left_alone() -> None:
    """While the on_stop callbacks run nothing is due before they have used up their time; then main is looked at slowly."""
    stage = Stage()
    assert stage.look(may_tell=False, announced=False, noticed=True) == []
    assert stage.due == BEGAN + share(Budget.HOOKS)
    assert stage.look(may_tell=False, noticed=True, held="a critical section") == []
    assert stage.due == pytest.approx(BEGAN + SLOW_POKE)


def test_a_main_that_has_not_noticed_is_poked_though_it_may_not_be_told() -> None:
    """The signal may have gone to another thread: main's handler must run to know of it."""
    assert Stage().look(may_tell=False, noticed=False, held="a critical section") == ["poke"]


HELD: dict[str, Any] = {"may_tell": False, "noticed": True, "held": "a critical section"}


def test_from_nine_tenths_on_nothing_holds_the_stop_back() -> None:
    """Critical sections are lifted, main is told, and whoever held it back is named, once."""
    stage = Stage()
    assert "lift_shields" not in stage.look_until(share(0.9) - 0.01, **HELD)
    assert not stage.delivery.forced
    assert stage.look(at=share(0.9), **HELD) == ["lift_shields"]
    assert stage.delivery.forced
    assert stage.look(at=share(0.9) + 0.1, may_tell=True, noticed=True, held="a critical section") == ["poke"]
    assert [str(event) for event in stage.world.events] == [
        "a critical section has held the stop back for 8.1 s; interrupting it in job(), to leave time for the callbacks"
    ]
    assert isinstance(stage.world.events[0], HeldToTheEnd)


def test_who_was_held_back_until_then_has_a_moment() -> None:
    """And is taken over from when that is over."""
    stage = Stage()
    assert "take_over" not in stage.look_until(share(0.95) - 0.01, **HELD)
    assert stage.look(at=share(0.95), **{**HELD, "may_tell": True}) == ["take_over"]


def test_who_was_held_back_and_handles_it_then_has_a_moment_too() -> None:
    """Its `finally` begins at nine tenths, when that of others must have ended."""
    stage = Stage()
    stage.look_until(share(0.9), **HELD)
    stage.look(at=share(0.9), **HELD)
    stage.raise_in_main()
    assert "take_over" not in stage.look_until(share(0.95) - 0.01, State.UNWINDING)
    assert stage.look(State.UNWINDING, at=share(0.95)) == ["take_over"]


def test_who_is_held_back_and_has_not_noticed_is_not_stuck() -> None:
    """At half time a critical section that waits in C is still one."""
    stage = Stage()
    assert "take_over" not in stage.look_until(share(0.9) - 0.01, **{**HELD, "noticed": False})


def test_an_on_stop_callback_that_takes_too_long_is_named_once() -> None:
    """When its time is over, and the stop goes on without it."""
    stage = Stage()
    facts: dict[str, Any] = {"may_tell": False, "announced": False, "noticed": True, "hook": "flip"}
    stage.look_until(share(Budget.HOOKS) - 0.01, **facts)
    assert stage.world.events == []
    stage.look(at=share(Budget.HOOKS), **facts)
    stage.look(at=share(Budget.HOOKS) + 0.1, **facts)
    assert [str(event) for event in stage.world.events] == [
        "on_stop flip is still running after 1.8 s; the stop goes on without waiting for it"
    ]
    assert isinstance(stage.world.events[0], HookLeftRunning)


def test_nobody_is_named_who_holds_nothing_back() -> None:
    """A critical section that main is in while it unwinds has not held the stop back."""
    stage = Stage()
    stage.raise_in_main()
    stage.look(State.UNWINDING, at=share(0.9), held="a critical section")
    assert stage.world.events == []


# -- rule 3: main lets go of the stop ------------------------------------------------------------------------------------


def test_a_main_that_handles_the_stop_is_left_alone() -> None:
    """However long its `finally` takes, up to the take-over."""
    stage = Stage()
    stage.raise_in_main()
    done = stage.look_until(share(0.9) - 0.01, State.UNWINDING, noticed=True)
    assert set(done) == {"begin", "ask_hosts", "prepare_death"}
    assert stage.delivery.told


def test_a_main_that_lets_go_is_told_again() -> None:
    """After a moment, so that between two blocks of main it does not count; then it is poked, and its handler may tell it."""
    stage = Stage()
    stage.raise_in_main()
    assert stage.look(State.UNWINDING, at=1.0, handling=False) == []
    assert stage.look(State.UNWINDING, at=1.0 + DEAD_FOR - 0.001, handling=False) == []
    assert stage.look(State.UNWINDING, at=1.0 + DEAD_FOR + 0.001, handling=False) == ["poke"]
    assert not stage.delivery.told
    assert stage.world.events == [StopRedelivered(times=2)]
    stage.raise_in_main()
    assert stage.delivery.told
    assert stage.delivery.times == 2


def test_a_main_that_comes_back_to_the_stop_has_not_let_go() -> None:
    """Each look that finds it handling the stop begins the wait anew."""
    stage = Stage()
    stage.raise_in_main()
    for tenth in range(10):
        assert stage.look(State.UNWINDING, at=tenth / 10, handling=False) == []
        assert stage.look(State.UNWINDING, at=tenth / 10 + 0.04, handling=True) == []
    assert stage.delivery.told


def test_one_letting_go_counts_once() -> None:
    """However long main then runs on: it is poked, not counted again, because it has not been told again."""
    stage = Stage()
    stage.raise_in_main()
    stage.look_until(0.2, State.UNWINDING, handling=False)
    assert not stage.delivery.told
    stage.look_until(2.0, State.STOPPING, noticed=True)
    assert "take_over" not in stage.world.done
    assert len(stage.world.events) == 1


def test_who_has_let_go_three_times_is_taken_over_from_at_once() -> None:
    """So that the callbacks have the rest of the time."""
    stage = Stage()
    for times in range(1, LETS_GO + 1):
        stage.raise_in_main()
        stage.look_until(times * 0.2, State.UNWINDING, handling=False, noticed=True)
        assert ("take_over" in stage.world.done) is (times == LETS_GO)
    assert stage.delivery.took_over
    assert stage.now < BEGAN + 1
    assert [event.times for event in stage.world.events if isinstance(event, StopRedelivered)] == [2, 3]


def test_tasks_that_have_let_go_are_cancelled_again() -> None:
    """Those who have, not the others; nothing is raised in the loop."""
    stage = Stage()
    stage.raise_in_main()
    stage.look(State.UNWINDING, at=1.0, handling=False, in_tasks=True)
    assert stage.look(State.UNWINDING, at=1.1, handling=False, in_tasks=True) == [
        "insist {'everybody': False}"
    ]


def test_a_loop_that_is_busy_after_a_swallowed_stop_has_let_go_once() -> None:
    """It owes an answer, which is not letting go again."""
    stage = Stage()
    stage.raise_in_main()
    stage.look_until(0.2, State.UNWINDING, handling=False, in_tasks=True)
    stage.look_until(1.0, State.STOPPING, noticed=True, in_tasks=True, asked_at=BEGAN + 0.1, handling=False)
    assert "take_over" not in stage.world.done


def test_a_task_that_could_not_be_told_again_is_asked_again() -> None:
    """It was leaving a guard when it was asked."""
    stage = Stage()
    stage.raise_in_main()
    stage.look_until(0.2, State.UNWINDING, handling=False, in_tasks=True)
    assert stage.look(State.STOPPING, at=0.3, noticed=True, in_tasks=True) == ["insist {'everybody': False}"]


# -- rule 4: main does not come ------------------------------------------------------------------------------------------


def test_a_main_that_has_not_run_a_line_is_taken_over_from_at_half_time() -> None:
    """It is in C and nothing can be raised in it."""
    stage = Stage()
    assert "take_over" not in stage.look_until(share(0.5) - 0.01, noticed=False)
    assert stage.look(at=share(0.5), noticed=False) == ["take_over"]


def test_a_main_that_runs_is_taken_over_from_at_eight_tenths() -> None:
    """Its handler has run, so it may still come."""
    stage = Stage()
    assert "take_over" not in stage.look_until(share(0.8) - 0.01, noticed=True)
    assert stage.look(at=share(0.8), noticed=True) == ["prepare_death", "take_over"]


def test_a_main_that_unwinds_is_taken_over_from_at_nine_tenths() -> None:
    """A `finally` of main that takes too long leaves the callbacks no time."""
    stage = Stage()
    stage.raise_in_main()
    stage.look_until(share(0.9) - 0.01, State.UNWINDING)
    assert not stage.delivery.took_over
    assert stage.look(State.UNWINDING, at=share(0.9)) == ["lift_shields", "take_over"]


def test_nobody_is_taken_over_from_while_the_callbacks_run() -> None:
    """Whoever runs them, they are interrupted one by one."""
    stage = Stage()
    assert "take_over" not in stage.look_until(share(1.0) - 0.01, State.CLEANING)
    assert stage.due == stage.stop.budget.end


def test_without_a_limit_a_main_is_waited_for() -> None:
    """Ctrl-C in the foreground has no end: nothing is taken over, nothing given up."""
    stage = Stage(grace=None)
    for at in (1.0, 10.0, 1e5):
        assert stage.look(at=at) == ["poke"]
        assert stage.due < inf


# -- tasks ---------------------------------------------------------------------------------------------------------------


def test_a_loop_is_asked_not_poked() -> None:
    """Its guarded tasks are cancelled between two of their steps; nothing is raised in the loop."""
    stage = Stage()
    done = stage.look_until(0.9, in_tasks=True, asked_at=BEGAN, noticed=True)
    assert "ask_hosts" in done
    assert "poke" not in done


def test_a_task_that_was_told_a_moment_ago_is_not_told_again() -> None:
    """The loop may cancel it between the watcher's look at the facts and its decision: only what was let go of is repeated."""
    stage = Stage()
    stage.look(in_tasks=True, noticed=True)
    stage.delivery.raised()
    assert stage.look(State.STOPPING, at=0.1, in_tasks=True, noticed=True) == []


def test_a_loop_that_does_not_answer_is_interrupted() -> None:
    """After a tenth of the grace period, or a second without one, whatever blocks it is told as main is without a loop."""
    for grace in (GRACE, None):
        stage = Stage(grace=grace)
        stage.look_until(BLOCKED - 0.01, in_tasks=True, asked_at=BEGAN, noticed=True)
        assert not stage.delivery.blocked
        assert stage.look(at=BLOCKED, in_tasks=True, asked_at=BEGAN, noticed=True) == ["poke"]
        assert stage.delivery.blocked


def test_a_process_that_was_frozen_has_had_no_chance_to_answer() -> None:
    """A loop counts as blocked only after several looks."""
    stage = Stage()
    for look in range(CHANCES):
        stage.look(at=3.0 + look / 100, in_tasks=True, asked_at=BEGAN, noticed=True)
        assert stage.delivery.blocked is (look == CHANCES - 1)


def test_a_loop_is_not_asked_before_main_may_be_told() -> None:
    """A critical section holds the cancellation back, too."""
    stage = Stage()
    stage.look(may_tell=False, in_tasks=True, held="a critical section")
    assert "ask_hosts" not in stage.world.done


# -- a person insists ----------------------------------------------------------------------------------------------------


def test_a_press_that_insists_is_raised_in_a_main_that_unwinds() -> None:
    """What main's own `finally` does is interrupted, by its handler or by cancelling the tasks again."""
    stage = Stage()
    stage.raise_in_main()
    stage.delivery.insisted = True
    assert stage.look(State.UNWINDING, at=1.0) == ["poke"]
    assert stage.look(State.UNWINDING, at=1.1) == ["poke"]
    stage.raise_in_main()
    assert stage.look(State.UNWINDING, at=1.2) == []
    stage.delivery.insisted = True
    assert stage.look(State.UNWINDING, at=1.3, in_tasks=True) == ["insist {'everybody': True}"]
    assert stage.look(State.UNWINDING, at=1.4, in_tasks=True) == []


def test_presses_are_counted() -> None:
    """Several SIGINTs within half a second are one press; what was there before does not count."""
    presses = Presses(seen=2)
    assert presses.count(2, 0.0) == 0
    assert presses.count(3, 1.0) == 1
    assert presses.count(5, 1.0 + Presses.DUPLICATE - 0.01) == 0
    assert presses.count(5, 9.0) == 0
    assert presses.count(6, 9.0) == Presses.INSISTS
    assert presses.count(7, 9.0 + Presses.DUPLICATE) == Presses.INSISTS + 1


# -- two numbers: what is sure, and what is hoped for -----------------------------------------------------------------------

TWO = Grace(10, 30)
"""As on Kubernetes: rescues are due in the first nine seconds, and permission lasts up to 28."""


@pytest.mark.parametrize(
    ("at", "facts"),
    [(0.5, {}), (0.8, {"noticed": True}), (0.8, {"noticed": True, "may_tell": False, "announced": False})],
)
def test_a_rescue_is_due_in_the_time_that_is_sure(at: float, facts: dict[str, Any]) -> None:
    """A main that is stuck, or does not come back, is taken over from as if there were nothing to hope for."""
    stage = Stage(grace=TWO)
    assert "take_over" not in stage.look_until(share(at) - 0.01, **facts)
    assert "take_over" in stage.look(at=share(at), **facts)


@pytest.mark.parametrize(("handling", "at"), [(True, 0.9), (False, 0.8)])
def test_a_main_that_has_been_told_is_rescued_in_the_time_that_is_sure(handling: bool, at: float) -> None:
    """One that swallows the stop, and one whose `finally` does not end."""
    stage = Stage(grace=TWO)
    stage.raise_in_main()
    stage.look_until(share(at) - 0.02, State.UNWINDING, handling=True)
    assert not stage.delivery.took_over
    assert "take_over" in stage.look(State.UNWINDING, at=share(at), handling=handling)


def test_a_main_with_permission_has_all_that_is_hoped_for() -> None:
    """Cooperative, or in a critical section: it is interrupted at nine tenths of 28 s, and taken over from a little later."""
    stage = Stage(grace=TWO)
    held: dict[str, Any] = {"held": "a critical section", "may_tell": False, "noticed": True}
    done = stage.look_until(0.9 * 28 - 0.01, **held)
    assert not {"take_over", "lift_shields", "give_up"} & set(done)
    assert not stage.delivery.forced
    assert stage.look(at=0.9 * 28, **held) == ["lift_shields"]
    assert [type(event) for event in stage.world.events] == [HeldToTheEnd]
    assert "take_over" in stage.look_until(0.95 * 28 + 0.01, noticed=True)


@pytest.mark.parametrize(("until", "take_over"), [(12.0, 20.0), (5.0, 7.2)])
def test_a_main_that_was_held_back_for_long_has_half_of_what_is_left(until: float, take_over: float) -> None:
    """When what is sure has passed meanwhile; otherwise it is rescued as any other."""
    stage = Stage(grace=TWO)
    stage.look_until(until, held="a critical section", may_tell=False, noticed=True)
    stage.look(at=until, held="a critical section", may_tell=False, noticed=True)
    assert "take_over" not in stage.look_until(take_over - 0.05, noticed=True)
    assert "take_over" in stage.look_until(take_over + 0.05, noticed=True)


def test_what_is_given_up_is_given_up_when_nothing_is_left_to_hope_for() -> None:
    """The process ends itself at 28 s of 30, not at 9."""
    stage = Stage(grace=TWO)
    assert "give_up" not in stage.look_until(27.99, State.CLEANING)
    assert stage.look(State.CLEANING, at=28.0) == ["give_up"]


def test_somebody_elses_framework_may_drain_as_long_as_there_is_hope() -> None:
    """It is stepped in at eight tenths of that."""
    stage = Stage(grace=TWO, theirs="server.on_signal")
    stage.look_until(0.8 * 28 - 0.01, may_tell=False, noticed=True)
    assert stage.stop.theirs is not None
    stage.look(at=0.8 * 28, may_tell=False, noticed=True)
    assert stage.stop.theirs is None


# -- a person in a terminal ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.STOPPING, State.UNWINDING, State.CLEANING])
def test_a_persons_stop_has_no_end_and_tells_for_whom_he_waits(state: State) -> None:
    """Every few seconds, and nothing is ever taken over or given up by the clock."""
    stage = Stage(grace=BY_HAND)
    if state is State.UNWINDING:
        stage.raise_in_main()
    done = stage.look_until(A_WORD * 5 + 0.1, state, noticed=True)
    told = [str(event) for event in stage.world.events]
    assert told == [
        f"main (in job()) has been running for {A_WORD * n:.0f} s; Ctrl-C interrupts it" for n in range(1, 6)
    ]
    assert not {"take_over", "give_up", "lift_shields"} & set(done)


def test_callbacks_in_progress_are_named() -> None:
    """Each with its own age."""
    stage = Stage(grace=BY_HAND)
    stage.look_until(A_WORD + 0.1, State.CLEANING, running=[("flush", BEGAN + 1), ("close", BEGAN + 2)])
    assert [str(event).partition(";")[0] for event in stage.world.events] == [
        "callback flush has been running for 2 s",
        "callback close has been running for 1 s",
    ]


def test_who_is_done_is_waited_for_no_more() -> None:
    """Nothing is said while the process ends."""
    stage = Stage(grace=BY_HAND)
    stage.look_until(A_WORD * 3, State.DONE)
    assert not stage.world.events


def test_another_stop_after_a_persons_starts_the_clock() -> None:
    """From that moment the rescues are due again; it is told once, and for whom he waits no more."""
    stage = Stage(grace=BY_HAND)
    stage.look_until(1.0, noticed=True)
    stage.stop.budget = Budget(TWO, BEGAN + 100)
    done = stage.look_until(100 + share(0.8) + 0.01, noticed=True)
    assert [type(event) for event in stage.world.events] == [ClockStarted]
    assert str(stage.world.events[0]).startswith(
        "another stop received, 10 s to clean up for sure, up to 30 s in hope from now"
    )
    assert done.count("take_over") == 1


def test_a_main_that_a_person_interrupts_in_vain_is_taken_over_from() -> None:
    """It is in C, and the second press interrupts what runs, whatever that is."""
    stage = Stage(grace=BY_HAND)
    stage.look_until(60.0)
    stage.delivery.insisted = True
    assert "take_over" not in stage.look_until(60.0 + IN_VAIN - 0.01)
    assert "take_over" in stage.look_until(60.0 + IN_VAIN + 0.1)


@pytest.mark.parametrize("facts", [{"held": "a critical section", "may_tell": False}, {"in_tasks": True}])
def test_what_cannot_be_interrupted_is_not_taken_over_from(facts: dict[str, Any]) -> None:
    """A critical section ends by itself; of tasks the loop is interrupted that does not answer."""
    stage = Stage(grace=BY_HAND)
    stage.delivery.insisted = True
    assert "take_over" not in stage.look_until(IN_VAIN * 3, noticed=True, **facts)


# -- the end -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.STOPPING, State.UNWINDING, State.CLEANING, State.DONE])
@pytest.mark.parametrize("theirs", [None, "a server"])
def test_the_process_is_given_up_at_the_end(state: State, theirs: str | None) -> None:
    """Whatever it does and whosever the stop is, once, and nothing is done after that."""
    stage = Stage(theirs=theirs)
    assert stage.look(state, at=share(1.0)) == ["give_up"]
    assert stage.due == inf
    assert stage.look(state, at=share(1.1)) == []


def test_what_dying_needs_is_loaded_once_before_the_end() -> None:
    """At eight tenths, while there is time for it."""
    stage = Stage()
    stage.look_until(share(1.0) - 0.01, State.CLEANING)
    assert stage.world.done.count("prepare_death") == 1


def test_a_program_that_goes_on_after_the_stop_is_believed_to_mean_it() -> None:
    """When main handles the stop no more and half a second has passed; then all is as if there had been none."""
    stage = Stage()
    assert "forget" not in stage.look_until(3.0, State.DONE, handling=True)
    assert "forget" not in stage.look_until(3.0 + FORGET_AFTER - 0.01, State.DONE, handling=False)
    assert stage.look_until(4.0, State.DONE, handling=False).count("forget") == 1
    assert stage.delivery.over


def test_a_program_that_is_exiting_is_not_forgotten() -> None:
    """Between main's end and the process's there is no exception to be seen."""
    stage = Stage()
    assert "forget" not in stage.look_until(5.0, State.DONE, handling=False, exiting=True)


# -- whatever happens ----------------------------------------------------------------------------------------------------

LOOKS = st.lists(
    st.tuples(
        st.floats(0.0, 2.0),
        st.sampled_from([State.STOPPING, State.UNWINDING, State.CLEANING, State.DONE]),
        st.fixed_dictionaries(
            {
                "announced": st.booleans(),
                "may_tell": st.booleans(),
                "noticed": st.booleans(),
                "held": st.sampled_from([None, "a critical section"]),
                "handling": st.booleans(),
                "in_tasks": st.booleans(),
                "asked_at": st.sampled_from([inf, BEGAN]),
                "exiting": st.booleans(),
                "hook": st.sampled_from([None, "flip"]),
            }
        ),
        st.sampled_from([None, None, "raise", "insist"]),
    ),
    max_size=60,
)
"""Seconds since the last look, the state, the facts, and what happens in main before it."""


@settings(max_examples=150, deadline=None)
@given(LOOKS, st.sampled_from([None, 0.5, 10.0, Grace(10, 30)]), st.sampled_from([None, "a server"]))
def test_whatever_happens(
    looks: list[tuple[float, State, dict[str, Any], str | None]],
    grace: Grace | float | None,
    theirs: str | None,
) -> None:
    """Nothing raises; it is taken over at most once and given up at the end; somebody else's stop is left to him in time."""
    stage = Stage(grace=grace, theirs=theirs)
    budget, world = stage.stop.budget, stage.world
    for pause, state, facts, event in looks:
        stage.now += pause
        if event == "raise" and stage.stop.theirs is None:
            stage.raise_in_main()
        if event == "insist":
            stage.delivery.insisted = True
        was_over, left = stage.delivery.over, len(world.done)
        stage.look(state, **facts)
        done = world.done[left:]
        if was_over:
            assert not done
            assert stage.due == inf
            continue
        assert (stage.now >= budget.end) is ("give_up" in done)
        assert stage.delivery.forced or stage.delivery.over or stage.now < budget.hope(Budget.FORCE) or theirs
        if stage.stop.theirs is not None and not stage.delivery.over:
            assert grace is None or stage.now < budget.hope(Budget.TAKE_OVER) or state is not State.STOPPING
            nudges = not facts["noticed"] and BEGAN + SETTLES <= stage.now < BEGAN + ARRIVES
            nudged = {"nudge"} if nudges else set()
            assert set(done) <= {"begin", "prepare_death", *nudged}
        assert stage.delivery.over or stage.due <= max(budget.end, stage.now + 1)
    assert world.done[:1] in ([], ["begin"])
    for once in ("begin", "take_over", "give_up", "forget", "lift_shields", "prepare_death"):
        assert world.done.count(once) <= 1
    told = [type(event) for event in world.events]
    assert told.count(SteppedIn) <= 1
    assert told.count(HeldToTheEnd) <= 1
    assert told.count(StopRedelivered) < LETS_GO


@given(st.floats(0.01, 1000.0), st.floats(0.0, 1.0))
def test_main_is_poked_no_faster_than_needed(grace: float, until: float) -> None:
    """However often the watcher is woken, two pokes are at least the quick interval apart, but for the very first ones."""
    stage = Stage(grace=grace)
    steps = [until * step / 200 for step in range(200)]
    poked = [at for at in steps if "poke" in stage.look(at=at, noticed=True)]
    for earlier, later in pairwise(poked):
        assert later - earlier >= (EAGER if earlier < AT_FIRST else QUICK) * 0.999
