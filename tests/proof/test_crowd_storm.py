"""Guards are entered and left in random order, handlers raise, stops arrive: no callback is lost, doubled or out of order.

A failure prints its seed; `CLEANUP_GUARD_STORM=SEED pytest tests/proof/test_crowd_storm.py` runs it again, fifty times.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from proof.crowd_storm import Plan
from support import Ended, child

PROGRAM = str(Path(__file__).with_name("crowd_storm.py"))
REPLAY = os.environ.get("CLEANUP_GUARD_STORM")
IN_TIME = 9.5
"""Seconds after which a program with the default grace period of ten would be overdue."""

CODE = """\
import runpy, sys
sys.argv[1:] = [{seed!r}]
runpy.run_path({program!r}, run_name="__main__")
"""


def storm(seed: int) -> str | None:
    """Run one child through its storm; return what went wrong."""
    plan = Plan(seed)
    chance = random.Random(seed)
    signums: list[signal.Signals] = []
    if plan.stops:
        signums = [
            chance.choice((signal.SIGTERM, signal.SIGTERM, signal.SIGINT))
            for _ in range(chance.randint(1, 4))
        ]
        while (
            signums.count(signal.SIGINT) > 2
        ):  # a third press means "exit at once", and that is another test's
            signums.remove(signal.SIGINT)
    hung = False
    with child(CODE.format(seed=str(seed), program=PROGRAM), preamble="") as started:
        for index, signum in enumerate(signums):
            time.sleep(chance.random() * (0.01 if index else 0.2))  # the random moment itself
            started.signal(signum)
        try:
            ended = started.end()
        except subprocess.TimeoutExpired:
            started.process.kill()
            hung = True
            ended = started.end()
    faults = ["it hangs"] if hung else faults_of(ended, plan, set(signums))
    if not faults:
        return None
    told = [*faults, *ended.out[-200:], ended.err[-3000:]]
    return "\n".join([f"seed {seed}, {plan.main}, {[s.name for s in signums]}:", *told])


def faults_of(ended: Ended, plan: Plan, signums: set[signal.Signals]) -> list[str]:
    """What is wrong with how a child ended."""
    faults = []
    lines = [line.split() for line in ended.out]
    acknowledged = [(line[1], int(line[2])) for line in lines if line[0] == "ack"]
    ran = [(line[1], int(line[2])) for line in lines if line[0] == "ran"]
    rang = sum(line[0] == "rang" for line in lines)
    doubled = {each for each, times in Counter(ran).items() if times > 1}
    lost = set(acknowledged) - set(ran)
    # The callback that is about to begin when the handler raises is the one in which it raised.
    if doubled or len(lost) > rang:
        faults.append(f"lost: {sorted(lost)}, while the handler raised {rang} times; run twice: {doubled}")
    for guard in {guard for guard, _ in ran}:
        numbers = [number for each, number in ran if each == guard]
        if numbers != sorted(numbers, reverse=True):
            faults.append(f"guard {guard} is not last in, first out: {numbers}")
    wanted = statuses(plan, signums)
    if ["rang", "handler"] in lines:
        wanted.add(1)  # main was met in the handler, before there was a stop, and ended by that
    if ended.status not in wanted:
        faults.append(f"ended with {ended.status}, not {wanted}")
    if signums and ended.seconds > IN_TIME:
        faults.append(f"took {ended.seconds:.1f} s")
    faults += [" ".join(line) for line in lines if line[:2] == ["back", "no"]]
    faults += [
        f"stderr says {word!r}" for word in ("giving up", "not a move", "Deadlock") if word in ended.err
    ]
    return faults


def statuses(plan: Plan, signums: set[signal.Signals]) -> set[int]:
    """How it may end."""
    if not signums:
        return {0}
    wanted = {128 + signal.SIGTERM if signum == signal.SIGTERM else -signal.SIGINT for signum in signums}
    if not plan.anchored and signal.SIGTERM in signums:
        wanted.add(
            -signal.SIGTERM
        )  # no guard was entered at that moment: then there is nothing to lose either
    return wanted


def storms(seeds: Sequence[int], capsys: pytest.CaptureFixture[str]) -> None:
    """Run many, several at a time, and print how many."""
    with ThreadPoolExecutor(3) as executor:
        faults = [fault for fault in executor.map(storm, seeds) if fault is not None]
    with capsys.disabled():
        print(f"\n  {len(seeds)} programs from seed {seeds[0]}, {len(faults)} failures ", end="")
    assert not faults, "\n\n".join(faults[:5])


@pytest.mark.skipif(REPLAY is not None, reason="one seed is being replayed")
def test_a_storm(capsys: pytest.CaptureFixture[str]) -> None:
    """Forty-eight random programs: what was acknowledged ran once, in order, and they ended in time, with the right status."""
    storms(range(1, 49), capsys)


@pytest.mark.skipif(REPLAY is None, reason="CLEANUP_GUARD_STORM names no seed")
def test_replay(capsys: pytest.CaptureFixture[str]) -> None:
    """The program of one seed again, fifty times: the plan is the same, the moments are the machine's."""
    assert REPLAY is not None
    storms([int(REPLAY)] * 50, capsys)


@pytest.mark.nightly
def test_a_long_storm(capsys: pytest.CaptureFixture[str]) -> None:
    """As the storm, with 2000 programs that are new every night."""
    first = random.SystemRandom().randrange(10**6, 10**9)
    storms(range(first, first + 2000), capsys)
