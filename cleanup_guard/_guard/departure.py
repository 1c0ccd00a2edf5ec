"""Leaving a guard: clean up, leave the roster, and let the stop go on.

Rules:
1. An exception that somebody's signal handler raises between two of our lines ends nothing: leaving begins again where it was,
   and the exception goes on afterwards. What even so was cut short the exit nets find, for the guard is taken off the
   roster last.
2. Guards may be left in any order and in any thread. Signals belong to the process: they are given back by main, when no guard
   wants them any more.
"""

from __future__ import annotations

import time

from cleanup_guard._ground.names import SIGINT
from cleanup_guard._ground.stderr import write_line
from cleanup_guard._guard.onward import Verdict, end_of_loop, end_of_stop, raise_failures
from cleanup_guard._hosts.beside import take_steps_in
from cleanup_guard._process import ends
from cleanup_guard._process.last_act import LastAct
from cleanup_guard._process.last_word import LastWord
from cleanup_guard._process.native import in_main
from cleanup_guard._process.report import OUTBOX, Reporter, logging_is_configured, say, wants_details
from cleanup_guard._process.roster import CONTEXT
from cleanup_guard._stop.ending import Ending
from cleanup_guard._stop.running import Outcome, take_steps
from cleanup_guard._stop.stop import Ballot
from cleanup_guard._stop.token import is_ours

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from cleanup_guard._guard.cleanup import Cleanup
    from cleanup_guard._process.process import Process
    from cleanup_guard._process.roster import Member
    from cleanup_guard._stop.running import Steps
    from cleanup_guard._stop.stop import Stop

    class Entered(Member, Protocol):
        """A guard's stay, seen by who leaves it (`stay.py`)."""

        guard: Any
        process: Process
        gone: bool
        inside_cleanup: bool
        begun: Cleanup | None
        raises_stop: bool | None
        thread_members: dict[Any, None] | None

        @property
        def cleanup(self) -> Cleanup: ...


ANNOUNCEMENT = 0.1
"""Seconds that a line on stderr may keep main waiting."""

TRIES = 100
"""How often leaving begins again because somebody's signal handler raised in the middle of it."""


