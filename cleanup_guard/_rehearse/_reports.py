"""A check for machines that show it to people: JUnit XML, and the annotations of GitHub's workflows."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from cleanup_guard._rehearse import _words
from cleanup_guard._rehearse._timeline import timeline

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cleanup_guard._rehearse._seen import Advice, Rehearsal

SUITE = "cleanup-guard check"


def junit(rehearsals: Sequence[Rehearsal]) -> str:
    """A test suite with a case for each stop, as CI servers read it."""
    failures = sum(not each.clean for each in rehearsals)
    total = sum(each.readied + each.seconds for each in rehearsals)
    counted = {"tests": str(len(rehearsals)), "failures": str(failures), "errors": "0", "skipped": "0"}
    root = ET.Element("testsuites", {"name": SUITE, **counted, "time": f"{total:.3f}"})
    suite = ET.SubElement(root, "testsuite", {"name": SUITE, **counted, "time": f"{total:.3f}"})
    for number, each in enumerate(rehearsals, 1):
        name = _words.title(each)
        if len(rehearsals) > 1:
            name += f" ({number} of {len(rehearsals)}, {each.readied:.3f} s after the start)"
        seconds = f"{each.readied + each.seconds:.3f}"
        case = ET.SubElement(suite, "testcase", {"classname": "cleanup-guard", "name": name, "time": seconds})
        picture = timeline(each, colour=False)
        if not each.clean:
            faults = _words.on_one_line(", ".join(advice.code for advice in each.advice if advice.fault))
            failure = ET.SubElement(
                case, "failure", {"message": _words.on_one_line(each.verdict), "type": faults}
            )
            failure.text = picture
        ET.SubElement(case, "system-out").text = picture
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def workflow_commands(rehearsal: Rehearsal) -> Iterator[str]:
    """A command for GitHub's runner for each fault, and for each remark with a line."""
    for advice in rehearsal.advice:
        if advice.fault or advice.line:
            yield _annotation(rehearsal, advice)


def _annotation(rehearsal: Rehearsal, advice: Advice) -> str:
    properties = {"title": f"{_words.title(rehearsal)}: {_words.on_one_line(advice.code)}"}
    path, _, line = advice.where.rpartition(":")
    if path and not path.startswith("/"):
        properties.update(file=_words.on_one_line(path), line=_words.on_one_line(line))
    text = "\n".join(
        [
            _words.on_one_line(advice.text),
            *map(_words.printable, advice.line.splitlines()),
            _words.tried(advice),
        ]
    ).strip()
    told = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{'error' if advice.fault else 'notice'} {told}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def fenced(text: str) -> str:
    """The text, with nothing in it that GitHub's runner obeys: command lines and output are written by strangers."""
    mark = secrets.token_hex(16)
    return f"::stop-commands::{mark}\n{text}\n::{mark}::"
