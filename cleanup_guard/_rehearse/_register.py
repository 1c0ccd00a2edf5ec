"""Who is there, and how far the rehearsal is: what an Onlooker keeps in mind."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cleanup_guard._rehearse._seen import Seen

MOST_KEPT = 2000
"""Processes that are kept, of as many as the program likes to start; of the others it is known how many there were."""

MOST_PIDS = 1 << 17
"""Pids that are known as those of the program, however many it has used."""


@dataclass
class Follow:
    """A living process."""

    seen: Seen
    tasks: set[int] = field(default_factory=set[int])
    leaving: set[int] = field(default_factory=set[int])
    halted: bool = False
    fault: int = 0
    told: float | None = None
    """When it was last let go on with a stop signal."""


class Register:
    """The processes that live, and those that are kept to be told about.

    Attributes:
        living: by pid, as we see it.
        owner: the process of each thread.
        uncounted: how many there were who are not kept.
        pids: those that have been used, as the program sees them.
    """

    def __init__(self) -> None:
        self.living: dict[int, Follow] = {}
        self.owner: dict[int, int] = {}
        self.uncounted = 0
        self.pids: set[int] = set()
        self._kept: dict[int, Seen] = {}

    @property
    def kept(self) -> list[Seen]:
        """Who is to be told about. The first to be noticed comes first."""
        return list(self._kept.values())

    def follow(self, tid: int) -> Follow:
        """The process of a thread."""
        return self.living[self.owner[tid]]

    def keep(self, seen: Seen) -> None:
        """This one is to be told about, if there are not too many."""
        if len(self._kept) >= MOST_KEPT:
            self.uncounted += 1
        else:
            self._kept[id(seen)] = seen

    def enter(self, pid: int, seen: Seen) -> Follow:
        """One more lives."""
        follow = self.living[pid] = Follow(seen)
        if len(self.pids) < MOST_PIDS:
            self.pids.add(seen.pid)
        self.keep(seen)
        return follow

    def forget(self, seen: Seen) -> None:
        """There is nothing to tell about this one."""
        self._kept.pop(id(seen), None)

    def make_room(self, seen: Seen) -> None:
        """If there are too many, forget one who came and went: there may be something to say about others."""
        if len(self._kept) >= MOST_KEPT and id(seen) in self._kept:
            del self._kept[id(seen)]
            self.uncounted += 1

    def only_the_living(self) -> None:
        """Forget who has ended: from now on it is about those who are there."""
        self._kept.clear()
        self.uncounted = 0
        for follow in self.living.values():
            self.keep(follow.seen)


@dataclass
class Target:
    """What the stop goes to.

    Attributes:
        signum: the stop signal.
        simulate: the first process is to be treated as the kernel treats PID 1, for it is none.
        first: the pid, as we see it, of the process that the stop goes to, once it is known.
    """

    signum: int
    simulate: bool
    first: int | None = None


class Phase:
    """How far the rehearsal is.

    Attributes:
        stopped: the stop has been sent.
        killing: the grace period is over; who ends now was killed.
        ending: nobody is to live any more, whatever it is.
        first_left: the first process is on its way out, or gone.
        awaits_stop: somebody else sends the stop: the next one from outside that reaches the first process is it.
        kills_after: seconds after the stop from which on a SIGKILL to the first process is the platform's; None: we do that.
    """

    def __init__(self) -> None:
        self.stopped = False
        self.killing = False
        self.ending = False
        self.first_left = False
        self.awaits_stop = False
        self.kills_after: float | None = None
        self._began = time.monotonic()

    @property
    def clock(self) -> float:
        """Seconds since the stop; before it, since the start."""
        return time.monotonic() - self._began

    def begin(self) -> float:
        """It starts now, or is stopped. Returns what the clock showed."""
        shown = self.clock
        self._began = time.monotonic()
        return shown

    def note_kill(self, status: int) -> None:
        """The first process is about to end with this wait status: was that the platform?"""
        killed = status & 0x7F == signal.SIGKILL
        late = self.kills_after is not None and self.stopped and self.clock >= self.kills_after
        self.killing = self.killing or (killed and late)
