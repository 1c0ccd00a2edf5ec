"""Behind which lines main still owes the exit of a block that it has left."""

from __future__ import annotations

import sys
import threading
from types import FrameType
from typing import Any

import pytest

from cleanup_guard._process.blocks import Way

PROGRAMS = {
    "with": """
def main():
    with lock:  # owed
        here()
    after()
""",
    "still inside": """
def main():
    with lock:  # owed
        here()
        after()
        after()
""",
    "several": """
def main():
    with lock:  # owed
        with other:  # owed
            here()
    after()
""",
    "something behind the inner one": """
def main():
    with lock:  # owed
        with other:  # owed
            here()
        after()
        after()
""",
    "return": """
def main():
    with lock:  # owed
        return here()
""",
    "finally": """
def main():
    try:
        here()
    finally:
        after()  # owed
        after()  # owed
    after()
""",
    "finally, an exception": """
def main():
    try:
        try:
            fail(here())
        finally:
            after()  # owed
    except ValueError:
        pass
""",
    "a loop that goes back": """
def main():
    for _ in range(2):
        with lock:  # owed
            here()
        after()
""",
    "no block": """
def main():
    here()
    after()
""",
    "a block in the finally": """
def main():
    try:
        here()
    finally:
        with lock:  # owed
            after()  # owed
    after()
""",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_what_is_owed(program: str) -> None:
    """From a call of `here` on: at the lines of an exit, and at no others."""
    ways: list[Way] = []
    owed: set[int] = set()

    def here() -> None:
        ways[:] = [Way(sys._getframe(1))]

    def fail(_: object) -> None:
        raise ValueError

    names: dict[str, Any] = {
        "here": here,
        "fail": fail,
        "after": lambda: None,
        "lock": threading.Lock(),
        "other": threading.Lock(),
    }
    exec(program, names)

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code is not names["main"].__code__:
            return None
        if event == "line" and ways and ways[0].owes():
            owed.add(frame.f_lineno)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        names["main"]()
    finally:
        sys.settrace(before)
    assert owed == {number for number, line in enumerate(program.splitlines(), 1) if "# owed" in line}
