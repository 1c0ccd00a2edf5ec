"""As `storm.py`, for programs whose main is a task: of asyncio, of uvloop, and of anyio on these and on trio.

"in TASK GUARD" and "out TASK GUARD" are the two ends of a critical section, or of work in flight: none that was begun may be
cut short, and no callback of that guard begins meanwhile. "group GUARD NUMBER..." are those that may run at once.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio

from cleanup_guard import Guard, guard

MOST_CALLBACKS = 60
WORKERS = 3


def log(*words: object) -> None:
    """One line, at once."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Program:
    """A random program. What it awaits is anyio's or, natively, asyncio's."""

    def __init__(self, seed: int, *, native: bool) -> None:
        self.chance = random.Random(seed)
        self.native = native
        self.numbers = itertools.count(1)
        self.guards = itertools.count(1)
        self.actions: list[Callable[[Guard, int], Awaitable[None]]] = [
            self.register,
            self.register,
            self.register_group,
            self.enter_context,
            self.nest,
            self.time_out,
            self.gather,
            self.work_in_thread,
            self.pause,
        ]

    async def main(self) -> None:
        """Work until stopped."""
        async with guard(drain=self.chance.choice((None, None, 0.03))) as g:
            name = next(self.guards)
            await self.register(g, name)
            log("ready")
            async with self.working(g, name):
                while True:
                    await self.chance.choice(self.actions)(g, name)

    @asynccontextmanager
    async def working(self, g: Guard, name: int) -> AsyncIterator[None]:
        """Tasks that do their work in critical sections, or say that it is work."""
        if self.native:
            async with asyncio.TaskGroup() as tasks:
                for number in range(WORKERS):
                    tasks.create_task(self.work(g, name, number))
                yield
        else:
            async with anyio.create_task_group() as group:
                for number in range(WORKERS):
                    group.start_soon(self.work, g, name, number)
                yield

    async def work(self, g: Guard, name: int, number: int) -> None:
        """One task."""
        while True:
            async with g.work() if number else g.shield():
                log("in", number, name)
                await self.sleep(0.003)
                log("out", number, name)
            await self.sleep(0.002)

    async def sleep(self, most: float) -> None:
        """Sleep for a random time."""
        seconds = self.chance.random() * most
        await (asyncio.sleep(seconds) if self.native else anyio.sleep(seconds))

    def limit(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """A time limit that says nothing when it is reached."""

        @asynccontextmanager
        async def limit() -> AsyncIterator[None]:
            try:
                if self.native:
                    async with asyncio.timeout(seconds):
                        yield
                else:
                    with anyio.fail_after(seconds):
                        yield
            except TimeoutError:
                pass

        return limit()

    # -- callbacks --

    def callback(self, name: int, number: int) -> None:
        """A plain one."""
        log("ran", name, number, os.getpid())

    async def async_callback(self, name: int, number: int) -> None:
        """An async one, which also has a time limit of its own and a critical section."""
        log("ran", name, number, os.getpid())
        async with self.limit(0.001):
            await self.sleep(0.002)
        await self.sleep(0.004)

    async def register(self, g: Guard, name: int) -> None:
        """Register one of either kind."""
        number = next(self.numbers)
        if number > MOST_CALLBACKS:
            return
        function: Callable[[int, int], object] = (
            self.callback if self.chance.random() < 0.4 else self.async_callback
        )
        g.callback(function, name, number)
        log("ack", name, number)
        await self.pause(g, name)

    async def register_group(self, g: Guard, name: int) -> None:
        """Register some of either kind, that run at once."""
        numbers = [next(self.numbers) for _ in range(3)]
        if numbers[-1] > MOST_CALLBACKS:
            return
        log("group", name, *numbers)
        registrar = g.options(parallel=f"group {numbers[0]}")
        for number in numbers:
            if self.chance.random() < 0.4:
                registrar.callback(self.callback, name, number)
            else:
                registrar.callback(self.async_callback, name, number)
            log("ack", name, number)
        await self.pause(g, name)

    async def enter_context(self, g: Guard, name: int) -> None:
        """Register the exit of an async context manager."""
        number = next(self.numbers)
        if number > MOST_CALLBACKS:
            return

        @asynccontextmanager
        async def manager() -> AsyncIterator[None]:
            try:
                yield
            finally:
                await self.async_callback(name, number)

        await g.enter_async_context(manager())
        log("ack", name, number)

    # -- what main does --

    async def nest(self, _: Guard, __: int) -> None:
        """A guard inside the guard."""
        async with guard() as inner:
            name = next(self.guards)
            await self.register(inner, name)
            await self.register(inner, name)

    async def time_out(self, _: Guard, __: int) -> None:
        """A time limit that may be reached."""
        async with self.limit(0.002):
            await self.sleep(0.004)

    async def gather(self, _: Guard, __: int) -> None:
        """Tasks that main waits for."""
        if self.native:
            await asyncio.gather(self.sleep(0.002), asyncio.wait_for(self.sleep(0.002), 1))
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(self.sleep, 0.002)
                group.start_soon(self.sleep, 0.002)

    async def work_in_thread(self, _: Guard, __: int) -> None:
        """A function in a thread."""
        await (asyncio.to_thread(os.getpid) if self.native else anyio.to_thread.run_sync(os.getpid))

    async def pause(self, _: Guard, __: int) -> None:
        """Nothing."""
        await self.sleep(0.003)


def run(seed: int) -> None:
    """Run the program of a seed."""
    kind = seed % 5
    program = Program(seed, native=kind < 2)
    if kind < 2:
        guard(run=("asyncio", "uvloop")[kind])(program.main)()
    else:
        options = {"use_uvloop": True} if kind == 3 else {}
        anyio.run(program.main, backend="trio" if kind == 4 else "asyncio", backend_options=options)


if __name__ == "__main__":
    run(int(sys.argv[1]))
