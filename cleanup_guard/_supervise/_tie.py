"""What ties a supervisor to the guard of the program: its stop is the children's, and a child that fails ends main."""

from __future__ import annotations

import threading

from cleanup_guard._ground.clock import Grace
from cleanup_guard._guard.guard import guard as new_guard
from cleanup_guard._guard.on_exit import current_guard
from cleanup_guard._process.process import REGISTRY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cleanup_guard._guard.guard import Guard
    from cleanup_guard._guard.options import Default


def sent_to_everybody() -> int | None:
    """The signal of the program's stop, if the platform seems to have sent it to the children, too: who sends is not told."""
    process = REGISTRY.process
    stop = None if process is None else process.stop
    if process is None or stop is None or stop.budget.period.by_hand:
        return None
    return stop.signum if process.whereabouts.tells_everybody else None


class Tie:
    """The guard that a supervisor takes part in.

    Attributes:
        guard: it; None as long as there was none.
        own: the one that the supervisor holds itself, for the time of its block; None where there is another, or no block.
    """

    def __init__(self) -> None:
        self.guard: Guard | None = None
        self.own: Guard | None = None

    def hold(self, grace: float | Default | None) -> None:
        """In main without a guard, hold one."""
        if current_guard() is None and threading.current_thread() is threading.main_thread():
            self.own = new_guard(grace=grace)
            self.own.__enter__()

    def join(self, close: Callable[[], None], stop: Callable[[str], None]) -> None:
        """Take part in the current guard, if there is one that is not stopping.

        Args:
            close: what it is to call in its cleanup, for who does not use `with`.
            stop: what it is to call when it begins to stop, with the reason.
        """
        guard = current_guard()
        if self.guard is not None or guard is None or guard.stopping:
            return
        self.guard = guard
        guard.callback(close)
        guard.on_stop(stop, "the guard is stopping")

    @property
    def others(self) -> Guard | None:
        """The guard, if it is somebody else's: there are callbacks after ours."""
        guard = self.guard
        return None if guard is self.own else guard

    @property
    def left(self) -> Grace | None:
        """What is left of the time of the guard's stop; None without one."""
        process = REGISTRY.process
        stop = None if process is None or self.guard is None else process.stop
        if process is None or stop is None:
            return None
        now, budget = process.clock(), stop.budget
        if budget.grace is None:
            return budget.period
        ends = (budget.sure(budget.INTERRUPT), budget.hope(budget.INTERRUPT))
        return Grace(*(max(0.0, end - now) for end in ends), source="the guard")

    def fail(self, reason: str, status: int) -> None:
        """A child has failed: main is to end."""
        guard = self.others
        if guard is not None and not guard.stopping:
            try:
                guard.request_stop(reason, status=status)
            except RuntimeError:
                pass  # the guard was left in this very moment
