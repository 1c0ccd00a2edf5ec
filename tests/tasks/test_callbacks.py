"""Async callbacks: awaited in order, out of reach of any cancellation, each in its time, and never in the way of the others."""

from __future__ import annotations

import signal
import sys

import pytest
from tasks.stage import every_asyncio, every_loop, perform, stage, strange_lines

TERM = signal.SIGTERM

CANCELLED_MEANWHILE = {
    "asyncio": """
async def main():
    task = asyncio.current_task()
    try:
        async with asyncio.timeout(0.05):
            async with guard() as g:
                register(g)
    except TimeoutError:
        say("timeout", task.cancelling())
    async def child():
        async with guard() as g:
            register(g)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(child())
            await sleep(0.05)
            raise LookupError
    except* LookupError:
        say("group", task.cancelling())
    ready()
""",
    "trio": """
async def main():
    with trio.move_on_after(0.05) as scope:
        async with guard() as g:
            register(g)
        await sleep(0)
    say("timeout", 0 if scope.cancelled_caught else "not")
    async def child():
        async with guard() as g:
            register(g)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            await sleep(0.05)
            raise LookupError
    except* LookupError:
        say("group", 0)
    ready()
""",
}
CANCELLED_MEANWHILE["uvloop"] = CANCELLED_MEANWHILE["asyncio"]


@every_loop
def test_a_cancellation_from_elsewhere_waits_until_they_have_run(loop: str) -> None:
    """A time limit that is over, or a task group that gives up, while callbacks run: they run on, then it is heard."""
    code = """
async def slow(name):
    await sleep(0.2)
    say(name)
def register(g):
    g.callback(bye)
    g.callback(slow, "slow")
    g.push_async_callback(slow, "slower")
"""
    with stage(loop, code + CANCELLED_MEANWHILE[loop] + "run_main(main)") as started:
        ended = started.end()
        run = ["slower", "slow", "bye"]
        assert started.out == [*run, "timeout 0", *run, "group 0", "ready"]
    assert (ended.status, ended.err) == (0, "")


@every_asyncio
def test_each_is_awaited_in_a_task_of_its_own(loop: str) -> None:
    """Whether it waits or not: a task with the callback's name, whose context variables and exits are its own."""
    code = """
from contextvars import ContextVar
where = ContextVar("where", default="outside")

async def look(*, waits):
    task = asyncio.current_task()
    say(task is not guarded, task in asyncio.all_tasks(), task.get_name(), where.get())
    where.set("a callback")
    if waits:
        await sleep(0.01)
        assert asyncio.current_task() is task
    raise SystemExit(3 + waits)

async def main():
    global guarded
    guarded = asyncio.current_task()
    try:
        async with guard() as g:
            where.set("inside")
            g.callback(look, waits=True)
            g.callback(look, waits=False)
    except SystemExit as error:
        say(error.code, error.__context__.code, where.get(), asyncio.current_task() is guarded)
    ready()
run_main(main)
"""
    with stage(loop, code) as started:
        ended = started.end()
        looked = "True True cleanup_guard look inside"
        assert started.out == [looked, looked, "4 3 inside True", "ready"]
    assert (ended.status, ended.err.count("Traceback")) == (0, 0), ended.err


@every_asyncio
def test_a_callback_may_cancel_the_guarded_task_and_itself(loop: str) -> None:
    """That task hears of it when all have run, the callback where it waits next, or at its end."""
    code = """
async def cancel(which, *, waits):
    (guarded if which == "guarded" else asyncio.current_task()).cancel()
    say(which, waits)
    if waits:
        await sleep(0.01)
        say("went on")

async def main():
    global guarded
    guarded = asyncio.current_task()
    for which in ("guarded", "itself"):
        for waits in (True, False):
            try:
                async with guard(hooks=()) as g:
                    g.callback(bye)
                    g.callback(cancel, which, waits=waits)
            except asyncio.CancelledError:
                say("cancelled", guarded.cancelling(), guarded.uncancel())
    ready()
run_main(main)
"""
    with stage(loop, code) as started:
        ended = started.end()
        heard = ["bye", "cancelled 1 0"]
        assert started.out == [
            *("guarded True", "went on", *heard),
            *("guarded False", *heard),
            *("itself True", "bye", "cancelled 0 0"),
            *("itself False", "bye", "cancelled 0 0"),
            "ready",
        ]
    assert (ended.status, ended.err) == (0, "")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="before 3.12 there are no eager tasks")
