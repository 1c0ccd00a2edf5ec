"""What else is in the process: handlers of the program and its loop, forgotten tasks, cooperative mains, critical sections."""

from __future__ import annotations

import signal
import sys

import pytest
from tasks.stage import every_asyncio, every_loop, perform, stage, strange_lines

TERM, INT, USR1 = signal.SIGTERM, signal.SIGINT, signal.SIGUSR1
NINE_TENTHS_OF_8 = 0.9 * (8 - 0.8)
"""Seconds of a grace period of 8, without the margin, for which a critical section or a main that cooperates may hold on."""


@every_loop
def test_a_handler_that_was_there_before_owns_the_stop_and_is_put_back(loop: str) -> None:
    """As with a guard without a loop: it is called each time, nothing is cancelled, the status is main's."""
    code = """
told = []
def theirs(signum, frame):
    told.append(say("theirs"))
signal.signal(signal.SIGTERM, theirs)

async def main():
    async with guard():
        pass
    assert signal.getsignal(signal.SIGTERM) is theirs
    signal.raise_signal(signal.SIGTERM)
    async with guard() as g:
        g.callback(bye)
        ready()
        while len(told) < 2: await sleep(0.01)
        say("whole")
run_main(main)
"""
    with stage(loop, code) as started:
        started.signal(TERM)
        ended = started.end()
        assert started.out == ["theirs", "ready", "theirs", "whole", "bye"]
    assert ended.status == 0


@every_asyncio
def test_handlers_of_the_loop_work_before_inside_and_after(loop: str) -> None:
    """`add_signal_handler` from before the guard, which owns the stop and hears every signal, and from inside it for others."""
    code = """
async def main():
    loop = asyncio.get_running_loop()
    heard = asyncio.Queue()
    loop.add_signal_handler(signal.SIGUSR1, heard.put_nowait, "usr1")
    loop.add_signal_handler(signal.SIGTERM, heard.put_nowait, "term")

    async def hears(signum):
        os.kill(os.getpid(), signum)
        say(await heard.get())

    await hears(signal.SIGUSR1)
    async with guard():
        await hears(signal.SIGUSR1)
        loop.add_signal_handler(signal.SIGUSR2, heard.put_nowait, "usr2")
        await hears(signal.SIGUSR2)
    await hears(signal.SIGUSR1)
    await hears(signal.SIGUSR2)
    await hears(signal.SIGTERM)
    async with guard() as g:
        g.callback(bye)
        g.on_stop(say, "told")
        ready()
        say(await heard.get(), 1)
        say(await heard.get(), 2)
        await sleep(0.1)
        say("whole", heard.qsize())
    say("after")
run_main(main)
"""
    with stage(loop, code) as started:
        started.signal(TERM)
        started.wait_for_line("term 1")
        started.signal(TERM)
        ended = started.end()
        before = ["usr1", "usr1", "usr2", "usr1", "usr2", "term", "ready"]
        assert [line for line in started.out if line != "told"] == [
            *before,
            "term 1",
            "term 2",
            "whole 0",
            "bye",
            "after",
        ]
        assert started.out.count("told") == 1
    assert ended.status == 0
    assert "stops the program" in ended.err


@every_loop
def test_ctrl_c_works_as_before_once_the_guard_is_left(loop: str) -> None:
    """The loop's own way with Ctrl-C: asyncio cancels main, trio raises KeyboardInterrupt in it."""
    code = """
async def main():
    async with guard() as g:
        g.callback(bye)
    try:
        ready()
        await sleep(60)
    finally:
        say("finally")
run_main(main)
"""
    ended = perform(loop, code, INT)
    assert (ended.out, ended.status) == (["finally"], -INT)
    assert "KeyboardInterrupt" in ended.err
    assert "cleanup_guard" not in ended.err.replace("/cleanup_guard/", "/")


@every_asyncio
def test_tasks_that_outlive_the_guard_are_named(loop: str) -> None:
    """Those that were begun inside and that nobody has awaited or cancelled; not those of others."""
    code = """
async def poll():
    while True:
        await sleep(0.01)

async def main():
    begun = [asyncio.create_task(poll(), name="before")]
    async with guard() as g:
        g.callback(bye)
        begun.append(asyncio.create_task(poll(), name="poller"))
        begun.append(asyncio.create_task(poll(), name="cancelled"))
        await asyncio.create_task(bye("awaited"))
        begun[-1].cancel()
        ready()
        await sleep(60)
run_main(main)
"""
    ended = perform(loop, code, TERM)
    assert (ended.out[-1], ended.status) == ("bye", 143)
    assert ended.err.count("tasks outlive the guard, nobody has awaited them: poll (poller)\n") == 1


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="before 3.12 nothing tells which guard a task was begun in"
)
def test_tasks_of_others_are_not_named() -> None:
    """What another task begins meanwhile is not this guard's."""
    code = """
async def poll():
    await sleep(60)

async def guarded(begun):
    async with guard():
        begun.set()
        await sleep(0.05)

async def main():
    begun = asyncio.Event()
    task = asyncio.create_task(guarded(begun))
    await begun.wait()
    other = asyncio.create_task(poll())
    await task
    ready()
run_main(main)
"""
    ended = perform("asyncio", code)
    assert (ended.status, ended.err) == (0, "")


