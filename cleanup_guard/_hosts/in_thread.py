"""A plain thread as a host: main without a loop is told by an exception in its frame, and asked by a poke."""

from __future__ import annotations

from cleanup_guard._hosts.beside import begin_in_thread
from cleanup_guard._process import native
from cleanup_guard._stop.running import Aside
from cleanup_guard._stop.stack import AsyncCallback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from cleanup_guard._stop.running import Pending


GLANCE, SLOW = 0.0001, 0.001
"""Seconds between two looks at what is waited for: it often comes at once, or in a while."""


class ThreadHost:
    """Where a guard is that was entered with `with`."""

    in_loop = False
    alive = False  # there is no task to cancel

    def __init__(self, *, in_main: bool) -> None:
        self.in_main: bool = in_main

    def run_here(self, start: Callable[[], Coroutine[Any, Any, object]], patience: float) -> bool:  # noqa: ARG002
        """No loop runs here."""
        return False

    @staticmethod
    def wait(pending: Pending) -> object:
        """Take a step by waiting in this thread."""
        if isinstance(pending, Aside):
            begin_in_thread(pending, ThreadHost.wait)
            return None
        # Nothing that must be awaited is registered on a guard that was entered with `with`.
        assert not isinstance(pending, AsyncCallback)
        pause = GLANCE
        while not pending():
            native.sleep(pause)
            pause = min(2 * pause, SLOW)
        return None

    wait_without_loop = wait  # there is no loop

    def let_task_leave(self) -> None:
        """There is no task."""


_MAIN, _ELSEWHERE = ThreadHost(in_main=True), ThreadHost(in_main=False)


def host_here(*, in_main: bool) -> ThreadHost:
    """The host of every guard that is entered in this thread: it has nothing of its own."""
    return _MAIN if in_main else _ELSEWHERE
