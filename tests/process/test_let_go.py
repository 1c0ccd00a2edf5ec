"""Main lets go of the stop, or keeps it: it is told again at once, and after three times the callbacks are run without it."""

from __future__ import annotations

import signal

import pytest
from support import run

SWALLOWS = {
    "bare except": "except: pass",
    "except BaseException": "except BaseException: pass",
    "except SystemExit": "except (SystemExit, KeyboardInterrupt): pass",
    "kept in a list": "except BaseException as error: kept.append(error)",
    "kept with its traceback": "except BaseException: kept.append(sys.exc_info())",
    "kept in a future": "except BaseException as error: f = Future(); f.set_exception(error); kept.append(f)",
    "kept as the cause of another": "except BaseException as error: kept.append(wrapped(error))",
    "kept in a frame": "except BaseException: kept.append(sys._getframe())",
    "kept by traceback": "except BaseException as error: kept.append(traceback.TracebackException.from_exception(error))",
    "in a cycle": "except BaseException as error: error.itself = error",
}

LOOP = """
import traceback
from concurrent.futures import Future
kept, events = [], []
def wrapped(error):
    new = ValueError()
    new.__cause__ = error
    return new
def remaining():
    print("redelivered", min(9, sum(type(each).__name__ == "StopRedelivered" for each in events)))
    print("took over", any(type(each).__name__ == "TookOver" for each in events))
    left = g.remaining()
    print("left", left is not None and left > 4.5 or left, flush=True)
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
@pytest.mark.parametrize("swallow", SWALLOWS.values(), ids=SWALLOWS)
@pytest.mark.parametrize("work", ["time.sleep(60)", "threading.Event().wait(60)", "os.read(os.pipe()[0], 1)"])
def test_a_loop_that_swallows_every_stop_is_taken_over(work: str, swallow: str, signum: int) -> None:
    """`while True: try: work() except: pass`: told three times, then taken over; the callbacks get the rest of the budget."""
    if work != "time.sleep(60)" and not swallow.startswith("except: pass"):
        pytest.skip("one kind of work with each way to swallow, one way to swallow with each kind of work")
    ended = run(
        LOOP
        + f"""
with guard(grace=10, hooks=[events.append]) as g:
    g.callback(remaining)
    ready()
    while True:
        try: {work}
        {swallow}
""",
        signum,
    )
    # On a slow machine the second or third one may meet main between two rounds, where nothing swallows it: that is no loss.
    assert "left True" in ended.out, ended.err
    assert ended.status == (143 if signum == signal.SIGTERM else -signal.SIGINT)
    assert ended.seconds < 6


@pytest.mark.parametrize("swallow", SWALLOWS.values(), ids=SWALLOWS)
def test_a_main_that_swallows_once_is_told_again(swallow: str) -> None:
    """Whether it drops the exception or keeps it: the second one ends it, long before the grace period is over."""
    ended = run(
        LOOP
        + f"""
with guard(grace=10, hooks=[events.append]) as g:
    g.callback(remaining)
    try:
        ready()
        time.sleep(60)
    {swallow.replace(chr(10) + "    ", chr(10))}
    time.sleep(60)
""",
        signal.SIGTERM,
    )
    assert ended.out[:1] == ["redelivered 1"], ended.err
    assert "took over False" in ended.out
    assert "left True" in ended.out
    assert ended.status == 143
    assert ended.seconds < 5


STILL_HANDLING = {
    "except": """
    try: work()
    except BaseException: cleanup(); raise
""",
    "finally": """
    try: work()
    finally: cleanup()
""",
    "exit of a context manager": """
    class Manager:
        def __enter__(self): pass
        def __exit__(self, *_): cleanup()
    with Manager(): work()
""",
    "a generator's finally": """
    import contextlib
    @contextlib.contextmanager
    def manager():
        try: yield
        finally: cleanup()
    with manager(): work()
""",
    "an exit stack": """
    import contextlib
    with contextlib.ExitStack() as stack:
        stack.callback(cleanup)
        work()
""",
    "another exception in the finally": """
    try: work()
    finally:
        try: int("x")
        except ValueError: cleanup()
""",
    "after another exception in the finally": """
    try: work()
    finally:
        try: int("x")
        except ValueError: pass
        cleanup()
""",
    "a generator that the finally uses": """
    def steps():
        cleanup()
        yield
    try: work()
    finally: list(steps())
""",
    "an error raised in its place": """
    try:
        try: work()
        except BaseException as error: raise RuntimeError("x") from error
    except RuntimeError: cleanup(); raise SystemExit(143)
