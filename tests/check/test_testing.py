"""A rehearsal as a part of somebody's test suite."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cleanup_guard.testing import CannotRehearse, Rehearsal
from cleanup_guard.testing import rehearse as function

PROGRAM = [sys.executable, str(Path(__file__).parent.parent.parent / "examples" / "02_main_process.py")]
NEVER_CAUGHT = ["sleep", "60"]


def test_the_fixture_shows_what_it_saw(
    rehearse: Callable[..., Rehearsal], capsys: pytest.CaptureFixture[str]
) -> None:
    """What the page shows; the timeline is in the captured output, for a test that fails."""
    found = rehearse(PROGRAM, ready="!!!Set up!!!")
    assert found.clean
    assert "!!!Clean up!!!" in found.output
    assert found.processes[0].handling == "catches"
    assert f"{found}\n" == capsys.readouterr().out


def test_what_is_not_clean_says_why(tmp_path: Path) -> None:
    """The verdict, the advice and the ends come as values; directory, environment, signal and grace period are as asked."""
    words = ["sh", "-c", "sleep 60 & echo $WORD in $PWD; wait"]
    found = function(words, ready="here in", signal="USR1", grace=0.2, env={"WORD": "here"}, cwd=tmp_path)
    assert not found.clean
    assert (found.signal, found.grace, found.status) == ("SIGUSR1", 0.2, 137)
    assert [seen.how for seen in found.processes] == ["killed", "killed"]
    assert [each.code for each in found.advice] == ["shell-does-not-forward"]
    assert function([*NEVER_CAUGHT], after=0.1, grace=0.1).advice[0].code == "never-caught"


def test_what_cannot_be_rehearsed() -> None:
    """No stop, no verdict: an exception says why, without the command's name."""
    with pytest.raises(CannotRehearse, match=r"^the program ended, with status 0"):
        function(["true"])
    with pytest.raises(CannotRehearse, match=r"^'no-such-program' was not found"):
        function(["no-such-program"])
    with pytest.raises(ValueError, match="there is no signal 'NONE'"):
        function(NEVER_CAUGHT, signal="NONE")
    with pytest.raises(TypeError, match="must be a list of words"):
        function("sleep 60")
