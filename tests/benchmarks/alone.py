"""What is measured in a process of its own, in which nothing else has installed hooks: `python alone.py NAME` prints figures.

Run by `test_table.py`; the figures are JSON, by whose they are.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from cleanup_guard import guard
from cleanup_guard._stop.running import Outcome, run_calls
from cleanup_guard._stop.stack import CallbackStack

if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal

Figures = dict[str, float]

GUARD, HAND, THREAD = "cleanup_guard", "ExitStack and two handlers", "a thread, started and joined"

CALLS = "our C calls alone, in one function"

TASKS, EAGER = "a task for each", "the same, begun at once"

AT_EXIT, CLAIMED = "atexit", "claimed and called by C calls, unwatched"


def cpu_of(functions: Mapping[str, Callable[[], object]], *, number: int, rounds: int = 9) -> Figures:
    """Microseconds of processor time for one call of each, all threads included; the best of some rounds, in turn."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            began = time.process_time()
            for _ in range(number):
                function()
            taken[name].append((time.process_time() - began) / number * 1e6)
    return {name: min(each) for name, each in taken.items()}


def nothing() -> None:
    """A callback that does nothing."""


class Unwatched:
    """Nobody looks."""

    running: object = None
    started: float = 0.0
    count: int = 0


def by_hand() -> None:
    """What a program does that cleans up on SIGTERM and SIGINT without us: ExitStack and two handlers, and back."""
    before = [(each, signal.signal(each, lambda *_: None)) for each in (signal.SIGTERM, signal.SIGINT)]
    with ExitStack():
        pass
    for signum, handler in before:
        signal.signal(signum, handler)


def guarded() -> None:
    """The same with us."""
    with guard():
        pass


class Called:
    """A process that is ready to be guarded: its pipe is there, and nobody reads from it."""

    def __init__(self) -> None:
        reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)
        self.poll = select.poll()
        self.poll.register(reader, select.POLLIN)
        self.lock = threading.RLock()

    def __call__(self) -> None:
        """Take two signals, let them in, hear them by a wakeup fd, and give all back, with none lost: the least for that."""
        with self.lock:
            before = [(each, _signal.getsignal(each)) for each in (signal.SIGTERM, signal.SIGINT)]
            for signum, _ in before:
                _signal.signal(signum, nothing_heard)
            _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
            _signal.set_wakeup_fd(self.writer, warn_on_full_buffer=False)
        with ExitStack():
            pass
        with self.lock:
            for signum, handler in before:
                if _signal.getsignal(signum) is nothing_heard:
                    _signal.signal(signum, handler)
            _signal.set_wakeup_fd(-1)
            self.poll.poll(0)


def nothing_heard(signum: int, frame: FrameType | None) -> None:
    """A handler."""


def in_thread() -> None:
    """What no watcher can do without."""
    thread = threading.Thread(target=nothing)
    thread.start()
    thread.join()


def first(name: str) -> Figures:
    """One call, the first of this process: its modules are loaded."""
    from cleanup_guard._guard import stay  # noqa: F401  # pyright: ignore[reportUnusedImport]

    return cpu_of({name: {HAND: by_hand, THREAD: in_thread, GUARD: guarded}[name]}, number=1, rounds=1)


def repeated() -> Figures:
    """One call of many."""
    return cpu_of({HAND: by_hand, CALLS: Called(), THREAD: in_thread, GUARD: guarded}, number=200)


def nested() -> Figures:
    """A guard inside a guard; and 20, and 200, of them one inside the other."""

    def nest(depth: int) -> None:
        with ExitStack() as stack:
            for _ in range(depth):
                stack.enter_context(guard())

    figures = cpu_of({HAND: by_hand}, number=1000)
    with guard():
        figures |= cpu_of({GUARD: guarded}, number=1000)
        figures |= cpu_of({"20": lambda: nest(20), "200": lambda: nest(200)}, number=1)
    return figures


