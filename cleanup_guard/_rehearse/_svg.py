"""A rehearsal as a picture that stands alone: no font, script or file of anybody else's, and a card of its own to stand on.

Rules:
1. The same rehearsal gives the same picture, byte for byte.
2. Fonts differ, so text is cut for a wide one; what strangers wrote is in a fixed-width font, whose width is known.
3. As an image in a page it follows the reader's colour scheme; a viewer that knows no `@media` shows the light one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from cleanup_guard._rehearse import _words
from cleanup_guard._rehearse._words import cells, cut

if TYPE_CHECKING:
    from cleanup_guard._rehearse._seen import Handling, Heard, How, Rehearsal
    from cleanup_guard._rehearse._words import Row

WIDTH, MARGIN = 840, 28
LEFT, RIGHT = 316, 668
"""Where the axis begins and ends."""

ENDINGS = RIGHT + 18
ROW, BAR = 44, 12
INDENT = 14

MONO = 0.62
"""Width in ems of a cell of a fixed-width font."""

LIGHT = {
    "card": "#ffffff", "edge": "#d0d7de", "ink": "#1f2328", "soft": "#59636e", "line": "#d8dee4", "code": "#f3f5f7",
    "exited": "#1a7f37", "signal": "#9a6700", "killed": "#cf222e", "torn-down": "#8250df",
    "unknown": "#59636e",
}  # fmt: skip
DARK = {
    "card": "#0d1117", "edge": "#3d444d", "ink": "#f0f6fc", "soft": "#9198a1", "line": "#2a313a", "code": "#1c222b",
    "exited": "#3fb950", "signal": "#d29922", "killed": "#f85149", "torn-down": "#bc8cff",
    "unknown": "#9198a1",
}  # fmt: skip

STYLE = """\
text {{ font-size: 13px; font-family: system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, "DejaVu Sans", sans-serif; }}
.mono {{ font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }}
.name, .how {{ font-size: 14px; }} .verdict {{ font-size: 16px; }} .title {{ font-size: 18px; }}
.how, .verdict, .title {{ font-weight: 600; }}
.thin, .mark {{ fill: none; }} .mark {{ stroke-width: 2.5; stroke-linecap: round; }} .dot {{ stroke-width: 2; }}
.halo {{ stroke-width: 4; paint-order: stroke; }}
{light}
@media (prefers-color-scheme: dark) {{
{dark}
}}
"""

HOWS: dict[How, str] = {
    "exited": "ended by itself",
    "signal": "ended by a signal",
    "killed": "killed at the end of the grace period",
    "torn-down": "killed by the kernel, as PID 1 had left",
    "unknown": "ended unseen",
}
HANDLINGS: dict[Handling, str] = {
    "catches": "catches",
    "ignores": "ignores",
    "blocks": "blocks",
    "default": "does not catch",
    "unknown": "nobody knows if it catches",
}


def svg(rehearsal: Rehearsal) -> str:
    """Draw it.

    Returns:
        An SVG document, 840 pixels wide, that ends with a newline.
    """
    return _Picture(rehearsal).draw()


def _colours(scheme: dict[str, str]) -> str:
    return "\n".join(
        f".{name} {{ fill: {colour}; }} .{name}-line {{ stroke: {colour}; }}"
        for name, colour in scheme.items()
    )


class _Picture:
    def __init__(self, rehearsal: Rehearsal) -> None:
        self._rehearsal = rehearsal
        self._stop = _words.on_one_line(rehearsal.signal)
        self._rows = _words.rows(rehearsal)
        self._scale = _words.scale(rehearsal)
        self._root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img"})
        self._y = 0.0

    def draw(self) -> str:
        title = _words.title(self._rehearsal)
        self._add("title", text=title)
        self._add("desc", text=self._in_words())
        self._add("style", text=STYLE.format(light=_colours(LIGHT), dark=_colours(DARK)))
        card = self._add("rect", "card edge-line", x=0.5, y=0.5, width=WIDTH - 1, rx=10)
        self._header(title)
        self._axis()
        for row in self._rows:
            self._row(row)
        self._legend()
        self._judgement()
        height = self._y + 12
        card.set("height", f"{height - 1:g}")
        for name, value in (
            ("width", f"{WIDTH}"),
            ("height", f"{height:g}"),
            ("viewBox", f"0 0 {WIDTH} {height:g}"),
        ):
            self._root.set(name, value)
        return ET.tostring(self._root, encoding="unicode") + "\n"

    def _in_words(self) -> str:
        """For those who do not see it."""
        said = [
            f"{row.label}{row.pid and f' (PID {row.pid})'}: {row.ending} {row.when}." for row in self._rows
        ]
        return _words.on_one_line(
            " ".join([_words.facts(self._rehearsal) + ".", *said, self._rehearsal.verdict])
        )

    # -- its parts, from the top ------------------------------------------------------------------------------

    def _header(self, title: str) -> None:
        self._text(MARGIN, 40, cut(title, _fit(WIDTH - 2 * MARGIN, 18)), "title ink")
        self._y = 62
        remark = self._rehearsal.remark
        for text in [f"{_words.facts(self._rehearsal)}.", *([f"({remark})"] if remark else [])]:
            self._paragraph(MARGIN, text, 13, "soft")
        self._y += 16

    def _axis(self) -> None:
        top, bottom = self._y + 26, self._y + 34 + ROW * len(self._rows)
        for moment, label in self._scale.ticks(7):
            self._line(self._x(moment), top, bottom, "line-line")
            self._text(self._x(moment), top - 6, label, "soft", anchor="middle")
        self._line(LEFT, top, bottom, "soft-line")
        self._text(LEFT, top - 26, self._stop, "ink", anchor="middle")
        if self._scale.grace is None:
            self._text(ENDINGS, top - 26, f"SIGKILL at {self._rehearsal.grace:.10g} s", "soft")
        else:
            x = self._x(self._scale.grace)
            self._line(x, top, bottom, "killed-line", dash="4 3")
            self._text(x, top - 26, "SIGKILL", "killed", anchor="middle" if x > LEFT + 80 else "start")
        self._y = top + 8

    def _row(self, row: Row) -> None:
        middle = self._y + ROW / 2 - 4
        left = MARGIN + INDENT * row.depth
        if row.depth:
            self._add("path", "thin soft-line", d=f"M{left - 9:g} {middle - 16:g}v11h5")
        self._text(left, middle, cut(row.label, _fit(LEFT - 16 - left, 14)), "mono name ink")
        handling = row.handling and f"{HANDLINGS[row.handling]} {self._stop}"
        about = ", ".join(filter(None, [row.pid and f"PID {row.pid}", handling]))
        self._text(left, middle + 16, cut(about, _fit(LEFT - 16 - left, 12)), "soft")
        start = self._x(row.born)
        end = max(self._x(row.ended), start + 3)
        self._add("rect", row.how, x=start, y=middle - 10, width=end - start, height=BAR, rx=3)
        self._signals(row.heard, middle - 10 + BAR / 2)
        self._text(ENDINGS, middle, cut(row.ending, 16), f"how {row.how}")
        self._text(ENDINGS, middle + 16, row.when, "soft")
        self._y += ROW

    def _signals(self, heard: list[Heard], y: float) -> None:
        """A dot for each, and below it who sent it, where there is room."""
        free = float(LEFT)
        for each in sorted(heard, key=lambda each: each.at):
            x = self._x(each.at)
            self._add("circle", "dot card ink-line", cx=x, cy=y, r=4.5)
            if each.sender is None and each.name == self._rehearsal.signal:
                continue  # the axis tells
            label = _words.on_one_line(each.name) + (f" from {each.sender}" if each.sender else "")
            width = 13 * _ems(label)
            at = max(LEFT + 4, min(x - 4, RIGHT - width))
            if at >= free:
                self._text(at, y + 20, label, "halo card-line soft")
                free = at + width + 8

    def _legend(self) -> None:
        entries: list[tuple[How | None, str]] = [
            (how, HOWS[how]) for how in HOWS if any(row.how == how for row in self._rows)
        ]
        if any(row.heard for row in self._rows):
            entries.append((None, "a signal came"))
        self._y += 22
        x = float(MARGIN)
        for how, label in entries:
            width = 40 + 13 * _ems(label)
            if x + width > WIDTH - MARGIN:
                x, self._y = float(MARGIN), self._y + 20
            if how is None:
                self._add("circle", "dot card ink-line", cx=x + 9, cy=self._y - 4.5, r=4.5)
            else:
                self._add("rect", how, x=x, y=self._y - 9, width=18, height=9, rx=3)
            self._text(x + 26, self._y, label, "soft")
            x += width

    def _judgement(self) -> None:
        self._y += 20
        self._add("path", "thin line-line", d=f"M{MARGIN} {self._y:g}H{WIDTH - MARGIN}")
        self._y += 28
        mark, colour = (
            ("m1 -5l4 4l8 -9", "exited") if self._rehearsal.clean else ("m2 -10l10 10m0 -10l-10 10", "killed")
        )
        self._add("path", f"mark {colour}-line", d=f"M{MARGIN} {self._y:g}{mark}")
        self._paragraph(MARGIN + 24, self._rehearsal.verdict, 16, f"verdict {colour}")
        for advice in self._rehearsal.advice[:1]:
            self._y += 4
            self._paragraph(MARGIN, advice.text, 14, "name ink")
            for line in advice.line.splitlines()[:1]:
                self._add("rect", "code", x=MARGIN, y=self._y - 6, width=WIDTH - 2 * MARGIN, height=30, rx=6)
                fitting = cut(_words.printable(line.expandtabs()), _fit(WIDTH - 2 * MARGIN - 24, 14))
                self._text(MARGIN + 12, self._y + 14, fitting, "mono name ink")
                self._y += 34
            if advice.tried is not None:
                self._y += 2
                self._paragraph(MARGIN, _words.tried(advice), 13, "soft")

    # -- shapes -----------------------------------------------------------------------------------------------

    def _x(self, moment: float) -> float:
        share = min(1.0, max(0.0, moment / self._scale.end))
        return round(LEFT + share * (RIGHT - LEFT), 1)

    def _line(self, x: float, top: float, bottom: float, css: str, dash: str = "none") -> None:
        self._add("path", f"thin {css}", d=f"M{x:g} {top:g}V{bottom:g}", **{"stroke-dasharray": dash})

    def _paragraph(self, x: float, text: str, size: int, css: str) -> None:
        room = WIDTH - MARGIN - x
        for line in _words.wrap(text, room / (size + ("verdict" in css)), _ems):  # which is bold
            self._text(x, self._y, line, css)
            self._y += size + 5

    def _text(self, x: float, y: float, text: str, css: str, anchor: str = "start") -> None:
        self._add("text", css, text, x=x, y=y, **{"text-anchor": anchor})

    def _add(self, tag: str, css: str = "", text: str = "", **attributes: float | str) -> ET.Element:
        found = {"class": css} if css else {}
        for name, value in attributes.items():
            found[name] = value if isinstance(value, str) else f"{value:g}"
        element = ET.SubElement(self._root, tag, found)
        element.text = text or None
        return element


def _fit(pixels: float, size: int) -> int:
    """Cells of a fixed-width font that fit."""
    return int(pixels / (size * MONO))


def _ems(text: str) -> float:
    """How wide a text is in a sans-serif font, and one of the wider ones."""
    return sum(cells(each) * (1.1 if each in "MW@%" else 0.72 if each.isupper() else 0.53) for each in text)
