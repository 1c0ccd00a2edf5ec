"""One guard's stay in the process: enter, leave, clean up, and let the stop go on.

Rules:
1. Whoever takes the turn at a guard's callbacks runs all of them, or hands the turn back. An exception that somebody's signal
   handler raises between two of our lines ends nothing: leaving begins again where it was, and the exception goes on
   afterwards. What even so was cut short the exit nets find, for the guard is taken off the roster last.
2. Guards may be left in any order and in any thread. Signals belong to the process: they are given back by main, when no guard
   wants them any more.
"""

from __future__ import annotations

import os
import threading
import time

from cleanup_guard._ground.clock import grace_from_environment
from cleanup_guard._ground.errors import CleanupError, SignalExit
from cleanup_guard._ground.events import Finished, MainFailed, SignalsUnheard
from cleanup_guard._ground.names import SIGINT
from cleanup_guard._ground.once import Once
from cleanup_guard._ground.stderr import write_line
from cleanup_guard._hosts.in_thread import ThreadHost
from cleanup_guard._process import ends, native
from cleanup_guard._process.forks import FORK_HOOKS
from cleanup_guard._process.last_act import LastAct
from cleanup_guard._process.last_word import LastWord, hush_traceback
from cleanup_guard._process.main import call_in_main, can_be_taken
from cleanup_guard._process.native import in_main
from cleanup_guard._process.nets import NETS
from cleanup_guard._process.process import REGISTRY, Process
from cleanup_guard._process.report import OUTBOX, Reporter, log_event, say
from cleanup_guard._process.roster import CONTEXT, THREADS
from cleanup_guard._process.signals import DEFAULT_SIGNALS
from cleanup_guard._process.turn import Turn
from cleanup_guard._stop.ending import Ending, ending_of
from cleanup_guard._stop.stack import Outcome, run_all, take_steps
from cleanup_guard._stop.state import State
from cleanup_guard._stop.stop import Ballot
from cleanup_guard._stop.token import handles, is_ours

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cleanup_guard._ground.events import Hook
    from cleanup_guard._guard.options import Options
    from cleanup_guard._hosts.host import Host
    from cleanup_guard._hosts.waiters import Waiters
    from cleanup_guard._process.roster import Member
    from cleanup_guard._stop.stack import Callback, CallbackStack, Steps
    from cleanup_guard._stop.stop import ExitStatus, Stop

ANNOUNCEMENT = 0.1
"""Seconds that a line on stderr may keep main waiting."""

TRIES = 100
"""How often leaving begins again because somebody's signal handler raised in the middle of it."""


