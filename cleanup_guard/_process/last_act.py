"""The one thing that may come after all cleanup: what `exec_into` asked for.

A guard that main leaves with a `LastAct` offers it its turn once the callbacks are done and before the signals are given
back, so that there is no moment at which a stop could be lost.
"""

from __future__ import annotations

import sys

from cleanup_guard._process.last_word import LastWord
from cleanup_guard._stop.ending import Ending, ending_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cleanup_guard._process.roster import ProcessView
    from cleanup_guard._stop.running import Outcome


class LastAct(SystemExit):
    """Ends main as `sys.exit` does, and acts when main has left its outermost guard and all is clean.

    Where that guard is the one which `on_exit` made for the process, only the interpreter sees main end. It then asks the
    exception for its `code`; nobody else can ask without a Python frame. From there the exit net takes over.

    Args:
        process: whose guards main is to leave.
        act: what to do. It returns, with an exit status, only if it failed or a stop came first.
        despite_failures: act even if callbacks failed.
    """

    def __init__(self, process: ProcessView, act: Callable[[], int], *, despite_failures: bool) -> None:
        super().__init__()
        self._process = process
        self._act = act
        self._despite_failures = despite_failures
        self._failed = False
        self.status: int = 1

    @property
    def code(self) -> int:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """The exit status, if the act failed or never came."""
        if _asked_by_interpreter():
            self._process.last_act = self
        return self.status

    def after(self, outcome: Outcome) -> None:
        """A guard is clean. Act if it was the last, no callback failed or suppressed this, and no stop came."""
        process = self._process
        if self._despite_failures:
            outcome.failures.clear()
        self._failed = self._failed or bool(outcome.failures)
        if len(process.roster.main) == 1 and not (self._failed or outcome.suppressed or process.stop):
            self.status = self._act()

    def after_exit(self, outcome: Outcome) -> None:
        """As `after`, for the exit net: Python has asked for the exit status already, so a new one is said otherwise."""
        self.after(outcome)
        stop = self._process.stop
        if stop is not None:
            LastWord(ending_of(stop, None)).say()
        elif self.status != 1:
            LastWord(Ending(None, self.status)).say()


def _asked_by_interpreter() -> bool:
    try:
        sys._getframe(2)  # pyright: ignore[reportPrivateUsage]
    except ValueError:
        return True
    return False
