"""Hazards that comments cite are explained, and `Guard` shows only what is documented."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import cleanup_guard
from cleanup_guard import Guard

ROOT = Path(__file__).parent.parent.parent
PACKAGE = Path(cleanup_guard.__file__).parent
HAZARDS = ROOT / ".github" / "HAZARDS.md"
CITED = re.compile(r"\bH([1-9][0-9]?)\b")


def table() -> dict[int, list[str]]:
    """The rows: number, and what is said of it."""
    rows = {}
    for line in HAZARDS.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        number = re.fullmatch(r"H([0-9]+)", cells[0].strip())
        if number:
            rows[int(number[1])] = cells[1:]
    return rows


def cited(*folders: Path) -> dict[int, set[str]]:
    """Which hazards the comments and docstrings of a folder name, and where."""
    found: defaultdict[int, set[str]] = defaultdict(set)
    for folder in folders:
        for path in folder.rglob("*.py"):
            for number in CITED.findall(path.read_text()):
                found[int(number)].add(path.name)
    return found


def test_hazards_that_are_cited_are_explained() -> None:
    """Who cites H12 in a comment finds it in .github/HAZARDS.md: symptom, cause, reference, where it is handled."""
    rows = table()
    named = cited(PACKAGE, ROOT / "tests")
    assert not {number: files for number, files in named.items() if number not in rows}
    for number, cells in rows.items():
        assert len(cells) == 4, (
            f"H{number} has {len(cells)} of symptom, cause, reference, where it is handled"
        )
        assert all(cells), f"H{number} is silent on something"


def test_hazards_are_handled_where_they_say() -> None:
    """Files and folders that the table names are there."""
    for number, cells in table().items():
        for name in re.findall(r"`(_[\w/]+(?:\.py|/))`", cells[3]):
            assert (PACKAGE / name).exists(), f"H{number}: there is no {name}"


def test_guard_shows_only_what_is_documented() -> None:
    """Every public name of `Guard`, on the class and on what it makes, is on its page, or on those of async and of servers."""
    pages = "".join((ROOT / "examples" / name).read_text() for name in ("guard.md", "async.md", "servers.md"))
    words = {word for code in re.findall(r"`[^`\n]+`", pages) for word in re.findall(r"\w+", code)}
    shown = {name for name in {*dir(Guard), *vars(Guard())} if not name.startswith("_")}
    assert not shown - words
