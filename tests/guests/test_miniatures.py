"""Small programs that need most of the grace period, or more: promises hold, and when one is broken the log says so."""

from __future__ import annotations

import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from guests.stage import require
from run.supervised import LATE
from support import PATIENCE, Ended, child, run, wait_until

JOB = """
def job(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end: time.sleep(0.05)
    print("job done", flush=True)
"""

HOLDING = {
    "cooperative": """
with guard(interrupt=False) as g:
    on_exit(print, "callback", flush=True)
    ready()
    while not g.stopping: time.sleep(0.02)
    job(SECONDS)
""",
    "cooperative, waits": """
with guard(interrupt=False) as g:
    on_exit(print, "callback", flush=True)
    ready()
    g.wait()
    job(SECONDS)
""",
    "shield": """
with guard() as g:
    on_exit(print, "callback", flush=True)
    with g.shield():
        ready()
        job(SECONDS)
""",
    "finally": """
with guard() as g:
    on_exit(print, "callback", flush=True)
    try:
        ready()
        time.sleep(100)
    finally: job(SECONDS)
""",
}
THEIRS = {
    "replaced": """
with guard() as g:
    on_exit(print, "callback", flush=True)
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    ready()
    while not stopped: time.sleep(0.02)
    job(SECONDS)
""",
    "replaced, cooperative": """
with guard(interrupt=False) as g:
    on_exit(print, "callback", flush=True)
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    ready()
    while not stopped: time.sleep(0.02)
    job(SECONDS)
""",
    "was there": """
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
with guard() as g:
    on_exit(print, "callback", flush=True)
    ready()
    while not stopped: time.sleep(0.02)
    job(SECONDS)
""",
    "was there, on_exit": """
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
on_exit(print, "callback", flush=True)
ready()
while not stopped: time.sleep(0.02)
job(SECONDS)
""",
}


def stopped(code: str, seconds: float, grace: str = "") -> Ended:
    """One of these programs, after a SIGTERM."""
    env = {"CLEANUP_GUARD_GRACE": grace} if grace else {}
    return run(JOB + code.replace("SECONDS", str(seconds)), signal.SIGTERM, env=env)


def test_what_was_promised_holds_for_most_of_the_grace_period() -> None:
    """A cooperative main, a shield and a finally block need 8 of 10 seconds; a handler of its own 7, for we step in at 8."""
    programs = [(code, 8.0, 143) for code in HOLDING.values()] + [(code, 7.0, 0) for code in THEIRS.values()]
    with ThreadPoolExecutor(len(programs)) as executor:
        ends = list(executor.map(lambda each: stopped(each[0], each[1], "10"), programs))
    names = [*HOLDING, *THEIRS]
    wrong = {
        name: end
        for name, end, (_, _, status) in zip(names, ends, programs, strict=True)
        if end.out != ["job done", "callback"] or end.status != status
    }
    assert wrong == {}


@pytest.mark.nightly
def test_a_grace_period_that_nobody_stated_cuts_nobody() -> None:
    """Where the grace is a guess, a program with its own handler is waited for, however long it takes."""
    with ThreadPoolExecutor(len(THEIRS)) as executor:
        ends = list(executor.map(partial(stopped, seconds=13.0), THEIRS.values()))
    assert [(end.out, end.status) for end in ends] == [(["job done", "callback"], 0)] * len(THEIRS)


BROKEN = {
    "cooperative": "looks for the stop itself",
    "cooperative, waits": "looks for the stop itself",
    "shield": "critical section",
    "finally": "has not come back",
    **dict.fromkeys(THEIRS, "<lambda> has not stopped"),
}


def test_who_needs_longer_is_broken_and_the_log_says_so() -> None:
    """The callback runs once, in time; the log says which promise was broken, where main was, and when."""
    programs = {**HOLDING, **THEIRS}
    with ThreadPoolExecutor(len(programs)) as executor:
        ends = list(executor.map(partial(stopped, seconds=100.0, grace="6"), programs.values()))
    for name, end in zip(programs, ends, strict=True):
        assert end.out == ["callback"], (name, end)
        assert end.status == 143, (name, end)
        assert end.seconds < 6.0 + LATE, (name, end)
        told = [line for line in end.err.splitlines() if BROKEN[name] in line]
        assert len(told) == 1, (name, end.err)
        assert re.search(r"\d\.\d+ s\b", told[0]), (name, end.err)  # when
        assert "program.py" in end.err, (name, end.err)  # where
        assert "job" in end.err, (name, end.err)


DRAIN = """
serving = []
with guard() as g:
    def drain():
        serving.append(1)
        time.sleep(SECONDS)
        print("drained", flush=True)
    g.on_stop(drain)
    g.callback(print, "closed", flush=True)
    ready()
    while True: time.sleep(0.02)
"""


