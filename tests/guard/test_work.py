"""Work in flight holds the stop: what has begun is finished, or is named, with how long it ran, where the budget says no."""

from __future__ import annotations

import re
import signal
import time

import pytest
from support import child, run
from tasks.stage import LOOPS, every_loop, perform, stage, strange_lines

WORKER = """
begun = threading.Event()
def say(*words): os.write(1, (" ".join(map(str, words)) + "\\n").encode())
def wait_for_stop(g):
    while not g.stopping: time.sleep(0.005)
"""


def test_work_in_a_thread_is_finished_before_main_is_stopped() -> None:
    """Main is not interrupted while a job of another thread is in flight; then main unwinds, then the callbacks run."""
    ended = run(
        WORKER
        + """
def job(g):
    with g.work("job 7"):
        begun.set()
        wait_for_stop(g)
        time.sleep(0.3)
        say("job over")
with guard() as g:
    g.callback(say, "callback")
    thread = threading.Thread(target=job, args=(g,)); thread.start(); begun.wait()
    try:
        ready()
        time.sleep(60)
    finally:
        say("main unwinds")
""",
        signal.SIGTERM,
    )
    assert ended.out == ["job over", "main unwinds", "callback"]
    assert ended.status == 143
    assert "no longer" not in ended.err


JOBS_IN_MAIN = """
with guard() as g:
    g.callback(say, "callback")
    for number in range(1000):
        with g.work():
            say("begun", number)
            if number == 0: ready()
            wait_for_stop(g)
            say("over", number)
"""

LATE_TIMER = """
import faulthandler
from cleanup_guard._process.process import Process
set_timer, claim_signal = faulthandler.dump_traceback_later, Process.claim_signal
def wait_for_timer():  # no lock: a handler may wait inside of another wait
    while not setting: time.sleep(0.005)
def late(*words, **options):
    setting.append(True)
    time.sleep(0.2)
    set_timer(*words, **options)
def after_the_watcher(*words):
    if threading.current_thread() is threading.main_thread(): wait_for_timer()
    return claim_signal(*words)
faulthandler.dump_traceback_later, Process.claim_signal = late, after_the_watcher
setting = []
"""
"""The watcher is first to know of the stop, and takes its time over the last resort's timer, as on a loaded machine."""


def test_work_in_main_is_finished_and_nothing_new_begins() -> None:
    """A loop of jobs in main is stopped between two of them."""
    ended = run(WORKER + JOBS_IN_MAIN, signal.SIGTERM)
    assert ended.out == ["over 0", "callback"]
    assert ended.status == 143


def test_nothing_new_begins_while_the_timer_is_set() -> None:
    """Main comes to the end of a job when it could not be told yet: that is waited for."""
    code = JOBS_IN_MAIN.replace("wait_for_stop(g)", "wait_for_timer()")
    ended = run(WORKER + LATE_TIMER + code, signal.SIGTERM)
    assert ended.out == ["over 0", "callback"]
    assert ended.status == 143


@pytest.mark.parametrize("interrupt", [True, False])
def test_work_that_does_not_end_is_cut_and_named(interrupt: bool) -> None:
    """At nine tenths of the usable time nobody waits any longer: each piece is named, with how long it ran; callbacks run."""
    ended = run(
        WORKER
        + f"""
def job(g):
    with g.work("job 7"):
        begun.set()
        time.sleep(60)
with guard(grace=6, interrupt={interrupt}) as g:
    g.callback(say, "callback")
    threading.Thread(target=job, args=(g,), daemon=True).start(); begun.wait()
    ready()
    g.wait() if {not interrupt} else time.sleep(60)
""",
        signal.SIGTERM,
    )
    assert ended.out == ["callback"]
    cut = [line for line in ended.err.splitlines() if "is waited for no longer" in line]
    assert len(cut) == 1, ended.err
    ran = re.search(r"job 7 \(running for ([\d.]+) s\)", cut[0])
    assert ran is not None
    assert float(ran[1]) >= 4.8


