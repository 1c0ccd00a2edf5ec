"""With which status, or by which signal, the process ends: asked by everybody, decided here.

The table of events in the README is the test of this file, row by row.
"""

from __future__ import annotations

from cleanup_guard._ground.names import SIGINT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cleanup_guard._stop.stop import ExitStatus, Stop


class Ending:
    """How a process ends because of a stop.

    Attributes:
        signum: the signal that it dies of once the interpreter has shut down; None for an exit.
        status: the exit status; for a death by signal that of PID 1, which cannot die of its own signals (hazard H2).
    """

    __slots__ = ("signum", "status")

    def __init__(self, signum: int | None, status: int) -> None:
        self.signum: int | None = signum
        self.status: int = status

    @property
    def is_keyboard_interrupt(self) -> bool:
        """Whether a plain `KeyboardInterrupt` is to leave main: only that exact type makes Python die of SIGINT (H34)."""
        return self.signum == SIGINT

    @property
    def needs_last_word(self) -> bool:
        """Whether no exception brings that about."""
        return self.signum is not None and not self.is_keyboard_interrupt


def ending_of(stop: Stop, wanted: ExitStatus) -> Ending:
    """How a stop of ours ends the process.

    Args:
        stop: the stop.
        wanted: what the outermost guard that names an exit status wants. None: 128 + signal, and death by SIGINT for Ctrl-C,
            which is what shells look at.
    """
    if isinstance(wanted, int):
        return Ending(None, wanted)
    dies = wanted == "signal" or stop.signum == SIGINT
    return Ending(stop.signum if dies else None, stop.status)
