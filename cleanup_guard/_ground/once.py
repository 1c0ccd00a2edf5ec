"""A claim that only one of several wins, whichever threads and handlers they are in.

It is decided by `list.pop()`, one C call that no signal and no other thread can split (hazard H63).
"""

from __future__ import annotations


class Once:
    """To be had once. Any thread, any handler: nothing here waits."""

    __slots__ = ("_free",)

    def __init__(self) -> None:
        self._free: list[None] = [None]

    def claim(self) -> bool:
        """Try to be the one. Returns whether the caller is."""
        try:
            self._free.pop()
        except IndexError:
            return False
        return True

    @property
    def claimed(self) -> bool:
        """Whether somebody has it."""
        return not self._free

    def give_back(self) -> None:
        """Let somebody else have it. Only for who has it, or who knows that nobody uses it any more."""
        self._free[:] = [None]
