"""As `storm.py`, for programs whose own handler owns the stop, entered before the guard or installed after it.

"wants STATUS..." tells with which statuses it may end, once the handler has been called; "cut GUARD NUMBER" in which callback
it has raised. "in SECTION" and "out SECTION" are the two ends of a piece of work: where the handler only notes the stop, none
may be cut short.
"""

from __future__ import annotations

import logging
import random
import signal
import sys
import time
from types import FrameType

from proof.storm import Program, log

from cleanup_guard import Guard, guard

SIGNUMS = (signal.SIGTERM, signal.SIGINT)


class Host(Program):
    """A random program that is told by its own handler."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.actions = [*self.actions, self.work, self.work, self.work]
        self.exits = random.Random(seed).random() < 0.3
        self.handler_first = random.Random(-seed).random() < 0.5
        self.told: list[int] = []

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """The program's handler: the first stop is noted, or ends main; more change nothing."""
        first = not self.told
        self.told.append(signum)
        if first:
            # A callback that fails is another status; and Python gives the signals back before it ends.
            log("wants", 7 if self.exits else 0, 1, *(-each for each in SIGNUMS))
            if self.exits:
                self.log_cut(frame)
                sys.exit(7)

    @staticmethod
    def log_cut(frame: FrameType | None) -> None:
        """What this handler raises may be raised in a callback that has been called, and has not got to its first line."""
        while frame is not None and frame.f_code is not Program.callback.__code__:
            frame = frame.f_back
        if frame is not None:
            log("cut", frame.f_locals["name"], frame.f_locals["number"])

    def take(self) -> None:
        """Install it."""
        for signum in SIGNUMS:
            signal.signal(signum, self.handle)

    def main(self) -> None:
        """Work until told."""
        if self.handler_first:
            self.take()
        with guard() as g:
            if not self.handler_first:
                self.take()
            name = next(self.guards)
            self.register(g, name)
            log("ready")
            while not self.told:
                self.act(g, name)

    def enter_context(self, g: Guard, name: int) -> None:
        """Not where the handler raises: nobody holds that back, and it may come between `__enter__` and the registration."""
        if not self.exits:
            super().enter_context(g, name)

    def work_in_thread(self, g: Guard, name: int) -> None:
        """Not where the handler raises: main then leaves before the work has begun, and what begins later is not waited for."""
        if not self.exits:
            super().work_in_thread(g, name)

    def work(self, g: Guard, name: int) -> None:
        """A piece of work."""
        section = next(self.numbers)
        if not self.exits:
            log("in", section)
        time.sleep(0.002)
        if not self.exits:
            log("out", section)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    Host(int(sys.argv[1])).main()
