"""What the watcher has seen of each signal: how many came, how many of them were its own pokes, and with how many it has dealt.

The Python handler runs late or never while main is in C, and coalesces (H24); the C handler writes each one.
"""

from __future__ import annotations

from cleanup_guard._ground.clock import inf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cleanup_guard._process.roster import Watch


class Tally:
    """The numbers since the watcher began. Its thread alone.

    Args:
        pokes: how many it has sent of each; it goes on counting.

    Attributes:
        served: at a stop, which the program has outlived.
    """

    __slots__ = ("_before", "_dealt", "_pokes", "_seen", "served")

    def __init__(self, pokes: Mapping[int, int]) -> None:
        self._pokes = pokes
        self._before = dict(pokes)
        self._seen: dict[int, int] = {}
        self._dealt: dict[int, int] = {}  # of those seen, what was no poke
        self.served: bool = False

    @property
    def untouched(self) -> bool:
        """Whether nothing has come, and no poke is on its way: the watcher is as good as a new one. Any thread."""
        return not (self._seen or self.served) and self._pokes == self._before

    def count(self, signum: int) -> None:
        """One has come."""
        self._seen[signum] = self._seen.get(signum, 0) + 1

    def real(self, signum: int) -> int:
        """How many came that were no pokes. Less than none if the kernel has merged some."""
        return self._real(signum, self._pokes)

    def _real(self, signum: int, pokes: Mapping[int, int]) -> int:
        return self._seen.get(signum, 0) - pokes.get(signum, 0) + self._before.get(signum, 0)

    def new(self, signum: int) -> int:
        """How many of these it has not dealt with."""
        return self.real(signum) - self._dealt.get(signum, 0)

    def deal_with(self, new: int, signum: int) -> None:
        """It has dealt with so many more."""
        self._dealt[signum] = self._dealt.get(signum, 0) + new

    def make_up(self, signum: int) -> None:
        """A poke that the kernel merged with another one has come, too: it is not to hide a signal for ever."""
        self._seen[signum] = self._seen.get(signum, 0) - self.new(signum)

    def forget(self, pokes: Mapping[int, int], signums: Collection[int] | None) -> None:
        """It has dealt with all that came of these signals, or of all signals, when so many pokes had been sent."""
        for signum in self._seen if signums is None else signums:
            self._dealt[signum] = self._real(signum, pokes)


class Nudges:
    """Pokes main until it answers, when a signal has come by which somebody stops the program, and which is not ours.

    CPython overlooks one that comes between its last look and a C call that waits (hazard H74). That would be rare without our
    thread, to which main may have to hand the GIL on its way into that call.
    """

    AFTER = (0.0, 0.02, 0.2, 1.0, 3.0)
    """Seconds after it has come."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._due: list[float] = []
        self._answers = 0

    def begin(self, now: float) -> None:
        """It has come."""
        self._answers = self._watch.answers
        self._due = [now + delay for delay in self.AFTER]

    def look(self, now: float) -> float:
        """Poke if that is due. Returns when it is next."""
        if self._watch.answers != self._answers:
            self._due.clear()
        if self._due and now >= self._due[0]:
            self._due.pop(0)
            self._watch.poke(spares_theirs=True)
        return self._due[0] if self._due else inf
