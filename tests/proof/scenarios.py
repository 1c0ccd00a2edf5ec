"""Small guarded programs for the boundary proof. Every line here, and every line of cleanup_guard, is a place for a stop.

Rules:
1. A registration is acknowledged right after it returned, by one `list.append`, which no signal can split.
2. A callback notes that it began and that it finished, so that "ran twice" and "was cut short" can both be seen.
3. `wait` is where main works. It returns at once unless a stop has been injected that main has not met yet.
4. Callbacks of a group have numbers in GROUP, which no other callback has.
5. A thread is begun in a critical section that ends when the thread is in its own: there is none, or it is waited for.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType

from cleanup_guard import Event, Guard, current_guard, guard, on_exit

PATIENCE = 5.0
"""Seconds in which a stop that was held back must have reached main."""

GROUP = (12, 13, 14)
"""The numbers of callbacks that run at once."""

DRAIN = 0.01
"""Seconds for which a scenario that drains serves on."""


class World:
    """What one run of a scenario did."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        self.injected = False  # the first signal met a handler of ours
        self.acknowledged: list[int] = []
        self.began: list[int] = []
        self.finished: list[int] = []
        self.entered: list[int] = []  # managers whose __enter__ had come to its last line
        self.left: list[int] = []
        self.critical: list[str] = []
        self.hooked: list[int] = []
        self.hooks_acknowledged: list[int] = []
        self.events: list[Event] = []
        self.waited_in_vain = False
        self.alone: list[int] = []  # callbacks that began when no other one was in progress
        self.during_work: list[int] = []  # callbacks that began while work was in flight
        self.threads: list[threading.Thread] = []
        self.ready_at_stop = (
            False  # it still said that it was ready when an on_stop callback or a callback ran
        )

    def _begin(self, number: int) -> None:
        if len(self.finished) == len(self.began):
            self.alone.append(number)
        if self.critical.count("begin") > self.critical.count("end"):
            self.during_work.append(number)
        self.began.append(number)

    def record(self, number: int) -> None:
        """The callback."""
        self._begin(number)
        for _ in range(2):
            pass
        self.finished.append(number)

    async def record_slowly(self, number: int) -> None:
        """The callback, as a coroutine."""
        self._begin(number)
        await asyncio.sleep(0)
        self.finished.append(number)

    def register_async(self, g: Guard, number: int) -> None:
        """Register an async callback and acknowledge it."""
        g.callback(self.record_slowly, number)
        self.acknowledged.append(number)

    def register(self, g: Guard, number: int) -> None:
        """Register a callback and acknowledge it."""
        g.callback(self.record, number)
        self.acknowledged.append(number)

    def register_group(self, g: Guard, *functions: Callable[[int], object]) -> None:
        """Register callbacks that run at once, and acknowledge each."""
        for number, function in zip(GROUP, functions, strict=True):
            g.options(parallel="pools").callback(function, number)
            self.acknowledged.append(number)

    def hook(self, g: Guard, number: int) -> None:
        """The on_stop callback of a program that was ready."""
        self.hooked.append(number)
        self.ready_at_stop |= g.is_ready

    def start(self, g: Guard, work: Callable[[], None]) -> None:
        """Begin work in a thread; it has begun when this returns."""
        begun = threading.Event()

        def run() -> None:
            with g.work():
                self.critical.append("begin")
                begun.set()
                work()
                self.critical.append("end")

        thread = threading.Thread(target=run)
        with g.shield():
            self.threads.append(thread)
            thread.start()
            begun.wait(PATIENCE)

    def on_exit(self, number: int) -> None:
        """As `register`, on the current guard."""
        on_exit(self.record, number)
        self.acknowledged.append(number)

    def wait(self) -> None:
        """Be where main is when it works, for as long as an injected stop is on its way."""
        limit = time.monotonic() + PATIENCE
        while self.injected:
            time.sleep(0.0005)
            if time.monotonic() > limit:
                self.waited_in_vain = True
                return

    async def wait_in_task(self) -> None:
        """As `wait`, where main is a task."""
        limit = time.monotonic() + PATIENCE
        while self.injected:
            await asyncio.sleep(0.0005)
            if time.monotonic() > limit:
                self.waited_in_vain = True
                return


def decorated(world: World) -> None:
    """Three callbacks in a decorated function, with the default hook."""

    @guard
    def main() -> None:
        world.on_exit(1)
        world.on_exit(2)
        world.on_exit(3)
        world.wait()

    main()


def with_block(world: World) -> None:
    """Three callbacks in a `with` block, with a hook that hears everything."""
    with guard(hooks=[world.events.append]) as g:
        world.register(g, 1)
        world.register(g, 2)
        g.options(timeout=60, name="third").callback(world.record, 3)
        world.acknowledged.append(3)
        world.wait()


