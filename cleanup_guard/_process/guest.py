"""While a stop is somebody else's, nobody dies of the default action before our callbacks have run.

Many who have dealt with a signal put its default back and send it to themselves: coverage and ddtrace inside their handlers,
uvicorn's workers when the last request is answered, twistd when its loop has ended. There no exit net runs. So we look at what
is about to be sent: `os.kill`, `os.killpg` and `signal.pthread_kill` are audited before they act; `signal.raise_signal` is not,
and is replaced for that time. A signal that would kill us comes to our handler instead, and from then on the stop is ours.

Rejected, because it was tried: blocking the signal meanwhile (a second one then does not end a system call, children
inherit the mask), and a wrapper around `signal.signal` (aliases escape it, and whoever raises the signal later).
An audit hook cannot be taken back, so it comes only with the first such stop; from then on it looks at the event's name.
"""

from __future__ import annotations

import os
import signal
import sys

from cleanup_guard._process.native import in_main

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal

    from cleanup_guard._process.roster import ProcessView
else:
    import _signal


class Guest:
    """The one of this process; it stands by while a stop is somebody else's."""

    def __init__(self) -> None:
        self._process: ProcessView | None = None
        self._hooked = False

    def stand_by(self, process: ProcessView) -> None:
        """Look at what is sent from now on. Any thread."""
        self._process = process
        if not self._hooked:
            self._hooked = True
            sys.addaudithook(self._audit)
        if signal.raise_signal is _signal.raise_signal:
            signal.raise_signal = self._raise_signal

    def stand_down(self) -> None:
        """Look no more."""
        self._process = None
        if signal.raise_signal == self._raise_signal:
            signal.raise_signal = _signal.raise_signal

    def _audit(self, event: str, args: tuple[int, ...]) -> None:
        if self._process is None:
            return
        if event in ("os.kill", "os.killpg"):  # a set would be built for each event
            if args[0] in _OWN_GROUP or args[0] == (os.getpid() if event == "os.kill" else os.getpgrp()):
                self._look(args[1])
        elif event == "signal.pthread_kill":
            self._look(args[1])

    def _raise_signal(self, signum: int, /) -> None:
        """What `signal.raise_signal` is meanwhile."""
        self._look(signum)
        _signal.raise_signal(signum)

    def _look(self, signum: int) -> None:
        process = self._process
        if (
            process is not None
            and process.pid == os.getpid()
            and in_main()
            and signum in process.signals.previous
            and _signal.getsignal(signum) == signal.SIG_DFL
            and process.roster.callbacks_left
        ):
            process.signals.reclaim(signum)


_OWN_GROUP = (0, -1)
"""What `os.kill` takes for everybody in our group, and for everybody."""

GUEST = Guest()
