"""What the watcher has seen of each signal: how many came, how many of them were its own pokes, and with how many it has dealt.

The Python handler runs late or never while main is in C, and coalesces (H24); the C handler writes each one.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


class Tally:
    """The numbers since the watcher began. Its thread alone.

    Args:
        pokes: how many it has sent of each; it goes on counting.
    """

    __slots__ = ("_before", "_dealt", "_pokes", "_seen")

    def __init__(self, pokes: Mapping[int, int]) -> None:
        self._pokes = pokes
        self._before = dict(pokes)
        self._seen: dict[int, int] = {}
        self._dealt: dict[int, int] = {}  # of those seen, what was no poke

    @property
    def untouched(self) -> bool:
        """Whether nothing has come, and no poke is on its way."""
        return not self._seen and self._pokes == self._before

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
