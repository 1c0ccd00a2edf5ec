"""Fork: a child never runs its parent's callbacks, and dies of a stop signal as if there were no guard.

Around the fork the signals are blocked, because CPython clears what is pending in a new child: without that a SIGTERM
sent right after the fork is lost in nearly every child (hazard H40).
The watcher steps aside, because a second thread makes `os.fork`
warn from 3.12 on, and a lock that it holds would stay locked in the child.

`register_at_fork` has no undo, so this is registered once, on the first guard, and does nothing while none is active.
`subprocess` without `preexec_fn`, `os.posix_spawn` and `os.system` do not come here: they exec at once.
"""

from __future__ import annotations

import os
import signal
import threading

from cleanup_guard._process import REGISTRY
from cleanup_guard._report import OUTBOX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cleanup_guard._process import Process


class ForkHooks:
    """What happens before and after a fork. One fork at a time: `REGISTRY.lock` is held from `before` to `after`."""

    def __init__(self) -> None:
        self._registered = False
        self._masks: list[set[int]] = []
        self._process: Process | None = None

    def register(self) -> None:
        """Register the hooks; further calls do nothing."""
        if not self._registered:
            self._registered = True
            os.register_at_fork(
                before=self.before, after_in_parent=self.in_parent, after_in_child=self.in_child
            )

    def before(self) -> None:
        """In the parent, in the thread that forks."""
        REGISTRY.lock.acquire()
        process = self._process = REGISTRY.process
        caught = list(process.handlers.previous) if process is not None else []
        self._masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, caught))
        if process is not None and process.watcher is not None:
            process.watcher.pause()
            OUTBOX.drain(0.1)  # the thread that empties it would make the fork warn, too

    def in_parent(self) -> None:
        """In the parent again, also when the fork failed."""
        mask = self._masks.pop()
        watcher = None if self._process is None else self._process.watcher
        try:
            if watcher is not None and not self._masks:
                watcher.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            REGISTRY.lock.release()

    def in_child(self) -> None:
        """In the child, in the thread that forked, which is its main thread now."""
        process, mask = self._process, self._masks.pop()
        self._process = None
        # Locks may be held, and events told, by threads that the child does not have.
        REGISTRY.lock = threading.RLock()
        REGISTRY.process = None
        OUTBOX.forget()
        if process is not None:
            _disown(process)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _disown(process: Process) -> None:
    """Make the inherited guards inert, and the signals what they were before the first guard."""
    process.foreign = True
    process.stop_tracing()
    process.handlers.give_back(list(process.handlers.previous))
    watcher, process.watcher = process.watcher, None
    if watcher is not None:
        watcher.pipe.unwire()
        watcher.pipe.close()
    if process.stderr is not None:
        process.stderr.close()


FORK_HOOKS = ForkHooks()
