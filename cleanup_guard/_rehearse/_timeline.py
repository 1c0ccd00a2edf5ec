"""A rehearsal as text: a row for each process with a bar from the stop to its end, then the verdict and the advice.

Rules:
1. No line is wider than asked, but for the line that fixes something: that one is there to be copied.
2. Nothing but printable characters and our own colours.
3. Colour repeats what is there in words or shapes, and carries nothing alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cleanup_guard._rehearse import _words
from cleanup_guard._rehearse._words import cells, cut

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cleanup_guard._rehearse._seen import Advice, How, Rehearsal
    from cleanup_guard._rehearse._words import Row, Scale

NARROWEST = 60
SHORTEST_BAR = 12
LONGEST_BAR = 100
WIDEST_ENDING = 24
TICK = 4
"""Cells from one tick to the next, at least."""

BOLD, DIM, RED, GREEN, YELLOW, MAGENTA = "1", "2", "31", "32", "33", "35"
COLOURS: dict[How, str] = {
    "exited": GREEN,
    "signal": YELLOW,
    "killed": RED,
    "torn-down": MAGENTA,
    "unknown": YELLOW,
}


@dataclass(frozen=True)
class Shapes:
    """What the picture is made of; every one is a cell wide."""

    bar: str
    exited: str
    killed: str
    stop: str
    other: str
    rule: str
    tick: str
    child: str
    ellipsis: str
    clean: str
    unclean: str
    fault: str
    remark: str


UNICODE = Shapes("━", "┫", "✖", "●", "○", "─", "┬", "└", "…", "✔", "✖", "▸", "▹")
ASCII = Shapes("=", "|", "X", "*", "o", "-", "+", "`", "~", "+", "X", "!", "-")


def timeline(rehearsal: Rehearsal, *, colour: bool, width: int = 80, unicode: bool = True) -> str:
    """Draw it.

    Args:
        rehearsal: what was seen.
        colour: whether escape sequences for colour are understood.
        width: cells of a line; 60 at least.
        unicode: whether more than ASCII can be shown.

    Returns:
        Lines without an end of line after the last.
    """
    picture = _Picture(rehearsal, max(width, NARROWEST), UNICODE if unicode else ASCII, colour=colour)
    text = "\n".join(line.rstrip(" ") for line in picture.lines())
    return text if unicode else "".join(each if each.isascii() else "?" * cells(each) for each in text)


class _Picture:
    def __init__(self, rehearsal: Rehearsal, width: int, shapes: Shapes, *, colour: bool) -> None:
        self._rehearsal = rehearsal
        self._width = width
        self._shapes = shapes
        self._colour = colour
        self._rows: list[Row] = _words.rows(rehearsal)
        self._scale: Scale = _words.scale(rehearsal)
        self._stop = _words.on_one_line(rehearsal.signal)
        self._pid = max([3, *(len(row.pid) for row in self._rows)])
        self._handling = max(cells(self._stop), *(len(row.handling or "") for row in self._rows), 0)
        self._ending = min(
            WIDEST_ENDING, max([0, *(cells(f"{row.ending} {row.when}") for row in self._rows)])
        )
        left = width - self._pid - self._handling - self._ending - 4
        needed = max([7, *(2 * row.depth + cells(row.label) for row in self._rows)])
        self._label = min(needed, max(left - LONGEST_BAR, left // 2))
        self._bar = min(LONGEST_BAR, left - self._label)

    def lines(self) -> Iterator[str]:
        """Everything, from the title to the last advice."""
        yield self._paint(BOLD, self._cut(_words.title(self._rehearsal), self._width))
        yield from self._wrapped(DIM, _words.facts(self._rehearsal))
        if self._rehearsal.remark:
            yield from self._wrapped(DIM, f"({self._rehearsal.remark})")
        yield ""
        yield from self._axis()
        for row in self._rows:
            yield self._row(row)
        yield ""
        yield from self._wrapped(DIM, *self._legend())
        yield ""
        clean = self._rehearsal.clean
        mark = self._shapes.clean if clean else self._shapes.unclean
        yield from self._listed(mark, self._rehearsal.verdict, f"{BOLD};{GREEN if clean else RED}")
        for advice in self._rehearsal.advice:
            yield from self._advise(advice)

    # -- the picture ------------------------------------------------------------------------------------------

    def _axis(self) -> Iterator[str]:
        ticks, labels = self._ticks(self._bar // TICK)
        rule = list(self._shapes.rule * self._bar)
        for column in ticks:
            rule[column] = self._shapes.tick
        if self._scale.grace is not None:
            rule[self._column(self._scale.grace)] = self._shapes.killed
        yield self._paint(DIM, f"{self._columns('PID', 'command', self._stop)} {labels}")
        yield self._paint(DIM, f"{self._columns('', '', '')} {''.join(rule)}")

    def _ticks(self, most: int) -> tuple[list[int], str]:
        """Their columns, and the line of their labels: as many as fit."""
        ticks = self._scale.ticks(most)
        columns, labels = [self._column(moment) for moment, _ in ticks], ""
        for column, (_, label) in zip(columns, ticks, strict=True):
            start = min(column, self._bar - len(label))
            if labels and start <= len(labels):
                return self._ticks(most - 1)
            labels = labels.ljust(start) + label
        return columns, labels

    def _row(self, row: Row) -> str:
        branch = " " * (2 * row.depth - 2) + f"{self._shapes.child} " if row.depth else ""
        label = self._cut(branch + row.label, self._label)
        ending = self._cut(f"{row.ending} {row.when}", self._ending)
        colour = COLOURS[row.how]
        bar = self._drawn(row)
        start = self._columns(row.pid, label, row.handling or "")
        return (
            f"{start} {self._paint(colour, bar)}{' ' * (self._bar - len(bar))} {self._paint(colour, ending)}"
        )

    def _drawn(self, row: Row) -> str:
        """The bar of a row. Its last cell shows how it ended, so a signal is marked before that if it can be."""
        last = self._column(row.ended)
        first = min(self._column(row.born), last - 1)
        bar = [" "] * first + [self._shapes.bar] * (last - first) + [self._shapes.exited]
        for heard in sorted(row.heard, key=lambda each: each.name == self._rehearsal.signal):
            is_stop = heard.name == self._rehearsal.signal
            column = min(max(self._column(heard.at) - (heard.at > 0), first), last - 1)
            bar[column] = self._shapes.stop if is_stop else self._shapes.other
        if row.how in {"killed", "torn-down"}:
            bar[last] = self._shapes.killed
        return "".join(bar)

    def _column(self, moment: float) -> int:
        """Where a moment is on the axis: the stop has the first cell for itself."""
        share = min(1.0, max(0.0, moment / self._scale.end))
        return (moment > 0) + round(share * (self._bar - 2))

    def _columns(self, pid: str, label: str, handling: str) -> str:
        padding = " " * (self._label - cells(label))
        return f"{pid:>{self._pid}} {label}{padding} {handling:{self._handling}}"

    def _legend(self) -> Iterator[str]:
        names = {heard.name for row in self._rows for heard in row.heard}
        if self._rehearsal.signal in names:
            yield f"{self._shapes.stop} {self._stop} came"
        others = sorted(map(_words.on_one_line, names - {self._rehearsal.signal}))
        if others:
            yield f"{self._shapes.other} {', '.join(others)} came"
        if self._scale.grace is not None or any(row.how in {"killed", "torn-down"} for row in self._rows):
            yield f"{self._shapes.killed} SIGKILL"
        if any(row.how == "torn-down" for row in self._rows):
            yield _words.TORN_DOWN

    # -- the text ---------------------------------------------------------------------------------------------

    def _advise(self, advice: Advice) -> Iterator[str]:
        yield ""
        yield from self._listed(self._shapes.fault if advice.fault else self._shapes.remark, advice.text, "")
        for line in advice.line.splitlines():
            yield f"      {self._paint(BOLD, _words.printable(line.expandtabs()))}"
        notes = [_words.on_one_line(advice.where), _words.tried(advice)] if advice.line else []
        for line in _words.wrap("; ".join(filter(None, notes)), self._width - 6):
            if line:
                yield f"      {self._paint(DIM, line)}"

    def _listed(self, mark: str, text: str, style: str) -> Iterator[str]:
        for number, line in enumerate(_words.wrap(text, self._width - 2)):
            yield f"{' ' if number else self._paint(style, mark)} {self._paint(style, line)}"

    def _wrapped(self, style: str, *texts: str) -> Iterator[str]:
        for line in _words.wrap("; ".join(texts), self._width):
            yield self._paint(style, line)

    def _cut(self, text: str, most: int) -> str:
        return cut(text, most, self._shapes.ellipsis)

    def _paint(self, style: str, text: str) -> str:
        return f"\033[{style}m{text}\033[m" if self._colour and style and text.strip() else text