def test_work_in_main_that_does_not_end_is_interrupted_and_named() -> None:
    """Main's own work is interrupted where it is, as a critical section is."""
    ended = run(
        WORKER
        + """
with guard(grace=6) as g:
    g.callback(say, "callback")
    with g.work("job 7"):
        ready()
        time.sleep(60)
""",
        signal.SIGTERM,
    )
    assert ended.out == ["callback"]
    assert "work in flight is waited for no longer: job 7 (running for" in ended.err


def test_work_that_begins_after_the_stop_holds_the_callbacks_only() -> None:
    """Threads that begin one piece after the other do not hold main for ever; what is in flight then is finished."""
    ended = run(
        WORKER
        + """
def jobs(g):
    while not g.state == "cleaning up":
        with g.work():
            begun.set()
            time.sleep(0.05)
    with g.work(): say("late work")
def last(g):
    with g.work("last"):
        said.append("begun")
        while g.state != "cleaning up": time.sleep(0.005)
        time.sleep(0.3)
        say("last over")
said = []
with guard() as g:
    g.callback(say, "callback")
    workers = [threading.Thread(target=jobs, args=(g,), daemon=True) for _ in range(3)]
    for each in workers: each.start()
    begun.wait()
    try:
        ready()
        time.sleep(60)
    finally:
        threading.Thread(target=last, args=(g,)).start()
        while not said: time.sleep(0.005)
        say("main unwinds")
""",
        signal.SIGTERM,
    )
    lines = [line for line in ended.out if line != "late work"]
    assert lines == ["main unwinds", "last over", "callback"]
    assert "no longer" not in ended.err
    assert ended.status == 143


def test_a_normal_exit_waits_for_work_too_and_says_so() -> None:
    """Main returns while a job is in flight: the callbacks wait; after a second a line says for whom."""
    ended = run(
        WORKER
        + """
def job(g):
    with g.work("job 7"):
        begun.set()
        while not g.stopping: time.sleep(0.005)
        time.sleep(1.3)
        say("job over")
with guard() as g:
    g.callback(say, "callback")
    threading.Thread(target=job, args=(g,)).start(); begun.wait()
    ready()
""",
    )
    assert ended.out == ["job over", "callback"]
    assert "waiting for work in flight: job 7 (running for 1." in ended.err
    assert ended.status == 0


def test_a_limit_for_normal_exits_is_one_for_work_too() -> None:
    """`exit_timeout` ends the wait, and the work is named; the callbacks have what is left."""
    ended = run(
        WORKER
        + """
def job(g):
    with g.work("job 7"):
        begun.set()
        time.sleep(60)
with guard(exit_timeout=1) as g:
    g.callback(say, "callback")
    threading.Thread(target=job, args=(g,), daemon=True).start(); begun.wait()
    ready()
""",
    )
    assert ended.out == ["callback"]
    assert "waited for no longer: job 7" in ended.err
    assert ended.status == 0


@pytest.mark.parametrize("interrupt", [True, False])
def test_a_second_ctrl_c_ends_the_wait_for_other_threads(interrupt: bool) -> None:
    """Whether main is still held back, or has left and waits: the callbacks run now, and no press is needed to leave."""
    code = (
        WORKER
        + f"""
def job(g):
    with g.work("job 7"):
        begun.set()
        time.sleep(60)
with guard(grace=None, interrupt={interrupt}) as g:
    g.callback(say, "callback")
    threading.Thread(target=job, args=(g,), daemon=True).start(); begun.wait()
    if {interrupt}:
        g.on_stop(say, "stopping")
    ready()
    if {interrupt}:
        time.sleep(60)
    g.wait()
    say("stopping")
"""
    )
    with child(code) as started:
        started.signal(signal.SIGINT)
        started.wait_for_line("stopping")
        # Not a guess at how long something takes: presses are two because more than 0.5 s lie between them.
        time.sleep(0.6)
        started.process.send_signal(signal.SIGINT)
        ended = started.end()
    assert ended.out == ["stopping", "callback"]
    assert ended.status == -signal.SIGINT
    assert "job 7" in ended.err


