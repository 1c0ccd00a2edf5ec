"""A guard has been left: the stop goes on upwards, or main's own exception does, or what callbacks raised."""

from __future__ import annotations

from cleanup_guard._ground.errors import CleanupError, SignalExit
from cleanup_guard._ground.events import MainFailed
from cleanup_guard._process.last_word import LastWord, hush_traceback
from cleanup_guard._process.report import OUTBOX, Reporter
from cleanup_guard._stop.ending import ending_of
from cleanup_guard._stop.token import is_ours

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cleanup_guard._ground.events import Hook
    from cleanup_guard._process.process import Process
    from cleanup_guard._stop.ending import Ending
    from cleanup_guard._stop.running import Outcome
    from cleanup_guard._stop.stop import Stop


class Verdict:
    """What leaving a guard comes to, once all is done: an exception that goes on, or whether main's is suppressed."""

    def __init__(self, foreign: BaseException | None = None) -> None:
        self.outcome: Outcome | None = None
        self.end: Callable[[], bool] | None = None  # how the stop goes on
        # What somebody's signal handler raised between two of our lines.
        self.foreign: BaseException | None = foreign

    def carry_out(self, error: BaseException | None) -> bool:
        """Raise, or say whether the exception with which main ended is suppressed."""
        if self.end is not None:
            return self.end()
        if self.foreign is not None and self.foreign is not error:
            raise self.foreign
        if self.outcome is None:
            return False
        raise_failures(self.outcome, error)
        return self.outcome.suppressed


def end_of_loop(host: Any, stop: Stop, error: BaseException | None) -> bool:
    """A stop ends a loop in another thread; what its main task raises ends the thread, silently, and not the process."""
    if not _ends_loop(host):
        return bool(host.pass_on(error))
    exception = SystemExit(stop.status)  # threading is silent about no other one
    return bool(host.go_on(exception, error))


def _ends_loop(host: Any) -> bool:
    """Whether the guard that was just left is the one that lets the stop go on: the outermost, in the last task."""
    return not host.members and (host.is_root or host.others_are_clean())


def end_of_stop(
    process: Process, host: Any, hooks: tuple[Hook, ...], stop: Stop, error: BaseException | None
) -> bool:
    """A stop goes on upwards: as main's exception if that is how main ended, else as a new one.

    What somebody's signal handler raises in here goes on instead: then it stays owed, and the exit nets see to the status.
    In a task it stays so until the guard has been left (`Departure.leave_in_task`).
    """
    if host.in_loop and not _ends_loop(host):
        return bool(host.pass_on(error))
    wanted = process.exit_status()
    ending = ending_of(stop, wanted)
    _say_last_word(ending, stop, host)
    if is_ours(error) and _says(error, ending):
        stop.owed = host.in_loop
        return False
    if not _leaves(error) and not (host.in_loop and host.is_cancellation(error)):
        Reporter(hooks).emit(MainFailed(error=error))  # type: ignore[arg-type]
        OUTBOX.drain(0.3)
    exception = process.make_exception(wanted if isinstance(wanted, int) else None)
    if host.in_loop:
        return bool(host.go_on(exception, error))
    stop.owed = False
    raise exception


def _say_last_word(ending: Ending, stop: Stop, host: Any) -> None:
    # Click and others turn a KeyboardInterrupt that leaves main into an exit: it is a death by SIGINT all the same.
    is_last_ctrl_c = ending.is_keyboard_interrupt and stop.finished
    is_wrapped = host.in_loop and host.wraps_exceptions
    if ending.needs_last_word or is_last_ctrl_c or is_wrapped:
        LastWord(ending).say()
        if host.in_loop:
            hush_traceback()


def _says(error: BaseException | None, ending: Ending) -> bool:
    """Whether an exception of ours ends the process as it is to end."""
    return not isinstance(error, SignalExit) or ending.signum is not None or error.code == ending.status


def _leaves(error: BaseException | None) -> bool:
    """Whether main ended in a way that needs no report."""
    return error is None or isinstance(error, (SystemExit, KeyboardInterrupt, GeneratorExit))


def raise_failures(outcome: Outcome, error: BaseException | None) -> None:
    """After a normal exit: a callback's own `sys.exit` or Ctrl-C goes on as it is, everything else in one group."""
    if not outcome.failures:
        return
    for failure in reversed(outcome.failures):
        if not isinstance(failure, Exception):
            raise failure
    exceptions = [failure for failure in outcome.failures if isinstance(failure, Exception)]
    plural = "" if len(exceptions) == 1 else "s"
    group = CleanupError(f"{len(exceptions)} cleanup callback{plural} failed", exceptions)
    group.__context__ = error
    raise group
