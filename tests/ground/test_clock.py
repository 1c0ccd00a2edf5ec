"""Time as a value: durations at the edge, and what a grace period is spent on."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanup_guard._ground.clock import GRACE_VARIABLE, Budget, grace_from_environment, seconds

GRACES = st.floats(0.001, 1e6)
BEGINNINGS = st.floats(0, 1e6)
SHARES = Budget.INSTANTS


@pytest.mark.parametrize(
    ("value", "result"), [(None, None), (0, 0.0), (2, 2.0), (0.5, 0.5), (timedelta(minutes=1), 60.0)]
)
def test_durations(value: float | timedelta | None, result: float | None) -> None:
    """Numbers and timedeltas become seconds, None stays "no limit"."""
    assert seconds(value, "grace") == result


@pytest.mark.parametrize("value", [-1, -0.001, inf, -inf, nan, timedelta(seconds=-1)])
def test_durations_that_make_no_sense(value: float | timedelta) -> None:
    """A negative or infinite duration is refused, and the message names the argument."""
    with pytest.raises(ValueError, match="grace must be 0 or more seconds"):
        seconds(value, "grace")


@pytest.mark.parametrize("value", ["10", True, b"1", [1]])
def test_what_is_no_duration(value: object) -> None:
    """Something that is no number is refused, and the message shows it."""
    with pytest.raises(TypeError, match="timeout must be a number of seconds"):
        seconds(value, "timeout")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "told", "grace"),
    [("", False, None), ("  ", False, None), ("30", True, 30.0), (" 2.5 ", True, 2.5), ("None", True, None)],
)
def test_the_environment(text: str, told: bool, grace: float | None) -> None:
    """CLEANUP_GUARD_GRACE is a number of seconds or none; empty is as good as unset."""
    assert grace_from_environment({GRACE_VARIABLE: text}) == (told, grace)
    assert grace_from_environment({}) == (False, None)


@pytest.mark.parametrize("text", ["soon", "-3", "inf", "nan", "10s"])
def test_a_broken_environment(text: str) -> None:
    """A value that is no duration is refused, and the message names the variable and shows the value."""
    with pytest.raises(ValueError, match=GRACE_VARIABLE) as caught:
        grace_from_environment({GRACE_VARIABLE: text})
    assert repr(text) in str(caught.value)


@given(GRACES, BEGINNINGS)
def test_the_shares_are_in_order(grace: float, began: float) -> None:
    """Hooks, stuck, force, take-over, interrupt, end and last resort follow each other, all before the platform's SIGKILL."""
    budget = Budget(grace, began)
    instants = [began, *map(budget.at, SHARES), budget.last_resort, budget.last_moment, began + grace]
    assert all(earlier <= later for earlier, later in pairwise(instants))
    assert budget.end == budget.at(1.0)


@pytest.mark.parametrize(
    ("grace", "margin"), [(10, 1.0), (30, 2.0), (600, 2.0), (1, 0.1), (0.3, 0.05), (0.05, 0.025)]
)
def test_the_margin(grace: float, margin: float) -> None:
    """The margin is a tenth, between 0.05 and 2 seconds, and never more than half."""
    assert Budget(grace, 100.0).margin == pytest.approx(margin)
    assert Budget(grace, 100.0).end == pytest.approx(100.0 + grace - margin)
    assert Budget(grace, 100.0).last_resort == pytest.approx(100.0 + grace - margin / 2)


def test_no_limit() -> None:
    """Without a grace period nothing is ever due."""
    budget = Budget(None, 5.0)
    assert {budget.at(share) for share in SHARES} == {inf}
    assert budget.last_resort == budget.last_moment == inf
    assert budget.remaining(1e9) is None
    assert budget.callback_limit(7.0, None) == inf
    assert budget.callback_limit(7.0, 2.0) == 9.0


@given(GRACES, st.floats(0, 2), st.floats(0, 2))
def test_what_remains_shrinks_to_nothing(grace: float, one: float, other: float) -> None:
    """`remaining` never grows and never falls below zero; it is zero when the interrupt is due."""
    budget = Budget(grace, 0.0)
    early, late = sorted((one * grace, other * grace))
    left, less = budget.remaining(early), budget.remaining(late)
    assert left is not None
    assert less is not None
    assert left >= less >= 0
    assert budget.remaining(budget.at(Budget.INTERRUPT)) == 0


@given(GRACES, st.floats(0, 0.999), st.none() | st.floats(0, 100))
def test_every_callback_has_its_turn(grace: float, share: float, timeout: float | None) -> None:
    """A callback that starts before the end is never due before it starts, nor after the end, nor after its own timeout."""
    budget = Budget(grace, 0.0)
    started = share * budget.end
    limit = budget.callback_limit(started, timeout)
    assert started <= limit <= budget.end
    if timeout is None:
        assert limit > started
    else:
        assert limit <= started + timeout
