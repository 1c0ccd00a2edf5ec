"""What a child of the storm of orders runs: guards that come and go in any order, while somebody's time limit raises anywhere.

Tasks, generators and threads enter and leave guards as chance has it; a handler of SIGALRM that is not ours raises at random
moments, in our lines as well; then the stop comes. Its log is that of `storm.py`: "ack GUARD NUMBER" once a registration has
returned, "ran GUARD NUMBER PID" when a callback begins.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from types import FrameType

from cleanup_guard import CleanupError, Guard, guard

MOST_CALLBACKS = 40


def log(*words: object) -> None:
    """One line, at once."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class TimeLimit(Exception):
    """What a job queue, or a test runner, raises out of its handler of SIGALRM."""


class Program:
    """A random program."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.numbers = itertools.count(1)
        self.names = itertools.count(1)
        self.alarms = self.chance.random() < 0.8
        self.open: list[tuple[int, Guard]] = []  # by hand, to be closed in any order
        self.generators: list[Iterator[None]] = []
        self.outermost: Guard | None = None

    # -- the pieces --

    def register(self, g: Guard, name: int) -> None:
        """Register a callback and acknowledge it."""
        number = next(self.numbers)
        if number > MOST_CALLBACKS:
            return
        # One C call: no time limit can come between its beginning and its word.
        g.callback(os.write, 1, f"ran {name} {number} {os.getpid()}\n".encode())
        log("ack", name, number)

    def new_guard(self) -> Guard:
        """Some take no signals."""
        return guard(hooks=(), signals=() if self.chance.random() < 0.2 else None)

    def generate(self) -> Iterator[None]:
        """A generator with a guard of its own."""
        with guard(hooks=()) as g:
            name = next(self.names)
            self.register(g, name)
            yield
            self.register(g, name)

    def in_thread(self) -> None:
        """A thread with guards of its own."""
        with guard(hooks=(), signals=()) as g:
            name = next(self.names)
            self.register(g, name)
            if self.chance.random() < 0.3:
                time.sleep(0.002)
            self.register(g, name)

    # -- what main does --

    def act(self) -> None:
        """Do one thing."""
        kind = self.chance.randrange(7)
        if kind == 0 and len(self.open) < 4:
            g = self.new_guard().__enter__()
            self.open.append((next(self.names), g))
        elif kind == 1 and self.open:
            self.leave()
        elif kind == 2 and len(self.generators) < 3:
            generator = self.generate()
            next(generator)
            self.generators.append(generator)
        elif kind == 3 and self.generators:
            generator = self.generators.pop(self.chance.randrange(len(self.generators)))
            next(generator, None)
        elif kind == 4:
            signal.setitimer(signal.ITIMER_REAL, 0)  # raised in there it would break `threading` for good
            threading.Thread(target=self.in_thread).start()
        elif kind == 5 and self.open:
            name, g = self.chance.choice(self.open)
            self.register(g, name)
        else:
            with guard(hooks=()) as g:
                self.register(g, next(self.names))

    def leave(self) -> None:
        """Leave one that was entered by hand, not the innermost."""
        _, g = self.open.pop(self.chance.randrange(len(self.open)))
        g.close()

    def work(self) -> None:
        """Act until stopped, whatever the time limit raises: once for each time that it is set."""
        while True:
            try:
                self.act_until_cut_short()
            except TimeLimit:
                pass

    def act_until_cut_short(self) -> None:
        """Act."""
        while True:
            try:
                if self.alarms:
                    signal.setitimer(signal.ITIMER_REAL, self.chance.random() * 0.004 + 0.0001)
                self.act()
            except CleanupError:
                pass

    def on_alarm(self, signum: int, frame: FrameType | None) -> None:
        """The handler that is not ours. When all is done it is too late."""
        if self.outermost is None or self.outermost.state != "done":
            raise TimeLimit

    async def task(self) -> None:
        """A task with a guard of its own."""
        async with guard(hooks=()) as g:
            name = next(self.names)
            self.register(g, name)
            await asyncio.sleep(self.chance.random() * 0.003)
            self.register(g, name)
            async for _ in self.agenerate():
                await asyncio.sleep(0)

    @guard(hooks=())
    async def agenerate(self) -> AsyncIterator[None]:
        """An async generator with one."""
        yield
        await asyncio.sleep(0)
        yield

    async def tasks(self) -> None:
        """Tasks come and go until they are cancelled."""
        running: set[asyncio.Task[None]] = set()
        while True:
            running = {task for task in running if not task.done()}
            if len(running) < 6:
                running.add(asyncio.create_task(self.task()))
            await asyncio.sleep(self.chance.random() * 0.001)
            if running and self.chance.random() < 0.1:
                self.chance.choice(sorted(running, key=id)).cancel()

    def main(self) -> None:
        """Threads, generators and tasks, under one guard."""
        with guard(hooks=()) as g:
            self.outermost = g
            self.register(g, next(self.names))
            log("ready")
            if self.chance.random() < 0.3:
                asyncio.run(self.tasks())
            self.work()


if __name__ == "__main__":
    program = Program(int(sys.argv[1]))
    signal.signal(signal.SIGALRM, program.on_alarm)
    try:
        program.main()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)  # at the end of the interpreter it would kill
