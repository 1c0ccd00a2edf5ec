"""Somebody else's signal handler raises, at any place in our code: no callback is lost but the one it hits."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from proof.alarms import SCENARIOS
from support import CLEAN, child, run

ENGINE = str(Path(__file__).parent.parent / "proof" / "alarms.py")
SAMPLE, SAMPLE_OF_LOOPS = 7, 31
"""So many places are one apart that are tried by day; at night all are."""


def explore(scenario: str, start: int, step: int) -> int:
    """Try the places of a scenario; return how many there were."""
    done = subprocess.run(
        [sys.executable, ENGINE, scenario, str(start), str(step)],
        capture_output=True,
        env={**CLEAN, "PYTHONDONTWRITEBYTECODE": "1"},
        text=True,
        timeout=1800,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert lines, done.stderr
    summary: dict[str, Any] = json.loads(lines[-1])
    assert not summary.get("failures", 1), "\n".join([*lines, done.stderr])
    return int(summary["places"])


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.two_pythons
def test_a_handler_that_raises_costs_no_callback_but_the_one_it_hits(scenario: str) -> None:
    """At a sample of the places: the other callbacks run, once and in order, and the process ends, with the right status."""
    assert explore(scenario, 1, SAMPLE_OF_LOOPS if scenario.startswith(("asyncio", "trio")) else SAMPLE) > 1


@pytest.mark.nightly
@pytest.mark.parametrize("start", range(1, SAMPLE + 1))
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_all_places(scenario: str, start: int) -> None:
    """The same at all places."""
    assert explore(scenario, start, SAMPLE) > 1


STORM = """
import random
class TimeLimit(Exception): pass
armed = False
def ring(*_):
    global armed
    if armed:
        armed = False
        raise TimeLimit
