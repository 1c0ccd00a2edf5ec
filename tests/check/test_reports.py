"""A check in a pipeline: JUnit XML, and what GitHub's runner shows beside the code."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from check.gallery import app, script
from check.rehearsals import clean, killed, rehearsals
from check.rehearsed import COMMAND, check
from hypothesis import given, settings

from cleanup_guard._rehearse import _reports
from cleanup_guard._rehearse._seen import Rehearsal

TEXT = [*COMMAND]
FORWARDS = ("--grace", "1", "--ready", "ready", "--", "./entry.sh")
FILES = script("python -I -S app.py")


def test_a_junit_report() -> None:
    """A case for each stop; one that is not clean fails, with the verdict and the picture."""
    root = ET.fromstring(_reports.junit([clean(), killed()]))
    (suite,) = root
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    first, second = suite
    assert first.find("failure") is None
    failure = second.find("failure")
    assert failure is not None
    assert failure.get("message") == killed().verdict
    assert failure.get("type") == "shell-does-not-forward"
    assert "does not forward SIGTERM" in (failure.text or "")
    assert second.get("name") == "Stop of entry.sh (2 of 2, 0.000 s after the start)"


@settings(max_examples=20, deadline=None)
@given(rehearsals)
def test_whatever_was_seen_can_be_reported(rehearsal: Rehearsal) -> None:
    """XML that can be read, and commands of one line each."""
    ET.fromstring(_reports.junit([rehearsal]))
    for line in _reports.workflow_commands(rehearsal):
        assert re.fullmatch(r"::(error|notice) title=[^:,\n]*(,file=[^:,\n]*,line=[^:,\n]*)?::[^\n]*", line)


def test_an_annotation_stands_at_the_line() -> None:
    """Of the file that is to be changed; what was tried is said."""
    found = killed()
    found.advice[0] = replace(found.advice[0], where="entry.sh:3", tried=0.3)
    first, *others = _reports.workflow_commands(found)
    assert first == (
        "::error title=Stop of entry.sh%3A shell-does-not-forward,file=entry.sh,line=3::`sh` (PID 1) does not forward SIGTERM."
        "%0Aexec python3 /app/main.py%0Atried: clean after 0.30 s"
    )
    assert others == []


def test_the_files_are_written(tmp_path: Path) -> None:
    """By the command, whatever the verdict is."""
    junit, svg = tmp_path / "junit.xml", tmp_path / "stop.svg"
    words = ("--no-try", "--junit", str(junit), "--svg", str(svg), *FORWARDS)
    assert check(*words, files=FILES, command=TEXT).status == 1
    assert ET.parse(junit).getroot()[0].get("failures") == "1"
    assert "SIGKILL" in svg.read_text()


def test_github_is_told_where_it_runs() -> None:
    """Annotations are printed there and nowhere else; nothing that strangers wrote is obeyed."""
    there = check(*FORWARDS, files=FILES, command=TEXT, env={"GITHUB_ACTIONS": "true"})
    first, *_, last = there.out.splitlines()
    assert first.startswith("::stop-commands::")
    mark = first.rpartition("::")[2]
    fence = there.out.splitlines().index(f"::{mark}::")
    commands = there.out.splitlines()[fence + 1 :]
    assert len(commands) == 1
    assert last.startswith("::error title=Stop of entry.sh%3A shell-does-not-forward,file=entry.sh,line=2::")
    here = check("--no-try", *FORWARDS, files=FILES, command=TEXT, env={"GITHUB_ACTIONS": ""})
    assert "::" not in here.out


def test_what_is_allowed_is_no_fault() -> None:
    """--allow CODE: it is told, and the stop is clean."""
    files = {"app.py": app(status=1)}
    words = ["--no-try", "--ready", "ready", "--", "python", "-I", "-S", "app.py"]
    assert [each.code for each in check(*words, files=files).rehearsal.advice] == ["failed"]
    found = check("--allow", "failed", *words, files=files)
    assert found.status == 0
    assert [(each.code, each.fault) for each in found.rehearsal.advice] == [("failed", False)]


def test_secrets_are_masked_in_all_reports(tmp_path: Path) -> None:
    """In the JSON, the picture, the text and the report of a program whose command line has one."""
    svg, junit = tmp_path / "it.svg", tmp_path / "it.xml"
    words = ["--no-try", "--svg", str(svg), "--junit", str(junit), "--ready", "ready", "--"]
    program = ["python", "-I", "-S", "app.py", "--password=hunter2", "postgres://u:hunter2@h/db"]
    files = {"app.py": app("assert sys.argv[1] == '--password=hunter2'")}
    told = check(*words, *program, files=files)
    assert told.status == 0, told.err
    assert json.loads(told.out)["rehearsals"][0]["program"][-2:] == ["--password=***", "postgres://***@h/db"]
    text = check(*words, *program, files=files, command=TEXT)
    for each in (told.out, svg.read_text(), junit.read_text(), text.out):
        assert "hunter2" not in each
        assert "***" in each


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_report_that_cannot_be_written() -> None:
    """Status 3, one sentence: the program is not to be blamed."""
    files = {"app.py": app()}
    for option in ("--junit", "--svg"):
        told = check(
            option, "/dev/full", "--ready", "ready", "--", "python", "-I", "-S", "app.py", files=files
        )
        assert (told.status, told.out) == (3, "")
        assert told.err == "cleanup-guard check: '/dev/full' cannot be written: No space left on device\n"
