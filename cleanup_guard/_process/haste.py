"""Short turns at the GIL while a program is being stopped.

Whoever wants the GIL from a busy thread waits for the switch interval, 5 ms, each time. A cleanup beside such a thread wants
it after every system call, and so do main and the watcher before it.
"""

from __future__ import annotations

import sys

INTERVAL = 0.0002
"""Seconds: the wait is hardly felt any more, and a busy thread loses a few percent."""


class Haste:
    """The switch interval, which belongs to the whole process. Any thread, any handler: only C functions are called."""

    def __init__(self) -> None:
        self._before: list[float] = []

    def begin(self) -> None:
        """Shorten it. Does nothing the second time."""
        before = sys.getswitchinterval()
        if not self._before and before > INTERVAL:
            sys.setswitchinterval(INTERVAL)
            self._before.append(before)  # last: who ends it meanwhile finds nothing, the next one does

    def end(self) -> None:
        """Put it back, unless somebody has set a longer one meanwhile."""
        if not self._before:
            return
        before = self._before[:]
        self._before.clear()
        for each in before:  # there is one, unless another thread was quicker
            if sys.getswitchinterval() <= INTERVAL:
                sys.setswitchinterval(each)


HASTE = Haste()