def test_whoever_leaves_a_guard_inside_its_own_work_does_not_wait_for_it() -> None:
    """Closing a guard inside of a section of it, or in a child task of one, is no deadlock."""
    ended = run(
        WORKER
        + """
g = guard().__enter__()
g.callback(say, "callback")
with g.work():
    g.close()
say("closed")
ready()
""",
    )
    assert ended.status == 0


def test_work_needs_a_guard_that_is_entered() -> None:
    """Before that nothing could wait for it."""
    ended = run(
        """
try: guard().work()
except RuntimeError as error: print(error)
ready()
"""
    )
    assert ended.status == 0


IN_FLIGHT = {
    "until the stop is known": "while not g.stopping: await sleep(0.01)\n            await sleep(0.2)",
    "until the timer is set": "while not setting: await sleep(0.01)",
}


@every_loop
@pytest.mark.parametrize("job", IN_FLIGHT.values(), ids=IN_FLIGHT)
def test_work_in_tasks_is_finished_before_main_is_cancelled(loop: str, job: str) -> None:
    """A job in a task beside the guarded one, in a group that main's end cancels, is finished; no new one begins."""
    group = {
        "trio": "trio.open_nursery() as group",
    }.get(loop, "asyncio.TaskGroup() as group")
    start = "group.start_soon(jobs, g)" if loop == "trio" else "group.create_task(jobs(g))"
    ended = perform(
        loop,
        f"""{LATE_TIMER if "setting" in job else ""}
async def jobs(g):
    for number in range(1000):
        async with g.work():
            say("begun", number)
            if number == 0: ready()
            {job}
            say("over", number)
async def main():
    async with guard() as g:
        g.callback(bye)
        async with {group}:
            {start}
            await sleep(60)
run_main(main)
""",
        signal.SIGTERM,
    )
    assert ended.out == ["over 0", "bye"]
    assert ended.status == 143
    assert strange_lines(ended) == []


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_work_in_a_task_that_does_not_end_is_cut_and_named(loop: str) -> None:
    """As in threads; the task is cancelled with its group."""
    group = {
        "trio": "trio.open_nursery() as group",
    }.get(loop, "asyncio.TaskGroup() as group")
    start = "group.start_soon(job, g)" if loop == "trio" else "group.create_task(job(g))"
    ended = perform(
        loop,
        f"""
async def job(g):
    async with g.work("job 7"):
        ready()
        await sleep(60)
async def main():
    async with guard(grace=6) as g:
        g.callback(bye)
        async with {group}:
            {start}
            await sleep(60)
run_main(main)
""",
        signal.SIGTERM,
    )
    assert ended.out == ["bye"]
    assert "work in flight is waited for no longer: job 7 (running for" in ended.err


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_callbacks_wait_for_work_of_tasks_that_outlive_main(loop: str) -> None:
    """A main that looks for the stop itself has left: requests in flight in other tasks are answered first."""
    assert loop in LOOPS
    spawn = (
        "trio.lowlevel.spawn_system_task(job, g)" if loop == "trio" else "task = asyncio.create_task(job(g))"
    )
    with stage(
        loop,
        f"""
async def job(g):
    async with g.work():
        ready()
        while not g.stopping: await sleep(0.01)
        await sleep(0.2)
        say("over")
async def main():
    async with guard(interrupt=False) as g:
        g.callback(bye)
        {spawn}
        await g.stopped()
        say("main leaves")
run_main(main)
""",
    ) as started:
        started.signal(signal.SIGTERM)
        ended = started.end()
    assert ended.out == ["main leaves", "over", "bye"]
    assert ended.status == 143
