"""How a stop reaches tasks: swallowed and repeated, in loops that are blocked, to several tasks, in other threads."""

from __future__ import annotations

import signal
import time

import pytest
from tasks.stage import every_asyncio, every_loop, perform, stage, strange_lines

from cleanup_guard._stop.delivery import Presses

TERM, INT = signal.SIGTERM, signal.SIGINT

SWALLOWERS = {
    "a bare await": "await sleep(60)",
    "gather": "await asyncio.gather(sleep(60), sleep(60))",
    "wait_for": "await asyncio.wait_for(sleep(60), 50)",
    "a task": "await asyncio.create_task(sleep(60))",
    "a queue": "await asyncio.Queue().get()",
}


@every_asyncio
@pytest.mark.parametrize("how", SWALLOWERS)
def test_a_swallowed_cancellation_is_repeated(loop: str, how: str) -> None:
    """A loop around `except BaseException` hears it again."""
    code = f"""
@guard
async def main():
    g = current_guard()
    g.callback(bye)
    swallowed = 0
    ready()
    while swallowed < 2:
        try:
            {SWALLOWERS[how]}
        except BaseException:
            swallowed += 1
            say("swallowed")
    await sleep(60)
run_main(main)
"""
    ended = perform(loop, code, TERM)
    assert (ended.out, ended.status) == (["swallowed"] * 2 + ["bye"], 143)
    assert ended.err.count("main swallowed the stop and ran on") == 2
    assert not strange_lines(ended)


@every_asyncio
def test_a_main_that_swallows_for_ever_is_taken_over_from(loop: str) -> None:
    """Its callbacks run in its loop all the same, and the process ends in time, with the stop's status."""
    code = """
@guard(grace=3)
async def main():
    g = current_guard()
    g.callback(bye)
    g.callback(say, "plain")
    ready()
    while True:
        try:
            await sleep(60)
        except asyncio.CancelledError:
            pass
run_main(main)
"""
    ended = perform(loop, code, TERM)
    assert (ended.out, ended.status) == (["plain", "bye"], 143)
    assert "main has not come back" in ended.err
    assert "giving up" not in ended.err


BLOCKERS = {
    "main": "ready(); time.sleep(60)",
    "another task": "begin(block)\n    await sleep(60)",
}


@every_loop
@pytest.mark.parametrize("who", BLOCKERS)
@pytest.mark.parametrize(("signum", "status"), [(TERM, 143), (INT, -INT)])
def test_a_blocked_loop_is_interrupted(loop: str, who: str, signum: int, status: int) -> None:
    """Where the loop does not answer, the stop is raised in what blocks it: the callbacks run in time, on the loop."""
    code = """
async def block():
    ready()
    time.sleep(60)

async def waits(begin):
    async with guard(grace=5) as g:
        g.callback(bye)
        BLOCKER
"""
    begin = {
        "trio": """
async def main():
    async with trio.open_nursery() as nursery:
        await waits(nursery.start_soon)
run_main(main)
"""
    }.get(
        loop,
        """
tasks = []
async def main():
    await waits(lambda function: tasks.append(asyncio.create_task(function())))
run_main(main)
""",
    )
    code = code.replace("BLOCKER", BLOCKERS[who].replace("\n    ", "\n        ")) + begin
    ended = perform(loop, code, signum)
    assert (ended.out, ended.status) == (["bye"], status)
    assert "giving up" not in ended.err


@every_loop
def test_a_finally_that_blocks_the_loop_is_taken_over_from(loop: str) -> None:
    """Callbacks that need a loop get a new one, in a thread; what is stuck is reported at the end of the grace period."""
    code = """
@guard(grace=3)
async def main():
    g = current_guard()
    g.callback(bye)
    g.callback(say, "plain")
    try:
        ready()
        await sleep(60)
    finally:
        time.sleep(60)
run_main(main)
"""
    ended = perform(loop, code, TERM)
    assert (ended.out, ended.status) == (["plain", "bye"], 143)
    assert "giving up" in ended.err
    assert "in main" in ended.err


