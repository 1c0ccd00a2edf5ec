"""One guard's callbacks in progress: who runs them, which one, and whether it should be interrupted."""

from __future__ import annotations

import threading

from cleanup_guard._ground.clock import inf
from cleanup_guard._ground.errors import CallbackInterrupted, CallbackLeftBehind
from cleanup_guard._ground.events import (
    SLOW,
    CallbackDone,
    CallbackFailed,
    CallbackStarted,
    CallbackTimedOut,
    Event,
)
from cleanup_guard._ground.once import Once
from cleanup_guard._process import native
from cleanup_guard._process.native import in_main
from cleanup_guard._stop.running import run_calls
from cleanup_guard._stop.stack import proper
from cleanup_guard._stop.token import Pulse, Token, mark

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cleanup_guard._process.report import Reporter
    from cleanup_guard._process.roster import ProcessView
    from cleanup_guard._stop.running import Branch as _Branch
    from cleanup_guard._stop.running import Outcome
    from cleanup_guard._stop.stack import Callback, CallbackStack, Entry


LEFT_BEHIND = 2.0
"""Seconds for which an interrupted callback of a group may go on before it is waited for no longer."""


class Turn:
    """The observer of one `run_all`. The watcher reads it to see what is due; only the running thread writes `current`.

    Attributes:
        ident: the thread that runs the callbacks.
        daemon: whether that is a thread of the program that nobody waits for when the interpreter ends.
        stack: whose callbacks they are.
        in_main: whether it is main, and can be poked.
        running: what of the stack is being called.
        started: when that began.
        wants_interrupt: it is to be interrupted, because of `why`; asked for at `sent_at`.
        count, failures: callbacks run and failed so far.
    """

    def __init__(
        self, process: ProcessView, reporter: Reporter, time_limit: float | None, stack: CallbackStack
    ) -> None:
        self.process = process
        self.reporter = reporter
        self.ident = native.get_ident()
        main = in_main()
        self.daemon = not main and _is_programs_daemon(threading.current_thread())
        self.stack = stack
        # Without a signal of ours there is nothing to poke main with.
        self.in_main = main and bool(process.signals.previous)
        self.running: Entry | None = None
        self.started = process.clock()
        self.limit = inf if time_limit is None else self.started + time_limit
        self.interrupt = Interrupt()
        self.count = 0
        self.failures = 0
        self._details = reporter.wants_details
        self._lock = native.make_lock()

    @property
    def current(self) -> Callback | None:
        """The callback in progress."""
        running = self.running
        return None if running is None else proper(running)

    @property
    def interruptible(self) -> bool:
        """Whether a callback is in progress and no earlier interrupt is on its way through it.

        One that is alive and handled by nobody was swallowed and kept, as a test runner keeps what a `__del__` raises.
        """
        current, pulse = self.current, self.interrupt.pulse
        if current is None or pulse is None or not pulse.beats:
            return current is not None
        return self.in_main and current.flight is None and not pulse.is_handled_in(self.ident)

    def due(self, *, others_wait: bool) -> float:
        """When the callback in progress has used up its time.

        Args:
            others_wait: whether any callback has not begun: looked up once for all turns, of which there may be thousands.
        """
        callback, stop = self.current, self.process.stop
        if callback is None:
            return inf
        own = inf if callback.timeout is None else self.started + callback.timeout
        shared = (
            inf if stop is None else stop.budget.callback_limit(self.started, None, others_wait=others_wait)
        )
        return min(own, shared, self.limit)

    def why_due(self) -> str:
        """Which time is over."""
        callback, stop = self.current, self.process.stop
        timeout = callback.timeout if callback is not None else None
        if timeout is not None and self.process.clock() - self.started >= timeout:
            return f"its timeout of {timeout:g} s is over"
        if stop is not None:
            period = stop.budget.period
            if period.sure != period.hope and self.process.roster.others_wait:
                return f"others wait, and the {period.sure:g} s that are sure are nearly over"
            return "the grace period is nearly over"
        return "the time limit for a normal exit is over"

    def run_calls(self, outcome: Outcome) -> None:
        """Run what is only to be called, unless there is something to be told or timed of each.

        Main alone: in another thread an interrupt may come wherever that is (`interrupt_thread`).
        """
        if self.in_main and not self._details and self.limit == inf:
            run_calls(self.stack, outcome, self, self.process.ballot.votes, self.process.clock)

    # -- the observer of `run_all` --

    def began(self, callback: Callback) -> None:
        """A callback is about to be called."""
        self.started = self.process.clock()
        self.interrupt.withdraw()
        self.running = callback
        self.count += 1
        if self._details:
            self.reporter.emit(CallbackStarted(name=callback.name))
        if callback.timeout is not None or self.limit < inf or self._is_to_be_seen():
            self.process.watch.wake()

    def _is_to_be_seen(self) -> bool:
        """Whether the watcher is to look at a callback that begins: it tells systemd, or nothing else is due when that is."""
        stop = self.process.stop
        if stop is None:
            return False
        return self.process.roster.notify is not None or self.started >= stop.budget.sure(
            stop.budget.TAKE_OVER
        )

    def ended(self, callback: Callback, error: BaseException | None) -> BaseException | None:
        """A callback came to an end. Returns the failure to report, which for an interrupt is a TimeoutError."""
        self._take_back()
        return self._report(callback, error)

    def branch(self) -> Branch:
        """For a callback that this thread is to run, or this loop, at the same time as others."""
        return Branch(self)

    def join(self, branch: _Branch) -> None:
        """Its callback is over."""
        assert isinstance(branch, Branch)
        self.count += branch.count
        self.failures += branch.failures

    def _take_back(self) -> None:
        """No callback is in progress any more, and none is interrupted."""
        if self.in_main:
            self.running = None
        else:
            with self._lock:  # against the watcher's `interrupt_thread`
                self.running = None
            if self.interrupt.sent_to_thread:
                _let_it_come()

    def _report(self, callback: Callback, error: BaseException | None) -> BaseException | None:
        why = self.interrupt.why
        self.interrupt.withdraw()
        seconds = self.process.clock() - self.started
        stop = self.process.stop
        if stop is not None:
            stop.history.ended(
                callback.name,
                error,
                began=self.started,
                seconds=seconds,
                interrupted=isinstance(error, CallbackInterrupted),
            )
        event: Event
        if error is None:
            if self._details or seconds >= SLOW:
                self.reporter.emit(CallbackDone(name=callback.name, seconds=seconds))
            return None
        self.failures += 1
        during_stop = stop is not None and stop.theirs is None
        if isinstance(error, CallbackInterrupted):
            goes_on = ", and goes on all the same" if isinstance(error, CallbackLeftBehind) else ""
            failure: BaseException = TimeoutError(
                f"callback {callback.name} was interrupted after {seconds:.1f} s{goes_on}: {why}"
            )
            failure.__cause__ = error
            event = CallbackTimedOut(
                name=callback.name, seconds=seconds, why=why, error=failure, during_stop=during_stop
            )
        else:
            failure = error
            event = CallbackFailed(name=callback.name, seconds=seconds, error=error, during_stop=during_stop)
        self.reporter.emit(event)
        return failure

    # -- for the watcher --

    def interrupt_thread(self, callback: Callback) -> None:
        """Interrupt a callback that runs where no signal reaches: an asynchronous exception, seen between two bytecodes.

        It does not end a blocking call (hazard H20), which then lasts until the deadline.
        """
        with self._lock:
            if self.running is callback and not self.interrupt.sent_to_thread:
                self.interrupt.sent_to_thread = True
                import ctypes

                exception = ctypes.py_object(CallbackInterrupted)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), exception)


