"""Signals of random kinds at random moments, sent to random programs: no callback is lost, doubled or out of order.

A failure prints its seed; `CLEANUP_GUARD_STORM=SEED pytest tests/proof/test_storm.py` runs that one program again, fifty times.
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
from functools import partial
from pathlib import Path

import pytest
from support import Ended, child

PROGRAMS = ("storm.py", "async_storm.py", "order_storm.py", "host_storm.py")
REPLAY = os.environ.get("CLEANUP_GUARD_STORM")
IN_TIME = 9.5
"""Seconds after which a program with the default grace period of ten would be overdue."""

CODE = """\
import runpy, sys
sys.argv[1:] = [{seed!r}]
sys.path.insert(0, {tests!r})
runpy.run_path({program!r}, run_name="__main__")
"""


def storm(program: str, seed: int) -> str | None:
    """Run one child through its storm; return what went wrong."""
    path = Path(__file__).with_name(program)
    chance = random.Random(seed)
    signums = [
        chance.choice((signal.SIGTERM, signal.SIGTERM, signal.SIGINT)) for _ in range(chance.randint(1, 5))
    ]
    while signums.count(signal.SIGINT) > 2:  # a third press means "exit at once", and that is another test's
        signums.remove(signal.SIGINT)
    pauses = [chance.choice((0.0, 0.0, chance.random() * 0.02)) for _ in signums]
    pauses[0] = chance.random() * 0.15
    code = CODE.format(seed=str(seed), program=str(path), tests=str(path.parents[1]))
    with child(code, preamble="", flags=["-X", "faulthandler"]) as started:
        for signum, pause in zip(signums, pauses, strict=True):
            time.sleep(pause)  # the random moment itself
            started.signal(signum)
        try:
            ended = started.end()
        except subprocess.TimeoutExpired:
            started.signal(signal.SIGABRT)  # it shows its stacks
            ended = started.end()
    insists = signums.count(signal.SIGINT) > 1  # if much time is between them that ends the wait for work
    faults = list(faults_of(ended, set(signums), started.pid, insists=insists))
    if not faults:
        return None
    return "\n".join(
        [f"{program}, seed {seed}, {[s.name for s in signums]}:", *faults, *ended.out, ended.err[-3000:]]
    )


def faults_of(ended: Ended, signums: set[signal.Signals], pid: int, *, insists: bool) -> list[str]:
    """What is wrong with how a child ended."""
    faults = []
    lines = [line.split() for line in ended.out]
    # The first acknowledgement comes before the ready line, and so is not among the lines after it.
    acknowledged = [(int(line[1]), int(line[2])) for line in lines if line[0] == "ack"] + [(1, 1)]
    ran = [(int(line[1]), int(line[2])) for line in lines if line[0] == "ran"]
    strangers = [line for line in lines if line[0] == "ran" and line[3] != str(pid)]
    # By what their own handler raised.
    cut = {(int(line[1]), int(line[2])) for line in lines if line[0] == "cut"}
    lost = set(acknowledged) - set(ran) - cut
    doubled = {each for each, times in Counter(ran).items() if times > 1}
    if lost or doubled or strangers:
        faults.append(f"lost: {lost}, run twice: {doubled}, run in another process: {strangers}")
    groups = {
        (int(line[1]), int(number)): int(line[2])
        for line in lines
        if line[0] == "group"
        for number in line[2:]
    }
    for guard in {guard for guard, _ in ran}:
        # All of a group have the number of its first one: there is no order among them.
        numbers = [groups.get((each, number), number) for each, number in ran if each == guard and number > 0]
        if numbers != sorted(numbers, reverse=True):
            faults.append(f"guard {guard} is not last in, first out: {numbers}")
    sections = Counter((line[0], line[1]) for line in lines if line[0] in {"in", "out"})
    faults += [
        f"a section of task {task} was cut short"
        for end, task in sections
        if sections["in", task] != sections["out", task]
    ]
    if not insists:
        faults += callbacks_during_work(lines)
    wanted = {int(status) for line in lines if line[0] == "wants" for status in line[1:]}
    wanted = wanted or {143 if signum == signal.SIGTERM else -signal.SIGINT for signum in signums}
    if ended.status not in wanted:
        faults.append(f"ended with {ended.status}, not {wanted}")
    if ended.seconds > IN_TIME:
        faults.append(f"took {ended.seconds:.1f} s")
    faults += [
        f"stderr says {word!r}" for word in ("giving up", "not a move", "Deadlock") if word in ended.err
    ]
    return faults


def callbacks_during_work(lines: Sequence[Sequence[str]]) -> list[str]:
    """What is wrong with when callbacks began: work of their guard was in flight."""
    faults = []
    in_flight: Counter[str] = Counter()
    for line in lines:
        if line[0] in {"in", "out"} and len(line) > 2:
            in_flight[line[2]] += 1 if line[0] == "in" else -1
        elif line[0] == "ran" and in_flight[line[1]] > 0:
            faults.append(f"{line} while work of guard {line[1]} was in flight")
    return faults


def storms(program: str, seeds: Sequence[int], capsys: pytest.CaptureFixture[str]) -> None:
    """Run many, several at a time, and print how many."""
    with ThreadPoolExecutor(3) as executor:
        faults = [fault for fault in executor.map(partial(storm, program), seeds) if fault is not None]
    with capsys.disabled():
        print(f"\n  {program}: {len(seeds)} programs from seed {seeds[0]}, {len(faults)} failures ", end="")
    assert not faults, "\n\n".join(faults[:5])


@pytest.mark.skipif(REPLAY is not None, reason="one seed is being replayed")
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_storm(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Sixty random programs are stopped at random moments: what was acknowledged ran once, in order, and they ended in time."""
    storms(program, range(1, 61), capsys)


@pytest.mark.skipif(REPLAY is None, reason="CLEANUP_GUARD_STORM names no seed")
@pytest.mark.parametrize("program", PROGRAMS)
def test_replay(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The program of one seed again, fifty times: the plan is the same, the moments are the machine's."""
    assert REPLAY is not None
    storms(program, [int(REPLAY)] * 50, capsys)


@pytest.mark.nightly
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_long_storm(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As the storm, with 2500 programs that are new every night."""
    first = random.SystemRandom().randrange(10**6, 10**9)
    storms(program, range(first, first + 2500), capsys)