class Departure:
    """The end of a guard's stay.

    Args:
        stay: what ends.
    """

    def __init__(self, stay: Entered) -> None:
        self._stay = stay
        self._process = stay.process
        self._host: Any = stay.host

    # -- the ways to leave --

    def leave(self, error: BaseException | None, foreign: BaseException | None) -> bool:
        """Leave it in a thread. What `__exit__` returns, or raises.

        Args:
            error: what main ended with.
            foreign: what somebody's signal handler has raised meanwhile.
        """
        verdict = Verdict(foreign)
        for _ in range(TRIES):
            try:
                take_steps(self._leave(error, verdict), self._host.wait)
                break
            except BaseException as raised:
                verdict.foreign = raised
        return verdict.carry_out(error)

    async def leave_in_task(self, error: BaseException | None) -> bool:
        """The same in a task."""
        verdict, host = Verdict(), self._host
        _leave_context(self._stay)
        host.leaving += 1
        try:
            for _ in range(TRIES):
                try:
                    await take_steps_in(host, self._leave(error, verdict))
                    break
                except GeneratorExit:
                    raise
                except BaseException as foreign:
                    verdict.foreign = foreign
            suppressed: bool = verdict.carry_out(error)
        except BaseException as raised:
            host.left(error, raised)
            if is_ours(raised) or host.is_cancellation(raised):
                self._settle()
            raise
        finally:
            host.leaving -= 1
        suppressed = host.left(None if suppressed else error, None) or suppressed
        self._settle()
        if suppressed or error is None:
            await host.be_told()
        return suppressed

    def _settle(self) -> None:
        """The stop goes on from a task."""
        stop = self._process.stop
        if stop is not None:
            stop.owed = False

    def leave_at_exit(self) -> None:
        """For the nets: failures are told, not raised, and decide the exit status."""
        for _ in range(TRIES):
            try:
                self._leave_at_exit()
            except BaseException as foreign:
                write_line(f"{say(foreign)} was raised while {self._stay.label} was being left")
            else:
                return

    def _leave_at_exit(self) -> None:
        process = self._process
        self._host.let_task_leave()
        outcome = take_steps(self._clean_up(None), self._host.wait_without_loop)
        if process.last_act is not None and self._stay in process.roster.main:
            process.last_act.after_exit(outcome)
        self.detach()
        if process.stop is None and outcome.failures:
            LastWord(Ending(None, 1)).say()

    def close_alone(self) -> None:
        """Run the callbacks of a guard that was never entered."""
        self._end_alone(take_steps(self._clean_up(None), self._host.wait_without_loop))

    async def aclose_alone(self) -> None:
        """The same in a task."""
        self._end_alone(await take_steps_in(self._host, self._clean_up(None)))

    def _end_alone(self, outcome: Outcome) -> None:
        self._stay.gone = True
        if in_main():
            self._process.watch.release()
        raise_failures(outcome, None)

    # -- its parts, each of which may be begun again --

    def _leave(self, error: BaseException | None, verdict: Verdict) -> Steps[None]:
        process, stay, host = self._process, self._stay, self._host
        outcome = yield from self._clean_up(error)
        if isinstance(error, LastAct) and stay in process.roster.main and not stay.inside_cleanup:
            error.after(outcome)
        raises_stop = self.detach()
        verdict.outcome = outcome
        stop = process.stop
        if stop is None or process.foreign or stop.theirs is not None:
            return
        if raises_stop and self._goes_on_here(error):
            stop.owed = True
            verdict.end = lambda: end_of_stop(process, host, stay.hooks, stop, error)
        elif host.in_loop and host.asking.cancels and not host.in_main:
            verdict.end = lambda: end_of_loop(host, stop, error)

    def _goes_on_here(self, error: BaseException | None) -> bool:
        """Whether this is main, and no generator that is merely closed behind a stop of which main has been told.

        A guard that another thread has closed tells that thread nothing: it is main that has to be told, and will be.
        """
        if self._host.in_loop:
            return True
        return in_main() and not (isinstance(error, GeneratorExit) and self._process.delivery.told)

    def _clean_up(self, error: BaseException | None) -> Steps[Outcome]:
        """Run the callbacks, or wait for whoever runs them."""
        process, stay, host = self._process, self._stay, self._host
        if process.stop is not None:
            self._end_drain(process.stop)
        if stay in process.roster.main:
            yield from self._begin_in_main()
        elif stay in process.roster.popped and in_main():
            process.roster.leaving[stay] = None
        if process.stop is not None:
            yield from self._announce()
        stay.left = True
        if process.roster.outermost is stay:
            process.roster.withdraw(waits=True)
        stay.wake_waiters()
        if process.stop is not None or not _closes(stay):
            yield from stay.cleanup.run(error)
        if host.in_loop and list(host.members) == [stay]:
            yield from self._let_others_end()
        return Outcome(error) if stay.begun is None else stay.begun.outcome(error)

    def _end_drain(self, stop: Stop) -> None:
        """Who leaves serves no longer."""
        if not stop.drained:
            stop.end_drain()
            self._process.watch.wake()

    def _begin_in_main(self) -> Steps[None]:
        process = self._process
        if SIGINT not in process.signals.previous and in_main() and process.signals.leaves_sigint():
            if process.stop is None:
                process.watch.begin_anew((SIGINT,))
            process.signals.take_more()
        if process.stop is not None:
            self._leave_jumped_over()
        process.roster.leaving[self._stay] = None
        if not process.announced:
            yield lambda: process.announced

    def _announce(self) -> Steps[None]:
        """A stop is told before its callbacks run, and before main says that it ended."""
        process, host = self._process, self._host
        if host.in_loop and not host.others_are_uncritical():
            yield host.others_are_uncritical  # they may be using what the callbacks close
        process.announce()
        if not process.watch.running:
            ends.run_stop_hooks(process, process.watch)
        elif self._stay.stop_hooks and not process.announced:
            yield lambda: process.announced  # they are found as long as the guard is there
        limit = time.monotonic() + ANNOUNCEMENT
        if not process.told.announced:  # the watcher is at it
            yield lambda: process.told.announced or time.monotonic() >= limit

    def _let_others_end(self) -> Steps[None]:
        """The task is about to be free of guards, and after a stop to end its loop, which cuts the other tasks short."""
        host, stop = self._host, self._process.stop
        left = host.tasks_left()
        if left is not None:
            Reporter(self._stay.hooks).emit(left)
        if stop is None or stop.theirs is not None:
            return
        if not host.others_are_uncritical():
            yield host.others_are_uncritical
        if host.is_root and not host.others_are_clean():
            yield host.others_are_clean

    def _leave_jumped_over(self) -> None:
        """Guards inside this one that are still entered come first: CPython jumped over their exits (hazard H9)."""
        if self._host.in_loop:
            return  # its task is cancelled where it waits, which jumps over nothing
        entered = list(self._process.roster.main)
        for member in reversed(entered[entered.index(self._stay) + 1 :]):
            if not member.host.alive and member in self._process.roster.main and not member.left:
                member.leave_at_exit()

    # -- off the roster --

    def detach(self) -> bool:
        """Leave the roster. The last one gives everything back, or after a stop holds on until the process is gone.

        Returns:
            Whether the stop goes on upwards from here.
        """
        process, stay, roster = self._process, self._stay, self._process.roster
        if process.foreign:
            return False
        if stay.raises_stop is None:
            stay.raises_stop = stay in roster.main and not stay.inside_cleanup
        last = roster.is_last(stay, process.stop)
        stop = self._close_ballot() if last else process.stop
        if stop is not None:
            if stay.options.exit_status is not None:
                stop.wanted = stay.options.exit_status
            if last:
                process.tell_finished()
                stop.finished = True
        roster.remove(stay)
        self._forget_place()
        stay.gone = True
        if stop is None:
            self._give_back()
        if last:
            left = None if stop is None else stop.budget.remaining(process.clock())
            OUTBOX.drain(1.0 if left is None else min(1.0, left))
        return stay.raises_stop

    def _close_ballot(self) -> Any:
        """Decide whether a stop or the end of the last guard came first. Returns the stop."""
        process = self._process
        still_listens = any(
            member.signums for member in list(process.roster.popped) if member is not self._stay
        )
        if process.stop is None and in_main() and not still_listens:
            process.ballot.close()
        return process.stop

    def _forget_place(self) -> None:
        host, stay = self._host, self._stay
        if host is not None and host.in_loop:
            host.members.pop(stay, None)
            if not host.members and self._process.stop is None:
                self._process.roster.hosts.pop(host.key, None)
        if stay.thread_members is not None:
            stay.thread_members.pop(stay, None)
        _leave_context(self._stay)

    def _give_back(self) -> None:
        """Give back the signals, if nobody else wants them: main does, here or when it looks next."""
        process, roster, signums = self._process, self._process.roster, self._stay.signums
        around = roster.outermost
        if around is not None and set(signums) <= set(around.signums):
            return
        if not in_main():
            if signums and process.signals.previous and not roster.main:
                process.watch.poke()
            process.watch.release()
            return
        process.tidy()
        if process.ballot.closed:
            process.ballot = Ballot()


