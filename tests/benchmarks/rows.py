"""How the rows of the table are measured: every figure beside what it is compared with, in turn, in one run.

A busy moment of the machine then hits all of them, so that ratios mean something where absolute figures do not. What uses the
processor is counted in processor time, and the best round counts; what waits is counted by the clock, and the median counts.
Peers that are not installed are named as such, and never needed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import IO

from benchmarks.alone import GUARD
from support import COMPILED

BESIDE_PYTHON = Path(sys.executable).parent


@dataclass
class Row:
    """One line of the table.

    Attributes:
        what: what is measured.
        unit: of the figures.
        figures: by whose they are; ours is `cleanup_guard`.
        beside: with whose ours is compared.
        aim: what ratio or figure it is to have.
        grows: how the cost grows, and with what.
        limit: what no program in CPython, or on this kernel, can do without; empty where the aim is within reach.
        absent: the peers that are not installed.
    """

    what: str
    unit: str
    figures: dict[str, float]
    beside: str
    aim: str
    grows: str
    limit: str = ""
    absent: list[str] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Our figure by the one that it is compared with."""
        return self.figures[GUARD] / self.figures[self.beside]

    def lines(self) -> list[str]:
        """For a person."""
        others = ", ".join(
            f"{name} {figure:.3g}" + ("" if name == GUARD else f" ({self.figures[GUARD] / figure:.2f}x)")
            for name, figure in self.figures.items()
            if figure > 0
        )
        lines = [f"{self.what}: {self.ratio:.2f}x of {self.beside}; aim: {self.aim}"]
        lines += [f"    {self.unit}: {others}", f"    grows: {self.grows}"]
        if self.limit:
            lines.append(f"    limit: {self.limit}")
        if self.absent:
            lines.append(f"    not installed, and not measured: {', '.join(self.absent)}")
        return lines

    def as_json(self) -> dict[str, object]:
        """For a program."""
        return {
            "what": self.what,
            "unit": self.unit,
            "figures": self.figures,
            "beside": self.beside,
            "ratio": self.ratio,
            "aim": self.aim,
            "grows": self.grows,
            "limit": self.limit,
            "absent": self.absent,
        }


def growth(small: float, large: float, times: int) -> str:
    """How a cost has grown when there was so many times as much."""
    return f"{large / small:.1f} times as much for {times} times as many"


def installed(modules: Iterable[str]) -> tuple[list[str], list[str]]:
    """Those of these modules that can be imported, and the others."""
    found = [name for name in modules if importlib.util.find_spec(name) is not None]
    return found, [name for name in modules if name not in found]


def program(name: str) -> str | None:
    """Where a program is, beside this Python or on PATH."""
    return shutil.which(name, path=f"{BESIDE_PYTHON}{os.pathsep}{os.environ.get('PATH', '')}")


