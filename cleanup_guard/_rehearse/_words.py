"""What both pictures of a rehearsal share: its rows, its words, its scale, and text that is safe to show.

Command lines come from strangers: whatever they hold, nothing but printable characters gets into a picture.
"""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cleanup_guard._ground.names import name_of
from cleanup_guard._rehearse._platforms import WAYS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cleanup_guard._rehearse._seen import Advice, Handling, Heard, How, Rehearsal, Seen

MOST = 20
"""Rows in a picture; with more processes, those that are alike share one."""

FEW = 2
"""As many that are alike are shown one by one: "1 more like this" would save nothing."""

DEEPEST = 6
"""Levels of the process tree that are told apart by indentation."""

LONGEST = 400
"""Characters of a command line that are looked at."""

MILLISECONDS = 0.1
"""Seconds below which an axis is in milliseconds."""


NEAR = 0.5
"""The share of the grace period from which its end is shown."""

# -- text ---------------------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """The text with a question mark for each control, format, surrogate, private or unassigned character."""
    return "".join("?" if unicodedata.category(each)[0] == "C" else each for each in text)


def on_one_line(text: str) -> str:
    """The text, printable, with one space for each run of blanks and newlines."""
    return printable(" ".join(text.split()))


def cells(text: str) -> int:
    """Columns of a terminal that the text takes: two for a wide character, none for a combining one."""
    return sum(map(_cells, text))


def _cells(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, most: int, ellipsis: str = "…") -> str:
    """The text, or its beginning and an ellipsis, in no more than so many cells."""
    if cells(text) <= most and len(text) <= 4 * most:  # the latter: hundreds of accents on one letter
        return text
    kept, left = "", most - cells(ellipsis)
    for character in text[: 4 * most]:
        left -= _cells(character)
        if left < 0:
            break
        kept += character
    return kept.rstrip() + ellipsis


def wrap(text: str, most: float, size: Callable[[str], float] = cells) -> list[str]:
    """The text in lines of no more than this size, broken at blanks where that can be (textwrap counts characters)."""
    lines = [""]
    for word in on_one_line(text).split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if size(joined) <= most:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if size(lines[-1] + character) > most:
                lines.append("")
            lines[-1] += character
    return lines


def command(argv: list[str]) -> str:
    """A command line as a person would say it: without the folders of the interpreter and the script."""
    words = (on_one_line(word[:LONGEST]) for word in argv[:LONGEST])
    return " ".join(map(_without_folders, words))[:LONGEST].strip() or "(no command line)"


def _without_folders(word: str) -> str:
    is_path = word.startswith(("/", "./", "../", "~/")) and " " not in word
    return (word.rstrip("/").rpartition("/")[2] or word) if is_path else word


# -- words --------------------------------------------------------------------------------------------------------


def title(rehearsal: Rehearsal) -> str:
    """What was stopped."""
    if rehearsal.image is None:
        return f"Stop of {command(rehearsal.program)}"
    return f"Stop of image {on_one_line(rehearsal.image)}: {command(rehearsal.program)}".removesuffix(
        ": (no command line)"
    )


def facts(rehearsal: Rehearsal) -> str:
    """How it was stopped."""
    first = {
        "pid-namespace": "PID 1 of a PID namespace",
        "container": "PID 1 of the container",
        "simulated": "the first process, as if it were PID 1",
    }[rehearsal.isolation]
    ready, signal = f"Ready after {seconds(rehearsal.readied)}", on_one_line(rehearsal.signal)
    way = WAYS.get(rehearsal.platform)
    if way is None:
        return f"{ready}; {signal} to {first}; SIGKILL {rehearsal.grace:.10g} s later"
    whom = "every process" if way.everybody else first
    later = "".join(f", {name_of(signum)} {at:g} s later" for at, signum in way.later)
    order = f" when {way.order}" if way.order else ""
    return f"{ready}; as on {way.name}{order}: {signal} to {whom}{later}; SIGKILL {rehearsal.grace:.10g} s after the stop"


def seconds(value: float) -> str:
    """A duration, with the digits that matter."""
    if value < 0.0005:  # noqa: PLR2004 - what would be rounded to nothing
        return "0 s" if value <= 0 else "<1 ms"
    for limit, text in (
        (0.0995, f"{value * 1000:.0f} ms"),
        (0.995, f"{value:.2f} s"),
        (99.95, f"{value:.1f} s"),
    ):
        if value < limit:
            return text
    return f"{value:.0f} s"


def ending(seen: Seen) -> str:
    """How a process ended."""
    if seen.how == "exited":
        return f"exited {seen.status}"
    return {
        "signal": name_of(seen.status),
        "killed": "KILLED",
        "torn-down": "torn down",
        "unknown": "unknown",
    }[seen.how]


def tried(advice: Advice) -> str:
    """What came of trying its line; empty if that was not done."""
    return "" if advice.tried is None else f"tried: clean after {seconds(advice.tried)}"


TORN_DOWN = "torn down: killed by the kernel, because PID 1 had left"


