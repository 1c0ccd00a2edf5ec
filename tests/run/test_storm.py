"""Random trees of children that fork, double-fork, leave for new sessions, ignore the stop and exit at random, under signals.

A failure prints its seed; `CLEANUP_GUARD_STORM=SEED` runs that one tree again.
"""

from __future__ import annotations

import os
import random
import re
import signal
import time

import pytest
from run.supervised import is_alive, python, running

TREE = """\
import os, random, signal, time
pick = random.Random(SEED)
KINDS = ["fork", "session", "daemon", "brief"] + DEAF * ["deaf"]
def node(depth):
    signal.signal(signal.SIGTERM, stop)
    for _ in range(pick.randrange(3) if depth else 0):
        kind = pick.choice(KINDS)
        if os.fork() == 0:
            pick.seed(pick.random() + os.getpid())
            if kind == "deaf":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                if pick.randrange(2):
                    os.setsid()
                os.write(1, f"deaf {os.getpid()}\\n".encode())
                while True:
                    time.sleep(0.1)
            if kind != "fork":
                os.setsid()
            if kind == "daemon" and os.fork():
                os._exit(0)
            if kind == "brief":
                time.sleep(pick.random() / 10)
                os._exit(pick.randrange(3))
            node(depth - 1)
    os.write(1, f"began {os.getpid()}\\n".encode())
    while True:
        time.sleep(0.1)
def stop(signum, frame):
    signal.signal(signal.SIGTERM, lambda *_: None)
    end = time.monotonic() + pick.random() / 2
    while (left := end - time.monotonic()) > 0:
        time.sleep(left)
    os.write(1, f"cleaned {os.getpid()}\\n".encode())
    os._exit(0)
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.signal(signal.SIGHUP, lambda *_: None)
signal.signal(signal.SIGTERM, stop)
os.write(1, b"up\\n")
node(3)
"""


def storm(seed: int) -> None:
    """One random tree and one random history: all who can clean up once, only the deaf are killed, nobody is left."""
    pick = random.Random(seed)
    deaf = seed % 5 == 4
    code = TREE.replace("DEAF", str(int(deaf)))
    trees = [python(code.replace("SEED", str(seed + n))) for n in range(pick.randint(1, 3))]
    words = [word for tree in trees for word in (":::", *tree)][1:]
    with running("--grace", "8" if deaf else "30", "--", *words) as run:
        run.wait_for("up", times=len(trees))
        for _ in range(pick.randrange(20)):
            run.signal(pick.choice([signal.SIGUSR1, signal.SIGHUP, signal.SIGCONT]))
            time.sleep(pick.random() / 100)
        for _ in range(pick.randint(1, 5)):
            run.signal(signal.SIGTERM)
        status = run.end()
        began = sorted(line.split()[1] for line in run.out if line.startswith("began"))
        cleaned = sorted(line.split()[1] for line in run.out if line.startswith("cleaned"))
        assert set(began) <= set(cleaned), f"seed {seed}: {run.err}"
        assert len(set(cleaned)) == len(cleaned)
        stubborn = {line.split()[1] for line in run.out if line.startswith("deaf")}
        assert status == (137 if stubborn else 0), f"seed {seed}: {run.err}"
        assert set(re.findall(r"\(pid (\d+)\)", run.err)) >= stubborn, f"seed {seed}: {run.err}"
        assert stubborn or "killed" not in run.err
        assert run.seconds < 15
        assert not [pid for pid in {*cleaned, *stubborn} if is_alive(int(pid))]


SEEDS = [int(os.environ["CLEANUP_GUARD_STORM"])] if "CLEANUP_GUARD_STORM" in os.environ else range(5)


@pytest.mark.parametrize("seed", SEEDS)
def test_storm(seed: int) -> None:
    """A few trees, in every run of the suite."""
    storm(seed)


@pytest.mark.nightly
def test_long_storm() -> None:
    """Two hundred trees."""
    for seed in range(1000, 1200):
        storm(seed)
