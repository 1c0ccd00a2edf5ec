"""Handlers of every shape, before and after a guard: what the program does without us is what it does with us.

Each shape runs twice, without a guard and with one; the first run says what the second has to do.
"""

from __future__ import annotations

import json
import signal
from dataclasses import asdict, dataclass

import pytest
from guests.stage import Host, Stopped, as_a_shell_says, stop
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

SECONDS = 0.3
"""For how long the work goes on after the last signal."""

DYING = {"dies", "dies later", "dies at the end"}
STAYING = {"notes", "looks", "default next", "dies later", "dies at the end"}
"""First calls after which the program goes on, so that a second signal finds it."""


@dataclass(frozen=True)
class Shape:
    """What a program's handler does, and where it stands.

    Attributes:
        signum: its signal.
        first: what it does the first time. It notes the stop; or looks whether it is the installed one, too; or raises; exits;
            or puts the default back and signals itself: now, after the work, or when the guard has been left; or leaves the
            default for the next time.
        second: what it does the second time.
        way: how it signals itself.
        composes: it calls the handler that was there before it.
        order: whether it comes before the guard or after it.
        then: the second signal, if there is one.
    """

    signum: int
    first: str
    second: str
    way: str
    composes: bool
    order: str
    then: int | None

    def host(self) -> Host:
        """The program."""
        return Host(f"{self}", ("shapes.py", json.dumps(asdict(self))), ())

    @property
    def signals_after(self) -> tuple[int, ...]:
        """What is sent after the first."""
        return () if self.then is None else (self.then,)


SHAPES = st.builds(
    Shape,
    signum=st.sampled_from([signal.SIGTERM, signal.SIGTERM, signal.SIGINT]).map(int),
    first=st.sampled_from(sorted(DYING | STAYING | {"raises", "exits"})),
    second=st.sampled_from(["notes", "raises", "exits", "dies"]),
    way=st.sampled_from(["kill", "alias", "killpg", "raise_signal"]),
    composes=st.booleans(),
    order=st.sampled_from(["handler first", "handler last"]),
    then=st.sampled_from([None, None, int(signal.SIGTERM), int(signal.SIGINT)]),
)
PLACES = st.sampled_from(["module", "with", "main"])


def calls_us(shape: Shape) -> bool:
    """A handler that calls ours has asked for what ours does."""
    return shape.composes and shape.order == "handler last"


def check(shape: Shape, at: str) -> None:
    """No callback is lost or doubled, no work is cut that is whole without us; their exception and status are kept."""
    assume(shape.then is None or shape.first in STAYING)
    alone = run(shape, "nowhere")
    stopped = run(shape, at)
    told = f"{shape}, guard at {at}\nwithout: {alone}\nwith: {stopped}"
    assert stopped.times("callback") == stopped.times("registered") == 1, told
    assert not stopped.times("not installed"), told
    assert ("RuntimeError: theirs" in stopped.output) == ("RuntimeError: theirs" in alone.output), told
    assert not stopped.stepped_in, told
    assert stopped.left == [], told
    if (
        calls_us(shape)
        and shape.first not in {"raises", "exits", "dies"}
        and not (at == "module" and shape.signum == signal.SIGINT)
    ):
        assert stopped.times("ends") == 0, told
        assert as_a_shell_says(stopped.status) - 128 in {shape.signum, shape.then}, told
        return
    facts = ("begins", "ends", "called 1", "called 2", "host over")
    assert stopped.order(*facts) == alone.order(*facts), told
    statuses = {alone.status}
    if shape.then is not None and shape.then != shape.signum:  # both have come, and either may be told
        statuses.add(-shape.signum)
    assert as_a_shell_says(stopped.status) in map(as_a_shell_says, statuses), told


def run(shape: Shape, at: str) -> Stopped:
    """The program, with a guard there."""
    return stop(shape.host(), at, shape.signum, then=shape.signals_after, seconds=SECONDS)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
@given(SHAPES, PLACES)
def test_a_handler_of_any_shape(shape: Shape, at: str) -> None:
    """A sample of them."""
    check(shape, at)


@pytest.mark.nightly
@settings(
    max_examples=1000,
    deadline=None,
    derandomize=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(SHAPES, PLACES)
def test_handlers_of_all_shapes(shape: Shape, at: str) -> None:
    """Many of them."""
    check(shape, at)