""",
}


@pytest.mark.parametrize("code", STILL_HANDLING.values(), ids=STILL_HANDLING)
def test_a_main_that_is_still_cleaning_up_is_left_alone(code: str) -> None:
    """As long as main handles the stop nobody tells it again, however long it takes (but for the grace period)."""
    ended = run(
        f"""
events = []
def cleanup():
    for _ in range(20): time.sleep(0.1)
    print("cleaned up", sum(type(each).__name__ in ("StopRedelivered", "TookOver") for each in events), flush=True)
def work():
    ready()
    time.sleep(60)
with guard(grace=20, hooks=[events.append]) as g:
    g.callback(print, "callback", flush=True)
{code}
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["cleaned up 0", "callback"], 143), ended.err


def test_a_stop_that_a_runner_keeps_for_its_report() -> None:
    """A test runner catches everything, keeps it and goes on with the next test: it is told again at the next."""
    ended = run(
        """
report = []
@guard(grace=20)
def main():
    on_exit(print, "last", flush=True)
    for n in range(400):
        try:
            if not n: ready()
            time.sleep(0.3)
        except BaseException as error:
            report.append(error)
            if len(report) > 1: raise
main()
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["last"], 143), ended.err
    assert ended.seconds < 6


TASKS = {"asyncio": "asyncio.run(main())", "trio": "trio.run(main)"}


@pytest.mark.parametrize("module", TASKS)
@pytest.mark.parametrize("keep", ["pass", "kept.append(error)", "last = error"])
def test_a_task_that_swallows_every_cancellation_is_taken_over(module: str, keep: str) -> None:
    """Whether it drops them or keeps them: cancelled three times, then the callbacks get the rest of the budget."""
    ended = run(
        f"""
import {module}
kept, done = [], False
async def main():
    global done
    async with guard(grace=20) as g:
        def tell():
            global done
            done = True
            left = g.remaining()
            print("left", left is not None and left > 9 or left, flush=True)
        g.callback(tell)
        ready()
        while not done:
            try: await {module}.sleep(0.05)
            except BaseException as error: {keep}
{TASKS[module]}
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["left True"], 143), ended.err


def test_a_task_that_swallows_and_keeps_is_cancelled_again() -> None:
    """A report that keeps the CancelledError is no way out: the next one ends the task."""
    ended = run(
        """
import asyncio
kept = []
@guard(grace=20)
async def main():
    on_exit(print, "callback", flush=True)
    try:
        ready()
        await asyncio.sleep(60)
    except BaseException as error: kept.append(error)
    try: await asyncio.sleep(60)
    finally: print("told again", flush=True)
asyncio.run(main())
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["told again", "callback"], 143), ended.err
    assert ended.seconds < 9


TASKS_ON_THEIR_WAY = {
    "except": """
        try: await work()
        except BaseException: await cleanup(); raise
""",
    "after another exception in the finally": """
        try: await work()
        finally:
            try: int("x")
            except ValueError: pass
            await cleanup()
""",
    "a context manager": """
        @contextlib.asynccontextmanager
        async def manager():
            try: yield
            finally: await cleanup()
        async with manager(): await work()
""",
    "a task that it waits for": """
        async def child():
            try: await work()
            finally: await cleanup()
        await asyncio.create_task(child())
""",
    "a task group": """
        async def child():
            try: await asyncio.sleep(60)
            finally: await cleanup()
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
            await asyncio.sleep(0)
            ready()
""",
    "an anyio group": """
        async def child():
            try: await asyncio.sleep(60)
            finally:
                with anyio.CancelScope(shield=True): await cleanup()
        async with anyio.create_task_group() as group:
            group.start_soon(child)
            await asyncio.sleep(0)
            ready()
""",
    "an async generator": """
        async def steps():
            try:
                yield
                await work()
            finally: await cleanup()
        async for _ in steps(): pass
""",
}


@pytest.mark.parametrize("code", TASKS_ON_THEIR_WAY.values(), ids=TASKS_ON_THEIR_WAY)
def test_a_task_that_is_still_cleaning_up_is_left_alone(code: str) -> None:
    """As long as the task, or what it waits for, handles its cancellation it is not cancelled again, whoever keeps that."""
    ended = run(
        f"""
import asyncio, contextlib, anyio
events, kept = [], []
async def cleanup():
    kept.append(sys.exc_info())
    for _ in range(10): await asyncio.sleep(0.1)
    print("cleaned up", sum(type(each).__name__ in ("StopRedelivered", "TookOver") for each in events), flush=True)
async def work():
    ready()
    await asyncio.sleep(60)
async def main():
    async with guard(grace=60, hooks=[events.append]) as g:
        g.callback(print, "callback", flush=True)
{code}
asyncio.run(main())
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["cleaned up 0", "callback"], 143), ended.err
