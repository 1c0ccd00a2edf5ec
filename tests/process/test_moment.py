"""When an exception may be raised in the standard library: not because time has passed in which main could not run."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from types import FrameType

from cleanup_guard._process.moment import LOOKS, PATIENCE, STILL, Moment


def library_frame() -> FrameType:
    """A frame of the standard library."""
    frames: list[FrameType] = []
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: frames.append(sys._getframe(2)))  # pyright: ignore[reportPrivateUsage]
    return frames[0]


def looks(*times: tuple[FrameType, float, float]) -> Iterable[bool]:
    """Look at main a thousand seconds after the stop, and again: where it is, how long it ran before, how long ours took."""
    now = 1000.0
    moment = Moment(lambda: now, lambda _: None)
    for frame, outside, inside in times:
        now += outside
        moment.entered = now
        now += inside
        yield moment.is_right(frame, 0.0)
        moment.stop_tracing()


def test_a_slow_handler_is_no_standing_still() -> None:
    """Two signals at one moment are two looks at one instruction: main has not waited there, however long ours took."""
    frame = library_frame()
    assert list(looks(*[(frame, 0, 1)] * 3)) == [False] * 3
    assert list(looks((frame, 0, 0), (frame, STILL / 2, 0), (frame, STILL / 2, 0))) == [False, False, True]


def test_the_first_instruction_of_a_function_may_be_met_twice() -> None:
    """Traced from there on it is run again, after a wait for the GIL: a call that waits is met as often as one looks."""
    frame = library_frame()
    assert list(looks((frame, 0, 0), (frame, STILL, 0), (frame, STILL, 0))) == [False, False, True]
    assert (
        list(looks((frame, 0, 0), (frame, 0, 0), (frame, STILL, 0))) == [False] * 3
    )  # two signals at once, and that


def test_patience_begins_when_main_first_looks() -> None:
    """The first look may be at a lock half taken, and main only needs to run on, for which it needs a processor."""
    moving = [(library_frame(), PATIENCE / 2, 0.0) for _ in range(LOOKS + 1)]
    assert list(looks(*moving)) == [False] * LOOKS + [True]
