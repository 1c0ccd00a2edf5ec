"""The ways out: running what is left, giving everything back, and ending the process when nothing else will.

Callbacks normally run in the guard's own exit. Three nets are below it, and all claim from the same stacks: the take-over by
the watcher, the early net (before the interpreter joins non-daemon threads, where threads and executors still work) and the
late net (`atexit`, where some of that no longer does: hazards H29 to H31).
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading

from cleanup_guard import _signals
from cleanup_guard._ground.errors import SignalExit
from cleanup_guard._ground.stderr import write_line
from cleanup_guard._process import REGISTRY, Process, Stop, in_main, unhush_traceback
from cleanup_guard._report import OUTBOX
from cleanup_guard._stack import AsyncCallback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cleanup_guard._ground.events import DeadlineReached
    from cleanup_guard._guard import Guard
    from cleanup_guard._stack import Callback

DRAIN = 0.3
"""Seconds that an ending process gives to hooks, and to its own stdout and stderr, to come to rest."""


def run_stop_hooks(process: Process, hooks: list[tuple[Callback, Guard]]) -> None:
    """Run on_stop callbacks in the order of their registration, in the watcher's helper thread."""
    from cleanup_guard._ground.events import CallbackFailed

    stop = process.stop
    assert stop is not None
    for hook, guard in hooks:
        started = process.clock()
        try:
            _run_stop_hook(hook, guard, stop, started)
        except BaseException as error:
            seconds = process.clock() - started
            name = f"on_stop {hook.name}"
            process.reporter().emit(CallbackFailed(name=name, seconds=seconds, error=error, during_stop=True))


def _run_stop_hook(hook: Callback, guard: Guard, stop: Stop, now: float) -> None:
    if guard.host is None or not isinstance(hook, AsyncCallback):
        hook.run(None)
    elif not guard.host.run_in_loop(lambda: _await(hook), stop.budget.at(stop.budget.HOOKS) - now):
        raise TimeoutError("the event loop is blocked, or has ended")


async def _await(hook: AsyncCallback) -> None:
    hook.start(None)
    await hook.awaitable


def run_everything(process: Process) -> None:
    """The take-over: run all callbacks of all guards from a thread, innermost guard first, then end what cannot end itself."""
    stop = process.stop
    assert stop is not None
    error = SignalExit(stop.signum, stop.status, stop.reason)
    for guard in reversed(process.guards[:]):
        guard.run_callbacks(error)
    process.tell_finished(process.reporter())
    # Main is in C and may be for ever, or lets no stop through; one in which the stop is alive ends in the usual way.
    swallowed = process.swallowed or any(host.has_swallowed for host in process.hosts)
    if swallowed or not process.noticed or process.deliveries == 0:
        end_process(process, stop, None)


def close_watcher(process: Process) -> None:
    """Stop the watcher, if there is one."""
    with REGISTRY.lock:
        watcher, process.watcher = process.watcher, None
        if watcher is not None:
            watcher.close()


def release(process: Process) -> None:
    """Give back signals, pipe, thread and timer, in the order that loses no signal. Main thread only."""
    close_watcher(process)
    process.disarm()  # after the watcher, which may be arming it
    for lost in process.handlers.give_back(list(process.handlers.previous)):
        process.tell_replaced(lost)
    if not process.exiting:
        unhush_traceback()
    late, process.unclaimed = process.unclaimed, []
    for signum in late:  # they came after the last guard and before the old handler was back
        signal.raise_signal(signum)


# -- nets --


class Nets:
    """The exit nets of this process, set up once, on the first guard: importing the package registers nothing."""

    def __init__(self) -> None:
        self.set_up = False

    def stretch(self) -> None:
        """Register the nets; further calls do nothing."""
        if self.set_up:
            return
        self.set_up = True
        atexit.register(late_net)
        # Private, but what concurrent.futures uses for the same reason (gh-126168 asked for a public one): it runs before
        # the interpreter joins non-daemon threads, which may be waiting for one of our callbacks.
        # Later ones run first, and concurrent.futures, which joins its workers there, is often imported later.
        registered: object = getattr(threading, "_threading_atexits", None)
        if isinstance(registered, list):
            others: list[Callable[[], object]] = registered  # pyright: ignore[reportUnknownVariableType]
            setattr(threading, "_threading_atexits", EarlyNetFirst(others))  # noqa: B010  # typeshed does not know it

    def stretch_in_child(self) -> None:
        """A multiprocessing child leaves by `os._exit`, without atexit (H41): its own finalizers do run."""
        process = sys.modules.get("multiprocessing.process")
        if process is None or process.parent_process() is None:
            return
        from multiprocessing import util

        util.Finalize(None, early_net, exitpriority=0)


class EarlyNetFirst(list["Callable[[], object]"]):
    """What runs before the interpreter joins threads, in the order in which it runs: the early net, then the others."""

    def __reversed__(self) -> Iterator[Callable[[], object]]:
        yield early_net
        yield from super().__reversed__()


NETS = Nets()