def test_an_on_stop_hook_has_the_time_it_needs() -> None:
    """A load balancer is waited for, for a fifth of the grace period: the hook ends before main is unwound."""
    end = stopped(DRAIN, 1.5, "15")
    assert end.out == ["drained", "closed"]
    assert end.status == 143


def test_an_on_stop_hook_that_takes_too_long_is_named() -> None:
    """The callback still runs in time, and the log names the hook that was left behind."""
    end = stopped(DRAIN, 100.0, "6")
    assert end.out == ["closed"]
    assert end.status == 143
    assert end.seconds < 6.0 + LATE
    assert re.search(r"drain.*\d\.\d+ s|\d\.\d+ s.*drain", end.err), end.err


def test_the_log_says_whose_stop_it_is_once() -> None:
    """One line, however many signals come."""
    code = """
stopped = []
def their_handler(*_):
    stopped.append(1)
    os.write(1, b"called %d\\n" % len(stopped))
signal.signal(signal.SIGTERM, their_handler)
on_exit(print, "callback", flush=True)
ready()
while len(stopped) < 3: time.sleep(0.02)
"""
    with child(code) as started:
        for number in (1, 2, 3):
            started.signal(signal.SIGTERM)
            started.wait_for_line(f"called {number}")
        end = started.end()
    assert end.out[-1] == "callback"
    assert end.status == 0
    assert end.err.count("their_handler") == 1, end.err


@pytest.mark.parametrize("ends", ["returns", "is stopped"])
def test_on_exit_in_a_thread_is_atexit_in_a_thread(ends: str) -> None:
    """A pool that is made lazily, in the thread of a request: its close runs at the end, whichever it is."""
    code = f"""
thread = threading.Thread(target=on_exit, args=[print, "pool closed"], kwargs=dict(flush=True))
thread.start()
thread.join()
ready()
if {ends == "is stopped"}: time.sleep(60)
"""
    end = run(code, *([signal.SIGTERM] if ends == "is stopped" else []))
    assert end.out == ["pool closed"]
    assert "Traceback" not in end.err


@pytest.mark.parametrize("keeps", [False, True], ids=["drops it", "keeps it"])
def test_a_runner_that_catches_everything_is_told_again(keeps: bool) -> None:
    """Whether it keeps the exception for its report or not: it is delivered again long before the grace period ends."""
    code = f"""
@guard(grace=30)
def main():
    on_exit(print, "callback", flush=True)
    report = []
    ready()
    for _ in range(200):
        try:
            time.sleep(0.3)
        except BaseException as error:
            if {keeps}: report.append(error)
            if len(report) > 1: return
main()
"""
    end = run(code, signal.SIGTERM)
    assert end.out == ["callback"]
    assert end.status == 143
    assert end.seconds < 10


@pytest.mark.parametrize("guarded", [False, True], ids=["without", "guarded"])
def test_a_child_that_subprocess_run_waits_for_may_finish(guarded: bool) -> None:
    """The whole group is told to stop: the child finishes its own cleanup, as it does without a guard."""
    code = f"""
import subprocess
CHILD = '''
import os, signal, sys, time
def stop(*_): sys.exit(0)
signal.signal(15, stop)
try:
    os.write(1, b"ready\\\\n")
    time.sleep(60)
finally:
    time.sleep(1)
    print("child cleaned up", flush=True)
'''
def main():
    subprocess.run([sys.executable, "-c", CHILD])
if {guarded}: main = guard(grace=6)(main)
main()
"""
    with child(code, start_new_session=True) as started:
        os.killpg(started.pid, signal.SIGTERM)
        started.end()
        wait_until(lambda: "child cleaned up" in started.out, "the child's cleanup")


TWISTED = """
from twisted.internet import defer, reactor

@guard(grace=3)
def main():
    on_exit(print, "last", flush=True)
    {hangs}
    on_exit(print, "first", flush=True)
    reactor.callWhenRunning(ready)
    reactor.run()

main()
"""


@pytest.mark.guests
@pytest.mark.parametrize(
    "hangs",
    ["on_exit(time.sleep, 60)", 'reactor.addSystemEventTrigger("before", "shutdown", defer.Deferred)'],
    ids=["a callback", "its own shutdown"],
)
def test_a_reactor_that_hangs_has_a_deadline(hangs: str) -> None:
    """Twisted replaces our handler and the wakeup fd: the deadline is kept all the same, and the callbacks run once."""
    require("twisted")
    end = run(TWISTED.format(hangs=hangs), signal.SIGTERM)
    assert sorted(end.out) == ["first", "last"]
    assert end.seconds < PATIENCE / 4
