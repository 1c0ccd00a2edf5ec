"""Time as a value: durations at the edge, and what a grace period is spent on."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanup_guard._ground.clock import (
    BY_HAND,
    GRACE_VARIABLE,
    Budget,
    Grace,
    grace_from_environment,
    how_long,
    seconds,
)

GRACES = st.floats(0.001, 1e6)
BEGINNINGS = st.floats(0, 1e6)
SHARES = (*Budget.SURE, *Budget.HOPE)


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
    ("text", "sure", "hope"),
    [
        ("30", 30.0, 30.0),
        (" 2.5 ", 2.5, 2.5),
        ("None", None, None),
        ("10..30", 10.0, 30.0),
        ("5 .. 5", 5.0, 5.0),
    ],
)
def test_the_environment(text: str, sure: float | None, hope: float | None) -> None:
    """CLEANUP_GUARD_GRACE is a number of seconds, two of them, or none."""
    found = grace_from_environment({GRACE_VARIABLE: text})
    assert found is not None
    assert (found.sure, found.hope, found.how) == (sure, hope, "given by CLEANUP_GUARD_GRACE")
    again = grace_from_environment({GRACE_VARIABLE: found.text})
    assert again is not None
    assert (again.sure, again.hope) == (sure, hope)


@pytest.mark.parametrize("environ", [{}, {GRACE_VARIABLE: ""}, {GRACE_VARIABLE: "  "}])
def test_an_environment_that_says_nothing(environ: dict[str, str]) -> None:
    """Empty is as good as unset."""
    assert grace_from_environment(environ) is None


@pytest.mark.parametrize(
    "text", ["soon", "-3", "inf", "nan", "10s", "0", "30..10", "..", "10..", "1..2..3", "0..5"]
)
def test_a_broken_environment(text: str) -> None:
    """A value that is no duration is refused, and the message names the variable and shows the value."""
    with pytest.raises(ValueError, match=GRACE_VARIABLE) as caught:
        grace_from_environment({GRACE_VARIABLE: text})
    assert repr(text) in str(caught.value)


@given(GRACES, BEGINNINGS)
def test_the_shares_are_in_order(grace: float, began: float) -> None:
    """Hooks, stuck, force, take-over, interrupt, end and last resort follow each other, all before the platform's SIGKILL."""
    budget = Budget(grace, began)
    instants = [
        began,
        *map(budget.hope, sorted(SHARES)),
        budget.last_resort,
        budget.last_moment,
        began + grace,
    ]
    assert all(earlier <= later for earlier, later in pairwise(instants))
    assert budget.end == budget.hope(1.0) == budget.sure(1.0)


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
    assert {end(share) for share in SHARES for end in (budget.sure, budget.hope)} == {inf}
    assert budget.due_after(6.0) == inf
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
    assert budget.remaining(budget.hope(Budget.INTERRUPT)) == 0


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


# -- two numbers -----------------------------------------------------------------------------------------------------------


@given(GRACES, st.floats(1, 10), BEGINNINGS)
def test_what_is_sure_comes_before_what_is_hoped_for(sure: float, factor: float, began: float) -> None:
    """Each rescue is due no later than the permission of the same share ends; the process ends itself when hope does."""
    budget = Budget(Grace(sure, sure * factor), began)
    assert all(budget.sure(share) <= budget.hope(share) for share in SHARES)
    assert budget.grace == sure * factor
    assert budget.end == budget.hope(1.0) <= budget.last_resort


def test_what_is_due_next() -> None:
    """First the rescues, then the ends of what is permitted."""
    budget = Budget(Grace(10, 30), 0.0)
    dues, now = [], 0.0
    while now < budget.end:
        now = budget.due_after(now)
        dues.append(round(now, 2))
    assert dues == [1.8, 4.5, 7.2, 8.1, 22.4, 25.2, 26.6, 28.0]


@pytest.mark.parametrize(
    ("started", "others_wait", "limit"),
    [
        (0.0, True, 8.1),  # nine tenths of the nine that can be used
        (8.5, True, 8.75),  # half of what is left of them
        (12.0, True, 20.0),  # they are over: half of what is hoped for
        (0.0, False, 25.2),
        (12.0, False, 25.2),
        (26.0, False, 27.0),
        (28.5, True, 28.5),
    ],
)
def test_a_callback_that_others_wait_for_has_what_is_sure(
    started: float, others_wait: bool, limit: float
) -> None:
    """The last one has all that is hoped for."""
    budget = Budget(Grace(10, 30), 0.0)
    assert budget.callback_limit(started, None, others_wait=others_wait) == pytest.approx(limit)
    assert budget.callback_limit(started, 0.1, others_wait=others_wait) <= started + 0.1


def test_what_remains_is_what_is_hoped_for_unless_others_wait() -> None:
    """And when what was sure is over, the rest of hope."""
    budget = Budget(Grace(10, 30), 0.0)
    assert budget.remaining(1.0) == pytest.approx(24.2)
    assert budget.remaining(1.0, others_wait=True) == pytest.approx(7.1)
    assert budget.remaining(8.5, others_wait=True) == 0
    assert budget.remaining(12.0, others_wait=True) == pytest.approx(13.2)


def test_how_long_in_words() -> None:
    """One number, two, or none."""
    assert how_long(10.0, 10.0) == "10 s to clean up"
    assert how_long(10.0, 30.0) == "10 s to clean up for sure, up to 30 s in hope"
    assert how_long(None, None) == "no time limit"


def test_the_shorter_of_two_grace_periods() -> None:
    """Each number is the smaller one; no limit is longer than any; a person's stop has no end at all."""
    ten, two = Grace(10, 30), Grace(2)
    assert (ten.within(two).sure, ten.within(two).hope) == (2, 2)
    assert (two.within(ten).sure, two.within(ten).hope) == (2, 2)
    assert ten.within(Grace(None)) is ten
    assert ten.within(None) is ten
    assert Grace(None).within(ten) is ten
    assert ten.within(BY_HAND) is BY_HAND
