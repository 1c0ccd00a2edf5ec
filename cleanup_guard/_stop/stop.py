"""The one stop of a process, and the ballot that decides whether it comes before the last guard is left.

Rules:
1. A stop is built first and published by one `list.append`: whoever is first in the list has won. So a stop that is claimed is
   a stop that is there, even if the claimant is cut short a moment later (by a recursion limit, by a handler that raises).
2. The end of the last guard is cast on the same ballot: either there is a stop and main is told of it, or there can be none.
"""

from __future__ import annotations

from cleanup_guard._ground.events import StopRecord
from cleanup_guard._ground.once import Once
from cleanup_guard._stop.history import DRAINING, STOPPING, History

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from cleanup_guard._ground.clock import Budget

    ExitStatus = int | Literal["signal"] | None


class Drain:
    """The time for which a program serves on when a stop has come.

    Attributes:
        asked: how long it was to be.
        seconds: how long it is.
        over: it has passed, or somebody has ended it.
    """

    __slots__ = ("asked", "over", "seconds")

    def __init__(self, asked: float, limit: float) -> None:
        self.asked: float = asked
        self.seconds: float = min(asked, limit)
        self.over: bool = self.seconds <= 0


class Stop:
    """What is known of a stop. `signum`, `reason`, `status` and `sender` are written once.

    Attributes:
        signum: the signal's number; None when it came from `request_stop`.
        reason: the signal's name, or what `request_stop` was told.
        status: the exit status that stands for it.
        sender: the process that sent it, if known.
        budget: what the grace period is spent on.
        theirs: the handler whose stop it is, if it is not ours (see `Owner`).
        wanted: what the outermost guard that names an exit status wants; guards say it as they are left.
        armed: who arms the last resort for it.
        owed: a guard of main has been left, and the stop is still to go on from there.
        history: what has happened since.
        drain: for how long the program serves on before the stop begins.
        forgotten: the program went on; whoever sees that first makes it as if there had been no stop.
    """

    __slots__ = (
        "armed",
        "budget",
        "drain",
        "finished",
        "forgotten",
        "history",
        "owed",
        "reason",
        "sender",
        "signum",
        "status",
        "theirs",
        "wanted",
    )

    def __init__(
        self,
        signum: int | None,
        reason: str,
        *,
        status: int,
        budget: Budget,
        sender: int | None = None,
        theirs: object = None,
        drain: float = 0.0,
    ) -> None:
        self.signum: int | None = signum
        self.reason: str = reason
        self.status: int = status
        self.sender: int | None = sender
        self.budget: Budget = budget
        self.theirs: object = theirs
        self.wanted: ExitStatus = None
        self.finished: bool = False  # main has left its last guard
        self.owed: bool = False
        self.armed: Once = Once()
        self.forgotten: Once = Once()
        # Nobody sends work to who is being stopped by a framework, and a person in a terminal is not to wait for it.
        drains = theirs is None and not budget.period.by_hand
        self.drain: Drain = Drain(drain if drains else 0.0, budget.sure(budget.STUCK) - budget.began)
        self.history: History = History(budget.began, STOPPING if self.drain.over else DRAINING)

    @property
    def drained(self) -> bool:
        """Whether the program is being stopped: its drain is over, or main has ended by itself."""
        return self.drain.over

    @property
    def drain_until(self) -> float:
        """When the stop begins."""
        return self.budget.began + self.drain.seconds

    @property
    def hooks_until(self) -> float:
        """Until when on_stop callbacks hold it back."""
        return self.budget.sure(self.budget.HOOKS) + self.drain.seconds

    def end_drain(self) -> None:
        """The program serves no longer: from now on it is being stopped."""
        self.drain.over = True

    def record(self, now: float, at: float, skipped: tuple[str, ...] = ()) -> StopRecord:
        """All that it took until now.

        Args:
            now: the time.
            at: the same, as `time.time` tells it.
            skipped: callbacks that have no turn any more.
        """
        history, period = self.history, self.budget.period
        took = history.seconds(now)
        return StopRecord(
            reason=self.reason,
            signum=self.signum,
            where=period.where,
            sure=period.sure,
            grace=period.hope,
            at=at - took,
            seconds=took,
            phases=history.phases(now),
            callbacks=history.records(),
            cut=history.cut(),
            skipped=skipped,
        )

    def becomes_ours(self, budget: Budget) -> None:
        """Whoever owned it has given it to us: from now on this budget counts."""
        self.budget, self.theirs = budget, None


class Ballot:
    """What came first: a stop, or the end of the last guard. Any thread, any handler.

    One for each time that main is guarded: whoever has it in hand before he looks who guards stops nobody who comes later.
    """

    __slots__ = ("votes",)

    def __init__(self) -> None:
        self.votes: list[Stop | None] = []

    @property
    def stop(self) -> Stop | None:
        """The stop, if one has won."""
        votes = self.votes
        return votes[0] if votes else None

    @property
    def closed(self) -> bool:
        """Whether no stop can come any more."""
        votes = self.votes
        return bool(votes) and votes[0] is None

    def propose(self, stop: Stop) -> bool:
        """Make this the stop, if nothing else has come first. Returns whether it is."""
        votes = self.votes
        if not votes:
            votes.append(stop)
        return votes[0] is stop

    def close(self) -> bool:
        """End without a stop. Returns False if there is one."""
        votes = self.votes
        if not votes:
            votes.append(None)
        return votes[0] is None
