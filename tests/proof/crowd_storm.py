"""What a child of the storm of crowds runs: guards that tasks, generators and threads enter and leave in random order.

`python crowd_storm.py SEED`; see `proof/test_crowd_storm.py`. Meanwhile somebody else's SIGALRM handler
raises at random moments, in the lines of cleanup_guard or of this program, as those of job queues and test runners do.
Every line of the log is one `os.write`: "ack GUARD NUMBER" once a registration has returned, "ran GUARD NUMBER" when a
callback begins, "rang" when the handler raises in the lines of cleanup_guard ("rang handler" if that is in the handler of a
stop), and "back yes" or "back no ..." when a program has ended by itself and looked at what it left.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from functools import partial
from types import FrameType
from typing import Any

import anyio
import anyio.lowlevel

import cleanup_guard
from cleanup_guard import CleanupError, Guard, guard, on_exit

OURS = os.path.dirname(cleanup_guard.__file__) + os.sep
MOST_OPEN = 6
LONGEST = 30.0
"""Seconds after which a thread leaves whatever happens."""


class TimeLimit(Exception):
    """What the handler raises."""


def log(*words: object) -> None:
    """One line, at once."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Plan:
    """What the seed says."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(f"plan {seed}")
        self.seed = seed
        self.main = ("thread", "asyncio", "trio")[seed % 3]
        self.anchored = chance.random() < 0.6  # main has a guard around everything
        # trio's scopes are not made for an exception between two of the lines that open one, whoever opens it.
        self.alarms = chance.random() < 0.75 and self.main != "trio"
        self.stops = chance.random() < 0.85  # else it ends by itself
        self.threads = chance.randrange(3)
        self.tasks = chance.randint(1, 4)
        self.actions = 10**9 if self.stops else chance.randint(20, 120)


class Alarms:
    """The handler that raises: in the lines of the program and of cleanup_guard, not in a loop's, which are not made for it."""

    EXPECTED = ("enter_plain", "enter_generator", "generate", "enter_popped", "enter_inside", "fill", "leave")
    """Functions of this program that are called where a time limit is caught."""

    def __init__(self, *, on: bool) -> None:
        self.on = on
        self.chance = random.Random(time.monotonic_ns())  # the moments are the machine's in any case
        if on:
            signal.signal(signal.SIGALRM, self.ring)

    def set(self) -> None:
        """Some time soon."""
        if self.on:
            signal.setitimer(
                signal.ITIMER_REAL, self.chance.choice((0.0001, 0.0005, 0.003)) * self.chance.random() + 1e-6
            )

    def off(self) -> None:
        """Never again."""
        self.on = False
        signal.setitimer(signal.ITIMER_REAL, 0)

    def ring(self, signum: int, frame: FrameType | None) -> None:
        """What SIGALRM does."""
        if frame is None or not self.on:
            return
        filename, name = frame.f_code.co_filename, frame.f_code.co_name
        if filename.startswith(OURS):
            log("rang", "handler" if in_handler(frame) else "")
        elif filename != __file__ or name not in self.EXPECTED:
            return
        raise TimeLimit


def in_handler(frame: FrameType | None) -> bool:
    """Whether this is the handler of a stop, or called by it."""
    handlers = [getattr(signal.getsignal(each), "__func__", None) for each in (signal.SIGTERM, signal.SIGINT)]
    codes = [each.__code__ for each in handlers if each is not None]
    while frame is not None and frame.f_code not in codes:
        frame = frame.f_back
    return frame is not None


def ran(name: str, number: int) -> None:
    """What is registered."""
    log("ran", name, number)


async def ran_async(name: str, number: int) -> None:
    """The same, awaited."""
    ran(name, number)
    await anyio.lowlevel.checkpoint()


