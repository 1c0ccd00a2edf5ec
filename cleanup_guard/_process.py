"""The one documented registry: what this process knows of its guards and of its stop.

Signals are process-wide, so the stop is, too: one `Process` object holds the guards that are entered, the stop once it has
arrived, and its delivery to main. A fork child drops its parent's object and starts with a new one.

Rules:
1. The handler records and wakes. It takes no lock, prints nothing, and raises at most one exception: the stop.
2. The stop is raised where it can do no harm: never in our own code, which delivers it itself on the way out, and in the
   standard library only where main stands still, because `queue`, `threading`, `multiprocessing`, `subprocess` and `tempfile`
   are not made for an exception between two of their lines (hazard H12).
3. Everything that is not the first delivery is decided by the watcher (`_watcher.py`), which pokes main to look again.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
import weakref
from math import inf

from cleanup_guard import _signals
from cleanup_guard._ground.clock import DEFAULT_GRACE, Budget, grace_from_environment
from cleanup_guard._ground.errors import SignalExit
from cleanup_guard._ground.events import Finished, HandlerReplaced, StopReceived
from cleanup_guard._ground.names import name_of
from cleanup_guard._ground.stderr import Stderr
from cleanup_guard._report import OURS, TOKEN, Reporter, log_event
from cleanup_guard._stack import IN_CALLBACK, Callback
from cleanup_guard._state import Machine, Move, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType
    from typing import Any

    from cleanup_guard._async import Host
    from cleanup_guard._ground.clock import Clock
    from cleanup_guard._guard import Guard
    from cleanup_guard._last_act import LastAct
    from cleanup_guard._run import Run
    from cleanup_guard._watcher import Watcher

    TraceFunction = Callable[[FrameType, str, Any], Any]

STDLIB = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
SITE = tuple(STDLIB + name + os.sep for name in ("site-packages", "dist-packages"))

PURE = tuple(
    STDLIB + name for name in ("difflib.py", "fractions.py", f"json{os.sep}", f"re{os.sep}", "statistics.py")
)
"""Parts of the standard library that hold nothing. Their C code keeps the GIL for long and only looks for signals:
the watcher, who would tell that main stands still, cannot run meanwhile."""

STILL = 0.008
"""Seconds for which main must be seen at the same instruction of the standard library before the stop is raised there."""

CALLERS: set[CodeType] = {Callback.run.__code__}
"""The code of ours that calls user functions inside a `try` or `with` of its own."""

PATIENCE = 0.5
"""Seconds for which a stop waits for main to come out of the standard library, or to stand still in it."""


class Token:
    """Lives as long as the exception it hangs on: a plain KeyboardInterrupt cannot be weakly referenced itself."""

    __slots__ = ("__weakref__",)


class Stop:
    """The one stop of a process: written once, by whoever claims it first."""

    __slots__ = ("budget", "reason", "sender", "signum", "status")

    def __init__(
        self, signum: int | None, reason: str, status: int, sender: int | None, budget: Budget
    ) -> None:
        self.signum: int | None = signum
        self.reason: str = reason
        self.status: int = status
        self.sender: int | None = sender
        self.budget: Budget = budget


class Process:
    """Guards, stop and delivery of one process. The attributes below are read by the watcher; each has one writer."""

    def __init__(self) -> None:
        self.pid: int = os.getpid()
        self.foreign: bool = False  # set in a fork child, for the guards that it inherited
        self.clock: Clock = time.monotonic
        self.machine: Machine = Machine()
        self.guards: list[Guard] = []  # entered in main, outermost first
        self.elsewhere: list[Guard] = []  # entered in other threads
        self.runs: list[Run] = []  # callbacks in progress, one a thread
        self.handlers: _signals.Handlers = _signals.Handlers(self.on_signal)
        self.watcher: Watcher | None = None
        self.stop: Stop | None = None
        self._first = [None]
        self._untold = [None]
        self._unfinished = [None]
        self._unarmed = [None]
        self._devnull: int | None = None
        self.told: bool = False  # the stop has been announced
        self.noticed: bool = False  # main has run the handler since the stop
        self.announced: bool = False  # on_stop hooks have had their turn
        self.forced: bool = False  # shields and cooperative guards no longer hold the stop back
        self.handed_over: bool = False  # the stop signal was somebody else's to handle
        self.blocked: bool = (
            False  # the event loop does not answer: the stop is raised in main as it is without a loop
        )
        self.ended_in_task: bool = (
            False  # the stop's exception left a task, and tasks keep it in a reference cycle
        )
        self.insisted: bool = False  # a person pressed Ctrl-C again
        self.last_act: LastAct | None = None  # main has ended by it, outside every `with guard()`
        self.exiting: bool = False  # the interpreter is on its way out
        self.shields: int = 0
        self.delivered: weakref.ref[Token] | None = None
        self.deliveries: int = 0
        self.calls: dict[int, int] = {}  # handler calls by signal
        self.poked: dict[int, int] = {}  # pokes sent that the handler has not seen, by signal
        self._called_previous: set[int] = set()
        self.unclaimed: list[int] = []  # signals that came while nobody guarded any more
        self._seen_at: tuple[FrameType, int, float] | None = None
        self.stderr: Stderr | None = None
        self.totals: list[int] = [0, 0]  # callbacks run and failed because of this stop

    # -- guards --

    @property
    def grace(self) -> float | None:
        """The grace period in force: the environment's, else that of the outermost guard that names one, else docker's."""
        told, grace = grace_from_environment(os.environ)  # type: ignore[arg-type]
        if told:
            return grace
        for guard in self.guards[:]:
            if guard.settings.has_grace:
                return guard.settings.grace
        return DEFAULT_GRACE

    @property
    def hosts(self) -> list[Host]:
        """The tasks with guards in them, whatever thread their loops run in. Any thread."""
        found = {guard.host: None for guard in (*self.guards, *self.elsewhere) if guard.host is not None}
        return [host for host in found if host.alive]

    @property
    def is_tasks(self) -> bool:
        """Whether main runs an event loop whose tasks are cancelled, rather than interrupted."""
        return any(host.in_main for host in self.hosts)

    @property
    def in_callback(self) -> bool:
        """Whether the caller is a callback: of a guard in this thread, or an async one, or a task that one has begun."""
        here = threading.get_ident()
        running = [run.current for run in self.runs[:] if run.ident == here]
        return IN_CALLBACK.get() or any(each is not None and each.flight is None for each in running)

    @property
    def exit_status(self) -> int | str | None:
        """What the outermost guard that names an exit status wants."""
        for guard in self.guards[:]:
            if guard.settings.exit_status is not None:
                return guard.settings.exit_status
        return None

    def reporter(self) -> Reporter:
        """A reporter for events that concern the whole process: the hooks of all guards, each once."""
        hooks = [hook for guard in (*self.guards, *self.elsewhere) for hook in guard.reporter.hooks]
        return Reporter(dict.fromkeys(hooks) if hooks or self.guards else (log_event,))

    # -- the stop --

    def claim_stop(self, signum: int | None, reason: str, status: int, sender: int | None) -> bool:
        """Record the stop if it is the first. Any thread, any handler: the claim is one atomic `list.pop()`."""
        try:
            self._first.pop()
        except IndexError:
            return False
        self.stop = Stop(signum, reason, status, sender, Budget(self._grace_now(), self.clock()))
        self.announced = not any(guard.stop_hooks for guard in (*self.guards, *self.elsewhere))
        self.machine.fire(Move.STOP)
        self.arm_last_resort()
        return True

    def _grace_now(self) -> float | None:
        try:
            return self.grace
        except ValueError:  # the variable was broken after the guard had checked it
            return DEFAULT_GRACE

    def claim_signal(self, signum: int) -> bool:
        """Record a signal as the stop, if it is the first."""
        return self.claim_stop(signum, name_of(signum), 128 + signum, None)

    def announce(self) -> None:
        """Wake those who wait for the stop, and tell the hooks of it, once: the watcher does, or main on its way out."""
        try:
            self._untold.pop()
        except IndexError:
            return
        stop = self.stop
        assert stop is not None
        for guard in (*self.guards, *self.elsewhere):
            guard.wake_waiters()
        event = StopReceived(
            reason=stop.reason, signum=stop.signum, sender=stop.sender, grace=stop.budget.grace
        )
        self.reporter().emit(event)
        self.told = True

    def tell_finished(self, reporter: Reporter) -> None:
        """Tell that all callbacks have had their turn, once."""
        try:
            self._unfinished.pop()
        except IndexError:
            return
        stop = self.stop
        assert stop is not None
        callbacks, failures = self.totals
        took = self.clock() - stop.budget.began
        reporter.emit(Finished(reason=stop.reason, callbacks=callbacks, failures=failures, seconds=took))

    def tell_replaced(self, signum: int) -> None:
        """Tell that somebody took a signal from us."""
        name, handler = name_of(signum), repr(signal.getsignal(signum))
        self.reporter().emit(HandlerReplaced(signum=signum, signal=name, handler=handler))

    def arm_last_resort(self) -> None:
        """Have the process ended from C: the only thing that works while the GIL is held, and as PID 1 (hazard H22)."""
        stop = self.stop
        if stop is None or stop.budget.grace is None:
            return
        try:
            self._unarmed.pop()  # main, its handler and the watcher all come here: whoever is first opens the descriptor
        except IndexError:
            return
        try:
            self.stderr = Stderr()
            fd = self.stderr.safe_fileno()
            if fd is None:
                fd = self._devnull = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            left = max(0.001, stop.budget.last_resort - self.clock())
            faulthandler.dump_traceback_later(left, exit=True, file=fd)
        except (OSError, RuntimeError, ValueError):
            pass  # no descriptor left: the watcher's deadline still stands

    def postpone_last_resort(self) -> None:
        """Python runs and is about to end the process itself, with the right status: let it, if that takes a moment longer."""
        stop = self.stop
        fd = self._devnull if self.stderr is None else (self.stderr.safe_fileno() or self._devnull)
        if stop is None or stop.budget.grace is None or fd is None:
            return
        left = max(0.001, stop.budget.last_moment - self.clock())
        try:
            faulthandler.dump_traceback_later(left, exit=True, file=fd)
        except (OSError, RuntimeError, ValueError):
            pass  # the earlier one still stands

    def disarm(self) -> None:
        """Take the last resort back, if it is ours."""
        if self.stderr is not None:
            faulthandler.cancel_dump_traceback_later()
            self.stderr.close()
            self.stderr = None
            if self._devnull is not None:
                os.close(self._devnull)
                self._devnull = None
            self._unarmed.append(None)

    @property
    def released(self) -> bool:
        """Whether the stop may be raised: hooks are done, no shield holds, nobody else handles it, main does not cooperate."""
        return self.forced or (self.shields == 0 and self.is_wanted)

    @property
    def is_wanted(self) -> bool:
        """Whether main is to be told of the stop as soon as no critical section holds it back."""
        if self.forced or self.insisted:
            return True
        if not self.announced or self.handed_over:
            return False
        return not (self.guards and not self.guards[-1].settings.interrupt)

    @property
    def swallowed(self) -> bool:
        """Whether the exception that was raised in main is dead."""
        return self.delivered is not None and self.delivered() is None

    # -- the handler --

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        """Record, wake, and raise the stop if this is the moment. Runs in main between any two instructions; may nest."""
        self.calls[signum] = self.calls.get(signum, 0) + 1
        if self.poked.get(signum, 0) > 0:
            # Pokes that coalesced leave a rest, which hides a signal from us, not from the watcher: it counts bytes.
            self.poked[signum] -= 1
            if self.stop is not None and self.stop.signum == signum:
                self._call_previous(signum, frame)  # the watcher saw the signal before we did
        elif self.machine.state is State.IDLE:
            self.unclaimed.append(signum)
            return
        else:
            self._call_previous(signum, frame)
            if not self.claim_signal(signum) and self.stop is not None and self.stop.signum == signum:
                # Whoever took the signal from us has put us back and raised it again, as uvicorn does.
                self.handed_over = False
            watcher = self.watcher
            if watcher is not None:
                watcher.pipe.wake()
        self.noticed = self.stop is not None
        self._look(frame)

    def _call_previous(self, signum: int, frame: FrameType | None) -> None:
        """Call the Python handler that was there before the guard, once. It may raise; the stop comes all the same."""
        previous = self.handlers.previous.get(signum)
        if (
            not callable(previous)
            or previous is _signals.default_int_handler
            or _is_loops(previous)
            or signum in self._called_previous
        ):
            return
        self._called_previous.add(signum)
        try:
            previous(signum, frame)
        except BaseException as error:
            self._previous_error = error

    _previous_error: BaseException | None = None

    def end_in_task(self) -> None:
        """The stop's exception is about to end a loop: what was the loop's own way with signals is not put back any more."""
        self.ended_in_task = True
        for signum, previous in self.handlers.previous.items():
            if _is_loops(previous):
                default = _signals.default_int_handler if signum == _signals.SIGINT else signal.SIG_DFL
                self.handlers.previous[signum] = default

    def _look(self, frame: FrameType | None) -> None:
        """Decide what the state allows: raise the stop, interrupt a callback, forget a stop that is over, or nothing."""
        state = self.machine.state
        if state in (State.LEAVING, State.CLEANING):
            self._interrupt_callback(frame)
            if state is State.CLEANING and self._came_back and not self.is_tasks and self._harmless(frame):
                self._raise_stop()
        elif state is State.STOPPING:
            if self.released and self._may_raise and self._harmless(frame):
                self._raise_stop()
        elif state is State.UNWINDING:
            if self.is_tasks:
                return
            if self.insisted and self.released and self._harmless(frame):
                self._raise_stop()
            elif self.watcher is not None and self.watcher.swallow_confirmed:
                self.machine.fire(Move.SWALLOW)
                self._look(frame)
        elif state is State.DONE and self._survived(frame):
            forget(self)

    def _survived(self, frame: FrameType | None) -> bool:
        """Whether main runs on after its stop. Who is slow to leave the guard has yet to come to raising the stop anew."""
        watcher = self.watcher
        return watcher is not None and watcher.forget_confirmed and not _comes_from_us(frame)

    @property
    def _may_raise(self) -> bool:
        """Whether main is to be told by an exception: where it runs an event loop, only if a task blocks that."""
        hosts = [host for host in self.hosts if host.in_main]
        return not hosts or (self.blocked and all(host.may_be_interrupted() for host in hosts))

    @property
    def _came_back(self) -> bool:
        """Whether main runs on, never told of the stop, while the watcher's thread runs its callbacks."""
        watcher = self.watcher
        taken_over = watcher is not None and watcher.took_over
        return taken_over and self.deliveries == 0 and not any(guard.left for guard in self.guards[:])

    def _harmless(self, frame: FrameType | None) -> bool:
        """Whether an exception may be raised in this frame now; if not, the watcher has us look again soon."""
        if frame is None:
            return True
        filename = _filename_below_pure(frame)
        if filename.startswith(OURS):
            # Our own lines are never interrupted, except where they have called a user's function that is written in C.
            return frame.f_code in CALLERS and self._stands_still(frame, inf)
        if not _is_stdlib(filename) or self._stands_still(frame, PATIENCE):
            return True
        self._look_at_next_line(frame)
        return False

    def _look_at_next_line(self, frame: FrameType) -> None:
        """Have main look again at the first line of the program that it comes to, by tracing.

        The handler alone cannot do that: in a loop over `queue.put` or `event.set` nearly every instruction at which
        Python looks for signals is the library's, with a lock half taken. If a debugger or a coverage tool traces, the
        watcher's pokes remain.
        """
        if sys.gettrace() is None:
            caller: FrameType | None = frame
            while caller is not None and not _is_programs(caller):
                caller = caller.f_back
            if caller is not None:
                caller.f_trace = self._on_trace
            sys.settrace(self._on_trace)

    def _on_trace(self, frame: FrameType, event: str, arg: object) -> TraceFunction | None:  # noqa: ARG002
        if self.foreign or not _is_programs(frame):
            return None
        if event == "line" and self.stop_tracing():
            self._look(frame)
        return self._on_trace

    def stop_tracing(self) -> bool:
        """Take the tracing back, if it is ours. Returns whether it was."""
        if sys.gettrace() != self._on_trace:
            return False
        sys.settrace(None)
        return True

    def _stands_still(self, frame: FrameType, patience: float) -> bool:
        """Whether main has been at this very instruction for a while, that is, waits in a C call; or patience is at an end."""
        now = self.clock()
        seen = self._seen_at
        if seen is None or seen[0] is not frame or seen[1] != frame.f_lasti:
            self._seen_at = seen = (frame, frame.f_lasti, now)
        if now - seen[2] >= STILL:
            return True
        return now - (seen[2] if self.stop is None else self.stop.budget.began) >= patience

    def _raise_stop(self) -> None:
        raise self.make_exception()

    def make_exception(self, status: int | None = None) -> BaseException:
        """The exception that tells main, with a token that shows whether it is still alive.

        An exit status makes it a `SignalExit` in any case; without one SIGINT is a plain `KeyboardInterrupt`.
        """
        stop = self.stop
        assert stop is not None
        self._seen_at = None
        self.insisted = False
        self.deliveries += 1
        for host in self.hosts:
            if host.in_main:
                host.withdraw()
        if self.machine.state is not State.DONE:
            self.machine.fire(Move.RAISE)
        exception: BaseException
        if stop.signum == _signals.SIGINT and status is None:
            hush_traceback()
            exception = KeyboardInterrupt()
        else:
            wanted = self.exit_status if status is None else status
            exception = SignalExit(
                stop.signum, wanted if isinstance(wanted, int) else stop.status, stop.reason
            )
        token = Token()
        exception.__dict__[TOKEN] = token
        exception.__context__, self._previous_error = self._previous_error, None
        self.delivered = weakref.ref(token)
        return exception

    def deliver(self) -> None:
        """Raise a stop that our own code held back, now that it is about to return to its caller. Main thread only."""
        if self.stop is not None and self.is_tasks:
            if self.watcher is not None:
                self.watcher.pipe.wake()
            return
        if self.stop is not None and self.machine.state is State.STOPPING and self.released and in_main():
            self._raise_stop()

    def _interrupt_callback(self, frame: FrameType | None) -> None:
        for run in self.runs[:]:
            flight = None if run.current is None else run.current.flight
            if flight is not None and not flight.holds_thread():
                continue  # it waits, and is cancelled by its loop
            if run.in_main and run.wants_interrupt and run.interruptible and self._harmless(frame):
                self._seen_at = None
                raise run.make_interrupt()