class Resource:
    """A context manager that must never be left open."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number

    def __enter__(self) -> int:
        number = self.number
        self.world.entered.append(number)
        return number

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.world.left.append(self.number)


def enter_context(world: World) -> None:
    """Two context managers and a pushed one: what has been entered is left, even if `enter_context` never returned."""
    with guard(hooks=()) as g:
        g.enter_context(Resource(world, 1))
        world.register(g, 1)
        g.enter_context(Resource(world, 2))
        world.wait()


def shield(world: World) -> None:
    """Critical sections, nested and after one another: what is begun inside is finished."""
    with guard(hooks=()) as g:
        world.register(g, 1)
        with g.shield():
            world.critical.append("begin")
            with g.shield():
                world.register(g, 2)
            world.critical.append("end")
        with g.shield():
            world.critical.append("begin")
            world.register(g, 3)
            world.critical.append("end")
        world.wait()


def nested(world: World) -> None:
    """Guards in guards, and one after another."""
    with guard(hooks=()) as outer:
        world.register(outer, 1)
        with guard(hooks=()) as inner:
            world.register(inner, 2)
            world.register(inner, 3)
            world.wait()
        with guard(hooks=()) as inner:
            world.register(inner, 4)
            world.wait()
        world.register(outer, 5)
        world.wait()


def nothing_to_run(world: World) -> None:
    """Guards that have nothing to run, inside of one that has."""
    with guard(hooks=()) as g:
        world.register(g, 1)
        for _ in range(3):
            with guard():
                world.wait()
            with guard(hooks=()), guard(signals=()):
                pass
        world.register(g, 2)
        world.wait()


def again(world: World) -> None:
    """A guard between two that have nothing to run: each is alone, and one watcher may serve all three."""
    with guard(hooks=()):
        pass
    world.injected = False  # what came as it was left is the program's own handler's
    with guard(hooks=()) as g:
        world.register(g, 1)
        world.register(g, 2)
        world.wait()
    with guard(hooks=()):
        pass


def on_stop(world: World) -> None:
    """Two on_stop callbacks: they run at most once, in order, and before the stop is raised."""
    with guard(hooks=()) as g:
        world.register(g, 1)
        g.on_stop(world.hooked.append, 1)
        world.hooks_acknowledged.append(1)
        g.on_stop(world.hooked.append, 2)
        world.hooks_acknowledged.append(2)
        world.register(g, 2)
        world.wait()


def main_raises(world: World) -> None:
    """Main ends by an exception of its own."""
    with guard(hooks=()) as g:
        world.register(g, 1)
        world.register(g, 2)
        world.wait()
        raise ArithmeticError("main's own")


def callback_fails(world: World) -> None:
    """A callback in the middle raises."""

    def fail() -> None:
        world.record(2)
        raise LookupError("the callback's own")

    with guard(hooks=()) as g:
        world.register(g, 1)
        g.callback(fail)
        world.acknowledged.append(2)
        world.register(g, 3)
        world.wait()


def without_guard(world: World) -> None:
    """`on_exit` with no guard: the callbacks run in the exit net."""
    world.on_exit(1)
    world.on_exit(2)
    world.wait()


def generator(world: World) -> None:
    """A decorated generator function that is run to its end."""

    @guard(hooks=())
    def numbers() -> Iterator[int]:
        world.on_exit(1)
        yield 1
        world.on_exit(2)
        yield 2
        world.wait()

    for _ in numbers():
        world.wait()


def cooperative(world: World) -> None:
    """Nothing is raised: main looks at `stopping`."""
    with guard(hooks=(), interrupt=False) as g:
        world.register(g, 1)
        world.register(g, 2)
        while world.injected and not g.wait(0.001):
            pass
        world.register(g, 3)


def moved(world: World) -> None:
    """Callbacks that `pop_all` moved to another guard are run there, and those registered since here."""
    with guard(hooks=()) as g:
        world.register(g, 1)
        world.register(g, 2)
        other = g.pop_all()
        world.wait()
        other.close()


def requested(world: World) -> None:
    """The stop is the program's own; a signal comes on top of it."""
    with guard(hooks=()) as g:
        world.register(g, 1)
        world.register(g, 2)
        g.request_stop("enough", status=3)


def handler(world: World) -> None:
    """The stop is a real signal whose handler is traced, too; another one comes on top of it."""
    with guard(hooks=()) as g:
        world.register(g, 1)
        world.register(g, 2)
        signal.raise_signal(world.signum)
        world.injected = True
        world.wait()