def _is_programs_daemon(thread: threading.Thread) -> bool:
    return thread.daemon and not thread.name.startswith("cleanup_guard")


def _let_it_come() -> None:
    """Have this thread's asynchronous exception raised here, if it has not been raised yet.

    Python could take it back (NULL instead of an exception): on 3.11 all threads are told to look for one then, and as nobody
    has it, for ever (hazard H75).
    """
    try:
        for _ in "at a jump back":
            pass
    except CallbackInterrupted:
        pass


class Branch(Turn):
    """The observer of one callback of a group. The thread that waits for the group looks at it, too.

    Args:
        turn: of the group.
    """

    def __init__(self, turn: Turn) -> None:
        super().__init__(turn.process, turn.reporter, None, turn.stack)
        self.limit = turn.limit
        self._end = Once()
        self.process.roster.turns[self] = None

    def ended(self, callback: Callback, error: BaseException | None) -> BaseException | None:
        """As `Turn.ended`. It says nothing of a callback that was left behind."""
        self._take_back()
        return self._report(callback, error) if self._end.claim() else None

    @property
    def hangs(self) -> bool:
        """Whether the callback was interrupted, and has had its time to end."""
        interrupt = self.interrupt
        if self.current is None or not interrupt.wanted:
            return False
        return self.process.clock() >= interrupt.sent_at + self._patience(interrupt.sent_at)

    def _patience(self, since: float) -> float:
        """Others still need some of the time that is left."""
        stop = self.process.stop
        if stop is None:
            return LEFT_BEHIND
        end = min((end for end in (stop.budget.sure(1.0), stop.budget.end) if end > since), default=since)
        return min(LEFT_BEHIND, (end - since) / 2)

    def leave(self, callback: Callback) -> BaseException | None:
        """Wait for it no longer. Returns the failure to report, if it has not ended at this very moment.

        Its interrupt stays on its way, and meets it when it comes back from what it is in.
        """
        if not self._end.claim():
            return None
        self.running = None
        failure = self._report(callback, CallbackLeftBehind())
        self.close()
        return failure

    def close(self) -> None:
        """Nothing is to be watched any more."""
        self.process.roster.turns.pop(self, None)


class Interrupt:
    """The interrupt of the callback in progress: asked for by the watcher, raised by main's handler."""

    wanted: bool = False
    why: str = ""
    sent_at: float = -inf
    sent_to_thread: bool = False
    pulse: Pulse | None = None  # of the exception

    def withdraw(self) -> None:
        """None is wanted. Nearly always none was, and there is nothing to do."""
        if not self.wanted:
            return
        self.why = ""
        self.sent_at = -inf
        self.sent_to_thread = False
        self.pulse = None
        self.wanted = False  # last: whoever is cut short before it begins anew

    def ask(self, why: str, now: float) -> None:
        """Want one; asked again, for another reason perhaps, the time of the first counts."""
        self.why = why
        if not self.wanted:
            self.sent_at = now
            self.wanted = True

    def make(self) -> BaseException:
        """The exception that ends the callback in progress."""
        token, pulse = Token(), Pulse()
        pulse.follow(token)
        self.pulse = pulse
        return mark(CallbackInterrupted(self.why), token)