def _is_loops(handler: object) -> bool:
    """Whether a handler is an event loop's own way with Ctrl-C: to cancel the main task, which the guard does itself."""
    handler = getattr(handler, "func", handler)  # asyncio's is a partial
    return str(getattr(handler, "__module__", "")).startswith(("asyncio.", "trio."))


def is_ours(error: BaseException | None) -> bool:
    """Whether an exception is one with which a stop was delivered."""
    return error is not None and TOKEN in error.__dict__


def _is_all_ours(error: BaseException) -> bool:
    """The same, and for what trio makes of it: a group of nothing else."""
    inner: tuple[BaseException, ...] | None = getattr(error, "exceptions", None)
    return all(map(_is_all_ours, inner)) if inner else is_ours(error)


def _filename_below_pure(frame: FrameType) -> str:
    """The file of the frame that called the pure library code which this frame may be in."""
    outer: FrameType | None = frame
    while outer is not None and outer.f_code.co_filename.startswith(PURE):
        outer = outer.f_back
    return "" if outer is None else outer.f_code.co_filename


def _comes_from_us(frame: FrameType | None) -> bool:
    """Whether main is in our code, or in code that ours has called."""
    while frame is not None and not frame.f_code.co_filename.startswith(OURS):
        frame = frame.f_back
    return frame is not None


