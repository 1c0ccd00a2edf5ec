"""A rehearsal as a picture: well-formed, alone, complete, and inside its frame."""

from __future__ import annotations

import re
import unicodedata
from xml.etree import ElementTree as ET

from check.rehearsals import clean, killed, many, rehearsals, torn_down
from hypothesis import HealthCheck, given, settings

from cleanup_guard._rehearse import _words
from cleanup_guard._rehearse._seen import Rehearsal
from cleanup_guard._rehearse._svg import DARK, LIGHT, svg

quick = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMESPACE = "{http://www.w3.org/2000/svg}"


def drawn(rehearsal: Rehearsal, tag: str) -> list[ET.Element]:
    return list(ET.fromstring(svg(rehearsal)).iter(NAMESPACE + tag))


def texts(rehearsal: Rehearsal) -> list[str]:
    return [each.text or "" for each in drawn(rehearsal, "text")]


def bars(rehearsal: Rehearsal) -> dict[str, tuple[float, float]]:
    """Where the bar of each kind begins and ends."""
    return {
        each.get("class", ""): (
            float(each.get("x", "")),
            float(each.get("x", "")) + float(each.get("width", "")),
        )
        for each in drawn(rehearsal, "rect")
        if each.get("height") == "12"
    }


def test_it_tells_who_what_and_how() -> None:
    """Each process has its command, its pid, what it does with the signal, and how and when it ended."""
    said = texts(torn_down())
    for each in (
        "Stop of python3 main.py",
        "python3 main.py", "PID 1, catches SIGTERM", "exited 0", "at 1.2 s",
        "python3 worker.py", "PID 8, catches SIGTERM", "torn down", "at 0.60 s", "SIGTERM from 1",
        "nginx: master process", "PID 9, catches SIGTERM", "SIGTERM", "at 0.30 s", "SIGQUIT from 1",
        "ended by itself", "ended by a signal", "killed by the kernel, as PID 1 had left",
        "SIGKILL at 10 s",
    ):  # fmt: skip
        assert each in said
    assert "killed at the end of the grace period" not in said


def test_it_gives_verdict_and_advice() -> None:
    """The verdict, the first advice and its line are there in words; the others are for the text."""
    said = texts(killed())
    assert "not clean: 2 of 2 processes were killed; exit status 137" in said
    assert "`sh` (PID 1) does not forward SIGTERM." in said
    assert "exec python3 /app/main.py" in said
    assert "It was close." not in said


def test_a_remark_is_told() -> None:
    """What differs from a real container is said."""
    found = clean()
    found.remark = "it was not PID 1"
    assert "(it was not PID 1)" in texts(found)


def test_bars_are_to_scale_and_coloured() -> None:
    """A bar's length is its time, and its colour how it ended."""
    found = bars(torn_down())
    assert set(found) == {"exited", "torn-down", "signal"}
    start, end = found["exited"]
    assert found["torn-down"] == (start, start + (end - start) / 2)
    assert found["signal"] == (start, start + (end - start) / 4)


def test_the_end_of_the_grace_period_is_a_line() -> None:
    """It is drawn where SIGKILL came, with a label, and not at all when nobody came near to it."""
    dashed = [each for each in drawn(killed(), "path") if each.get("stroke-dasharray") == "4 3"]
    assert len(dashed) == 1
    assert "SIGKILL" in texts(killed())
    assert not [each for each in drawn(clean(), "path") if each.get("stroke-dasharray") == "4 3"]


def test_it_is_read_to_those_who_do_not_see_it() -> None:
    """Title and description say all that the picture shows."""
    (title,) = drawn(killed(), "title")
    (about,) = drawn(killed(), "desc")
    assert title.text == "Stop of entry.sh"
    assert "sh entry.sh (PID 1): KILLED at 10.0 s. python3 main.py (PID 7): KILLED at 10.1 s." in (
        about.text or ""
    )
    assert (about.text or "").endswith(killed().verdict)


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (
            part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted([luminance(one), luminance(other)], reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_it_can_be_read_in_both_colour_schemes() -> None:
    """Every colour that words are in has a contrast of 4.5 to its background, as WCAG 2 wants it."""
    for scheme in (LIGHT, DARK):
        for name in ("ink", "soft", "exited", "signal", "killed", "torn-down"):
            assert contrast(scheme[name], scheme["card"]) >= 4.5
        assert contrast(scheme["ink"], scheme["code"]) >= 4.5
    assert set(LIGHT) == set(DARK)
    assert "prefers-color-scheme: dark" in svg(clean())


def test_many_share_a_row() -> None:
    """Forty workers do not make a picture that nobody can look at."""
    assert "39 more like this" in texts(many(40))
    assert len([each for each in drawn(many(40), "rect") if each.get("height") == "12"]) == 3


@quick
@given(rehearsals)
def test_whatever_comes_it_is_a_picture_that_stands_alone(rehearsal: Rehearsal) -> None:
    """Well-formed XML without scripts, links or other files, the same each time, and with every row."""
    text = svg(rehearsal)
    assert text == svg(rehearsal)
    root = ET.fromstring(text)
    tags = {each.tag.removeprefix(NAMESPACE) for each in root.iter()}
    assert tags <= {"svg", "title", "desc", "style", "rect", "circle", "path", "text"}
    names = {name for each in root.iter() for name in each.attrib}
    assert not [name for name in names if "href" in name or name.startswith("on")]
    style = root.findtext(f"{NAMESPACE}style") or ""
    assert not re.search(r"url\(|@import|@font-face", style)
    assert text.count("://") == 1  # of the namespace
    assert not [each for each in text if unicodedata.category(each)[0] == "C" and each != "\n"]
    how = [each.text for each in root.iter(f"{NAMESPACE}text") if (each.get("class") or "").startswith("how")]
    assert len(how) == len(_words.rows(rehearsal))


@quick
@given(rehearsals)
def test_whatever_comes_it_stays_in_its_frame(rehearsal: Rehearsal) -> None:
    """Shapes and lines of text are inside of the card, also in a wide font."""
    root = ET.fromstring(svg(rehearsal))
    assert root.get("width") == "840"
    height = float(root.get("height", ""))
    for each in root.iter():
        at = {name: float(each.get(name, "0")) for name in ("x", "y", "width", "cx", "cy")}
        assert at["x"] + at["cx"] >= 0
        assert at["x"] + at["cx"] + at["width"] <= 840
        assert 0 <= at["y"] + at["cy"] < height
        css = each.get("class") or ""
        if each.tag == f"{NAMESPACE}text" and "mono" in css:
            assert at["x"] + _words.cells(each.text or "") * 14 * 0.6 <= 840