def wall_of(functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Milliseconds by the clock for one call of each; the median."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            taken[name].append((time.perf_counter() - began) * 1e3)
    return {name: median(each) for name, each in taken.items()}


def cpu_of_programs(commands: Mapping[str, list[str]], rounds: int) -> dict[str, float]:
    """Milliseconds of processor time that each command takes from its start to its end; the best of some rounds."""
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            process = subprocess.Popen(command, env=COMPILED)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            assert process.returncode == 0, name
            taken[name].append((usage.ru_utime + usage.ru_stime) * 1e3)
    return {name: min(each) for name, each in taken.items()}


# -- stopping a program ---------------------------------------------------------------------------------------------------

STOPPED = """
import os, queue, signal, sys, threading, time
def told(*_):
    os.write(1, b"%d\\n" % time.monotonic_ns())
def ready():
    time.sleep(0.05)  # main is where it waits
    os.write(1, b"ready\\n")
def wait():
    threading.Thread(target=ready, daemon=True).start()
    {wait}
"""

OURS = """
from cleanup_guard import guard
def main():
    with guard() as g:
        g.callback(told)
        wait()
main()
"""

BARE = """
class Stop(SystemExit): pass
def handler(signum, frame):
    raise Stop(128 + signum)
signal.signal(signal.SIGTERM, handler)
try:
    wait()
finally:
    told()
"""

WITH_US = """
import faulthandler
from cleanup_guard._guard import stay
def tell():
    fd = os.open("/dev/null", os.O_WRONLY | os.O_NONBLOCK)
    faulthandler.dump_traceback_later(10, exit=True, file=fd)
    os.write(fd, b"a stop, and 10 s to clean up\\n")
"""

LEAST = WITH_US + BARE.replace("    raise Stop", "    tell()\n    raise Stop")
"""What no stop that is timed and told can do without: such a handler in a program that has imported us, which has to be taken
apart at the end, with a timer in C, and a line for the operator."""

METHOD = """
class Thing{n}:
    def __init__(self):
        self.one{n}, self.other{n} = 1, None
    def method{n}(self, this):
        if self.other{n} is None and this is not None and self.one{n} > 0:
            self.this{n} = this
            return self.one{n}
methods.append(Thing{n}().method{n})
"""

CALLS = 200
"""The Python functions that are called from a stop to the first callback."""

LEAST_COLD = "methods = []" + "".join(METHOD.replace("{n}", str(each)) for each in range(CALLS))
LEAST_COLD += LEAST.replace("    raise Stop", "    for each in methods: each(each)\n    raise Stop")
"""The same, with as many calls of methods that nobody has called before, each of three lines."""

PEERS = {
    "pyterminate": "import pyterminate\npyterminate.register(told, signals=(signal.SIGTERM,))\nwait()\n",
    "safe_exit": "import safe_exit\nsafe_exit.register(told)\nwait()\n",
    "aiorun": """
import asyncio, aiorun
async def main():
    threading.Thread(target=ready, daemon=True).start()
    try:
        await asyncio.sleep(60)
    finally:
        told()
aiorun.run(main())
""",
}
"""Libraries that can be installed. The last one is for a main that is a task of an event loop, asleep there."""

WAITS = {
    "asleep": "time.sleep(60)",
    "busy": "while True: sum(range(100))",
    "in Event.wait": "threading.Event().wait()",
    "in Queue.get": "queue.Queue().get()",
    "in a lock": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "asleep, a second thread busy": (
        "threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start(); time.sleep(60)"
    ),
}


@dataclass
class Stops:
    """Milliseconds from a stop on, by whose they are: until the first callback, and until the process is gone."""

    first: dict[str, float]
    gone: dict[str, float]


def stops_of(commands: Mapping[str, list[str]], rounds: int, folder: Path | None = None) -> Stops:
    """Start each, wait for its ready line, send SIGTERM, and see when it said that it was told.

    Args:
        commands: what to start, by name.
        rounds: how often.
        folder: where they write what they say, to a file `said`; None if it is to their stdout.
    """
    first: dict[str, list[float]] = {name: [] for name in commands}
    gone: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            told, ended = _stop(command, folder)
            first[name].append(told)
            gone[name].append(ended)
    return Stops(*({name: median(each) for name, each in figures.items()} for figures in (first, gone)))


def _stop(command: list[str], folder: Path | None) -> tuple[float, float]:
    said = None if folder is None else folder / "said"
    if said is not None:
        said.unlink(missing_ok=True)
        os.mkfifo(said)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE if said is None else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=COMPILED,
        cwd=folder,
    ) as process:
        try:
            lines: IO[bytes] | None = process.stdout if said is None else said.open("rb")
            assert lines is not None
            with lines:
                assert lines.readline() == b"ready\n", command
                time.sleep(0.05)
                began = time.monotonic_ns()
                process.send_signal(signal.SIGTERM)
                told = int(lines.readline())
                process.wait(60)
                return (told - began) / 1e6, (time.monotonic_ns() - began) / 1e6
        finally:
            process.kill()


# -- memory ---------------------------------------------------------------------------------------------------------------


def private_kb(pid: int) -> int:
    """The memory that is a process's alone, in KB, once it no longer changes."""
    before = -1
    while True:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        size = sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
        if size == before:
            return size
        before = size
        time.sleep(0.2)
