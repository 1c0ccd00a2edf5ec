"""The one documented registry: what this process knows of its guards and of its stop.

Signals are process-wide, so the stop is, too: one `Process` puts together who is in (`Roster`), the stop (`Ballot`), how it is
delivered (`Delivery`), the signals that were taken (`Signals`), their handler (`Receiver`) and the thread that watches
(`Watch`).
A fork child drops its parent's object and starts with a new one.
"""

from __future__ import annotations

import os
import time

from cleanup_guard._ground.clock import Budget, Grace
from cleanup_guard._ground.errors import SignalExit
from cleanup_guard._ground.events import Finished, HandlerReplaced, StopReceived
from cleanup_guard._ground.names import SIGINT, name_of
from cleanup_guard._ground.once import Once
from cleanup_guard._process import installed, native, watch
from cleanup_guard._process.guest import GUEST
from cleanup_guard._process.haste import HASTE
from cleanup_guard._process.last_resort import LastResort
from cleanup_guard._process.last_word import LastWord, hush_traceback, unhush_traceback
from cleanup_guard._process.moment import has_left_python
from cleanup_guard._process.native import in_main
from cleanup_guard._process.receiver import Receiver
from cleanup_guard._process.roster import Roster
from cleanup_guard._process.signals import Signals
from cleanup_guard._process.watch import Watch
from cleanup_guard._process.whereabouts import Whereabouts
from cleanup_guard._stop.delivery import Delivery
from cleanup_guard._stop.ending import ending_of
from cleanup_guard._stop.running import IN_CALLBACK
from cleanup_guard._stop.stack import describe
from cleanup_guard._stop.state import State, state_of
from cleanup_guard._stop.stop import Ballot, Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable

    from cleanup_guard._process.last_act import LastAct
    from cleanup_guard._stop.stop import ExitStatus
else:
    import _signal


ARMING = 2.0
"""Seconds that main waits for another thread to set the last resort's timer, at the most."""


