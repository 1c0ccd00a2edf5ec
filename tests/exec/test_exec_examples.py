"""The examples about exec are run, and print what they promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_example_in_python_becomes_the_program() -> None:
    """Prepared, cleaned up, and then the same process is the program."""
    command = [sys.executable, str(EXAMPLES / "20_exec_into.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.rpartition(" ")[2] for line in done.stdout.splitlines()] == ["True", "True"]


def test_the_example_of_the_command_renders_its_file() -> None:
    """The variable is filled in, $$ is a dollar sign."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [str(EXAMPLES / "21_exec_template.sh")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}
    )
    assert done.stdout == "port = 8000\nprice = 5$\n"
