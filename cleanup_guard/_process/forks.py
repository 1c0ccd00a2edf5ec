"""Fork: a child never runs its parent's callbacks, and dies of a stop signal as if there were no guard.

Around the fork the signals are blocked, because CPython clears what is pending in a new child: without that a SIGTERM sent
right after the fork is lost in nearly every child (hazard H40). The watcher and the last resort step aside, because a second
thread makes `os.fork` warn from 3.12 on, and a lock that it holds would stay locked in the child.

An exception that a hook raises is printed and lost, and somebody else's handler may raise one: while main is in a hook his
signals are only noted. A fork in main trips one of our signals, and our handler, which runs when `os.fork` has returned, calls
his; if it meets a hook that comes after ours, it looks again at the first instruction after them. That is done by C code alone:
any Python code in a hook would have main look for signals too early. If all of our signals are somebody else's none is tripped:
one that comes at the same time would be one with it, and is his. Then main is asked by a pending call.

When watcher and last resort come back depends on when CPython counts threads: up to 3.12 and from 3.14 on before the hooks that
run after the fork, in 3.13 after them. So on 3.13 that handler has them back, too.

`register_at_fork` has no undo, so this is registered once, on the first guard, and does nothing while none is active.
`subprocess` without `preexec_fn`, `os.posix_spawn` and `os.system` do not come here: they exec at once.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial

from cleanup_guard._process import native, watch
from cleanup_guard._process.guest import GUEST
from cleanup_guard._process.haste import HASTE
from cleanup_guard._process.native import in_main
from cleanup_guard._process.process import REGISTRY
from cleanup_guard._process.report import OUTBOX

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import Any

    from cleanup_guard._process.process import Process
    from cleanup_guard._stop.stack import Entry
else:
    import _signal

COUNTS_LATE = sys.version_info[:2] == (3, 13)
"""Whether CPython counts threads after the hooks."""

NOTHING: partial[Any] = partial(int)
"""C code that does nothing."""


class ForkHooks:
    """What happens before and after a fork. One fork at a time: the watcher's lock is held from `before` to `after`."""

    def __init__(self) -> None:
        self._registered = False
        self._masks: list[set[int]] = []
        self._process: Process | None = None
        self._trips: list[partial[Any]] = []

    def register(self) -> None:
        """Register the hooks; further calls do nothing."""
        if self._registered or sys.platform == "win32":
            return
        self._registered = True
        os.register_at_fork(before=self.before, after_in_parent=self.in_parent, after_in_child=self.in_child)
        trip = partial(next, map(native.call, iter(self._trips.pop, None)))
        os.register_at_fork(after_in_parent=trip)

    def before(self) -> None:
        """In the parent, in the thread that forks."""
        watch.LOCK.acquire()
        process = self._process = REGISTRY.process
        caught = list(process.signals.previous) if process is not None else []
        self._masks.append(_signal.pthread_sigmask(signal.SIG_BLOCK, caught))
        if process is not None:
            if in_main():
                process.receiver.fork.begins(sys._getframe(1))  # pyright: ignore[reportPrivateUsage]
            OUTBOX.drain(0.1)  # the thread that empties it would make the fork warn, too
            native.wait_for_brief(0.5)
            before = native.tasks()
            process.watch.pause()
            native.wait_for_kernel(before, int(process.last_resort.pause()))

    def in_parent(self) -> None:
        """In the parent again, also when the fork failed."""
        if not self._masks:  # this was registered in the middle of a fork in another thread
            self._trips.append(NOTHING)
            return
        mask, process = self._masks.pop(), self._process
        trip = NOTHING
        try:
            if process is not None and not self._masks:
                ours = process.signals.ours() if in_main() else []
                if not (COUNTS_LATE and ours and process.watch.paused):
                    process.watch.resume()
                    process.last_resort.resume(process.stop, process.clock())
                if ours:
                    trip = process.watch.resume_later(ours) or process.receiver.call.asking() or NOTHING
        finally:
            self._trips.append(trip)
            _signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            watch.LOCK.release()

    def in_child(self) -> None:
        """In the child, in the thread that forked, which is its main thread now."""
        if not self._masks:
            return
        process, mask = self._process, self._masks.pop()
        self._process = None
        # Locks may be held, and events told, by threads that the child does not have.
        watch.LOCK = native.make_rlock()
        REGISTRY.process = None
        OUTBOX.forget()
        native.forget_brief()
        GUEST.stand_down()
        if process is not None:
            _disown(process)
        _signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _disown(process: Process) -> None:
    """Make the inherited guards inert, and the signals what they were before the first guard."""
    process.foreign = True
    process.signals.fence = native.make_rlock()  # a thread that the child does not have may have held it
    process.receiver.moment.stop_tracing()
    process.signals.give_back(list(process.signals.previous))
    process.watch.disown()
    process.last_resort.disown()
    HASTE.end()
    for member in process.roster.everybody():
        INHERITED.extend(member.stack.disown())


INHERITED: list[Entry] = []
"""What the parents of this process have registered."""


FORK_HOOKS = ForkHooks()