class Stay:
    """A guard that is entered.

    Attributes:
        guard: whose stay it is; for `current_guard`.
        stack, options, stop_hooks, waiters: the guard's.
        host: where it was entered.
        left: its cleanup has begun.
        gone: it is off the roster.
    """

    def __init__(
        self,
        guard: Any,
        stack: CallbackStack,
        options: Options,
        stop_hooks: list[Callback],
        waiters: Waiters,
    ) -> None:
        self.guard = guard
        self.stack = stack
        self.options = options
        self.stop_hooks = stop_hooks
        self.waiters = waiters
        self.hooks: tuple[Hook, ...] = (log_event,) if options.hooks is None else options.hooks
        self.process: Process = REGISTRY.get()
        self.host: Any = None
        self.signums: tuple[int, ...] = ()
        self.left: bool = False
        self.gone: bool = False
        # Entered in a callback, or while main unwinds: the stop is raised elsewhere.
        self._inside_cleanup = False
        self._raises_stop: bool | None = None  # whether the stop goes on from here, once that is decided
        self._outcome: Outcome | None = None
        self._cleaned = Once()
        self._thread_members: dict[Any, None] | None = None

    # -- for the floors below (`Member`) --

    @property
    def interrupt(self) -> bool:
        """Whether main is told by an exception."""
        return self.options.interrupt

    @property
    def insist(self) -> bool:
        """Whether the stop is ours, whatever handlers were there."""
        return self.options.insist

    @property
    def grace(self) -> tuple[bool, float | None]:
        """Whether it names a grace period, and which."""
        return self.options.has_grace, self.options.grace

    @property
    def exit_status(self) -> ExitStatus:
        """What status it wants."""
        return self.options.exit_status

    @property
    def label(self) -> str:
        """What reports call it."""
        return f"guard {self.options.name!r}" if self.options.name else "a guard"

    @property
    def foreign(self) -> bool:
        """Whether this is a fork child, and the guard its parent's."""
        return self.process.foreign

    def wake_waiters(self) -> None:
        """End every wait for the stop."""
        self.waiters.wake()

    # -- entering --

    def enter(self, find_host: Callable[[Process], Host] | None) -> None:
        """Take the signals, and become the current guard.

        Args:
            find_host: gives the task that it is entered in; None where it is entered with `with`.
        """
        grace_from_environment(os.environ)  # type: ignore[arg-type]
        process, main = self.process, in_main()
        NETS.stretch()
        FORK_HOOKS.register()
        told_already = False
        if main and process.state is State.DONE:
            if self._is_unwinding():
                told_already = True
            else:
                process.forget()
        told_already = told_already or process.state is State.UNWINDING
        self.host = ThreadHost() if find_host is None else find_host(process)
        if find_host is not None:
            told_already = told_already and bool(self.host.members)
            process.roster.hosts[self.host.key] = self.host
        self.host.members[self] = None
        self._inside_cleanup = process.in_callback or told_already
        if main:
            self._enter_in_main()
        else:
            process.roster.elsewhere[self] = None
            self._thread_members = THREADS.members
            self._thread_members[self] = None
            if self.options.signals != ():
                self._emit(SignalsUnheard(thread=threading.current_thread().name))

    def enter_for_program(self) -> None:
        """Be the guard of a program that has none, wherever this is called.

        Outside of the main thread signals cannot be taken. There main is asked to do it as soon as it runs a line of Python,
        unless somebody handles SIGTERM already.
        """
        roster = self.process.roster
        NETS.stretch()
        NETS.stretch_in_child()
        FORK_HOOKS.register()
        self.host = ThreadHost()
        roster.program = self
        if in_main():
            self._enter_in_main()
            return
        roster.popped[self] = None
        if can_be_taken():
            call_in_main(self.settle)

    def settle_here(self) -> None:
        """As `settle`, if this is the main thread."""
        if in_main():
            self.settle()

    def settle(self) -> None:
        """Take the signals that could not be taken in another thread. Main thread only; does nothing the second time."""
        roster = self.process.roster
        if self in roster.popped and not (self.left or self.foreign or roster.main):
            self.host = ThreadHost()
            roster.popped.pop(self)
            self._enter_in_main()

    def adopt_from(self, other: Stay) -> None:
        """Be what `pop_all` made of another guard: it outlives that one, holds on to its signals, and the exit nets find it."""
        self.host, self.signums = other.host, other.signums
        self.process.roster.popped[self] = None

    def _is_unwinding(self) -> bool:
        """Whether main, which is the caller, is still on its way out because of a stop."""
        return handles(native.get_ident(), self.process.receiver.token)

    def _enter_in_main(self) -> None:
        process = self.process
        process.roster.main[self] = None
        try:
            self.signums = process.signals.take(self._wanted(), named=self.options.signals is not None)
            if self.signums:
                process.watch.need()
        except BaseException:
            self.detach()
            raise

    def _wanted(self) -> tuple[int, ...]:
        signums = DEFAULT_SIGNALS if self.options.signals is None else self.options.signals
        if self.options.is_programs:
            # Ctrl-C unwinds main anyway; and a session with a person, a REPL or a debugger, stays what it is.
            import signal

            if signal.getsignal(SIGINT) is signal.default_int_handler:
                return tuple(each for each in signums if each != SIGINT)
        return signums

    # -- leaving --

    def leave(self, error: BaseException | None) -> bool:
        """Leave it in a thread: run the callbacks, and let the stop go on. What `__exit__` returns, or raises."""
        verdict = Verdict()
        for _ in range(TRIES):
            try:
                take_steps(self._leave(error, verdict), self.host.wait)
                break
            except BaseException as foreign:  # raised by somebody's signal handler between two of our lines
                verdict.foreign = foreign
        return verdict.carry_out(error)

    async def leave_in_task(self, error: BaseException | None) -> bool:
        """The same in a task."""
        verdict, host = Verdict(), self.host
        CONTEXT.set(tuple(each for each in CONTEXT.get() if each is not self))
        host.leaving += 1
        try:
            for _ in range(TRIES):
                try:
                    await host.take_steps(self._leave(error, verdict))
                    break
                except GeneratorExit:
                    raise
                except BaseException as foreign:
                    verdict.foreign = foreign
            suppressed: bool = verdict.carry_out(error)
        except BaseException as raised:
            host.left(error, raised)
            raise
        finally:
            host.leaving -= 1
        suppressed = host.left(None if suppressed else error, None) or suppressed
        if suppressed or error is None:
            await host.be_told()
        return suppressed

    def _leave(self, error: BaseException | None, verdict: Verdict) -> Steps[None]:
        """Each part of it may be begun again."""
        process = self.process
        outcome = yield from self.clean_up(error)
        if isinstance(error, LastAct) and self in process.roster.main and not self._inside_cleanup:
            error.after(outcome)
        raises_stop = self.detach()
        verdict.outcome = outcome
        stop = process.stop
        if stop is None or process.foreign:
            return
        verdict.stops = raises_stop and stop.theirs is None and not self._is_on_its_way(error)
        if verdict.stops:
            verdict.end = lambda: self._end_of_stop(stop, error)
        elif stop.theirs is None and self._ends_foreign_loop():
            verdict.end = lambda: self._end_of_loop(stop, error)

    def _is_on_its_way(self, error: BaseException | None) -> bool:
        """Whether a generator is merely closed behind a stop that main has been told of."""
        return isinstance(error, GeneratorExit) and self.process.delivery.told and not self.host.in_loop

    def clean_up(self, error: BaseException | None) -> Steps[Outcome]:
        """Run the callbacks, or wait for whoever runs them."""
        process, host = self.process, self.host
        main = self in process.roster.main
        if main and in_main():
            process.signals.take_ctrl_c()
        if main:
            if process.stop is not None:
                self._leave_jumped_over()
            process.roster.leaving[self] = None
            if not process.announced:
                yield lambda: process.announced
        if process.stop is not None:
            if host.in_loop and not host.others_are_uncritical():
                yield host.others_are_uncritical  # they may be using what the callbacks close
            process.announce()
            if not process.watch.running:
                ends.run_stop_hooks(process, process.watch)
            limit = time.monotonic() + ANNOUNCEMENT
            if (
                not process.told.announced
            ):  # let the watcher say that a stop began before main says that it ended
                yield lambda: process.told.announced or time.monotonic() >= limit
        self.left = True
        self.wake_waiters()
        yield from self._take_turn(error)
        if not self._cleaned.claimed:
            yield self._is_clean
        if host.in_loop and list(host.members) == [self]:
            yield from self._let_others_end(host)
        return Outcome(error) if self._outcome is None else self._outcome

    def _is_clean(self) -> bool:
        """Whether whoever runs the callbacks is done. A daemon thread that hangs is not waited for at the end of the program."""
        if self._cleaned.claimed:
            return True
        turn = next((each for each in list(self.process.roster.turns) if each.stack is self.stack), None)
        return turn is not None and turn.daemon and self.process.exiting

    def _let_others_end(self, host: Host) -> Steps[None]:
        """The task is about to be free of guards, and after a stop to end its loop, which cuts the other tasks short."""
        left, stop = host.tasks_left(), self.process.stop
        if left is not None:
            self._emit(left)
        if stop is None or stop.theirs is not None:
            return
        if not host.others_are_uncritical():
            yield host.others_are_uncritical
        if host.is_root and not host.others_are_clean():
            yield host.others_are_clean

    def _leave_jumped_over(self) -> None:
        """Guards inside this one that are still entered come first: CPython jumped over their exits (hazard H9)."""
        if self.host.in_loop:
            return  # its task is cancelled where it waits, which jumps over nothing
        entered = list(self.process.roster.main)
        for member in reversed(entered[entered.index(self) + 1 :]):
            if not member.host.alive and member in self.process.roster.main and not member.left:
                member.leave_at_exit()

    # -- callbacks --

    def run_callbacks(self, error: BaseException | None) -> None:
        """Run what is left, unless somebody else has the turn. For the take-over."""
        host, process = self.host, self.process
        stop = process.stop
        if host.in_loop and stop is not None:
            # The callbacks need the rest of the time.
            patience = min(1.0, (stop.budget.at(stop.budget.INTERRUPT) - process.clock()) / 2)
            if host.run_here(lambda: host.take_steps(self._take_turn(error)), patience):
                return
        self._run_here(error)

    def _run_here(self, error: BaseException | None) -> None:
        take_steps(self._take_turn(error), self._wait)

    def _take_turn(self, error: BaseException | None) -> Steps[None]:
        """Run all callbacks, if nobody else does, or hand the turn back."""
        if self._cleaned.claimed or not self.stack.turn.claim():
            return
        turn: Turn | None = None
        began = self.process.clock()
        try:
            turn = self._begin_turn()
            if self._outcome is None:
                self._outcome = Outcome(error)
            yield from run_all(self.stack, self._outcome, turn)
            self._cleaned.claim()
        finally:
            if not self._cleaned.claimed:
                self.stack.turn.give_back()
            if turn is not None:
                self.process.roster.turns.pop(turn, None)
        self._tell_done(turn, began)

    def _begin_turn(self) -> Turn:
        process = self.process
        limit = self.options.exit_timeout if process.stop is None else None
        turn = Turn(process, Reporter(self.hooks), limit, self.stack)
        process.roster.turns[turn] = None
        if limit is not None or (self.stack.has_timeouts and not process.watch.running):
            process.watch.need()
        return turn

    def _tell_done(self, turn: Turn, began: float) -> None:
        process = self.process
        if process.stop is None and turn.reporter.wants_details:
            took = process.clock() - began
            self._emit(Finished(reason=None, callbacks=turn.count, failures=turn.failures, seconds=took))

    # -- off the roster --

    def detach(self) -> bool:
        """Leave the roster. The last one gives everything back, or after a stop holds on until the process is gone.

        Each part may be begun again.

        Returns:
            Whether the stop goes on upwards from here.
        """
        process, roster = self.process, self.process.roster
        if process.foreign:
            return False
        if self._raises_stop is None:
            self._raises_stop = self in roster.main and not self._inside_cleanup
        last = list(roster.main) == [self]
        stop = process.stop
        still_listens = any(member.signums for member in list(roster.popped) if member is not self)
        if last and stop is None and in_main() and not still_listens and not process.ballot.close():
            stop = process.stop
        if stop is not None and self.options.exit_status is not None:
            stop.wanted = self.options.exit_status
        if last and stop is not None:
            process.tell_finished()
            stop.finished = True
        roster.remove(self)
        self._forget_place()
        self.gone = True
        if stop is None:
            self._give_back()
        if last:
            left = None if stop is None else stop.budget.remaining(process.clock())
            OUTBOX.drain(1.0 if left is None else min(1.0, left))
        return self._raises_stop

    def _forget_place(self) -> None:
        host = self.host
        if host is not None:
            host.members.pop(self, None)
            if host.in_loop and not host.members and self.process.stop is None:
                self.process.roster.hosts.pop(host.key, None)
        if self._thread_members is not None:
            self._thread_members.pop(self, None)

    def _give_back(self) -> None:
        """Give back the signals, if nobody else wants them: main does, here or when it looks next."""
        process, roster = self.process, self.process.roster
        around = next(iter(list(roster.main)), None) if self.signums else None
        if around is not None and set(self.signums) <= set(around.signums):
            return
        if not self.signums and roster.main:
            return
        if not in_main():
            if process.signals.previous and not roster.main:
                process.watch.poke()
            process.watch.release()
            return
        process.tidy()
        if process.ballot.closed:
            process.ballot = Ballot()

    # -- the stop goes on --

    def _ends_foreign_loop(self) -> bool:
        host = self.host
        return bool(host.in_loop and host.cancels and not host.in_main)

    def _end_of_loop(self, stop: Stop, error: BaseException | None) -> bool:
        """A stop ends a loop in another thread; what its main task raises ends the thread, silently, and not the process."""
        host = self.host
        if not host.ends_loop:
            return bool(host.pass_on(error))
        return bool(
            host.go_on(SystemExit(stop.status), error)
        )  # threading is silent about no other exception

    def _end_of_stop(self, stop: Stop, error: BaseException | None) -> bool:
        """A stop goes on upwards: as main's exception if that is how main ended, else as a new one."""
        process, host = self.process, self.host
        if host.in_loop and not host.ends_loop:
            return bool(host.pass_on(error))
        wanted = process.exit_status()
        ending = ending_of(stop, wanted)
        # Click and others turn a KeyboardInterrupt that leaves main into an exit: it is a death by SIGINT all the same.
        swallows = ending.is_keyboard_interrupt and stop.finished
        if ending.needs_last_word or swallows or (host.in_loop and host.wraps_exceptions):
            LastWord(ending).say()
            if host.in_loop:
                hush_traceback()
        if is_ours(error) and _says(error, ending):
            return False
        if not _leaves(error) and not (host.in_loop and host.is_cancellation(error)):
            self._emit(MainFailed(error=error))  # type: ignore[arg-type]
            OUTBOX.drain(0.3)
        exception = process.make_exception(wanted if isinstance(wanted, int) else None)
        if host.in_loop:
            return bool(host.go_on(exception, error))
        raise exception

    def request_stop(self, reason: str, status: int) -> bool:
        """See `Guard.request_stop`."""
        process = self.process
        ballot = process.ballot  # first: once this guard has gone, that one is closed
        if self.gone or not process.request_stop(ballot, reason, status):
            return False
        process.watch.need()
        process.deliver()
        return True

    # -- for the exit nets, and without a stay --

    def leave_at_exit(self) -> None:
        """As `leave`, but failures are told, not raised, and decide the exit status."""
        for _ in range(TRIES):
            try:
                self._leave_at_exit()
            except BaseException as foreign:  # raised by somebody's signal handler between two of our lines
                write_line(f"{say(foreign)} was raised while {self.label} was being left")
            else:
                return

    def _leave_at_exit(self) -> None:
        process = self.process
        outcome = take_steps(self.clean_up(None), self._wait)
        if process.last_act is not None and self in process.roster.main:
            process.last_act.after_exit(outcome)
        self.detach()
        if process.stop is None and outcome.failures:
            LastWord(Ending(None, 1)).say()

    def close_alone(self) -> None:
        """Run the callbacks of a guard that was never entered."""
        self.host = ThreadHost()
        self._end_alone(take_steps(self.clean_up(None), self._wait))

    async def aclose_alone(self, host: Host) -> None:
        """The same in a task."""
        self.host = host
        self._end_alone(await host.take_steps(self.clean_up(None)))

    def _end_alone(self, outcome: Outcome) -> None:
        self.gone = True
        if in_main():
            self.process.watch.release()
        _raise_failures(outcome, None)

    def _wait(self, pending: Any) -> object:
        return self.host.wait_without_loop(pending) if self.host.in_loop else self.host.wait(pending)

    def _emit(self, event: Any) -> None:
        Reporter(self.hooks).emit(event)


