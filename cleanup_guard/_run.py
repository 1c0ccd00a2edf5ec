"""One guard's callbacks while they run: who runs them, which one is in progress, and whether it should be interrupted."""

from __future__ import annotations

import threading
from math import inf

from cleanup_guard._ground.errors import CallbackInterrupted, CallbackLeftBehind
from cleanup_guard._ground.events import (
    SLOW,
    CallbackDone,
    CallbackFailed,
    CallbackStarted,
    CallbackTimedOut,
    Event,
)
from cleanup_guard._process import Token
from cleanup_guard._report import TOKEN

TYPE_CHECKING = False
if TYPE_CHECKING:
    import weakref

    from cleanup_guard._process import Process
    from cleanup_guard._report import Reporter
    from cleanup_guard._stack import Callback


class Run:
    """The observer of one `run_all`. The watcher reads it to see what is due; only the running thread writes `current`."""

    def __init__(
        self, process: Process, reporter: Reporter, time_limit: float | None, *, can_poke: bool
    ) -> None:
        self.process = process
        self.reporter = reporter
        self.ident = threading.get_ident()
        self.in_main = can_poke and self.ident == threading.main_thread().ident
        self.current: Callback | None = None
        self.started = self.began_at = process.clock()
        self.ended_limit = inf if time_limit is None else self.began_at + time_limit
        self.why = ""
        self.wants_interrupt = False
        self.sent_at = -inf
        self.interrupt: weakref.ref[Token] | None = None
        self.count = 0
        self.failures = 0
        self._lock = threading.Lock()
        self._sent = False  # the callback in progress has been sent an asynchronous exception
        self._details = reporter.wants_details

    @property
    def interruptible(self) -> bool:
        """Whether a callback is in progress and no earlier interrupt is on its way through it."""
        return self.current is not None and (self.interrupt is None or self.interrupt() is None)

    def due(self) -> float:
        """When the callback in progress has used up its time."""
        callback, stop = self.current, self.process.stop
        if callback is None:
            return inf
        own = inf if callback.timeout is None else self.started + callback.timeout
        shared = inf if stop is None else stop.budget.callback_limit(self.started, None)
        return min(own, shared, self.ended_limit)

    def make_interrupt(self) -> BaseException:
        """The exception that ends the callback in progress."""
        import weakref

        error = CallbackInterrupted(self.why)
        token = Token()
        error.__dict__[TOKEN] = token
        self.interrupt = weakref.ref(token)
        return error

    def began(self, callback: Callback) -> None:
        """A callback is about to be called."""
        self.started = self.process.clock()
        self.interrupt = None
        self.wants_interrupt = False
        self._sent = False
        self.current = callback
        self.count += 1
        if self._details:
            self.reporter.emit(CallbackStarted(name=callback.name))
        if callback.timeout is not None or self.ended_limit < inf or self.process.stop is not None:
            watcher = self.process.watcher
            if watcher is not None:
                watcher.pipe.wake()

    def ended(self, callback: Callback, error: BaseException | None) -> BaseException | None:
        """A callback came to an end. Returns the failure to report, which for an interrupt is a TimeoutError."""
        if self.in_main:
            self.current = None
        else:
            with self._lock:  # against the watcher's `interrupt_thread`
                self.current = None
                if self._sent:
                    self._send(None)
        self.wants_interrupt = False
        seconds = self.process.clock() - self.started
        event: Event
        if error is None:
            if self._details or seconds >= SLOW:
                self.reporter.emit(CallbackDone(name=callback.name, seconds=seconds))
            return None
        self.failures += 1
        during_stop = self.process.stop is not None
        if isinstance(error, CallbackInterrupted):
            goes_on = ", and goes on all the same" if isinstance(error, CallbackLeftBehind) else ""
            failure: BaseException = TimeoutError(
                f"callback {callback.name} was interrupted after {seconds:.1f} s{goes_on}: {self.why}"
            )
            failure.__cause__ = error
            event = CallbackTimedOut(
                name=callback.name, seconds=seconds, why=self.why, error=failure, during_stop=during_stop
            )
        else:
            failure = error
            event = CallbackFailed(name=callback.name, seconds=seconds, error=error, during_stop=during_stop)
        self.reporter.emit(event)
        return failure

    def interrupt_thread(self, callback: Callback) -> None:
        """Interrupt a callback that runs where no signal reaches: an asynchronous exception, seen between two bytecodes.

        It does not end a blocking call (hazard H20), which then lasts until the deadline.
        """
        with self._lock:
            if self.current is callback and not self._sent:
                self._sent = True
                self._send(CallbackInterrupted)

    def _send(self, exception: type[BaseException] | None) -> None:
        """Have an exception raised in the thread, or take back one that has not been raised yet."""
        import ctypes

        argument = ctypes.py_object(exception) if exception is not None else None
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), argument)