@every_loop
def test_a_finally_that_waits_too_long_is_taken_over_from_in_the_loop(loop: str) -> None:
    """The callbacks run in the loop, which still works; groups and scopes that only main's task can leave are left out."""
    group = "trio.open_nursery()" if loop == "trio" else "asyncio.TaskGroup()"
    wait = "with trio.CancelScope(shield=True): " if loop == "trio" else ""
    code = f"""
@guard(grace=3)
async def main():
    g = current_guard()
    g.callback(bye)
    await g.enter_async_context(resource("a"))
    await g.enter_async_context({group})
    g.callback(say, "plain")
    try:
        ready()
        await sleep(60)
    finally:
        {wait}await sleep(60)
run_main(main)
"""
    ended = perform(loop, code, TERM)
    assert (ended.out, ended.status) == (["plain", "left a", "bye"], 143)
    assert "main has not come back" in ended.err
    assert "failed" not in ended.err


SEVERAL = {
    "asyncio": """
async def main():
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(bystander())
        tasks.create_task(worker("a"))
        tasks.create_task(worker("b"))
        await sleep(0.05)
        ready()
        await sleep(60)
""",
    "trio": """
async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bystander)
        nursery.start_soon(worker, "a")
        nursery.start_soon(worker, "b")
        await sleep(0.05)
        ready()
        await sleep(60)
""",
}
SEVERAL["uvloop"] = SEVERAL["asyncio"]


@every_loop
@pytest.mark.parametrize(("signum", "status"), [(TERM, 143), (INT, -INT)])
def test_guards_in_several_tasks_that_are_not_main(loop: str, signum: int, status: int) -> None:
    """Each cleans up, then the loop ends: everybody else's `finally` runs, no exception group is shown, the status is right."""
    code = """
async def worker(name):
    async with guard() as g:
        g.callback(bye, name)
        g.callback(bye, name)
        await sleep(60)

async def bystander():
    try:
        await sleep(60)
    finally:
        say("bystander")
"""
    ended = perform(loop, code + SEVERAL[loop] + "run_main(main)", signum)
    assert (sorted(ended.out), ended.status) == (["a", "a", "b", "b", "bystander"], status)
    assert not strange_lines(ended)


@every_loop
def test_nested_guards_in_one_task(loop: str) -> None:
    """One stop for all, inner callbacks first; main is cancelled once."""
    code = """
async def main():
    async with guard() as outer:
        outer.callback(bye, "outer")
        try:
            async with guard() as inner:
                inner.callback(bye, "inner")
                try:
                    ready()
                    await sleep(60)
                finally:
                    say("finally")
        finally:
            say("between")
run_main(main)
"""
    ended = perform(loop, code, TERM, TERM)
    assert (ended.out, ended.status) == (["finally", "inner", "between", "outer"], 143)
    assert not strange_lines(ended)


@every_asyncio
def test_a_guard_inside_a_finally_does_not_cut_it_short(loop: str) -> None:
    """The task has been told of the stop already: neither `async with` nor a plain guard there raises it again."""
    code = """
@guard
async def helper():
    on_exit(bye, "helper's callback")

@guard
def plain_helper():
    on_exit(say, "plain helper's callback")

@guard
async def main():
    on_exit(bye, "main's callback")
    try:
        ready()
        await sleep(60)
    finally:
        await helper()
        plain_helper()
        say("the rest of finally")
run_main(main)
"""
    ended = perform(loop, code, TERM)
    helpers = ["helper's callback", "plain helper's callback"]
    assert (ended.out, ended.status) == ([*helpers, "the rest of finally", "main's callback"], 143)
    assert not strange_lines(ended)


@every_loop
def test_a_stop_while_an_inner_guard_is_left_normally(loop: str) -> None:
    """Its callbacks run to their end, then the task is told, and the outer ones follow."""
    code = """
async def slow():
    ready()
    await sleep(0.3)
    say("slow")

async def main():
    async with guard() as outer:
        outer.callback(bye, "outer")
        try:
            async with guard() as inner:
                inner.callback(slow)
            await sleep(60)
        finally:
            say("finally")
run_main(main)
"""
    ended = perform(loop, code, TERM)
    assert (ended.out, ended.status) == (["slow", "finally", "outer"], 143)
    assert not strange_lines(ended)


