"""The C-level timer that ends the process when Python cannot: it works while the GIL is held, and as PID 1 (hazard H22)."""

from __future__ import annotations

import os

from cleanup_guard._ground.once import Once
from cleanup_guard._ground.stderr import Stderr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cleanup_guard._stop.stop import Stop


class LastResort:
    """`faulthandler.dump_traceback_later(exit=True)`, one for a process. Main, its handler and the watcher all come here."""

    def __init__(self) -> None:
        self.stderr: Stderr | None = None
        self._devnull: int | None = None
        self._armed = Once()

    def arm(self, stop: Stop, now: float) -> None:
        """Arm it, once."""
        if stop.budget.grace is None or not self._armed.claim():
            return
        try:
            self.stderr = Stderr()
            if self.stderr.safe_fileno() is None:
                self._devnull = os.open(os.devnull, os.O_WRONLY)
        except OSError:
            pass  # no descriptor left: the watcher's deadline still stands
        self._set(stop.budget.last_resort - now)

    def postpone(self, stop: Stop, now: float) -> None:
        """Python runs and is about to end the process itself, with the right status: let it, if that takes a moment longer."""
        if self._armed.claimed:
            self._set(stop.budget.last_moment - now)

    def _set(self, left: float) -> None:
        import faulthandler

        fd = None if self.stderr is None else self.stderr.safe_fileno()
        if fd is None:
            fd = self._devnull
        if fd is None:
            return
        try:
            faulthandler.dump_traceback_later(max(0.001, left), exit=True, file=fd)
        except (OSError, RuntimeError, ValueError):
            pass  # no thread to be had: an earlier one, and the watcher's deadline, still stand

    def pause(self) -> bool:
        """Take the timer back for a moment: it is a thread, which makes forks warn. `resume` goes on. Says whether it ran."""
        if not self._armed.claimed or (self.stderr is None and self._devnull is None):
            return False
        import faulthandler

        faulthandler.cancel_dump_traceback_later()
        return True

    def resume(self, stop: Stop | None, now: float) -> None:
        """Undo `pause`."""
        if self._armed.claimed and stop is not None and stop.budget.grace is not None:
            self._set(stop.budget.last_resort - now)

    def disarm(self) -> None:
        """Take it back."""
        if not self._armed.claimed:
            return
        import faulthandler

        faulthandler.cancel_dump_traceback_later()
        self.disown()
        self._armed.give_back()

    def disown(self) -> None:
        """Close what was opened for it; in a fork child, which has no timer, that is all."""
        if self.stderr is not None:
            self.stderr.close()
            self.stderr = None
        if self._devnull is not None:
            os.close(self._devnull)
            self._devnull = None
