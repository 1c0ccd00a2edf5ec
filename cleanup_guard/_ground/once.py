"""A claim that only one of several wins, whichever threads and handlers they are in.

It is decided by `list.pop()`, one C call that no signal and no other thread can split (hazard H63).
"""

from __future__ import annotations

from itertools import islice


class Once:
    """To be had once. Any thread, any handler: nothing here waits."""

    __slots__ = ("free",)

    def __init__(self) -> None:
        self.free: list[None] = [None]

    def claim(self) -> bool:
        """Try to be the one. Returns whether the caller is."""
        try:
            self.free.pop()
        except IndexError:
            return False
        return True

    def claim_into(self, hand: list[None]) -> bool:
        """As `claim`, for who must know that he has it even if an exception cuts him short: then his hand is not empty.

        He gives it back by `once.free[:] = hand`, which calls nothing, so that no exception comes before it is done.
        """
        try:
            hand.extend(islice(iter(self.free.pop, self), 1))
        except IndexError:
            return False
        return True

    @property
    def claimed(self) -> bool:
        """Whether somebody has it."""
        return not self.free

    def give_back(self) -> None:
        """Let somebody else have it. Only for who has it, or who knows that nobody uses it any more."""
        self.free[:] = [None]
