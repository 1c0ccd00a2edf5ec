"""Who belongs to the program and is not traced."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

if sys.platform != "linux":
    raise NotImplementedError("rehearsing a stop needs Linux")

from cleanup_guard._rehearse import _proc
from cleanup_guard._rehearse._register import MOST_KEPT

if TYPE_CHECKING:
    from cleanup_guard._rehearse._register import Phase, Register, Target
    from cleanup_guard._rehearse._seen import How, Seen


class Strangers:
    """Those who are there at the stop and of whom nothing but that can be told."""

    def __init__(self, target: Target, register: Register, phase: Phase) -> None:
        self._target = target
        self._register = register
        self._phase = phase
        self._some: dict[int, Seen] = {}

    def find(self) -> None:
        """Who was made with CLONE_UNTRACED, or may not be traced: all that can be told is whether it is there."""
        self._some.clear()
        if self._target.first not in self._register.living:
            return
        for pid in _proc.descendants(self._target.first)[:MOST_KEPT]:
            if pid not in self._register.living and not _proc.is_traced_by_us(pid) and _proc.is_alive(pid):
                seen = _proc.glimpse(pid, self._target.signum)
                parent = self._register.living.get(seen.parent)
                seen.parent = 0 if parent is None else parent.seen.pid
                seen.how = "unknown"
                self._some[pid] = seen
                self._register.keep(seen)

    def settle(self, how: How) -> None:
        """What becomes of them now, if they are still there."""
        for pid, seen in self._some.items():
            seen.ended = self._phase.clock
            if _proc.is_alive(pid):
                seen.how, seen.status = how, int(signal.SIGKILL)
                if self._target.simulate:
                    _proc.send(pid, signal.SIGKILL)
        self._some.clear()
