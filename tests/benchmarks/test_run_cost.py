"""What a supervisor costs: idle memory with one child, the time until that child runs, and the blind window."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run.supervised import default_signals
from support import wait_until

pytestmark = pytest.mark.benchmark

SLEEP = ["sleep", "600"]
BARE = [sys.executable, "-c", "import signal; signal.pause()"]
OURS = [sys.executable, "-m", "cleanup_guard", "run", "--"]
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
    """With one child and nothing to do, we cost half as much again as Python at most; inits that are installed are shown."""
    figures: dict[str, int] = {}
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for name, command in PEERS.items():
            if shutil.which(command[0]):
                process = subprocess.Popen(command, preexec_fn=default_signals)
                processes.append(process)
                figures[name] = settled_pss(process.pid)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)
    for name, figure in figures.items():
        print(f"{name:20} {figure:6} KB")
    assert figures["cleanup-guard run"] < 1.5 * figures["bare interpreter"]


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
    subprocess.run(command, check=True)
    return time.perf_counter() - began


def test_the_blind_window() -> None:
    """How long after our start a SIGTERM is still Python's, and would be lost if we were PID 1."""
    found: list[float] = []
    for _ in range(REPEATS):
        process = subprocess.Popen([*OURS, *SLEEP], preexec_fn=default_signals)
        began = time.perf_counter()
        status = Path(f"/proc/{process.pid}/status")
        while not _blocks_term(status):
            pass
        found.append(time.perf_counter() - began)
        process.terminate()
        process.wait(30)
    print(f"blind for {min(found) * 1000:.1f} to {max(found) * 1000:.1f} ms")


def _blocks_term(status: Path) -> bool:
    line = next(line for line in status.read_text().splitlines() if line.startswith("SigBlk"))
    return bool(int(line.split()[1], 16) & 1 << signal.SIGTERM - 1)