def leaves_at_once(stay: Entered, error: BaseException | None) -> bool:
    """Leave a guard that has nothing to run or to tell, in main: inside of another one, or the only one.

    Returns:
        Whether it has been left. Not if there is more to it, or a stop has come meanwhile: then it is a departure.
    """
    process = stay.process
    ballot = process.ballot
    if ballot.votes or process.foreign or stay.host.in_loop or isinstance(error, LastAct):
        return False
    outermost = process.roster.outermost
    is_alone = outermost is stay and _is_alone(process)
    if not (is_alone or _is_inside(stay, outermost, process)) or not _closes(stay):
        return False
    if is_alone and not ballot.close():
        return False
    stay.raises_stop = not stay.inside_cleanup
    stay.left = True
    stay.wake_waiters()
    process.roster.main.pop(stay, None)
    _leave_context(stay)
    stay.gone = True
    if is_alone:
        process.tidy()
        process.ballot = ballot = Ballot()
        OUTBOX.drain(1.0)
    stay.guard = None  # which has it: without a collector to find the two
    return not ballot.votes


def _closes(stay: Entered) -> bool:
    """Close the callbacks, if there is none, nobody is at any, none waits for work, and nobody is to be told of the end."""
    stack, hooks = stay.stack, stay.options.hooks
    if not stack.idle or stay.process.roster.work:
        return False
    if logging_is_configured() if hooks is None else wants_details(hooks):
        return False
    stack.closed = True
    if stack.idle:
        return True
    stack.closed = False  # somebody has registered one meanwhile
    return False


def _leave_context(stay: Entered) -> None:
    around = CONTEXT.get()
    if stay in around:
        CONTEXT.set(tuple(each for each in around if each is not stay))


def _is_inside(stay: Entered, outermost: Member | None, process: Process) -> bool:
    """Whether it is one of main's guards, and another one of these stays that has its signals."""
    roster = process.roster
    if outermost is None or outermost is stay or roster.program is not None or stay not in roster.main:
        return False
    return SIGINT in process.signals.previous and (not stay.signums or stay.signums == outermost.signums)


def _is_alone(process: Process) -> bool:
    """Whether nobody else than the outermost guard is there, in main or elsewhere, or hears whether the program is ready."""
    roster = process.roster
    if len(roster.main) > 1 or SIGINT not in process.signals.previous:
        return False
    if roster.program is not None or roster.popped or roster.elsewhere or roster.hosts:
        return False
    return roster.readiness is None and roster.notify is None and in_main()
