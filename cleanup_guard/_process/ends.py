"""What is done in threads of ours when main cannot: run the on_stop callbacks, run everything, end the process."""

from __future__ import annotations

import os
import signal
import sys

from cleanup_guard._ground.errors import SignalExit
from cleanup_guard._ground.events import CallbackFailed, DeadlineReached
from cleanup_guard._process import native
from cleanup_guard._process.report import OUTBOX
from cleanup_guard._stop.ending import ending_of
from cleanup_guard._stop.stack import AsyncCallback

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from typing import Protocol

    from cleanup_guard._ground.once import Once
    from cleanup_guard._process.roster import Member, ProcessView
    from cleanup_guard._stop.ending import Ending
    from cleanup_guard._stop.stack import Callback
    from cleanup_guard._stop.stop import Stop

    class Hooks(Protocol):
        """What is known of the on_stop callbacks."""

        hooks: Once
        hook: str | None  # the one that is running

else:
    import _signal

MOST_NAMES = 100
"""How many callbacks a report of what did not run names; a million would take longer than what is left of the grace period."""

DRAIN = 0.3
"""Seconds that an ending process gives to hooks, and to its own stdout and stderr, to come to rest."""


# -- on_stop --


def run_stop_hooks(process: ProcessView, watch: Hooks) -> None:
    """Run on_stop callbacks in the order of their registration, once, whoever comes first."""
    stop = process.stop
    if stop is None or not watch.hooks.claim():
        return
    for member in process.roster.everybody():
        for hook in list(member.stop_hooks):
            started = process.clock()
            watch.hook = hook.name
            try:
                _run_stop_hook(hook, member, stop.hooks_until - started)
            except BaseException as error:
                seconds = process.clock() - started
                name = f"on_stop {hook.name}"
                process.roster.tell(CallbackFailed(name=name, seconds=seconds, error=error, during_stop=True))
            watch.hook = None


def _run_stop_hook(hook: Callback, member: Member, patience: float) -> None:
    if not isinstance(hook, AsyncCallback):
        hook.run(None)
    elif not member.host.run_here(lambda: _await(hook), patience):
        raise TimeoutError("the event loop is blocked, or has ended")


async def _await(hook: AsyncCallback) -> None:
    hook.make_call(None)
    await hook.take_awaitable()


# -- the take-over --


def run_everything(process: ProcessView) -> None:
    """Run all callbacks of main's guards, innermost guard first, then end what cannot end itself."""
    stop = process.stop
    assert stop is not None
    error = SignalExit(stop.signum, stop.status, stop.reason)
    roster = process.roster
    for member in reversed([*list(roster.popped), *list(roster.main)]):
        member.run_callbacks(error)
    # Main is in C and may be for ever, or lets no stop through; one that handles the stop ends in the usual way.
    ends = not process.noticed or process.delivery.times == 0 or not process.handling
    if ends:
        for member in reversed(list(roster.elsewhere)):
            member.run_callbacks(error)
        _wait_for_others(process, stop)
    process.tell_finished()
    if ends:
        end_process(process, stop, None)


def _wait_for_others(process: ProcessView, stop: Stop) -> None:
    """The guards of other threads may be being left there."""
    limit = stop.budget.hope(stop.budget.INTERRUPT)
    while list(process.roster.turns) and process.clock() < limit:
        native.sleep(0.005)


# -- the end --


def give_up(process: ProcessView) -> None:
    """Report who hangs, and end the process before the platform's SIGKILL would."""
    stop = process.stop
    assert stop is not None
    turns = [
        (turn.current.name, turn.started) for turn in list(process.roster.turns) if turn.current is not None
    ]
    stacks = [member.stack for member in reversed(process.roster.everybody())]
    skipped = [name for stack in stacks for name in stack.names(MOST_NAMES)][:MOST_NAMES]
    more = sum(stack.left for stack in stacks) - len(skipped)
    if more > 0:
        skipped.append(f"{more} more")
    now = process.clock()
    for name, began in turns:
        stop.history.ended(name, None, began=began, seconds=now - began, interrupted=True)
    event = DeadlineReached(
        seconds=now - stop.budget.began,
        running=", ".join(name for name, _ in turns) or None,
        skipped=tuple(skipped),
    )
    end_process(process, stop, event)


def end_process(process: ProcessView, stop: Stop, event: DeadlineReached | None) -> None:
    """End the process, with a report if it is overdue: main is stuck and nobody else will. Never returns."""
    process.last_resort.postpone(stop, process.clock())
    # What waits for others must leave time for the exit, or the last resort comes first, with its own status.
    patience = min(DRAIN, max(0.0, stop.budget.last_resort - process.clock()) / 4)
    if event is not None:
        process.roster.tell(event)
        process.tell_finished(event.skipped)
        _dump_stacks(process)
    OUTBOX.drain(patience)
    _flush(patience)
    ending = ending_of(stop, process.exit_status())
    _tell_children()  # at last: a main that waits for them would go on
    _die(ending)
    os._exit(ending.status)


def _tell_children() -> None:
    """SIGTERM to what `multiprocessing` has started here, executors' workers too: nobody will join them any more."""
    module = sys.modules.get("multiprocessing.process")
    for child in list(getattr(module, "_children", ())):
        popen = getattr(child, "_popen", None)
        if popen is not None and popen.returncode is None:  # not reaped: its number is still its own
            try:
                os.kill(popen.pid, signal.SIGTERM)
            except OSError:
                pass


def _dump_stacks(process: ProcessView) -> None:
    import faulthandler

    stderr = process.last_resort.stderr
    fd = None if stderr is None else stderr.safe_fileno()
    if fd is not None:
        try:
            faulthandler.dump_traceback(file=fd, all_threads=True)
        except (OSError, RuntimeError, ValueError):
            pass


def _flush(patience: float) -> None:
    """Flush what the program has printed, in a thread: the stream's lock may be held, or its pipe full."""

    def flush() -> None:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (AttributeError, OSError, ValueError, RuntimeError):
                pass

    thread = native.Thread(flush, "cleanup_guard flush")
    if thread.start():
        thread.join(patience)


def prepare_death(process: ProcessView) -> None:
    """Load what `_die` needs while there is time: next to a busy main an import takes longer than the last margin."""
    stop = process.stop
    if stop is not None and _dies(ending_of(stop, process.exit_status())):
        native.Thread(_reset, "cleanup_guard import", brief=True).start()


def _dies(ending: Ending) -> bool:
    """Whether the process is to die by a signal, and can."""
    return ending.signum is not None and sys.platform != "win32" and os.getpid() != 1


def _reset() -> Callable[[int, None], object] | None:
    """What gives a signal its default back below Python; None without ctypes."""
    try:
        import ctypes

        api = ctypes.pythonapi
    except (ImportError, AttributeError):
        return None
    return getattr(api, "PyOS_setsig", None)


def _die(ending: Ending) -> None:
    """Die by the signal, from a thread: `signal.signal` works only in main, so the disposition is reset below Python.

    Returns if that is not wanted, or not possible: as PID 1, or without ctypes.
    """
    reset = _reset() if _dies(ending) else None
    if sys.platform == "win32" or reset is None or ending.signum is None:
        return
    reset(ending.signum, None)
    _signal.pthread_sigmask(signal.SIG_UNBLOCK, [ending.signum])
    os.kill(os.getpid(), ending.signum)