# -- rows ---------------------------------------------------------------------------------------------------------


WORST: tuple[How, ...] = ("killed", "torn-down", "unknown", "signal", "exited")


@dataclass(frozen=True)
class Row:
    """One process, or several that share a row.

    Attributes:
        of: the processes.
        label: the command line, or how many there are.
        depth: in the tree of processes; 0 for the first.
    """

    of: list[Seen]
    label: str
    depth: int

    @property
    def pid(self) -> str:
        """Empty for several."""
        return str(self.of[0].pid) if len(self.of) == 1 else ""

    @property
    def handling(self) -> Handling | None:
        """What they do with the stop signal; None if not all the same."""
        found: set[Handling] = {seen.handling for seen in self.of}
        return found.pop() if len(found) == 1 else None

    @property
    def how(self) -> How:
        """How they ended; the worst, if not all the same."""
        return next(how for how in WORST if any(seen.how == how for seen in self.of))

    @property
    def ending(self) -> str:
        """How they ended, in words."""
        found = {ending(seen) for seen in self.of}
        if len(found) == 1:
            return found.pop()
        return f"{sum(seen.was_killed for seen in self.of)} of {len(self.of)} killed"

    @property
    def when(self) -> str:
        """When they had all ended, in words."""
        return f"{'at' if len(self.of) == 1 else 'by'} {seconds(self.ended)}"

    @property
    def born(self) -> float:
        """Seconds after the stop when the first was started; 0 for those who were there."""
        return max(0.0, min(seen.born for seen in self.of))

    @property
    def ended(self) -> float:
        """Seconds after the stop when the last had ended."""
        return max(self.born, *(seen.ended for seen in self.of))

    @property
    def heard(self) -> list[Heard]:
        """The signals that reached it; of one process only."""
        return self.of[0].heard if len(self.of) == 1 else []


def rows(rehearsal: Rehearsal, most: int = MOST) -> list[Row]:
    """The rows of a picture, in the order of the tree. Every process is in one of them."""
    processes = rehearsal.processes
    found: list[Row] = []
    for group, depth in _alike(processes, fold=len(processes) > most):
        alone = group if len(group) <= FEW else group[:1]
        found += [Row([seen], command(seen.argv), depth) for seen in alone]
        if len(group) > FEW:
            found.append(Row(group[1:], f"{len(group) - 1} more like this", depth))
    if len(found) <= most:
        return found
    telling = sorted(range(1, len(found)), key=lambda index: WORST.index(found[index].how))
    kept = sorted([0, *telling[: most - 2]])
    rest = [seen for index in sorted(telling[most - 2 :]) for seen in found[index].of]
    return [*(found[index] for index in kept), Row(rest, f"{len(rest)} more", 0)]


def _alike(processes: Sequence[Seen], *, fold: bool) -> Iterator[tuple[list[Seen], int]]:
    """Processes that are alike, as are their parents, and their depth in the tree; parents before their children."""
    groups: dict[tuple[object, ...], list[Seen]] = {}
    group_of: dict[int, tuple[object, ...]] = {}  # by pid: the latest that had it
    children: dict[tuple[object, ...], list[tuple[object, ...]]] = {(): []}
    numbers: dict[tuple[object, ...], int] = {(): 0}  # for short keys: a chain of parents may be long
    for index, seen in enumerate(processes):
        parent = group_of.get(seen.parent, ())
        alike = (command(seen.argv), seen.handling, ending(seen)) if fold else (index,)
        key = (numbers[parent], *alike)
        if key not in groups:
            groups[key], children[key], numbers[key] = [], [], len(numbers)
            children[parent].append(key)
        groups[key].append(seen)
        group_of[seen.pid] = key
    stack = [(key, 0) for key in reversed(children[()])]
    while stack:
        key, depth = stack.pop()
        yield groups[key], min(depth, DEEPEST)
        stack += [(child, depth + 1) for child in reversed(children[key])]


# -- the scale ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """The axis of a picture, in seconds from the stop.

    Attributes:
        end: where it ends.
        grace: the end of the grace period, if it is on the axis.
    """

    end: float
    grace: float | None

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """Round moments and their labels; no more than so many, and the first is 0."""
        unit, name = (0.001, "ms") if self.end < MILLISECONDS else (1.0, "s")
        power = 10.0 ** math.floor(math.log10(self.end / most))
        step = next(power * each for each in (1, 2, 5, 10, 20) if self.end / (power * each) < most)
        found = [each * step for each in range(most) if each * step <= self.end]
        return [(each, f"{round(each / unit, 6):.10g}{'' if each else f' {name}'}") for each in found]


def scale(rehearsal: Rehearsal) -> Scale:
    """From the stop to what happened last; with the end of the grace period, if it came near to that."""
    last = max([0.001, *(seen.ended for seen in rehearsal.processes)])
    if last < rehearsal.grace * NEAR:
        return Scale(last, None)
    return Scale(max(last, rehearsal.grace), rehearsal.grace)