def coroutine(world: World) -> None:
    """Sync and async callbacks in a decorated coroutine function, with the default hook."""

    @guard
    async def main() -> None:
        g = current_guard()
        assert g is not None
        world.register(g, 1)
        world.register_async(g, 2)
        world.register(g, 3)
        world.register_async(g, 4)
        await world.wait_in_task()

    asyncio.run(main())


class AsyncResource(Resource):
    """An async context manager that must never be left open."""

    async def __aenter__(self) -> int:
        await asyncio.sleep(0)
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.sleep(0)
        self.__exit__(kind, error, trace)


def async_exits(world: World) -> None:
    """Async context managers, in guards in guards: what has been entered is left."""

    async def main() -> None:
        async with guard(hooks=[world.events.append]) as outer:
            await outer.enter_async_context(AsyncResource(world, 1))
            async with guard(hooks=()) as inner:
                await inner.enter_async_context(AsyncResource(world, 2))
                world.register_async(inner, 2)
                await world.wait_in_task()
            world.register_async(outer, 1)
            await world.wait_in_task()

    asyncio.run(main())


def async_shield(world: World) -> None:
    """Critical sections of a task, nested and after one another."""

    async def main() -> None:
        async with guard(hooks=()) as g:
            world.register_async(g, 1)
            async with g.shield():
                world.critical.append("begin")
                async with g.shield():
                    await asyncio.sleep(0)
                await asyncio.sleep(0)
                world.critical.append("end")
            async with g.shield():
                world.critical.append("begin")
                world.register_async(g, 2)
                await asyncio.sleep(0)
                world.critical.append("end")
            await world.wait_in_task()

    asyncio.run(main())


def async_generator(world: World) -> None:
    """A decorated async generator function that is run to its end."""

    @guard(hooks=())
    async def numbers() -> AsyncIterator[int]:
        world.on_exit(1)
        yield 1
        await asyncio.sleep(0)
        world.on_exit(2)
        yield 2

    async def main() -> None:
        async for _ in numbers():
            await world.wait_in_task()

    asyncio.run(main())


def child_task(world: World) -> None:
    """The guard is in a task that is not main's: the loop raises the stop, and closes everybody else."""

    async def child() -> None:
        async with guard(hooks=()) as g:
            world.register_async(g, 1)
            world.register(g, 2)
            await world.wait_in_task()

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(child())
            await world.wait_in_task()

    asyncio.run(main())


def drain(world: World) -> None:
    """The program serves on for a moment, and is not ready any more; main may end meanwhile, too."""
    with guard(hooks=(), drain=DRAIN) as g:
        world.register(g, 1)
        g.on_stop(world.hook, g, 1)
        g.ready()
        world.register(g, 2)
        world.wait()


def work(world: World) -> None:
    """Work in flight, in main and in a thread: what is begun is finished, and no callback begins before."""
    with guard(hooks=()) as g:
        world.register(g, 1)
        with g.work("outer"):
            world.critical.append("begin")
            with g.work("inner"):
                world.register(g, 2)
            world.critical.append("end")
        world.start(g, lambda: time.sleep(0.002))
        world.register(g, 3)
        world.wait()


def group(world: World) -> None:
    """Callbacks that run at once, of which one fails, between two that run alone."""

    def fail(number: int) -> None:
        world.record(number)
        raise LookupError("the callback's own")

    with guard(hooks=()) as g:
        world.register(g, 1)
        world.register_group(g, world.record, fail, world.record)
        world.register(g, 20)
        world.wait()


def tasks_at_work(world: World) -> None:
    """Drain, work and groups where main is a task: work in main, and in a task beside it."""

    async def job(g: Guard) -> None:
        async with g.work():
            world.critical.append("begin")
            await asyncio.sleep(0.002)
            world.critical.append("end")

    async def main() -> None:
        async with guard(hooks=(), drain=DRAIN) as g, asyncio.TaskGroup() as tasks:
            world.register_async(g, 1)
            world.register_group(g, world.record_slowly, world.record, world.record_slowly)
            world.register_async(g, 20)
            tasks.create_task(job(g))
            async with g.work():
                world.critical.append("begin")
                await asyncio.sleep(0)
                world.critical.append("end")
            await world.wait_in_task()

    asyncio.run(main())


SCENARIOS: dict[str, Callable[[World], None]] = {
    each.__name__: each
    for each in (
        decorated,
        with_block,
        enter_context,
        shield,
        nested,
        nothing_to_run,
        again,
        on_stop,
        main_raises,
        callback_fails,
        without_guard,
        generator,
        cooperative,
        moved,
        requested,
        handler,
        coroutine,
        async_exits,
        async_shield,
        async_generator,
        child_task,
        drain,
        work,
        group,
        tasks_at_work,
    )
}
