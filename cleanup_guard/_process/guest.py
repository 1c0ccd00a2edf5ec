"""Whoever installs a handler over ours has his way, and yet nobody dies of the default action before our callbacks have run.

Many who have dealt with a signal put its default back and send it to themselves: coverage and ddtrace inside their handlers,
uvicorn's workers when the last request is answered, twistd when its loop has ended. There no exit net runs. Others leave the
default there for the next signal. So, while we hold signals, `signal.signal` leaves ours in place and notes what is to be
behind it: a handler is called by ours, as one that was there first, and the default means that the signal is ours.
`signal.getsignal` tells them what they have installed.

What is replaced is what both are made of, in the module `_signal`: aliases of `signal.signal` come here, too, and it can be
taken back. Rejected, because it was tried: an audit hook, which sees what is about to be sent, cannot be taken back, and comes
too late for a handler that is never noticed; blocking the signal meanwhile, because a second one then does not end a system
call, and children inherit the mask.
"""

from __future__ import annotations

import os
import signal
import sys

from cleanup_guard._process import native
from cleanup_guard._stop.owner import Owner, owner_of
from cleanup_guard._stop.state import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cleanup_guard._process.native import Handler
    from cleanup_guard._process.roster import ProcessView


class Guest:
    """The one of this process; it stands by while signals are taken."""

    def __init__(self) -> None:
        self._process: ProcessView | None = None
        self._ours = self._signal, self._getsignal

    def stand_by(self, process: ProcessView) -> None:
        """Look at what is installed from now on. Main thread only."""
        self._process = process
        C_MODULE.signal, C_MODULE.getsignal = self._ours

    def stand_down(self) -> None:
        """Look no more."""
        self._process = None
        ours, ours_too = self._ours
        if C_MODULE.signal is ours:
            C_MODULE.signal = native.set_handler
        if C_MODULE.getsignal is ours_too:
            C_MODULE.getsignal = native.get_handler

    def _signal(self, signum: int, handler: Handler, /) -> Handler:
        """What `_signal.signal` is meanwhile."""
        process = self._process
        if process is None or process.pid != os.getpid() or signum not in process.signals.previous:
            return native.set_handler(signum, handler)
        return process.signals.replace(signum, handler, stays=_stays(process, handler))

    def _getsignal(self, signum: int, /) -> Handler:
        """What `_signal.getsignal` is meanwhile."""
        process = self._process
        if process is None or signum not in process.signals.previous:
            return native.get_handler(signum)
        return process.signals.seen(signum)


def _stays(process: ProcessView, handler: object) -> bool:
    """Whether ours stays: in front of somebody's own handler, and of the default while there are callbacks to lose."""
    if callable(handler):
        return owner_of(handler) is Owner.THEIRS
    if handler != signal.SIG_DFL:
        return False
    return process.roster.callbacks_left or process.state not in (State.LEAVING, State.CLEANING, State.DONE)


C_MODULE: Any = sys.modules["_signal"]

GUEST = Guest()
