"""What a supervisor is worth: the blind window, and stubborn children. What it costs is in the table."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run.supervised import STUBBORN, blocks_term, default_signals
from support import COMPILED, wait_until

pytestmark = pytest.mark.benchmark

SLEEP = ["sleep", "600"]
OURS = [str(Path(sys.executable).parent / "cleanup-guard"), "run", "--"]
REPEATS = 10


def test_the_blind_window() -> None:
    """How long after our start a SIGTERM is still Python's, and would be lost if we were PID 1."""
    found: list[float] = []
    for _ in range(REPEATS):
        process = subprocess.Popen([*OURS, *SLEEP], preexec_fn=default_signals, env=COMPILED)
        began = time.perf_counter()
        status = Path(f"/proc/{process.pid}/status")
        while not blocks_term(status):
            pass
        found.append(time.perf_counter() - began)
        process.terminate()
        process.wait(30)
    print(f"blind for {min(found) * 1000:.1f} to {max(found) * 1000:.1f} ms")


PROCFILE = "\n".join(f"{name}: {sys.executable} -I -S stubborn.py" for name in "abc")
SUPERVISORD = "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\n" + "".join(
    f"[program:{name}]\ncommand={sys.executable} -I -S stubborn.py\nstdout_logfile=/dev/fd/1\nstdout_logfile_maxbytes=0\n"
    for name in "abc"
)


def test_three_stubborn_children(tmp_path: Path) -> None:
    """From the stop to the end with three children that ignore it: one budget here; elsewhere one each, or for ever."""
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    (tmp_path / "Procfile").write_text(PROCFILE)
    (tmp_path / "supervisord.conf").write_text(SUPERVISORD)
    beside = Path(sys.executable).parent
    commands = {
        "cleanup-guard run": [*OURS[:-1], "--procfile", "Procfile"],
        "honcho": [str(beside / "honcho"), "start"],
        "supervisord": [str(beside / "supervisord"), "-c", "supervisord.conf"],
    }
    seconds: dict[str, float] = {}
    for name, command in commands.items():
        if shutil.which(command[0]):
            seconds[name] = _stop(command, tmp_path)
            print(
                f"{name:20} {seconds[name]:5.1f} s" + (" and still there" if seconds[name] >= ENOUGH else "")
            )
        else:
            print(f"{name:20} is not installed beside Python: not measured")
    assert seconds["cleanup-guard run"] < 10


ENOUGH = 40.0
"""Seconds after which we do not wait for a supervisor any longer."""


def _stop(command: list[str], folder: Path) -> float:
    """Start a supervisor of three, stop it when they are up, and see how long it takes. Nobody is left."""
    output = folder / "output"
    with output.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out, preexec_fn=default_signals)
    try:
        wait_until(lambda: output.read_text().count("ready") >= 3, "three children")
        began = time.perf_counter()
        process.terminate()
        try:
            process.wait(ENOUGH)
        except subprocess.TimeoutExpired:
            pass
        return time.perf_counter() - began
    finally:
        process.kill()
        process.wait()
        for word in re.findall(r"ready (\d+)", output.read_text()):
            try:
                os.kill(int(word), signal.SIGKILL)
            except ProcessLookupError:
                pass  # ended, as it should be
