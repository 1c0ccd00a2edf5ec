"""What a child of the storm runs: whatever its seed says, until it is stopped. See `test_storm.py`.

Every line of its log is one `os.write`: "ack GUARD NUMBER" once a registration has returned, "ran GUARD NUMBER PID" when a
callback begins. Numbers grow; those of callbacks that a thread registered are negative, because their order is not known.
"group GUARD NUMBER..." are those that may run at once. "in NAME GUARD" and "out NAME GUARD" are the two ends of work in flight.
"""

from __future__ import annotations

import itertools
import logging
import os
import queue
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from cleanup_guard import CleanupError, Guard, guard

LOCK = threading.Lock()
RLOCK = threading.RLock()
CONDITION = threading.Condition()
QUEUE: queue.Queue[int] = queue.Queue()
EVENT = threading.Event()
MOST_CALLBACKS = 60


def log(*words: object) -> None:
    """One line, at once."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Program:
    """A random program."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.numbers = itertools.count(1)
        self.guards = itertools.count(1)
        self.sections = itertools.count(1)
        self.actions: list[Callable[[Guard, int], None]] = [
            self.register,
            self.register,
            self.register_shielded,
            self.enter_context,
            self.register_in_thread,
            self.register_group,
            self.work,
            self.work_in_thread,
            self.nest,
            self.fork,
            self.spawn,
            self.write_log,
            self.use_locks,
            self.use_queue,
            self.use_files,
            self.compute,
            self.sleep,
        ]

    def main(self) -> None:
        """Work until stopped."""
        drain = self.chance.choice((None, None, 0.03))
        with guard(interrupt=self.chance.random() < 0.9, drain=drain) as g:
            name = next(self.guards)
            self.register(g, name)
            log("ready")
            while not g.stopping:
                self.act(g, name)

    def act(self, g: Guard, name: int) -> None:
        """Do one thing."""
        self.chance.choice(self.actions)(g, name)

    def callback(self, name: int, number: int, kind: int) -> None:
        """What is registered: notes that it runs, then does what cleanups do."""
        log("ran", name, number, os.getpid())
        if kind == 0:
            self.use_locks(None, 0)
        elif kind == 1:
            self.use_queue(None, 0)
        elif kind == 2:
            logging.getLogger("storm").warning("callback %s", number)
        elif kind == 3:
            thread = threading.Thread(target=time.sleep, args=(0.001,))
            thread.start()
            thread.join()
        elif kind == 4:
            raise ValueError("a callback that fails")

    def register(self, g: Guard, name: int) -> None:
        """Register a callback and acknowledge it."""
        number = next(self.numbers)
        if number > MOST_CALLBACKS:
            return
        g.callback(self.callback, name, number, self.chance.randrange(12))
        log("ack", name, number)

    def register_shielded(self, g: Guard, name: int) -> None:
        """The same in a critical section."""
        with g.shield():
            self.register(g, name)

    def enter_context(self, g: Guard, name: int) -> None:
        """Entered and acknowledged inside `__enter__`: from there on it must be left."""
        number = next(self.numbers)
        if number > MOST_CALLBACKS:
            return

        @contextmanager
        def manager() -> Iterator[None]:
            log("ack", name, number)
            try:
                yield
            finally:
                log("ran", name, number, os.getpid())

        g.enter_context(manager())

    def register_in_thread(self, g: Guard, name: int) -> None:
        """Register from another thread, and do not wait for it."""
        number = next(self.numbers)
        if number > MOST_CALLBACKS:
            return

        def work() -> None:
            try:
                g.callback(self.callback, name, -number, 99)
            except RuntimeError:
                return  # the guard is done, and says so: nothing is acknowledged
            log("ack", name, -number)

        threading.Thread(target=work).start()

    def register_group(self, g: Guard, name: int) -> None:
        """Register callbacks that run at once."""
        numbers = [next(self.numbers) for _ in range(3)]
        if numbers[-1] > MOST_CALLBACKS:
            return
        log("group", name, *numbers)
        for number in numbers:
            registrar = g.options(parallel=f"group {numbers[0]}")
            registrar.callback(self.callback, name, number, self.chance.randrange(12))
            log("ack", name, number)

    def work(self, g: Guard, name: int) -> None:
        """Work in flight in main, which no stop cuts short."""
        number = next(self.sections)
        with g.work():
            log("in", number, name)
            time.sleep(0.001)
            log("out", number, name)

    def work_in_thread(self, g: Guard, name: int) -> None:
        """The same in a thread: it has begun when this goes on, or never begins."""
        number, begun = next(self.sections), threading.Event()

        def work() -> None:
            with g.work():
                log("in", number, name)
                begun.set()
                time.sleep(0.004)
                log("out", number, name)

        with g.shield():
            threading.Thread(target=work).start()
            begun.wait()

    def nest(self, g: Guard, name: int) -> None:
        """A guard inside the guard."""
        with suppress(CleanupError), guard() as inner:  # one callback in twelve fails
            inner_name = next(self.guards)
            for _ in range(self.chance.randrange(5)):
                if inner_name < 8:
                    self.act(inner, inner_name)

    def fork(self, g: Guard, name: int) -> None:
        """A child that ends at once, and never runs a callback of ours."""
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)

    def spawn(self, g: Guard, name: int) -> None:
        """A program."""
        subprocess.run(["/bin/true"], check=False)

    def write_log(self, g: Guard, name: int) -> None:
        """Logging, and buffered output."""
        logging.getLogger("storm").warning("a line")
        print("# buffered", file=sys.stderr)

    def use_locks(self, g: Guard | None, name: int) -> None:
        """All kinds of locks."""
        with LOCK, RLOCK, CONDITION:
            CONDITION.notify_all()
        EVENT.set()
        EVENT.clear()

    def use_queue(self, g: Guard | None, name: int) -> None:
        """A queue that callbacks use, too."""
        QUEUE.put(1)
        QUEUE.get(timeout=5)

    def use_files(self, g: Guard, name: int) -> None:
        """A temporary file."""
        with tempfile.TemporaryFile() as file:
            file.write(b"x" * 10000)

    def compute(self, g: Guard, name: int) -> None:
        """A tight loop."""
        for _ in range(3000):
            pass

    def sleep(self, g: Guard, name: int) -> None:
        """A blocking call."""
        time.sleep(0.003)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    Program(int(sys.argv[1])).main()