LIMITED = {
    "trio": """
async def main():
    with trio.fail_after(50):
        async with guard() as g:
            g.callback(bye)
            with trio.fail_after(50):
                ready()
                await sleep(60)
""",
    "asyncio": """
async def main():
    async with asyncio.timeout(50):
        async with asyncio.TaskGroup() as tasks, guard() as g:
            g.callback(lambda: say(asyncio.current_task().cancelling()))
            g.callback(bye)
            async with asyncio.timeout(50):
                tasks.create_task(sleep(60))
                ready()
                await sleep(60)
""",
}
LIMITED["uvloop"] = LIMITED["asyncio"]


@every_loop
def test_time_limits_and_groups_around_and_inside(loop: str) -> None:
    """They let a stop through, and take it for nothing else."""
    ended = perform(loop, LIMITED[loop] + "run_main(main)", TERM)
    assert (ended.out, ended.status) == (["bye"] if loop == "trio" else ["bye", "1"], 143)
    assert not strange_lines(ended)


def test_cancel_counts_are_clean_after_a_stop() -> None:
    """Whoever catches the stop's exception around the guard finds a task that nobody is cancelling."""
    code = """
async def main():
    try:
        async with guard() as g:
            g.callback(bye)
            ready()
            await sleep(60)
    except SignalExit as stop:
        async with asyncio.timeout(50):
            await sleep(0.01)
        say(stop.code, asyncio.current_task().cancelling())
        raise
run_main(main)
"""
    ended = perform("asyncio", code, TERM)
    assert (ended.out, ended.status) == (["bye", "143 0"], 143)


@every_loop
def test_a_program_that_goes_on_after_its_stop(loop: str) -> None:
    """It has caught the stop on purpose: signals and everything else are as before, and a new guard works."""
    code = """
async def again():
    async with guard() as g:
        g.callback(bye, "second")
        say("again")
        await sleep(60)

async def main():
    async with guard() as g:
        g.callback(bye, "first")
        ready()
        await sleep(60)
try:
    run_main(main)
except SystemExit:
    pass
time.sleep(1)
run_main(again)
"""
    with stage(loop, code) as started:
        started.signal(TERM)
        started.wait_for_line("again")
        started.signal(TERM)
        ended = started.end()
    assert (ended.out, ended.status) == (["first", "again", "second"], 143)


@every_loop
def test_a_program_that_catches_its_stop_is_believed_to_mean_it(loop: str) -> None:
    """Tasks keep the exception in a reference cycle; that is not taken for a stop that is still on its way."""
    code = """
async def main():
    async with guard() as g:
        g.callback(bye)
        ready()
        await sleep(60)
try:
    run_main(main)
except SystemExit:
    say("caught")
while signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
    time.sleep(0.01)  # for at most the grace period, at whose end the process would be ended
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
say("goes on")
"""
    ended = perform(loop, code, TERM)
    assert (ended.out, ended.status) == (["bye", "caught", "goes on"], 0)
    assert not strange_lines(ended)


@every_loop
def test_a_loop_in_another_thread(loop: str) -> None:
    """A guard there takes no signals; a stop that main receives cancels its task, and the thread ends silently."""
    code = """
began = threading.Event()
async def service():
    async with guard(signals=()) as g:
        g.callback(bye, "thread")
        try:
            began.set()
            await sleep(60)
        finally:
            say("finally")

with guard() as g:
    g.callback(say, "main")
    thread = threading.Thread(target=run_main, args=[service])
    thread.start()
    began.wait()
    ready()
    time.sleep(60)
"""
    ended = perform(loop, code, TERM)
    assert (sorted(ended.out), ended.status) == (["finally", "main", "thread"], 143)
    assert not strange_lines(ended)


@every_loop
def test_a_second_ctrl_c_interrupts_what_is_in_progress(loop: str) -> None:
    """A person does not wait for a `finally` or a callback that takes long; what is left still runs."""
    code = """
async def slow():
    say("slow")
    await sleep(60)

async def main():
    async with guard(grace=50) as g:
        g.callback(bye)
        g.callback(slow)
        ready()
        await sleep(60)
run_main(main)
"""
    with stage(loop, code) as started:
        started.signal(INT)
        started.wait_for_line("slow")
        time.sleep(Presses.DUPLICATE)  # what comes sooner is the same press
        started.signal(INT)
        ended = started.end()
    assert (ended.out, ended.status) == (["slow", "bye"], -INT)
    assert "Ctrl-C was pressed again" in ended.err
