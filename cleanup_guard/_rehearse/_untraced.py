"""The same stop when nobody looks: being traced costs a program time, most of all where it forks much."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if sys.platform != "linux":
    raise NotImplementedError("rehearsing a stop needs Linux")

from cleanup_guard._rehearse import _proc
from cleanup_guard._rehearse._engine import TURN, CannotRehearse, Program

if TYPE_CHECKING:
    from cleanup_guard._rehearse._engine import Waker
    from cleanup_guard._rehearse._plan import Plan
    from cleanup_guard._rehearse._start import Starter


class Untraced(Program):
    """A program in a PID namespace of which nothing is seen but when its first process ends."""

    def time(self) -> float | None:
        """Seconds from the stop to the end of the first process; None if it had to be killed.

        Raises:
            CannotRehearse: there was nothing to stop.
            Interrupted: we were told to stop ourselves.
        """
        wish = self._plan.wish
        self._start(wish)
        self._await_ready(wish)
        first = self._onlooker.target.first or 0
        self._onlooker.phase.begin()
        _proc.send(first, self._onlooker.target.signum)
        while first not in self._onlooker.others and self._onlooker.clock < self._plan.grace:
            self._turn(TURN)
        return self._onlooker.clock if first in self._onlooker.others else None

    def _trace(self, starter: Starter) -> None:
        pass

    def _is_first(self, starter: Starter, pid: int) -> None:
        del starter
        self._onlooker.target.first = pid
        self._onlooker.phase.begin()

    def _living(self) -> list[int]:
        first = self._onlooker.target.first
        return [] if first is None else [first, *_proc.descendants(first)]

    def _check_that_it_lives(self) -> None:
        if self._onlooker.target.first in self._onlooker.others:
            raise CannotRehearse("the program ended before it could be stopped")


def time_untraced(waker: Waker, plan: Plan) -> float | None:
    """How long a stop takes of which nothing is seen; None if it was not over in time.

    Raises:
        CannotRehearse: there was nothing to stop.
        Interrupted: we were told to stop ourselves.
    """
    with Untraced(waker, plan) as engine:
        return engine.time()
