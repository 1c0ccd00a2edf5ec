"""The handler of our signals: record, wake, and raise the stop if this is the moment.

Rules:
1. It takes no lock, prints nothing, logs nothing, raises at most one exception. It waits for nothing but a moment for the
   watcher: what main is in may be C code that looks for signals and keeps the GIL, under which nobody would begin the stop.
2. A stop that is somebody else's is his: his handler is called as if ours were not there, and nothing is raised.
3. What it has no room for (a recursion limit) or is kept from (another handler that raises) the watcher makes up for.
"""

from __future__ import annotations

import sys

from cleanup_guard._process import native
from cleanup_guard._process.in_fork import InFork, in_our_hook
from cleanup_guard._process.main import CallInMain
from cleanup_guard._process.moment import HANDLERS, Moment, waits_for_child
from cleanup_guard._stop.history import UNWINDING
from cleanup_guard._stop.state import State
from cleanup_guard._stop.token import Token, handles, mark

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    from cleanup_guard._process.roster import ProcessView
else:
    import _signal


PATIENCE = 1.0 if sys.platform == "win32" else 0.25
"""Seconds that main waits in its handler for the watcher, at the most. Nothing ends a wait of main a second time on Windows."""

BRIEFLY = 0.05
"""The same for on_stop callbacks, where something else would have main look again."""

GLANCE = 0.0002
"""Seconds between two looks at whether it has come to that."""


