"""Random trees under random signals: nobody is told twice, killed too soon, or left, and every cleanup's output arrives.

There are children that fork, double-fork, leave for new sessions, pass the stop on, write to readers, hand their cleanup on,
ignore the stop, and exit at random.

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
KINDS = ["fork", "session", "daemon", "brief", "wrapper", "manager", "reader", "relay"] + DEAF * ["deaf"]
children = []
def node(depth):
    global forwards
    signal.signal(signal.SIGTERM, stop)
    for _ in range(pick.randrange(3) if depth else 0):
        kind = pick.choice(KINDS)
        reader, writer = os.pipe() if kind == "reader" else (-1, -1)
        child = os.fork()
        if child == 0:
            children.clear()
            forwards = kind in ("wrapper", "manager")
            pick.seed(pick.random() + os.getpid())
            if kind == "reader":  # does not catch the stop, and passes on what its own child says
                signal.signal(signal.SIGTERM, signal.SIG_IGN)  # until there is a writer that catches it
                if os.fork():
                    os.close(writer)
                    while data := os.read(reader, 4096):
                        os.write(1, data)
                        signal.signal(signal.SIGTERM, signal.SIG_DFL)
                    os._exit(0)
                signal.signal(signal.SIGTERM, stop)
                os.dup2(writer, 1)
                os.write(1, b"writes\\n")
                os.close(writer)
                os.close(reader)
                node(depth - 1)
            if kind == "relay":  # is never there when somebody looks, and owes something all the same
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                for _ in range(50):
                    if os.fork():
                        os._exit(0)
                os.write(1, f"arrived {os.getpid()}\\n".encode())
                os._exit(0)
            if kind == "deaf":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                if pick.randrange(2):
                    os.setsid()
                os.write(1, f"deaf {os.getpid()}\\n".encode())
                while True:
                    time.sleep(0.1)
            if kind not in ("fork", "wrapper"):
                os.setsid()
            if kind == "daemon" and os.fork():
                os._exit(0)
            if kind == "brief":
                time.sleep(pick.random() / 10)
                os._exit(pick.randrange(3))
            node(depth - 1)
        for fd in {reader, writer} - {-1}:
            os.close(fd)
        if kind not in ("daemon", "reader", "relay"):
            children.append(child)
        if kind == "relay":
            os.write(1, f"sent {os.getpid()}\\n".encode())
    os.write(1, f"began {os.getpid()}\\n".encode())
    while True:
        time.sleep(0.1)
forwards = False
def stop(signum, frame):
    os.write(1, f"told {os.getpid()}\\n".encode())
    signal.signal(signal.SIGTERM, lambda *_: os.write(1, f"told {os.getpid()}\\n".encode()))
    for child in children if forwards else ():
        os.kill(child, signal.SIGTERM)
    for child in children if forwards else ():
        os.waitpid(child, 0)
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
        told = [line.split()[1] for line in run.out if line.startswith("told")]
        assert len(set(told)) == len(told), (
            f"seed {seed}: told twice: {[pid for pid in told if told.count(pid) > 1]}"
        )
        assert len(set(cleaned)) == len(cleaned)
        relays = [sum(line.startswith(word) for line in run.out) for word in ("sent", "arrived")]
        assert relays[0] == relays[1], f"seed {seed}: {run.err}"
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