class Process:
    """Guards, stop and delivery of one process."""

    def __init__(self) -> None:
        self.pid: int = os.getpid()
        self.foreign: bool = False  # set in a fork child, for the guards that it inherited
        self.clock: Callable[[], float] = time.monotonic
        self.roster: Roster = Roster()
        self.ballot: Ballot = Ballot()
        self.delivery: Delivery = Delivery()
        self.told: Told = Told()
        self.watch: Watch = Watch(self)
        self.receiver: Receiver = Receiver(self)
        self.signals: Signals = Signals(self.receiver.on_signal, self.watch.pokes)
        self.last_resort: LastResort = LastResort(lambda: self.stop)
        self.last_act: LastAct | None = None  # main has ended by it, outside every `with guard()`
        self.whereabouts: Whereabouts = Whereabouts()
        self.exiting: bool = False  # the interpreter is on its way out

    # -- facts --

    @property
    def stop(self) -> Stop | None:
        """The stop, if there is one."""
        votes = self.ballot.votes  # asked so often that a call more would be seen
        return votes[0] if votes else None

    @property
    def state(self) -> State:
        """Where the process stands."""
        stop, roster = self.ballot.stop, self.roster
        return state_of(
            entered=bool(roster.main),
            leaving=bool(roster.leaving),
            stopped=stop is not None,
            told=self.delivery.told,
            taken_over=self.delivery.took_over,
            finished=stop is not None and stop.finished and not roster.concerned(stop),
        )

    @property
    def in_callback(self) -> bool:
        """Whether the caller is a callback: of a guard in this thread, or an async one, or a task that one has begun."""
        inside = IN_CALLBACK.get()
        if inside or not self.roster.turns:
            return inside
        here = native.get_ident()
        running = [turn.current for turn in list(self.roster.turns) if turn.ident == here]
        return any(each is not None and each.flight is None for each in running)

    @property
    def noticed(self) -> bool:
        """Whether main has run our handler since the stop."""
        return self.receiver.noticed

    @property
    def announced(self) -> bool:
        """Whether the drain and the on_stop callbacks are over, or have used up their time."""
        stop = self.stop
        if stop is None:
            return True
        return stop.drain.over and (self.watch.hooks_are_over or self.clock() >= stop.hooks_until)

    @property
    def may_tell(self) -> bool:
        """Whether main may be told of the stop now."""
        stop = self.stop
        if stop is None or self.last_resort.arms(stop):
            return False
        return self._is_due(stop, shielded=self.roster.shields > 0, working=self.roster.working)

    @property
    def is_wanted(self) -> bool:
        """Whether it is to be told, but for critical sections, work, and the timer, which is set in a moment.

        Who waits at the entry of a section is told there.
        """
        stop = self.stop
        return stop is not None and self._is_due(stop, shielded=False, working=False)

    def _is_due(self, stop: Stop, *, shielded: bool, working: bool) -> bool:
        return self.delivery.may_tell(
            stop,
            announced=self.announced,
            shielded=shielded,
            cooperates=self.roster.cooperates,
            working=working,
        )

    @property
    def main_is_owed(self) -> bool:
        """Whether all is cleaned up and main does not know of the stop: another thread has closed its guard."""
        stop, delivery = self.stop, self.delivery
        if stop is None or stop.theirs is not None or self.exiting or self.roster.loops_in_main():
            return False
        return not (delivery.times or delivery.took_over) and self.state is State.DONE

    @property
    def handling(self) -> bool:
        """Whether main is on its way out because of the stop, or is still to be told of it."""
        hosts = list(self.roster.hosts.values())
        if self.state is State.DONE:
            on_its_way = self.receiver.handling or has_left_python() or any(host.holds for host in hosts)
            return self.main_is_owed or on_its_way
        if hosts and not self.delivery.blocked:
            return all(host.asking.handling for host in hosts)
        return self.receiver.handling

    @property
    def insists(self) -> bool:
        """Whether a guard was told that the stop is its own, whatever handlers are there."""
        for each in list(self.roster.main):  # noqa: SIM110  # a generator costs as much as all the rest
            if each.options.insist:
                return True
        return False

    def exit_status(self) -> ExitStatus:
        """What the outermost guard that names an exit status wants, be it left already."""
        status, stop = self.roster.exit_status, self.stop
        return stop.wanted if status is None and stop is not None else status

    # -- the stop --

    def request_stop(self, ballot: Ballot, reason: str, status: int) -> bool:
        """Stop as a signal would, if the guards still stand that this ballot is about. Returns whether this is the stop.

        A main that is leaving the last of its guards is on its way out already: there is nothing left to stop.
        """
        main = list(self.roster.main)
        if main and all(member.left for member in main):
            return False
        budget = Budget(self.whereabouts.grace(self.roster.grace), self.clock())
        stop = ballot.stop
        if stop is not None and stop.theirs is not None:  # the program does not wait for whoever stops it
            self.delivery.becomes_ours(stop, budget)
            return True
        drain = self.roster.drain(budget.period.drain)
        stop = Stop(None, reason, status=status, budget=budget, sender=os.getpid(), drain=drain)
        if not ballot.propose(stop):
            return False
        self.roster.history = stop.history
        return True

    def claim_signal(self, signum: int, theirs: object) -> None:
        """Record a signal as the stop, if it is the first, or the first that is ours.

        Args:
            signum: the signal.
            theirs: the handler whose signal it is, if it is not ours.
        """
        ballot = self.ballot  # before it is seen that somebody guards: who has gone since has closed this one
        stop, now = ballot.stop, self.clock()
        if stop is not None:
            self._hear_again(stop, signum, theirs, now)
            return
        if not self.roster.listens:
            return
        grace = self.whereabouts.grace_of(signum, self.roster.grace)
        whose = None if theirs is None else describe(theirs)
        if whose is not None:
            grace = grace if grace.told else Grace(None)
        elif (grace.by_hand or SIGINT not in self.signals.previous) and in_main():
            self.signals.take_more(by_hand=grace.by_hand)
        stop = Stop(
            signum,
            name_of(signum),
            status=128 + signum,
            budget=Budget(grace, now),
            theirs=whose,
            drain=self.roster.drain(grace.drain),
        )
        if ballot.propose(stop):
            self.roster.history = stop.history
            _start_clock(stop, self.last_resort, now)  # here: whoever gets the GIL next may keep it

    def _hear_again(self, stop: Stop, signum: int, theirs: object, now: float) -> None:
        """A signal that is not the first."""
        grace = self.whereabouts.grace_of(signum if stop.signum is None else stop.signum, self.roster.grace)
        if stop.theirs is not None and theirs is None:
            # Whoever owned the stop has put us back, or the default, and raised the signal again; or a person presses Ctrl-C.
            self.delivery.becomes_ours(stop, stop.budget if grace.told else Budget(grace, now))
            _start_clock(stop, self.last_resort, now)
        elif stop.theirs is None and stop.budget.period.by_hand:
            if signum != SIGINT:  # from somebody who will kill: the clock starts
                stop.budget = Budget(self.whereabouts.grace(self.roster.grace), now)
                self.last_resort.arm(stop, now)
            elif in_main():
                self.signals.take_more(by_hand=True)

    def ask_main(self) -> None:
        """Have main look when it next runs a line of Python, where no signal of ours would have it look. Any thread."""
        self.receiver.call.ask()

    def prepare(self) -> None:
        """Find out and load what a stop needs, while nothing happens."""
        self.whereabouts.look_around()
        self.last_resort.prepare()

    def announce(self) -> None:
        """Wake those who wait for the stop, and tell the hooks of it, once: the watcher does, or main on its way out."""
        told, stop = self.told, self.stop  # in the other order than they are forgotten: both are of one stop
        if stop is None:
            return
        _start_clock(stop, self.last_resort, self.clock())
        if stop.drain.over and not told.woken:
            for each in self.roster.everybody():
                each.wake_waiters()
            told.woken = True  # last: if this was cut short, whoever announces next begins anew
        if not told.began.claim():
            return
        event = StopReceived(
            reason=stop.reason,
            signum=stop.signum,
            sender=stop.sender,
            sure=stop.budget.period.sure,
            grace=stop.budget.period.hope,
            where=stop.budget.period.where,
            how=stop.budget.period.how,
            handler=None if stop.theirs is None else str(stop.theirs),
        )
        self.roster.tell(event)
        told.announced = True

    def tell_finished(self, skipped: tuple[str, ...] | None = None) -> None:
        """Tell that all callbacks have had their turn, once, and the record.

        Args:
            skipped: those that have no turn, where it is over before its end.
        """
        stop, now = self.stop, self.clock()
        if stop is None or not self.told.ended.claim():
            return
        self.announce()  # it may have come so late that nobody has yet
        history, took = stop.history, now - stop.budget.began
        if skipped is None:
            self.roster.tell(
                Finished(
                    reason=stop.reason, callbacks=history.callbacks, failures=history.failures, seconds=took
                )
            )
        if self.roster.reporter().wants_details:
            self.roster.tell(stop.record(now, time.time(), skipped or ()))

    def tell_replaced(self, signums: list[int]) -> None:
        """Tell that somebody took signals from us."""
        for signum in signums:
            handler = "gevent's loop" if installed.is_greenlets(signum) else repr(_signal.getsignal(signum))
            self.roster.tell(HandlerReplaced(signum=signum, signal=name_of(signum), handler=handler))

    def deliver(self) -> None:
        """Raise a stop that our own code held back, now that it is about to return to its caller.

        Who sets the last resort's timer meanwhile is waited for: main would go on, and might begin something new.
        """
        stop = self.stop
        if stop is None or self.foreign or not in_main():
            return
        if self.roster.loops_in_main():
            self.watch.wake()
            return
        limit = self.clock() + ARMING
        while self.roster.shields == 0 and self.last_resort.is_set_elsewhere(stop) and self.clock() < limit:
            native.sleep(0.001)
        if self.state is State.STOPPING and self.may_tell:
            raise self.make_exception()

    def make_exception(self, status: int | None = None) -> BaseException:
        """The exception that tells main.

        Args:
            status: the exit status that main is to end with; None for what the guards want.
        """
        stop = self.stop
        assert stop is not None
        for host in self.roster.loops_in_main():
            host.asking.withdraw()
        ending = ending_of(stop, self.exit_status() if status is None else status)
        exception: BaseException
        if ending.is_keyboard_interrupt:
            hush_traceback()
            exception = KeyboardInterrupt()
        else:
            exception = SignalExit(stop.signum, ending.status, stop.reason)
        self.receiver.raises(exception)
        return exception

    # -- the end of a stop --

    def forget(self) -> None:
        """The program went on after its stop: as if there had been none. Any thread; main gives back its part later."""
        stop = self.stop
        if stop is None or not stop.forgotten.claim():
            return
        LastWord.take_back()
        self.ballot, self.delivery, self.told = Ballot(), Delivery(), Told()
        self.roster.history = None
        HASTE.end()
        self.last_resort.disarm(self.clock())
        self.receiver.forget()
        self.watch.forget()
        if in_main():
            self.tidy()
        else:
            self.watch.poke()

    def tidy(self, *, in_handler: bool = False) -> None:
        """Give back what no guard needs any more, in the order that loses no signal. Main thread only."""
        if self.stop is not None:
            return
        HASTE.end()
        if not self.roster.listens:
            self.receiver.moment.stop_tracing()
            if not self.exiting:
                unhush_traceback()
        wanted = self.roster.wanted_signals()
        lost = self.signals.give_back([each for each in list(self.signals.previous) if each not in wanted])
        if lost:
            self.tell_replaced(lost)
        if not self.signals.previous:
            GUEST.stand_down()
        self.watch.release(in_handler=in_handler)
        self.receiver.raise_unclaimed()


def _start_clock(stop: Stop, last_resort: LastResort, now: float) -> None:
    if stop.theirs is None:  # he has a pace of his own
        HASTE.begin()
    last_resort.arm(stop, now)


class Told:
    """What has been told of a stop, once each."""

    def __init__(self) -> None:
        self.began: Once = Once()
        self.ended: Once = Once()
        self.announced: bool = False
        self.woken: bool = False  # those who wait for the stop


class Registry:
    """The process object in force."""

    def __init__(self) -> None:
        self.process: Process | None = None

    def get(self) -> Process:
        """The process object, made on first use."""
        if self.process is None:
            with watch.LOCK:
                if self.process is None:
                    self.process = Process()
        return self.process


REGISTRY = Registry()
