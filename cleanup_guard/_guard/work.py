"""Work in flight: see `Guard.work`.

A section is on the roster from its first line to its last. In main, and in tasks of main's loop, it is a critical section as
well, so that nothing raises or cancels it; in another thread nobody could, and there it is only waited for.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar

from cleanup_guard._ground.clock import inf
from cleanup_guard._ground.events import WorkAwaited
from cleanup_guard._ground.once import Once
from cleanup_guard._process.native import in_main
from cleanup_guard._process.report import Reporter
from cleanup_guard._stop.history import WORK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from cleanup_guard._ground.events import Hook
    from cleanup_guard._process.process import Process
    from cleanup_guard._stop.running import Steps
    from cleanup_guard._stop.stack import CallbackStack


INSIDE: ContextVar[tuple[Work, ...]] = ContextVar("cleanup_guard work", default=())
"""The sections around what runs; they are not waited for by whoever is inside of them."""

LONG = 1.0
"""Seconds of waiting after which it is told for whom."""


class Work:
    """One section of work in flight: see `Guard.work`.

    Attributes:
        name: what reports call it.
        began: when it began.
        stack: the callbacks that wait for it.
        in_main: it runs in main's thread.
        holds: main is not stopped before it is over.
        named: it was told that it is waited for no longer.
        cut: nobody waits for it.
    """

    def __init__(self, process: Process, stack: CallbackStack, name: str | None) -> None:
        self.name: str = f"work in {threading.current_thread().name}" if name is None else name
        self.began: float = process.clock()
        self.stack: CallbackStack = stack
        self.in_main: bool = False
        self.holds: bool = False
        self.named: Once = Once()
        self.cut: bool = False
        self._process = process
        self._shield: Any = None  # of a task

    def _begin(self) -> None:
        process = self._process
        self.began = process.clock()
        self.in_main = in_main()
        self.holds = not self.in_main and (process.stop is None or not process.announced)
        INSIDE.set((*INSIDE.get(), self))
        process.roster.work[self] = None

    def _end(self) -> None:
        process = self._process
        process.roster.work.pop(self, None)
        INSIDE.set(tuple(each for each in INSIDE.get() if each is not self))
        if self.holds and process.stop is not None:
            process.watch.wake()

    def __enter__(self) -> Self:
        if in_main():
            self._process.roster.shields += 1
        self._begin()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._end()
        if self.in_main:
            self._process.roster.shields -= 1
            self._process.deliver()

    async def __aenter__(self) -> Self:
        from cleanup_guard._hosts.loops import backend

        if in_main():
            self._shield = await backend().enter_shield(self._process)
        self._begin()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from cleanup_guard._hosts.loops import backend

        self._end()
        if self._shield is not None and not self._process.foreign:
            await backend().leave_shield(self._process, self._shield, failed=error is not None)


class WaitForWork:
    """Waits for the sections of one guard that have begun, before its callbacks close what they use.

    Args:
        process: whose budget it is, if there is a stop.
        stack: the guard's callbacks.
        hooks: who is told.
        patience: seconds, if there is no stop; None waits without limit.
    """

    def __init__(
        self, process: Process, stack: CallbackStack, hooks: tuple[Hook, ...], patience: float | None
    ) -> None:
        inside = INSIDE.get()
        self._process = process
        self._hooks = hooks
        self._begun = [
            each for each in list(process.roster.work) if each.stack is stack and each not in inside
        ]
        self._began = process.clock()
        self._limit = inf if patience is None else self._began + patience
        self._told = Once()

    def steps(self) -> Steps[None]:
        """Wait, and say which of them go on all the same."""
        if not self._begun:
            return
        stop = self._process.stop
        if stop is not None:
            stop.history.enters(WORK, self._process.clock())
        yield self._is_over
        self._process.roster.cut_work(self._begun, self._process.clock())

    def _is_over(self) -> bool:
        process = self._process
        left, now = (
            [each for each in self._begun if each in process.roster.work and not each.cut],
            process.clock(),
        )
        if left and now - self._began >= LONG and self._told.claim():
            Reporter(self._hooks).emit(
                WorkAwaited(work=tuple((each.name, now - each.began) for each in left))
            )
        stop = process.stop
        if not left or stop is None:
            return not left or now >= self._limit
        # At nine tenths the watcher cuts it; this is for when he does not.
        return stop.budget.stepped_in or now >= stop.budget.hope(stop.budget.LATE)
