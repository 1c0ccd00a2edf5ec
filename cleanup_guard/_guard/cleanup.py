"""One guard's callbacks and the turn at them: run once, whoever runs them."""

from __future__ import annotations

from cleanup_guard._ground.clock import Budget, inf
from cleanup_guard._ground.events import Finished
from cleanup_guard._ground.once import Once
from cleanup_guard._guard.work import WaitForWork
from cleanup_guard._hosts.beside import take_steps_in
from cleanup_guard._process.report import Reporter
from cleanup_guard._process.turn import Turn
from cleanup_guard._stop.history import CLEANING
from cleanup_guard._stop.running import Outcome, run_all, take_steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cleanup_guard._ground.events import Hook
    from cleanup_guard._process.process import Process
    from cleanup_guard._stop.running import Steps
    from cleanup_guard._stop.stack import CallbackStack


DAEMONS_TIME = 1.0
"""Seconds that a daemon thread has at the end of the program for the callbacks that it is at."""


class Cleanup:
    """Whoever takes the turn runs all callbacks, or hands the turn back. Any thread.

    Args:
        process: whose stop they run in.
        stack: the callbacks.
        hooks: who is told.
        exit_timeout: seconds for all of them, where there is no stop; None for no limit.
    """

    def __init__(
        self, process: Process, stack: CallbackStack, hooks: tuple[Hook, ...], exit_timeout: float | None
    ) -> None:
        self.stack = stack
        self._process = process
        self._hooks = hooks
        self._exit_timeout = exit_timeout
        self._outcome: Outcome | None = None
        self._done = Once()
        self._patience_until: float = inf

    def outcome(self, error: BaseException | None) -> Outcome:
        """What running them led to."""
        return Outcome(error) if self._outcome is None else self._outcome

    def run(self, error: BaseException | None) -> Steps[None]:
        """Run them once the work in flight is over, if nobody else does; else wait for whoever does."""
        yield from self._work_and_turn(error)
        if not self._done.claimed:
            yield self._is_over

    def _is_over(self) -> bool:
        """Whether whoever runs them is done. A daemon thread that hangs is not waited for long at the end of the program."""
        if self._done.claimed:
            return True
        turn = next((each for each in list(self._process.roster.turns) if each.stack is self.stack), None)
        if turn is None or not turn.daemon or not self._process.exiting:
            return False
        now = self._process.clock()
        self._patience_until = min(self._patience_until, now + DAEMONS_TIME)
        return now >= self._patience_until

    def run_for_take_over(self, host: Any, error: BaseException | None) -> None:
        """Run what is left, unless somebody else has the turn: in their loop, if that takes it in time, else here."""
        stop = self._process.stop
        if host.in_loop and stop is not None:
            # The callbacks need the rest of the time.
            patience = min(1.0, (stop.budget.end - self._process.clock()) / 2)
            if host.run_here(lambda: take_steps_in(host, self._work_and_turn(error)), patience):
                return
        take_steps(self._work_and_turn(error), host.wait_without_loop)

    def _work_and_turn(self, error: BaseException | None) -> Steps[None]:
        """Callbacks close what work in flight uses. Without a stop it has a share of the time limit, as it has of a budget."""
        limit, began = self._exit_timeout, self._process.clock()
        patience = None if limit is None else Budget.FORCE * limit
        if self._process.roster.work:
            yield from WaitForWork(self._process, self.stack, self._hooks, patience).steps()
        if limit is not None:
            self._exit_timeout = max(0.0, limit - (self._process.clock() - began))
        yield from self._take_turn(error)

    def _take_turn(self, error: BaseException | None) -> Steps[None]:
        began = self._process.clock()
        turn: Turn | None = None
        hand: list[None] = []
        try:
            if self._done.claimed or not self.stack.turn.claim_into(hand) or self._done.claimed:
                return
            turn = self._begin_turn()
            if self._outcome is None:
                self._outcome = Outcome(error)
            turn.run_calls(self._outcome)
            yield from run_all(self.stack, self._outcome, turn)
            self._done.claim()
        finally:
            if hand:  # nothing is called before it is given back; when all is done nobody wants it any more
                self.stack.turn.free[:] = hand
            if turn is not None:
                self._process.roster.turns.pop(turn, None)
        if turn is not None:
            self._tell(turn, began)

    def _begin_turn(self) -> Turn:
        process = self._process
        limit, stop = self._exit_timeout, process.stop
        if stop is not None:
            limit = None
            stop.history.enters(CLEANING, process.clock())
        turn = Turn(process, Reporter(self._hooks), limit, self.stack)
        process.roster.turns[turn] = None
        if limit is not None or (not process.watch.running and self.stack.has_timeouts):
            process.watch.need()
        return turn

    def _tell(self, turn: Turn, began: float) -> None:
        if self._process.stop is None and turn.reporter.wants_details:
            took = self._process.clock() - began
            turn.reporter.emit(
                Finished(reason=None, callbacks=turn.count, failures=turn.failures, seconds=took)
            )
