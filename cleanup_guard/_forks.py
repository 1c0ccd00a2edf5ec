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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cleanup_guard._process import Process


class ForkHooks:
    """What happens before and after a fork. One fork at a time: the lock is held from `before` to `after`."""

    def __init__(self) -> None:
        self._registered = False
        self._lock = threading.RLock()
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
        self._lock.acquire()
        process = self._process = REGISTRY.process
        caught = list(process.handlers.previous) if process is not None else []
        self._masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, caught))
        if process is not None and process.watcher is not None:
            process.watcher.pause()

    def in_parent(self) -> None:
        """In the parent again, also when the fork failed."""
        process = self._process
        if process is not None and process.watcher is not None and len(self._masks) == 1:
            process.watcher.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.pop())
        self._lock.release()

    def in_child(self) -> None:
        """In the child, in the thread that forked, which is its main thread now."""
        process, mask = self._process, self._masks.pop()
        self.__init__()  # type: ignore[misc]  # the lock may be held by a thread that the child does not have
        self._registered = True
        REGISTRY.process = None
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