def early_net() -> None:
    """Run what is left in main's guards: skipped exits (hazard H9), `on_exit` without a guard, popped guards."""
    process = REGISTRY.process
    if process is None or process.pid != os.getpid():
        return
    process.exiting = True
    _run_left(process)
    process.arm_last_resort()


def _run_left(process: Process) -> None:
    """Leave what is left; a stop that came meanwhile has no main to be raised in, and decides the exit status here."""
    _leave_all(process)
    stop, status = process.stop, process.exit_status
    if stop is not None and process.deliveries == 0:
        dies = status == "signal" or (status is None and stop.signum == _signals.SIGINT)
        LastWord(stop.signum if dies else None, status if isinstance(status, int) else stop.status).say()


def _leave_all(process: Process) -> None:
    while process.guards:
        guard = process.guards[-1]
        try:
            guard.leave_at_exit()
        except BaseException as error:  # an exception here would skip the interpreter's joins
            write_line(f"leaving {guard!r} at exit failed: {type(error).__name__}: {error}")
            if guard in process.guards:
                process.guards.remove(guard)


def late_net() -> None:
    """As the early net, and for guards of other threads; then have repeats of the stop ignored to the very end."""
    process = REGISTRY.process
    if process is None or process.pid != os.getpid():
        return
    process.exiting = True
    _run_left(process)
    leave_elsewhere(process)
    if process.stop is not None and in_main():
        process.handlers.ignore()
        _forget_broken_streams()


def _forget_broken_streams() -> None:
    """Python ends with status 120 if it cannot flush its streams: a reader who left does not change what a stop's status is."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except (AttributeError, OSError, ValueError, RuntimeError):
            setattr(sys, name, None)


def leave_elsewhere(process: Process) -> None:
    """Run what is left in the guards of other threads."""
    for guard in reversed(process.elsewhere[:]):
        guard.leave_at_exit()


class LastWord:
    """Ends the process after the interpreter has flushed its streams: `__del__` of a name in `sys`, which is cleared last.

    There is no other place to do it: `atexit` comes before the flush, and its callbacks cannot change the exit status.
    """

    NAME = "_cleanup_guard_last_word"

    def __init__(self, signum: int | None, status: int) -> None:
        self.pid = os.getpid()
        self.signum = signum
        self.status = status
        # Globals may be gone by then.
        self.getpid, self.kill, self.signal, self.default, self.exit = (
            os.getpid,
            os.kill,
            sys.modules["_signal"].signal,  # the C function: the Python one needs its globals
            int(signal.SIG_DFL),
            os._exit,
        )

    def say(self) -> None:
        """Put it in place of any that was said before."""
        self.take_back()
        setattr(sys, self.NAME, self)

    @classmethod
    def take_back(cls) -> None:
        """Leave the exit status to Python."""
        last = sys.__dict__.pop(cls.NAME, None)
        if last is not None:
            last.pid = -1

    def __del__(self) -> None:
        if self.getpid() != self.pid:
            return
        if self.signum is not None and self.pid != 1:  # PID 1 survives its own signals (H2)
            self.signal(self.signum, self.default)
            self.kill(self.pid, self.signum)
        self.exit(self.status)


# -- the end --


def end_process(process: Process, stop: Stop, event: DeadlineReached | None) -> None:
    """End the process from the watcher, with a report if it is overdue: main is stuck and nobody else will. Never returns."""
    process.postpone_last_resort()
    # What waits for others must leave time for the exit, or the last resort comes first, with its own status.
    patience = min(DRAIN, max(0.0, stop.budget.last_resort - process.clock()) / 4)
    if event is not None:
        process.reporter().emit(event)
        _dump_stacks(process)
    OUTBOX.drain(patience)
    _flush(patience)
    status = process.exit_status
    if stop.signum is not None and (
        status == "signal" or (status is None and stop.signum == _signals.SIGINT)
    ):
        _die_of(stop.signum)
    os._exit(status if isinstance(status, int) else stop.status)


def _dump_stacks(process: Process) -> None:
    import faulthandler

    fd = process.stderr.safe_fileno() if process.stderr is not None else None
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

    thread = threading.Thread(target=flush, name="cleanup_guard flush", daemon=True)
    try:
        thread.start()
        thread.join(patience)
    except RuntimeError:
        pass


def prepare_death(process: Process, stop: Stop) -> None:
    """Load what `_die_of` needs while there is time: next to a busy main an import takes longer than the last margin."""
    if stop.signum is not None and (process.exit_status == "signal" or stop.signum == _signals.SIGINT):
        thread = threading.Thread(
            target=__import__, args=("ctypes",), name="cleanup_guard import", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            pass  # the interpreter is shutting down


def _die_of(signum: int) -> None:
    """Die by the signal, from a thread: `signal.signal` works only in main, so the disposition is reset below Python.

    Returns if that is not possible: as PID 1, or without ctypes.
    """
    if os.getpid() == 1:
        return
    try:
        import ctypes

        ctypes.pythonapi.PyOS_setsig(signum, None)
    except (ImportError, AttributeError):
        return
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signum])
    os.kill(os.getpid(), signum)