signal.signal(signal.{signum}, ring)
ready()
chance, registered, ran, at_once, hit = random.Random(1), 0, [], 0, 0
def check():
    missing = registered - len(ran)
    print("twice", len(ran) - len(set(ran)), "never", max(0, missing - hit))
    print("late", at_once <= max(4, ROUNDS // 100) or at_once)
atexit.register(check)  # before the guard's own, so that it runs after them
def callback(key):
    ran.append(key)
    for _ in range(50): pass
ROUNDS, EACH = {rounds}, 40
for number in range(ROUNDS):
    before = len(ran)
    g = guard(hooks=())
    count = 0
    try:
        with g:
            for key in range(EACH):
                g.callback(callback, (number, key)); count += 1
            armed = True
            signal.setitimer(signal.ITIMER_{timer}, chance.uniform(0.00003, 0.0004))
        armed = False
    except BaseException: pass
    armed = False
    signal.setitimer(signal.ITIMER_{timer}, 0)
    hit += 1
    registered += count
    if len(ran) - before < count - 1: at_once += 1
with guard(hooks=()): print("a guard", callable(signal.getsignal(signal.SIGTERM)), flush=True)
"""


@pytest.mark.parametrize(
    ("signum", "timer"), [("SIGALRM", "REAL"), ("SIGVTALRM", "VIRTUAL"), ("SIGPROF", "PROF")]
)
def test_a_time_limit_during_the_callbacks(signum: str, timer: str) -> None:
    """Real alarms at random moments of hundreds of cleanups: none is lost in the end, and hardly any waits for the exit net."""
    ended = run(STORM.format(signum=signum, timer=timer, rounds=250))
    assert ended.out[0] == "a guard True", ended.err
    assert ended.out[-2:] == ["twice 0 never 0", "late True"], ended.err[-2000:]
    assert ended.status == 0


def test_a_stop_after_such_a_time_limit_is_heard() -> None:
    """After hundreds of cleanups that a time limit met, SIGTERM runs the callbacks, with status 143."""
    code = STORM.format(signum="SIGALRM", timer="REAL", rounds=200).replace("ready()\n", "", 1)
    code += """
with guard(hooks=()) as g:
    g.callback(print, "the last one", flush=True)
    ready()
    time.sleep(60)
"""
    ended = run(code, signal.SIGTERM)
    assert ended.status == 143, ended.err
    assert ended.out[0] == "the last one"
    assert ended.seconds < 8


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
@pytest.mark.parametrize("where", ["main", "asyncio", "trio"])
def test_alarms_all_through_the_cleanup_after_a_stop(signum: int, where: str) -> None:
    """A handler raises every other millisecond while 60 callbacks run after a stop: at most one callback is lost each time."""
    wait = {"main": "time.sleep(60)", "asyncio": "await asyncio.sleep(60)", "trio": "await trio.sleep(60)"}
    define = {"main": "def main():", "asyncio": "async def main():", "trio": "async def main():"}
    enter = {"main": "with", "asyncio": "async with", "trio": "async with"}
    go = {"main": "main()", "asyncio": "asyncio.run(main())", "trio": "trio.run(main)"}
    module = "" if where == "main" else f"import {where}"
    code = f"""
{module}
class TimeLimit(Exception): pass
rung = 0
def ring(*_):
    global rung
    rung += 1
    if rung == 20: signal.setitimer(signal.ITIMER_REAL, 0)
    raise TimeLimit
signal.signal(signal.SIGALRM, ring)
def callback(number):
    os.write(1, f"ran {{number}}\\n".encode())
    for _ in range(2000): pass
def begin(): signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
def end(): signal.setitimer(signal.ITIMER_REAL, 0)
{define[where]}
    {enter[where]} guard(hooks=(), grace=30) as g:
        for number in range(60): g.callback(callback, number)
        g.callback(begin)
        ready()
        {wait[where]}
atexit.register(end)
{go[where]}
"""
    with child(code) as started:
        started.signal(signum)
        ended = started.end()
    ran = [line for line in ended.out if line.startswith("ran ")]
    assert len(set(ran)) == len(ran)
    assert len(ran) >= 60 - 20, (ran, ended.err[-3000:])
    # The loop's own lines are not ours: an exception there may cost it its life, and the status with it.
    statuses = {143 if signum == signal.SIGTERM else -signal.SIGINT} | ({1} if module else set())
    assert ended.status in statuses, ended.err[-3000:]


NAMELESS = """
class {name}:
    \"\"\"Its name is asked for in our code, and that is where another signal comes.\"\"\"
    def __getattr__(self, name):
        if name == "__qualname__" and not asked:
            asked.append(name)
            signal.raise_signal(signal.{signum})
        raise AttributeError(name)
    def __call__(self, *args):
        {body}
asked = []
ready()
"""


@pytest.mark.parametrize("signum", ["SIGTERM", "SIGALRM"])
@pytest.mark.parametrize(
    ("name", "body", "use"),
    [
        (
            "Handler",
            "alarm()",
            "g.callback(print, 'callback'); signal.raise_signal(signal.SIGTERM)",
        ),
        (
            "Callback",
            "raise ValueError",
            "g.callback(print, 'callback'); g.callback(strange)",
        ),
    ],
    ids=["the name of a handler", "the name of a callback"],
)
def test_what_a_handler_raises_while_we_ask_for_a_name_goes_on(
    name: str, body: str, use: str, signum: str
) -> None:
    """Whatever a callable raises when it is asked for its name, it gets one. A handler may end the program just then."""
    ended = run(
        NAMELESS.format(name=name, body=body, signum=signum)
        + f"""
def alarm(*args):
    told.append(1)
    if len(told) == 1: sys.exit(7)
told = []
signal.signal(signal.SIGALRM, alarm)
strange = {name}()
signal.signal(signal.SIGTERM, strange if "Handler" in "{name}" else alarm)
with guard() as g:
    {use}
    print("went on")
"""
    )
    out = ["callback"] if name == "Handler" else ["went on", "callback"]
    assert (ended.out, ended.status) == (out, 7), ended.err
