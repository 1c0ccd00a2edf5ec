"""The record of a stop, from facts on a fake clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cleanup_guard._ground.clock import Budget
from cleanup_guard._ground.events import HookLeftRunning, StopRecord, WorkCut
from cleanup_guard._stop.history import CLEANING, DRAINING, STOPPING, UNWINDING, WORK
from cleanup_guard._stop.stop import Stop

PHASES = (DRAINING, STOPPING, UNWINDING, WORK, CLEANING)


def a_stop(drain: float = 0.0) -> Stop:
    """It comes at 100."""
    return Stop(15, "SIGTERM", status=143, budget=Budget(10.0, 100.0), drain=drain)


def record(stop: Stop, now: float) -> StopRecord:
    """What is told then; on the clock of the wall it is 1000 s later."""
    return stop.record(now, now + 1000)


def test_each_phase_lasts_until_the_next_one() -> None:
    """Two guards are left, and both wait for work: what belongs together is added up."""
    stop = a_stop(drain=2.0)
    for phase, now in (
        (STOPPING, 102.0),
        (UNWINDING, 102.5),
        (WORK, 103.0),
        (CLEANING, 104.0),
        (WORK, 105.0),
        (CLEANING, 105.5),
    ):
        stop.history.enters(phase, now)
    told = record(stop, 106.0)
    assert told.phases == (
        (DRAINING, 2.0),
        (STOPPING, 0.5),
        (UNWINDING, 0.5),
        (WORK, 1.5),
        (CLEANING, 1.5),
    )
    assert (told.seconds, told.at) == (6.0, 1100.0)


def test_callbacks_and_who_was_cut() -> None:
    """An interrupted callback was cut, as was what others tell."""
    stop, error = a_stop(), OSError("disk full")
    stop.history.ended("flush", error, began=101.0, seconds=0.5, interrupted=False)
    stop.history.told(WorkCut(work=(("GET /", 3.0),)))
    stop.history.ended("hangs", TimeoutError(), began=102.0, seconds=2.0, interrupted=True)
    stop.history.told(HookLeftRunning(name="unready", seconds=1.5))
    told = record(stop, 105.0)
    assert [(each.name, each.began, each.seconds) for each in told.callbacks] == [
        ("flush", 1.0, 0.5),
        ("hangs", 2.0, 2.0),
    ]
    assert told.callbacks[0].error is error
    assert told.cut == (("GET /", 3.0), ("callback hangs", 2.0), ("on_stop unready", 1.5))
    assert (stop.history.callbacks, stop.history.failures) == (2, 2)


@given(st.lists(st.tuples(st.sampled_from(PHASES), st.floats(0, 5)), max_size=12), st.floats(0, 5))
def test_phases_add_up_to_the_whole(steps: list[tuple[str, float]], last: float) -> None:
    """Whatever is told in which order: no phase is twice there, none is negative, and none is missing from the sum."""
    stop, now = a_stop(), 100.0
    for phase, seconds in steps:
        now += seconds
        stop.history.enters(phase, now)
    told = record(stop, now + last)
    names = [name for name, _ in told.phases]
    assert len(names) == len({*names})
    assert all(seconds >= 0 for _, seconds in told.phases)
    assert abs(sum(seconds for _, seconds in told.phases) - told.seconds) < 1e-6