def callbacks(count: int) -> Figures:
    """Enter inside another guard, register so many callbacks, and leave; for each of them."""

    def ours() -> None:
        with guard(hooks=()) as g:
            for _ in range(count):
                g.callback(nothing)

    def stack() -> None:
        with ExitStack() as each:
            for _ in range(count):
                each.callback(nothing)

    def claimed() -> None:
        """What exactly once costs by itself: each is kept, taken into the hand and called by one C call each."""
        each = CallbackStack()
        for _ in range(count):
            each.push(nothing)
        run_calls(each, Outcome(None), cast(Any, Unwatched()), (), time.monotonic)

    with guard():
        number, rounds = max(1, 10_000 // count), 2 if count > 100_000 else 9
        taken = cpu_of({"ExitStack": stack, CLAIMED: claimed, GUARD: ours}, number=number, rounds=rounds)
    return {name: figure / count for name, figure in taken.items()}


def at_exit(count: int) -> Figures:
    """Register so many callbacks with atexit, and have them called: for each. In a process without a guard."""

    def register() -> None:
        for _ in range(count):
            atexit.register(nothing)
        atexit._run_exitfuncs()

    number, rounds = max(1, 10_000 // count), 2 if count > 100_000 else 9
    return {AT_EXIT: cpu_of({AT_EXIT: register}, number=number, rounds=rounds)[AT_EXIT] / count}


async def nothing_async() -> None:
    """An async callback that does nothing."""


async def in_tasks(count: int) -> None:
    """AsyncExitStack, with a task for each."""
    async with AsyncExitStack() as each:
        for _ in range(count):
            each.push_async_callback(lambda: asyncio.create_task(nothing_async()))


def async_callbacks(count: int) -> Figures:
    """Register and await so many async callbacks; for each of them."""

    async def in_eager_tasks() -> None:
        if sys.version_info >= (3, 12):
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        await in_tasks(count)

    async def ours() -> None:
        async with guard(hooks=(), signals=()) as g:
            for _ in range(count):
                g.push_async_callback(nothing_async)

    async def stack() -> None:
        async with AsyncExitStack() as each:
            for _ in range(count):
                each.push_async_callback(nothing_async)

    ways: dict[str, Callable[[], Coroutine[object, object, None]]] = {
        "AsyncExitStack": stack,
        TASKS: lambda: in_tasks(count),
        EAGER: in_eager_tasks,
        GUARD: ours,
    }
    taken = cpu_of({name: partial(_run, way) for name, way in ways.items()}, number=1, rounds=5)
    return {name: figure / count for name, figure in taken.items()}


def _run(main: Callable[[], Coroutine[object, object, None]]) -> None:
    asyncio.run(main())


def tasks(count: int) -> Figures:
    """So many tasks at once, plain and guarded: microseconds for each, and bytes of memory."""

    async def plain(event: asyncio.Event) -> None:
        await event.wait()

    async def ours(event: asyncio.Event) -> None:
        async with guard(hooks=()):
            await event.wait()

    async def all_of(job: Callable[[asyncio.Event], object], number: int) -> tuple[float, float]:
        event = asyncio.Event()
        async with guard(hooks=()):
            before, began = resident(), time.process_time()
            begun = [asyncio.ensure_future(job(event)) for _ in range(number)]  # type: ignore[call-overload]
            for _ in range(3):
                await asyncio.sleep(0)
            size = resident() - before
            event.set()
            await asyncio.gather(*begun)
        return (time.process_time() - began) * 1e6, size

    figures: Figures = {}
    for name, job in {"plain tasks": plain, GUARD: ours}.items():
        asyncio.run(all_of(job, 10))
        taken, size = asyncio.run(all_of(job, count))
        figures |= {name: taken / count, f"{name}, bytes": size / count}
    return figures


def resident() -> int:
    """The memory of this process, in bytes."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


def busy() -> Figures:
    """One loop in main, with and without a guard around it: microseconds."""

    def work() -> None:
        for _ in range(1_000_000):
            pass

    def ours() -> None:
        with guard():
            work()

    return cpu_of({"without": work, GUARD: ours}, number=1, rounds=15)


MEASURES: dict[str, Callable[..., Figures]] = {
    "first": first,
    "repeated": repeated,
    "nested": nested,
    "callbacks": callbacks,
    "at_exit": at_exit,
    "async_callbacks": async_callbacks,
    "tasks": tasks,
    "busy": busy,
}


if __name__ == "__main__":
    measure, *arguments = sys.argv[1:]
    print(json.dumps(MEASURES[measure](*(int(each) if each.isdecimal() else each for each in arguments))))
