"""What `cleanup-guard exec` adds to the start of a program, beside the least that any Python could: exec at once."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import COMPILED

pytestmark = pytest.mark.benchmark

ROUNDS = 100


def test_the_commands_own_time() -> None:
    """Interleaved rounds in one run; the ratio to `python -I -c 'import os; os.execvp(...)'` is to be 1.2 or less."""
    commands = {
        "os.execvp": [sys.executable, "-I", "-c", "import os; os.execvp('true', ['true'])"],
        "cleanup-guard exec": [str(Path(sys.executable).parent / "cleanup-guard"), "exec", "true"],
        "python -m cleanup_guard": [sys.executable, "-m", "cleanup_guard", "exec", "true"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, env=COMPILED)
            seconds[name].append(time.perf_counter() - started)
    least = statistics.median(seconds["os.execvp"])
    for name, taken in seconds.items():
        print(f"{name:26}{statistics.median(taken) * 1000:7.1f} ms{statistics.median(taken) / least:7.2f}")
