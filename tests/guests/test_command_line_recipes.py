"""The recipes of command-line tools, in a real terminal: Ctrl-C leaves no half a file, and no traceback."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from guests.stage import require
from terminals import screen

pytestmark = [pytest.mark.guests, pytest.mark.one_python]

FOLDER = Path(__file__).parents[2] / "examples" / "command_line"


@pytest.mark.parametrize("name", ["convert.py", "convert_typer.py"])
def test_ctrl_c_leaves_no_half_a_file(name: str, tmp_path: Path) -> None:
    """One press: the partial file is gone, nothing has the name of the result, and the tool dies of SIGINT."""
    require("typer")
    source = tmp_path / "notes.txt"
    source.write_text("line\n" * 1000)
    with screen(sys.executable, str(FOLDER / name), str(source)) as shown:
        shown.wait_for("converted line")
        shown.type("\x03")
        status = shown.end()
    assert status == -signal.SIGINT, shown.text
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
    assert "Traceback" not in shown.text


@pytest.mark.parametrize("name", ["convert.py", "convert_typer.py"])
def test_the_result_is_whole(name: str, tmp_path: Path) -> None:
    """Without a stop the result is there, and nothing else."""
    require("typer")
    source = tmp_path / "notes.txt"
    source.write_text("line\n")
    with screen(sys.executable, str(FOLDER / name), str(source)) as shown:
        assert shown.end() == 0
    assert (tmp_path / "notes.done").read_text() == "LINE\n"
    assert len(list(tmp_path.iterdir())) == 2
