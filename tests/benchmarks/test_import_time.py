"""What importing costs, next to a bare interpreter and to the smallest thing that could do the same, in one run."""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

import pytest

ROUNDS = 40

PROGRAMS = {
    "bare": "pass",
    "peer": "import signal, threading, contextlib, functools, faulthandler, atexit, weakref",
    "ours": "from cleanup_guard import guard, on_exit",
}


@pytest.mark.benchmark
def test_importing_costs_little_more_than_the_modules_it_cannot_do_without() -> None:
    """The names every program uses cost at most three times what their standard library modules cost."""
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(ROUNDS):
        for name, code in PROGRAMS.items():  # in turn, so that a busy moment hits all of them
            began = time.perf_counter()
            subprocess.run([sys.executable, "-I", "-c", code], check=True)
            seconds[name].append(time.perf_counter() - began)
    bare = min(seconds["bare"])
    added = {name: min(each) - bare for name, each in seconds.items()}
    for name, each in seconds.items():
        print(
            f"{name:5} min {min(each) * 1e3:6.1f} ms, median {median(each) * 1e3:6.1f} ms, added {added[name] * 1e3:5.1f} ms"
        )
    assert added["ours"] < 3 * added["peer"]