@pytest.mark.parametrize(
    ("factory", "loop"),
    [("asyncio.eager_task_factory", "asyncio"), ("made", "asyncio"), ("made", "uvloop"), ("None", "uvloop")],
)  # uvloop's tasks cannot be made by the eager one
def test_whoever_makes_the_tasks_of_a_loop_makes_those_of_callbacks(factory: str, loop: str) -> None:
    """And one that blocks the loop before it first waits is interrupted there, whether its task was begun eagerly or not."""
    code = f"""
tasks = []
def made(loop, coroutine, **options):
    tasks.append(asyncio.Task(coroutine, loop=loop, **options))
    return tasks[-1]

async def stuck():
    say(asyncio.current_task() in tasks, asyncio.current_task() is not guarded)
    time.sleep(60)

async def main():
    global guarded
    guarded = asyncio.current_task()
    asyncio.get_running_loop().set_task_factory({factory})
    async with guard(grace=6) as g:
        g.callback(bye)
        g.options(timeout=0.1, name="flush").callback(stuck)
        ready()
        await sleep(60)
run_main(main)
"""
    ended = perform(loop, code, TERM)
    assert (ended.out, ended.status) == ([f"{factory == 'made'} True", "bye"], 143)
    assert "callback flush interrupted" in ended.err


@every_loop
def test_time_limits_inside_a_callback_work(loop: str) -> None:
    """`asyncio.timeout` and trio's scopes are the callback's own, also while a stop is under way."""
    limit = {"trio": "trio.fail_after(0.02)"}.get(loop, "asyncio.timeout(0.02)")
    code = f"""
async def limited():
    try:
        {"with" if loop == "trio" else "async with"} {limit}:
            await sleep(60)
    except {"trio.TooSlowError" if loop == "trio" else "TimeoutError"}:
        say("too slow")
    await sleep(0.01)
    say("over")

async def main():
    async with guard() as g:
        g.callback(limited)
        ready()
        await sleep(60)
run_main(main)
"""
    ended = perform(loop, code, TERM)
    assert (ended.out, ended.status) == (["too slow", "over"], 143)
    assert not strange_lines(ended)


@every_loop
def test_a_callback_whose_time_is_over_is_cancelled_and_named(loop: str) -> None:
    """Its `finally` runs, the report names it, and the others have their turn."""
    code = """
async def endless():
    try:
        await sleep(60)
    finally:
        say("cancelled")

async def main():
    async with guard() as g:
        g.callback(bye)
        g.options(timeout=0.1, name="flush").callback(endless)
        g.options(timeout=0.1).push_async_callback(endless)
        ready()
        await sleep(60)
run_main(main)
"""
    ended = perform(loop, code, TERM)
    assert (ended.out, ended.status) == (["cancelled", "cancelled", "bye"], 143)
    assert "callback flush interrupted" in ended.err
    assert "callback endless interrupted" in ended.err
    assert "its timeout of 0.1 s is over" in ended.err


@every_asyncio
def test_a_callback_that_goes_on_after_its_cancellation_is_left_behind(loop: str) -> None:
    """It is told of, and the others have their turn while it goes on."""
    code = """
async def endless():
    for _ in range(400):  # it has to end some day, or the loop cannot be closed
        try:
            await sleep(0.01)
        except asyncio.CancelledError:
            pass
    say("the end")

async def main():
    async with guard(grace=30) as g:
        g.callback(bye)
        g.options(timeout=0.1).callback(endless)
        ready()
        await sleep(60)
run_main(main)
"""
    ended = perform(loop, code, TERM)
    assert (ended.out, ended.status) == (["bye", "the end"], 143)
    assert "and goes on all the same: its timeout of 0.1 s is over" in ended.err