@every_loop
def test_a_cooperative_main_is_woken_at_once(loop: str) -> None:
    """`await g.stopped()` ends at the stop, in any task; nothing is cancelled; with a timeout it says whether it came."""
    code = """
async def main():
    async with guard(interrupt=False) as g:
        g.callback(bye)
        say(await g.stopped(timeout=0.01), g.stopping)
        ready()
        say(await g.stopped(), await g.stopped(timeout=50), g.stopping, g.reason)
        await sleep(0.01)
    say("not reached")
run_main(main)
"""
    with stage(loop, code) as started:
        started.signal(TERM)
        ended = started.end()
        assert started.out == ["False False", "ready", "True True True SIGTERM", "bye"]
    assert ended.status == 143
    assert not strange_lines(ended)


@every_loop
def test_a_cooperative_main_that_does_not_come_is_cancelled_late(loop: str) -> None:
    """At nine tenths of the grace period, which tells where it is."""
    code = """
async def main():
    async with guard(interrupt=False, grace=8) as g:
        g.callback(bye)
        ready()
        try:
            await sleep(60)
        finally:
            say("finally")
run_main(main)
"""
    ended = perform(loop, code, TERM)
    assert (ended.out, ended.status) == (["finally", "bye"], 143)
    assert ended.seconds > NINE_TENTHS_OF_8
    assert "has held the stop back for" in ended.err
    assert "giving up" not in ended.err


WORKERS = {
    "asyncio": """
        async with asyncio.TaskGroup() as tasks:
            for number in range(3):
                tasks.create_task(work(g, number))
            await sleep(0.1)
            ready()
            await sleep(60)
""",
    "trio": """
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(work, g, number)
            await sleep(0.1)
            ready()
            await sleep(60)
""",
}
WORKERS["uvloop"] = WORKERS["asyncio"]


@every_loop
def test_critical_sections_of_all_tasks_are_finished_and_no_new_one_begins(loop: str) -> None:
    """Three workers whose sections overlap all the time: a stop waits for those that were begun, and for no others."""
    code = """
async def work(g, number):
    while True:
        async with g.shield():
            say("in", number)
            await sleep(0.05 + 0.02 * number)
            async with g.shield():
                await sleep(0.01)
            say("out", number)

async def main():
    async with guard() as g:
        g.callback(bye)
"""
    with stage(loop, code + WORKERS[loop] + "run_main(main)") as started:
        started.signal(TERM)
        ended = started.end()
        words = [line.split() for line in started.out if line not in {"ready", "bye"}]
    assert (ended.out[-1], ended.status) == ("bye", 143)
    for number in "012":
        ends = [word for word, task in words if task == number]
        assert ends == ["in", "out"] * (len(ends) // 2), (number, words)
    assert not strange_lines(ended)


@every_loop
def test_a_section_that_does_not_end_is_cancelled_late(loop: str) -> None:
    """At nine tenths of the grace period, so that the callbacks have their time."""
    code = """
async def main():
    async with guard(grace=8) as g:
        g.callback(bye)
        async with g.shield():
            ready()
            await sleep(60)
run_main(main)
"""
    ended = perform(loop, code, TERM)
    assert (ended.out, ended.status) == (["bye"], 143)
    assert ended.seconds > NINE_TENTHS_OF_8
    assert "a critical section has held the stop back for" in ended.err
    assert "giving up" not in ended.err


@every_loop
def test_current_guard_is_the_tasks_own(loop: str) -> None:
    """Tasks side by side have guards of their own; their children inherit them; `on_exit` registers there."""
    begin = {"trio": "nursery.start_soon(side, name)"}.get(loop, "nursery.create_task(side(name))")
    group = {"trio": "trio.open_nursery()"}.get(loop, "asyncio.TaskGroup()")
    code = f"""
async def child(g):
    assert current_guard() is g

async def side(name):
    async with guard(name=name) as g:
        await sleep(0.05)
        assert current_guard() is g
        on_exit(bye, name)
        with guard(signals=()) as inner:
            assert current_guard() is inner
        async with {group} as nursery:
            {"nursery.start_soon(child, g)" if loop == "trio" else "nursery.create_task(child(g))"}
        await sleep(0.05)
    assert current_guard() is None or current_guard() is not g

async def main():
    async with {group} as nursery:
        for name in "ab":
            {begin}
    assert current_guard() is None
run_main(main)
ready()
"""
    with stage(loop, code) as started:
        ended = started.end()
        assert sorted(started.out) == ["a", "b", "ready"]
    assert (ended.status, ended.err) == (0, "")