def _is_programs(frame: FrameType) -> bool:
    filename = frame.f_code.co_filename
    return not (filename.startswith(OURS) or _is_stdlib(filename))


def _is_stdlib(filename: str) -> bool:
    if filename.startswith("<frozen "):
        return True
    return filename.startswith(STDLIB) and not filename.startswith(SITE)


def in_main() -> bool:
    """Whether this is the main thread."""
    return threading.get_ident() == threading.main_thread().ident


class QuietHook:
    """`sys.excepthook` that shows no traceback for the Ctrl-C that a guard has dealt with; all else goes to the previous hook.

    The exception itself stays uncaught, because that is what makes Python die of SIGINT after a complete shutdown.
    """

    def __init__(self) -> None:
        self.previous = sys.excepthook

    def __call__(self, kind: type[BaseException], value: BaseException, trace: object) -> None:
        if not _is_all_ours(value):
            self.previous(kind, value, trace)  # type: ignore[arg-type]


def hush_traceback() -> None:
    """Install the quiet hook, once."""
    if not isinstance(sys.excepthook, QuietHook):
        sys.excepthook = QuietHook()


def unhush_traceback() -> None:
    """Put the previous hook back, if ours is still in place."""
    if isinstance(sys.excepthook, QuietHook):
        sys.excepthook = sys.excepthook.previous


class Registry:
    """The process object in force."""

    def __init__(self) -> None:
        self.process: Process | None = None
        # Held while the watcher's thread comes or goes, which a fork in another thread makes it do, too.
        self.lock = threading.RLock()

    def get(self) -> Process:
        """The process object, made on first use."""
        if self.process is None:
            self.process = Process()
        return self.process


REGISTRY = Registry()


def forget(process: Process) -> None:
    """The program went on after its stop: put everything back as if there had been none. Main thread only."""
    from cleanup_guard._exits import LastWord, release

    process.machine.fire(Move.FORGET)
    release(process)
    LastWord.take_back()
    REGISTRY.process = None