class Program:
    """A random program."""

    def __init__(self, seed: int) -> None:
        self.plan = Plan(seed)
        self.chance = random.Random(seed)
        self.names = itertools.count(1)
        self.alarms = Alarms(on=self.plan.alarms)
        self.open: list[Callable[[], object]] = []  # how to leave what is entered
        self.over = False
        self.threads: list[threading.Thread] = []

    # -- guards that main enters and leaves between other things --

    def fill(self, g: Guard, name: str, most: int = 4) -> None:
        """Register some callbacks, and acknowledge each."""
        for number in range(1, self.chance.randint(1, most) + 1):
            g.callback(ran, name, number)
            log("ack", name, number)

    def enter_plain(self) -> None:
        """A guard that is entered here and left elsewhere."""
        g, name = guard(hooks=()), f"plain{next(self.names)}"
        self.open.append(g.close)
        g.__enter__()
        self.fill(g, name)

    def enter_generator(self) -> None:
        """A guarded generator."""
        name = f"generator{next(self.names)}"

        @guard(hooks=())
        def generate() -> Generator[None, None, None]:
            for number in range(1, 4):
                on_exit(ran, name, number)
                log("ack", name, number)
                yield

        generator = generate()
        self.open.append(generator.close)
        next(generator)

    def enter_popped(self) -> None:
        """What a guard had is moved to another, which is left elsewhere."""
        name = f"popped{next(self.names)}"
        with guard(hooks=()) as g:
            self.fill(g, name)
            moved = g.pop_all()
            self.open.append(moved.close)

    def enter_inside(self) -> None:
        """Guards inside one another, left in the usual way."""
        with guard(hooks=()) as outer:
            self.fill(outer, f"outer{next(self.names)}")
            with guard(hooks=(), exit_timeout=20) as inner:
                self.fill(inner, f"inner{next(self.names)}")

    def leave(self) -> None:
        """Whatever is open, in any order."""
        if self.open:
            self.open.pop(self.chance.randrange(len(self.open)))()

    def act(self) -> None:
        """Do one thing."""
        enter = self.chance.choice(
            (self.enter_plain, self.enter_generator, self.enter_popped, self.enter_inside)
        )
        try:
            self.alarms.set()
            if len(self.open) > self.chance.randrange(MOST_OPEN):
                self.leave()
            else:
                enter()
        except (TimeLimit, CleanupError):  # a callback that the handler has met has failed
            return

    # -- threads and tasks --

    def thread(self, seed: float) -> None:
        """Enters and leaves guards of its own until the program is over."""
        chance = random.Random(seed)
        limit = time.monotonic() + LONGEST
        while not self.over and time.monotonic() < limit:
            name = f"thread{next(self.names)}"
            limits = chance.choice((None, 20.0))
            entered = [guard(signals=(), hooks=(), exit_timeout=limits) for _ in range(chance.randint(1, 3))]
            for index, g in enumerate(entered):
                g.__enter__()
                for number in range(1, chance.randint(2, 4)):
                    try:
                        g.callback(ran, f"{name}.{index}", number)
                    except RuntimeError:
                        break  # the process is ending: the guard has been cleaned up, and says so
                    log("ack", f"{name}.{index}", number)
            entered[0].wait(chance.random() * 0.004)
            chance.shuffle(entered)
            for g in entered:
                g.close()

    async def task(self, seed: float) -> None:
        """Enters and leaves guards of its own until it is cancelled."""
        chance = random.Random(seed)
        while not self.over:
            try:
                await self.guarded(chance, f"task{next(self.names)}")
            except (TimeLimit, CleanupError):
                pass
            await anyio.sleep(chance.random() * 0.002)

    async def guarded(self, chance: random.Random, name: str) -> None:
        """One guard of a task."""
        async with guard(hooks=()) as g:
            for number in range(1, chance.randint(2, 5)):
                g.callback(chance.choice((ran, ran_async)), name, number)
                log("ack", name, number)
            await anyio.sleep(chance.random() * 0.01)
            self.alarms.set()

    # -- main --

    def begin(self) -> None:
        """Start what runs beside main."""
        for _ in range(self.plan.threads):
            self.threads.append(threading.Thread(target=self.thread, args=[self.chance.random()]))
            self.threads[-1].start()

    def end(self) -> None:
        """Main has ended by itself."""
        self.over = True
        self.alarms.off()
        while self.open:
            try:
                self.leave()
            except (TimeLimit, CleanupError):
                pass
        for thread in self.threads:
            thread.join()

    def in_thread(self) -> None:
        """Main without a loop."""
        self.begin()
        self.enter_plain()
        log("ready")
        for _ in range(self.plan.actions):
            self.act()
            if self.chance.random() < 0.3:
                time.sleep(0.001)
        self.end()

    async def in_loop(self) -> None:
        """Main as a task, beside others."""
        self.begin()
        async with anyio.create_task_group() as group:
            for _ in range(self.plan.tasks):
                group.start_soon(self.task, self.chance.random())
            self.enter_plain()
            log("ready")
            for _ in range(self.plan.actions):
                self.act()
                await anyio.sleep(0.001 * self.chance.random())
            self.end()

    def run(self) -> None:
        """Run it as the plan says."""
        main: Any = self.in_thread if self.plan.main == "thread" else self.in_loop
        if self.plan.anchored:
            main = guard(hooks=())(main)
        try:
            if self.plan.main == "thread":
                main()
            else:
                anyio.run(main, backend=self.plan.main)
        finally:
            self.over = True
            self.alarms.off()


def belongings() -> list[object]:
    """Handlers, descriptors and threads."""
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    return [*handlers, sorted(os.listdir("/dev/fd")), [each.name for each in threading.enumerate()]]


def look_at_what_is_left(before: list[object]) -> None:
    """Say whether all is as it was; what tells hooks, and what serves a loop's threads, ends by itself."""
    limit = time.monotonic() + 20
    while belongings() != before and time.monotonic() < limit:
        time.sleep(0.01)
    log("back", "yes" if belongings() == before else f"no {before} {belongings()}")


def run(seed: int) -> None:
    """Run the program of a seed."""
    program = Program(seed)
    if program.plan.main != "thread":
        anyio.run(partial(anyio.sleep, 0), backend=program.plan.main)  # what a loop keeps for ever it has now
    before = belongings()
    with_alarms = program.plan.alarms
    program.run()
    if not with_alarms:  # else a guard may be entered still: nobody could tell the handler where not to raise
        look_at_what_is_left(before)


if __name__ == "__main__":
    run(int(sys.argv[1]))
