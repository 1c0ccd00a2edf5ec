"""Many guards at a time cost what many cost, not the square of it."""

from __future__ import annotations

import pytest
from support import run

MEASURE = """
import gc
def rss():  # in bytes
    with open("/proc/self/statm") as statm: return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
def measured(function, number):
    gc.collect()
    before, began = rss(), time.process_time()
    peak = function(number)
    return time.process_time() - began, peak - before
def compare(function, few, many):
    function(few)  # what is imported and allocated once
    seconds, _ = measured(function, few)
    more_seconds, size = measured(function, many)
    print("cpu", more_seconds < 0.5 or more_seconds / seconds < 2.5 * many / few or (seconds, more_seconds))
    print("memory", size / many < 40_000 or size / many)
ready()
"""

MANY = {
    "asyncio": (
        """
import asyncio
async def job(event):
    async with guard(hooks=()) as g:
        g.callback(int)
        await event.wait()
async def main(number):
    event = asyncio.Event()
    async with guard(hooks=()):
        tasks = [asyncio.create_task(job(event)) for _ in range(number)]
        for _ in range(3): await asyncio.sleep(0)
        peak = rss()
        event.set()
        await asyncio.gather(*tasks)
    return peak
def go(number): return asyncio.run(main(number))
""",
        250,
        2000,
    ),
    "trio": (
        """
import trio
async def job(event):
    async with guard(hooks=()) as g:
        g.callback(int)
        await event.wait()
async def main(number):
    event = trio.Event()
    async with guard(hooks=()), trio.open_nursery() as nursery:
        for _ in range(number): nursery.start_soon(job, event)
        for _ in range(3): await trio.sleep(0)
        peak = rss()
        event.set()
    return peak
def go(number): return trio.run(main, number)
""",
        250,
        2000,
    ),
    "generators": (
        """
@guard(hooks=())
def generate():
    on_exit(int)
    yield
def go(number):
    with guard(hooks=()):
        generators = [generate() for _ in range(number)]
        for each in generators: next(each)
        peak = rss()
        for each in generators: each.close()
    return peak
""",
        250,
        2000,
    ),
    "nested": (
        """
import contextlib
def go(number):
    with contextlib.ExitStack() as stack:
        for _ in range(number): stack.enter_context(guard(hooks=())).callback(int)
        return rss()
""",
        250,
        2000,
    ),
    "a thread's": (
        """
def go(number):
    peaks = []
    def work():
        entered = [guard(signals=(), hooks=()) for _ in range(number)]
        for each in entered: each.__enter__(); each.callback(int)
        peaks.append(rss())
        for each in entered: each.close()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return peaks[0]
""",
        250,
        2000,
    ),
}


@pytest.mark.parametrize(("code", "few", "many"), MANY.values(), ids=MANY)
def test_eight_times_as_many_guards_cost_eight_times_as_much(code: str, few: int, many: int) -> None:
    """Entering and leaving many guards at once: time grows as their number does, and memory stays at some kilobytes each."""
    ended = run(MEASURE + code + f"\ncompare(go, {few}, {many})\n")
    assert (ended.out, ended.status) == (["cpu True", "memory True"], 0), ended.err


STOPPED = """
async def tidy():
    await sleep(0.01)
async def job():
    async with guard(hooks=()) as g:
        g.callback(tidy)
        await sleep(60)
async def main():
    async with guard(hooks=(), grace=60) as g:
        g.callback(say)
        {group}
            for _ in range(number): {begin}
            await sleep(0.01)
            ready()
            global began
            began = time.process_time()
            signal.raise_signal(signal.SIGTERM)
            await sleep(60)
def say(): print(time.process_time() - began, flush=True)
"""

STOPPED_IN = {
    "asyncio": (
        "import asyncio\nfrom asyncio import sleep\n",
        "async with asyncio.TaskGroup() as tasks:",
        "tasks.create_task(job())",
        "asyncio.run(main())\n",
    ),
    "trio": (
        "import trio\nfrom trio import sleep\n",
        "async with trio.open_nursery() as nursery:",
        "nursery.start_soon(job)",
        "trio.run(main)\n",
    ),
}


@pytest.mark.parametrize("loop", STOPPED_IN)
def test_a_stop_of_eight_times_as_many_tasks_takes_eight_times_as_long(loop: str) -> None:
    """All are cancelled, and await their callbacks at the same time."""
    imports, group, begin, go = STOPPED_IN[loop]
    code = imports + STOPPED.format(group=group, begin=begin) + go
    few, many = (run(f"number = {number}\n{code}") for number in (250, 2000))
    assert (few.status, many.status) == (143, 143), few.err + many.err
    seconds, more_seconds = float(few.out[0]), float(many.out[0])
    assert more_seconds < 1.0 or more_seconds / seconds < 2.5 * 8, (seconds, more_seconds)
