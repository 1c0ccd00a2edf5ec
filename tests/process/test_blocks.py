"""Which exits main still owes, asked at each line of frames with blocks of every kind: until they have run, and no longer."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from cleanup_guard._process.blocks import Way


class Course:
    """Notes when a block is begun and when its exit has run, and asks at each line whether one is owed."""

    def __init__(self) -> None:
        self.way: Way | None = None
        self.open = 0
        self.wrong: list[str] = []
        self.asked = 0

    def call(self) -> bool:
        """What main is in when the question comes up."""
        if self.way is None:
            frame = sys._getframe(1)
            self.way = Way(frame)
            frame.f_trace = self._on_line
            sys.settrace(self._on_line)
        return True

    def exit(self) -> None:
        """An exit has run."""
        self.open -= 1

    @contextlib.contextmanager
    def block(self) -> Iterator[None]:
        """A context manager."""
        self.open += 1
        try:
            yield
        finally:
            self.exit()

    def _on_line(self, frame: FrameType, event: str, argument: object) -> Any:
        if self.way is None or frame is not self.way.frame:
            return None
        if event == "line":
            self.asked += 1
            if self.way.owes() and not self.open:
                self.wrong.append(f"line {frame.f_lineno}: owes an exit that has run")
        return self._on_line


def with_block(course: Course) -> None:
    with course.block():
        course.call()
    course.after = 1  # type: ignore[attr-defined]


def with_block_with_a_line_behind_the_call(course: Course) -> None:
    with course.block():
        course.call()
        id(course)
    id(course)


def finally_block(course: Course) -> None:
    course.open += 1
    try:
        course.call()
    finally:
        course.exit()
    id(course)


def loop(course: Course) -> None:
    for _ in range(3):
        with course.block():
            course.call()
        id(course)


def nested(course: Course) -> None:
    with course.block(), course.block():
        course.call()
    with course.block():
        id(course)
    id(course)


def no_block(course: Course) -> None:
    course.call()
    id(course)


FRAMES: list[Callable[[Course], None]] = [
    with_block,
    with_block_with_a_line_behind_the_call,
    finally_block,
    loop,
    nested,
    no_block,
]


@pytest.mark.parametrize("function", FRAMES, ids=lambda function: function.__name__)
def test_nothing_is_owed_when_all_exits_have_run(function: Callable[[Course], None]) -> None:
    """Or main would never be told."""
    course, before = Course(), sys.gettrace()
    try:
        function(course)
    finally:
        sys.settrace(before)
    assert course.asked
    assert not course.wrong
    assert course.open == 0


def test_behind_a_block_its_finally_is_owed() -> None:
    """At the first line of a `finally` main has left the block, and not been through the exit."""
    owed: list[bool] = []

    class Asks(Course):
        def _on_line(self, frame: FrameType, event: str, argument: object) -> Any:
            if self.way is not None and frame is self.way.frame and event == "line":
                owed.append(self.way.owes())
            return self._on_line

    course, before = Asks(), sys.gettrace()
    try:
        finally_block(course)
    finally:
        sys.settrace(before)
    assert owed[0]
    assert not owed[-1]