@every_loop
def test_a_callback_that_blocks_the_loop_is_interrupted_and_named(loop: str) -> None:
    """`time.sleep` in a coroutine: the watcher interrupts it, the report names it, the others run, all in the grace period."""
    code = """
async def stuck():
    time.sleep(60)

async def main():
    async with guard(grace=6) as g:
        g.callback(bye)
        g.callback(stuck)
        g.options(timeout=0.1, name="flush").callback(stuck)
        ready()
        await sleep(60)
run_main(main)
"""
    ended = perform(loop, code, TERM)
    assert (ended.out, ended.status) == (["bye"], 143)
    assert "callback flush interrupted" in ended.err
    assert "callback stuck interrupted" in ended.err


@every_loop
def test_a_guard_inside_a_callback_leaves_the_stop_to_the_guard_around(loop: str) -> None:
    """Async or in a loop of its own, what a callback does with guards is not stopped, and neither is the callback after it."""
    code = """
import warnings  # trio would rather not share the wakeup fd with the guard around it
warnings.filterwarnings("ignore", "It looks like Trio")

@guard
async def helper(name):
    g = current_guard()
    g.callback(bye, name)
    async with g.shield():
        await sleep(0.05)

async def callback():
    await helper("in the loop")
    say("goes on")

def in_a_loop():
    run_main(lambda: helper("in a loop of its own"))
    say("goes on")

async def inner():
    async with guard() as g:
        g.callback(callback)
        ready()
        await sleep(60)

with guard() as g:
    g.callback(in_a_loop)
    run_main(inner)
"""
    ended = perform(loop, code, TERM)
    assert (ended.out, ended.status) == (["in the loop", "goes on", "in a loop of its own", "goes on"], 143)
    assert not strange_lines(ended)


@every_loop
def test_exits_run_in_the_guarded_task(loop: str) -> None:
    """Context managers, task groups and scopes are left where they were entered, mixed with callbacks, last one first."""
    group = "trio.open_nursery()" if loop == "trio" else "asyncio.TaskGroup()"
    begin = "start_soon(job)" if loop == "trio" else "create_task(job())"
    code = f"""
async def job():
    try:
        await sleep(60)
    finally:
        say("job over")

async def told(kind, error, trace):
    say(kind.__name__)

@guard
async def main():
    g = current_guard()
    assert await g.enter_async_context(resource("a")) == "a"
    tasks = await g.enter_async_context({group})
    g.push_async_exit(told)
    tasks.{begin}
    await sleep(0.01)
    g.callback(bye)
    await g.enter_async_context(resource("b"))
    ready()
    await sleep(60)
run_main(main)
"""
    ended = perform(loop, code, TERM)
    cancelled = "Cancelled" if loop == "trio" else "CancelledError"
    lines = ["left b", "bye", cancelled, "job over", "left a"]
    if loop == "trio":  # a stop cancels everything inside the guard
        lines = ["job over", "left b", "bye", cancelled, "left a"]
    assert (ended.out, ended.status) == (lines, 143)
    assert not strange_lines(ended)


@every_loop
def test_on_stop_callbacks_come_first_sync_and_async(loop: str) -> None:
    """In the order of registration, while main still runs; what fails is told."""
    code = """
async def fail():
    raise LookupError("lost")

@guard
async def main():
    g = current_guard()
    g.callback(bye)
    g.on_stop(bye, "one")
    g.on_stop(say, "two")
    g.on_stop(fail)
    g.on_stop(bye, "three")
    try:
        ready()
        await sleep(60)
    finally:
        say("finally")
run_main(main)
"""
    ended = perform(loop, code, TERM)
    assert (ended.out, ended.status) == (["one", "two", "three", "finally", "bye"], 143)
    assert "on_stop fail failed: LookupError: lost" in ended.err


@every_loop
def test_what_pop_all_moved_is_awaited_where_it_is_closed(loop: str) -> None:
    """By `aclose`, or at the end of the process; and a guard that was never entered can be closed, too."""
    code = """
async def main():
    async with guard() as g:
        g.callback(bye, "moved")
        moved = g.pop_all()
        g.callback(bye, "stayed")
    await moved.aclose()
    await moved.aclose()
    loose = guard()
    loose.callback(bye, "loose")
    await loose.aclose()
    async with guard() as g:
        g.callback(bye, "at exit")
        global kept
        kept = g.pop_all()
run_main(main)
ready()
"""
    with stage(loop, code) as started:
        ended = started.end()
        assert started.out == ["stayed", "moved", "loose", "ready", "at exit"]
    assert (ended.status, ended.err) == (0, "")