def _says(error: BaseException | None, ending: Ending) -> bool:
    """Whether an exception of ours ends the process as it is to end."""
    return not isinstance(error, SignalExit) or ending.signum is not None or error.code == ending.status


def _leaves(error: BaseException | None) -> bool:
    """Whether main ended in a way that needs no report."""
    return error is None or isinstance(error, (SystemExit, KeyboardInterrupt, GeneratorExit))


class Verdict:
    """What leaving a guard comes to, once all is done: an exception that goes on, or whether main's is suppressed."""

    def __init__(self) -> None:
        self.outcome: Outcome | None = None
        self.end: Callable[[], bool] | None = None
        self.foreign: BaseException | None = None
        self.stops: bool = False

    def carry_out(self, error: BaseException | None) -> bool:
        """Raise, or say whether the exception with which main ended is suppressed."""
        if self.end is not None:
            return self.end()
        if self.foreign is not None and self.foreign is not error:
            raise self.foreign
        outcome = self.outcome
        if outcome is None:
            return False
        _raise_failures(outcome, error)
        return outcome.suppressed


def _raise_failures(outcome: Outcome, error: BaseException | None) -> None:
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


# -- for the names that users import --


def current_stay() -> Stay | None:
    """The innermost guard of this task or thread, else of main, else the program's."""
    process = REGISTRY.process
    if process is None:
        return None
    for each in (*reversed(CONTEXT.get()), *reversed(list(THREADS.members))):
        if not each.foreign and not each.gone:  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
            return each  # type: ignore[return-value]  # pyright: ignore[reportReturnType]
    entered = list(process.roster.main)
    for each in reversed(entered):
        if not each.host.in_loop:
            return each  # type: ignore[return-value]  # pyright: ignore[reportReturnType]
    if entered:
        return entered[-1]  # type: ignore[return-value]  # pyright: ignore[reportReturnType]  # in a task that knows of none
    return process.roster.program  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


def everybody() -> list[Member]:
    """All guards of this process."""
    process = REGISTRY.process
    return [] if process is None else process.roster.everybody()