class Receiver:
    """Runs in main between any two instructions; may nest.

    Attributes:
        on_signal: the handler that is installed.
        noticed: main has run it since the stop.
        calls: how often it was called, but for pokes, by signal.
        token: of the exception that main was told by.
        call: has main look, where it takes no signal of ours.
        moment: the search for a moment at which an exception does no harm.
        fork: knows whether main is in a hook of a fork.
    """

    def __init__(self, process: ProcessView) -> None:
        self.process = process
        self.on_signal: Callable[[int, FrameType | None], None] = (
            self._on_signal
        )  # one object: `getsignal()` is it
        self.noticed: bool = False
        self.calls: dict[int, int] = {}
        self.moment: Moment = Moment(process.clock, self.look)
        self._pokes: dict[int, int] = {}  # calls that were pokes
        self._unclaimed: list[int] = []  # signals that came while nobody guarded any more
        self._held_back: list[int] = []  # somebody else's that came in the middle of a fork
        self._calls = 0  # of somebody else's handler, that have not returned: who insists waits for them
        self.token: Token | None = None
        self.call: CallInMain = CallInMain(self._on_call)
        self.fork: InFork = InFork(self._on_call, self.call.ask)

    def _on_call(self, frame: FrameType | None) -> None:
        """Main was asked to look, without a signal."""
        process = self.process
        if process.foreign:
            return
        if self.fork.is_in_hook(frame):
            if in_our_hook(frame):
                self.call.ask()
            return
        entered = process.clock()
        self._resume(frame)
        if process.exiting:
            return
        self.noticed = process.stop is not None
        if not process.roster.listens and process.stop is None:
            process.tidy(in_handler=True)
        elif self._held_back:
            self._call_who_was_held_back(frame)
        else:
            self._look_again(frame, entered)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        try:
            entered = self.process.clock()
            theirs = self._receive(signum, frame, entered)
        except (
            RecursionError
        ):  # the watcher has seen the signal, too, and has us look again when there is more room
            self.process.watch.wake()
            return
        if theirs is not None:
            if self.fork.is_in_hook(frame):
                self._held_back.append(signum)
            elif self._is_called(signum):
                theirs(signum, frame)
            else:
                insists = self.process.insists
                self._call(theirs, signum, frame)
                if insists:
                    self._look_at_once(frame, entered)
        if self._held_back:  # looked at here: in a call more a debugger would stop, if theirs was one
            self._call_who_was_held_back(frame)

    def _call_who_was_held_back(self, frame: FrameType | None) -> None:
        while self._held_back and not self.fork.is_in_hook(frame):
            held = self._held_back.pop(0)
            theirs = self.process.signals.before(held)
            if theirs is not None:
                self._call(theirs, held, frame)

    def _receive(self, signum: int, frame: FrameType | None, entered: float) -> Callable[..., Any] | None:
        """Deal with a signal. Returns the handler of somebody else, who is to deal with it."""
        process = self.process
        called = self._is_called(signum)
        if not called and self._is_poke(signum):
            theirs = None
        elif not process.roster.listens and process.stop is None:
            self._unclaimed.append(signum)
            theirs = None
        else:
            self.calls[signum] = self.calls.get(signum, 0) + 1
            theirs = process.signals.beneath(signum) if called else process.signals.before(signum)
            owner = None if process.insists else theirs
            process.claim_signal(signum, owner)
            if process.stop is None and theirs is None:
                self._unclaimed.append(signum)  # main is leaving its last guard
            process.watch.wake()
        self.noticed = is_stopped = process.stop is not None
        self._resume(frame)
        if not (is_stopped or process.roster.listens):
            process.tidy(in_handler=True)
        elif theirs is None:
            self._look_at_once(frame, entered)
        return theirs

    HANDLERS.add(_receive.__code__)

    def _resume(self, frame: FrameType | None) -> None:
        """Have watcher and last resort back, if a fork has ended (see `forks.py`)."""
        process = self.process
        if process.watch.resume_due and not self.fork.is_in_hook(frame):
            process.watch.resume()
            process.last_resort.resume(process.stop, process.clock())

    def _is_poke(self, signum: int) -> bool:
        """Whether this is a poke. Those that coalesced leave a rest, which hides a signal from us, not from the watcher."""
        if self.process.watch.pokes.get(signum, 0) <= self._pokes.get(signum, 0):
            return False
        self._pokes[signum] = self._pokes.get(signum, 0) + 1
        self.process.watch.answers += 1
        return True

    def _is_called(self, signum: int) -> bool:
        """Whether somebody's handler that is installed over ours, and is being called, calls ours, which it had found."""
        return self._calls > 0 and self.process.signals.lost(signum)

    def _look_at_once(self, frame: FrameType | None, entered: float) -> None:
        if self.fork.is_in_hook(frame):
            return
        process = self.process
        watched = sys.platform != "win32" and process.watch.running
        if watched:
            self._look_again(frame, entered)  # nearly always it raises
            if process.may_tell or Moment.is_ours(frame):
                return
        elif process.stop is not None:
            process.stop.end_drain()  # nobody would have us look when it is over
        waited = self._wait_for_watcher()
        if not watched or not process.watch.running:
            self._do_without_watcher(frame)
        elif not waited:
            return
        self._look_again(frame, entered)

    def _look_again(self, frame: FrameType | None, entered: float) -> None:
        moment = self.moment
        around, moment.entered = moment.entered, entered  # another handler may be inside this one
        try:
            self.look(frame)
        finally:
            moment.entered = around

    def _wait_for_watcher(self) -> bool:
        """Until main may be told, if that is a matter of a moment. Returns whether there was anything to wait for."""
        process, since, waited = self.process, self.process.clock(), False
        while process.watch.running and self._is_about_to_tell(process.clock() - since):
            native.sleep(GLANCE)
            waited = True
        return waited

    def _is_about_to_tell(self, waited: float) -> bool:
        process, stop = self.process, self.process.stop
        if stop is None or stop.theirs is not None:
            return False
        if process.last_resort.is_set_elsewhere(stop):
            if waited < PATIENCE:
                return True
            process.last_resort.arm(stop, process.clock(), instead=True)
        if sys.platform == "win32":
            return waited < PATIENCE and not process.announced
        if waited >= BRIEFLY or process.announced or not stop.drained or process.state is not State.STOPPING:
            return False
        return process.roster.held is None and not process.roster.loops_in_main()

    def _do_without_watcher(self, frame: FrameType | None) -> None:
        """No thread is to be had, so nobody would have us look again: raise the stop now, wherever main is.

        But for our own code, which raises it before it returns: who waits for the stop is woken.
        """
        process, delivery = self.process, self.process.delivery
        if process.stop is not None and process.announced:
            for each in process.roster.everybody():
                each.wake_waiters()
        if process.state is State.UNWINDING and not (process.watch.running or self.handling):
            delivery.lets_go(delivery.times)
        if process.state is State.STOPPING and process.may_tell and not Moment.is_ours(frame):
            raise process.make_exception()

    def _call(self, theirs: Callable[..., Any], signum: int, frame: FrameType | None) -> None:
        """Call somebody else's handler, which finds itself installed.

        After it only C functions are called: it may be a debugger's, and have begun to trace.
        """
        signals = self.process.signals
        install, current, interrupt = (
            native.set_handler,
            native.get_handler,
            getattr(_signal, "siginterrupt", None),
        )
        ours = self.on_signal
        signals.uninstall(signum)
        restarts = signals.restarts(signum)
        calls = self._calls
        try:
            self._calls = calls + 1
            theirs(signum, frame)
        finally:
            self._calls = calls
            if current(signum) is theirs:
                install(signum, ours)
                if restarts and interrupt is not None:
                    interrupt(signum, False)  # noqa: FBT003  # as the function has it

    def look(self, frame: FrameType | None) -> None:
        """Decide what the state allows: raise the stop, interrupt a callback, or nothing."""
        process = self.process
        if self._stands_back:
            return
        state, delivery = process.state, process.delivery
        if state in (State.LEAVING, State.CLEANING):
            self._interrupt_callback(frame)
            if not self._came_back(state):
                return
        elif state is State.UNWINDING:
            if process.roster.loops_in_main() or not delivery.insisted:
                return
        elif not (state is State.STOPPING or process.main_is_owed) or not self._may_raise:
            return
        if process.may_tell and self._is_right(frame):
            raise process.make_exception()

    @property
    def _stands_back(self) -> bool:
        """Whether nothing is to be raised: in a fork child, or while a guard that insists waits for their handler."""
        return self.process.foreign or (self._calls > 0 and self.process.insists)

    def _is_right(self, frame: FrameType | None) -> bool:
        stop = self.process.stop
        if stop is None:
            return self.moment.is_right(frame, None)
        budget = stop.budget
        if self.process.clock() < budget.sure(budget.STUCK) and waits_for_child(frame, stop.signum):
            return False
        return self.moment.is_right(frame, budget.began)

    @property
    def _may_raise(self) -> bool:
        """Whether main is to be told by an exception: where it runs an event loop, only if a task blocks that."""
        loops = self.process.roster.loops_in_main()
        return not loops or (self.process.delivery.blocked and all(each.may_be_interrupted for each in loops))

    def _came_back(self, state: State) -> bool:
        """Whether main runs on, never told of the stop, while the watcher's thread runs its callbacks."""
        process = self.process
        return (
            state is State.CLEANING
            and process.delivery.took_over
            and process.delivery.times == 0
            and not process.roster.leaving
            and not process.roster.loops_in_main()
        )

    def _interrupt_callback(self, frame: FrameType | None) -> None:
        for turn in list(self.process.roster.turns):
            flight = None if turn.current is None else turn.current.flight
            if flight is not None and not flight.holds_thread():
                continue  # it waits, and is cancelled by its loop
            if turn.in_main and turn.interrupt.wanted and turn.interruptible and self._is_right(frame):
                self.moment.found()
                raise turn.interrupt.make()

    # -- the exception --

    def raises(self, exception: BaseException) -> None:
        """Main is told by this exception."""
        self.token = Token()
        mark(exception, self.token)
        self.moment.found()
        self.process.delivery.raised()
        if (stop := self.process.stop) is not None:
            stop.history.enters(UNWINDING, self.process.clock())

    @property
    def handling(self) -> bool:
        """Whether main is in an `except`, `finally` or `__exit__` because of the stop. Any thread."""
        main = native.main_ident()
        return main is not None and handles(main, self.token)

    # -- the end --

    def forget(self) -> None:
        """There is no stop any more."""
        self.noticed = False
        self.token = None
        self.moment.forget()

    def raise_unclaimed(self) -> None:
        """Signals that came after the last guard, and before the old handler was back, are that handler's. Main thread only."""
        if not self._unclaimed:
            return
        late, self._unclaimed = self._unclaimed, []
        for signum in late:
            if signum not in self.process.signals.previous:
                self.process.signals.put_right(signum)
                _signal.raise_signal(signum)
