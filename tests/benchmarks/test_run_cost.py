"""What a supervisor costs, and what it is worth: memory, time to start, the blind window, and stubborn children."""

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
BARE = [sys.executable, "-c", "import signal; signal.pause()"]
OURS = [str(Path(sys.executable).parent / "cleanup-guard"), "run", "--"]
PEERS = {
    "bare interpreter": BARE,
    "cleanup-guard run": [*OURS, *SLEEP],
    "tini": ["tini", "-s", "--", *SLEEP],
    "dumb-init": ["dumb-init", "--", *SLEEP],
    "catatonit": ["catatonit", "--", *SLEEP],
}
REPEATS = 10


def pss(pid: int) -> int:
    """The memory that a process is charged with, in KB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1])


def settled_pss(pid: int) -> int:
    """The same, once it no longer changes."""
    seen: list[int] = []

    def rests() -> bool:
        time.sleep(0.2)
        seen.append(pss(pid))
        return len(seen) > 1 and seen[-1] == seen[-2]

    wait_until(rests, "the memory to settle")
    return seen[-1]


def test_idle_memory_is_nearly_that_of_a_bare_interpreter() -> None:
    """With one child and nothing to do, we cost a tenth more than Python at most; inits that are installed are shown."""
    subprocess.run([*OURS, "true"], check=True, env=COMPILED)
    figures: dict[str, int] = {}
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for name, command in PEERS.items():
            if shutil.which(command[0]):
                process = subprocess.Popen(command, preexec_fn=default_signals, env=COMPILED)
                processes.append(process)
                figures[name] = settled_pss(process.pid)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)
    for name, figure in figures.items():
        print(f"{name:20} {figure:6} KB")
    assert figures["cleanup-guard run"] < 1.1 * figures["bare interpreter"]


def test_time_to_start() -> None:
    """From our start until the child has run and we have gone, against the child alone and the bare interpreter."""
    commands = {
        "true": ["true"],
        "bare interpreter": [sys.executable, "-c", ""],
        "cleanup-guard run": [*OURS, "true"],
    }
    if shutil.which("tini"):
        commands["tini"] = ["tini", "-s", "--", "true"]
    for name, command in commands.items():
        best = min(_seconds(command) for _ in range(REPEATS))
        print(f"{name:20} {best * 1000:6.1f} ms")


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, env=COMPILED)
    return time.perf_counter() - began


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
