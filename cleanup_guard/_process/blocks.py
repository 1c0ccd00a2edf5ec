"""Which exits main still owes: whether it is behind a `with` or `try` block whose exit, or `finally`, it has not been through.

Where Python itself looks for signals it is inside such a block or past its exit. A line event comes in between, too: the
exit of
a `with` has the line of the `with`, and the lines of a `finally` are lines. An exception raised there would skip the rest.
The compiler's exception table says which instructions a block covers, and where an exception goes on; that code has the lines
of the exit, because it does the same.
"""

from __future__ import annotations

from cleanup_guard._ground.clock import inf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, FrameType

MORE, VALUE = 0x40, 0x3F
"""Bits of a byte of the exception table."""

UNIT = 2
"""Bytes of an instruction, in which the table counts."""


class Way:
    """The way that main takes through a frame, from a call on. Made while it is in that call.

    Attributes:
        frame: the frame.
    """

    def __init__(self, frame: FrameType) -> None:
        self.frame: FrameType = frame
        self._table = list(_ranges(frame.f_code))
        self._inside = self._handler(frame.f_lasti)
        self._owed: dict[int, set[int]] = {}

    def owes(self) -> bool:
        """Whether main has left a block but not the lines of its exit. To be asked at each line."""
        at, line = self.frame.f_lasti, self.frame.f_lineno
        inside = self._handler(at)
        if self._inside not in (None, inside):
            self._owed[self._inside] = self._lines(self._inside)
        self._inside = inside
        for handler in list(self._owed):
            begin = min(start for start, _, target in self._table if target == handler)
            if handler == inside or at < begin:  # it is inside again, or a loop has gone back before it
                del self._owed[handler]
        return any(line in lines for lines in self._owed.values())

    def _handler(self, at: int) -> int | None:
        """Where an exception at this instruction goes on in this frame."""
        return next((target for start, end, target in self._table if start <= at < end), None)

    def _lines(self, handler: int) -> set[int]:
        """The lines of a handler: it ends where one of its own exceptions would go.

        Before that, 3.12 may put a copy of what follows the block, which its own exceptions do not go through.
        """
        own = [each for each in self._table if each[0] >= handler and each[2] > handler]
        end = min((target for _, _, target in own), default=None)
        parts: list[tuple[int, float]] = [
            (begin, stop) for begin, stop, _ in own if end is None or begin < end
        ] or [(handler, inf)]
        return {
            line
            for start, stop, line in self.frame.f_code.co_lines()
            if line is not None and any(stop > first and start < last for first, last in parts)
        }


def is_in_first_block(frame: FrameType) -> bool:
    """Whether a frame is in the first block of its function: inside a `try` or a `with`, not in what comes after that."""
    table = list(_ranges(frame.f_code))
    return any(start <= frame.f_lasti < end for start, end, target in table if target == table[0][2])


def _ranges(code: CodeType) -> Iterator[tuple[int, int, int]]:
    """The exception table: from which instruction to which, and where an exception goes. As `dis` reads it."""
    numbers = _numbers(code.co_exceptiontable)
    for start, length, target, _ in zip(numbers, numbers, numbers, numbers, strict=True):
        yield start * UNIT, (start + length) * UNIT, target * UNIT


def _numbers(table: bytes) -> Iterator[int]:
    value = 0
    for byte in table:
        value = value << 6 | byte & VALUE
        if not byte & MORE:
            yield value
            value = 0
