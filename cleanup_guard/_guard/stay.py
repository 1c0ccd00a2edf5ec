"""One guard's stay in the process: how it is entered, and what the floors below see of it."""

from __future__ import annotations

import os
import threading

from cleanup_guard._ground.events import SignalsUnheard
from cleanup_guard._ground.here import grace_given, is_any_set, is_set
from cleanup_guard._ground.names import SIGINT, SIGTERM

# The face loads it late; inside a guard there may be no descriptor for that.
from cleanup_guard._guard import registrar  # noqa: F401  # pyright: ignore[reportUnusedImport]
from cleanup_guard._guard.cleanup import Cleanup
from cleanup_guard._guard.departure import Departure, leaves_at_once
from cleanup_guard._hosts.in_thread import host_here
from cleanup_guard._process import native
from cleanup_guard._process.forks import FORK_HOOKS
from cleanup_guard._process.guest import GUEST
from cleanup_guard._process.main import CallInMain, can_be_taken
from cleanup_guard._process.native import in_main
from cleanup_guard._process.nets import NETS
from cleanup_guard._process.process import REGISTRY, Process
from cleanup_guard._process.readiness import Readiness
from cleanup_guard._process.report import Reporter, log_event
from cleanup_guard._process.roster import CONTEXT, THREADS
from cleanup_guard._process.signals import DEFAULT_SIGNALS
from cleanup_guard._stop.owner import is_tests
from cleanup_guard._stop.state import State
from cleanup_guard._stop.token import handles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cleanup_guard._ground.events import Hook
    from cleanup_guard._ground.once import Waiters
    from cleanup_guard._guard.options import Options
    from cleanup_guard._hosts.host import Host
    from cleanup_guard._process.roster import Member, Roster
    from cleanup_guard._stop.stack import Callback, CallbackStack
    from cleanup_guard._stop.stop import Stop


class Stay:
    """A guard that is entered, or was made by `pop_all`, or is only closed.

    Attributes:
        guard: whose stay it is; for `current_guard`, while it lasts.
        options, stop_hooks: the guard's.
        process: where it is.
        host: the thread or task that it was entered in.
        signums: the signals that it has.
        stack: its callbacks.
        begun: its cleanup, once somebody has asked for it.
        departure: its end.
        left: its cleanup has begun.
        gone: it is off the roster.
        inside_cleanup: entered in a callback, or while main unwinds: the stop is raised elsewhere.
        raises_stop: whether a stop goes on from here, once that is decided.
    """

    begun: Cleanup | None = None

    def __init__(
        self,
        guard: Any,
        stack: CallbackStack,
        options: Options,
        stop_hooks: list[Callback],
        waiters: Waiters,
    ) -> None:
        self.guard: Any = guard
        self.options = options
        self.stack = stack
        self.stop_hooks = stop_hooks
        self._waiters = waiters
        self.process: Process = REGISTRY.process or REGISTRY.get()
        self.host: Any = None
        self.signums: tuple[int, ...] = ()
        self.left: bool = False
        self.gone: bool = False
        self.inside_cleanup: bool = False
        self.thread_members: dict[Any, None] | None = None
        self.raises_stop: bool | None = None

    # -- for the floors below (`Member`) --

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """Who is told."""
        return (log_event,) if self.options.hooks is None else self.options.hooks

    @property
    def cleanup(self) -> Cleanup:
        """The running of its callbacks: one, whoever asks first."""
        if self.begun is not None:
            return self.begun
        made = Cleanup(self.process, self.stack, self.hooks, self.options.exit_timeout)
        first: Cleanup = self.__dict__.setdefault("begun", made)
        return first

    @property
    def label(self) -> str:
        """What reports call it."""
        return f"guard {self.options.name!r}" if self.options.name else "a guard"

    @property
    def departure(self) -> Departure:
        """Its end."""
        return Departure(self)

    def wake_waiters(self) -> None:
        """End every wait for the stop."""
        self._waiters.wake()

    def run_callbacks(self, error: BaseException | None) -> None:
        """Run what is left, unless somebody else has the turn. For the take-over."""
        self.cleanup.run_for_take_over(self.host, error)

    def leave_at_exit(self) -> None:
        """For the exit nets."""
        self.departure.leave_at_exit()

    def remaining(self, stop: Stop) -> float | None:
        """Seconds until the caller, be it main or a callback, would be interrupted; None without a limit."""
        process = self.process
        roster = process.roster
        # Who takes over from a main on its way out does that in the time that is sure, whether callbacks wait or not.
        others_wait = roster.others_wait if process.in_callback else process.state is State.UNWINDING
        return stop.budget.remaining(process.clock(), others_wait=others_wait)

    def request_stop(self, reason: str, status: int) -> bool:
        """See `Guard.request_stop`."""
        process = self.process
        ballot = process.ballot  # first: once this guard has gone, that one is closed
        if self.gone or not process.request_stop(ballot, reason, status):
            return False
        process.watch.need()
        process.deliver()
        return True

    # -- entering --

    def enter(self, find_host: Callable[[Process], Host] | None) -> None:
        """Take the signals, and become the current guard.

        Args:
            find_host: gives the task that it is entered in; None where it is entered with `with`.
        """
        process, main = self.process, in_main()
        _look_around(process.roster, self.options.ready_file)
        told_already = process.stop is not None and (
            (main and self._follows_a_stop()) or process.state is State.UNWINDING
        )
        if find_host is None:
            self.host = host_here(in_main=main)
        else:
            self.host = find_host(process)
            told_already = told_already and bool(self.host.members)
            process.roster.hosts[self.host.key] = self.host
            self.host.members[self] = None
        self.inside_cleanup = process.in_callback or told_already
        if main:
            self._enter_in_main()
        else:
            self._enter_elsewhere()
        context = CONTEXT.get()
        if context or find_host is not None:
            CONTEXT.set((*context, self))

    def leave(self, error: BaseException | None) -> bool:
        """Leave it in a thread. What `__exit__` returns, or raises."""
        foreign: BaseException | None = None
        try:
            if leaves_at_once(self, error):
                return False
        except BaseException as raised:
            foreign = raised
        return self.departure.leave(error, foreign)

    def _follows_a_stop(self) -> bool:
        """Whether main is on its way out because of a stop that is over. If it goes on instead, that stop is forgotten."""
        process = self.process
        if process.state is not State.DONE:
            return False
        if handles(native.get_ident(), process.receiver.token):
            return True
        process.forget()
        return False

    def _enter_elsewhere(self) -> None:
        self.process.roster.elsewhere[self] = None
        self.thread_members = THREADS.members
        self.thread_members[self] = None
        if self.options.signals != ():
            Reporter(self.hooks).emit(SignalsUnheard(thread=threading.current_thread().name))

    def _enter_in_main(self) -> None:
        process = self.process
        inside = bool(process.roster.main)
        process.roster.main[self] = None
        try:
            wanted, signals = self._wanted(), process.signals
            new = [signum for signum in wanted if signum not in signals.previous]
            if not new:
                self.signums = wanted
            else:
                # One that came before was somebody else's, who may have gone on.
                process.watch.begin_anew(new)
                self.signums = signals.take(wanted, named=self.options.signals is not None)
            if self.signums and not (inside and not new and process.watch.hears):
                GUEST.stand_by(process)
                process.watch.need()
                process.whereabouts.ask(process.roster)
        except BaseException:
            self.departure.detach()
            raise

    def _wanted(self) -> tuple[int, ...]:
        signums = DEFAULT_SIGNALS if self.options.signals is None else self.options.signals
        if self.options.is_programs:
            # Ctrl-C unwinds main anyway; and a session with a person, a REPL or a debugger, stays what it is.
            import signal

            self.process.signals.put_right(SIGINT)
            if signal.getsignal(SIGINT) is signal.default_int_handler:
                return tuple(each for each in signums if each != SIGINT)
        return signums

    def enter_for_program(self) -> None:
        """Be the guard of a program that has none, wherever this is called.

        Outside of the main thread signals cannot be taken. There main is asked to do it as soon as it runs a line of Python,
        unless somebody handles SIGTERM already. In a run of pytest it takes none, and is around no other guard.
        """
        roster = self.process.roster
        NETS.stretch()
        NETS.stretch_in_child()
        FORK_HOOKS.register()
        if in_main():
            self.inside_cleanup = self._follows_a_stop()
        self.host = host_here(in_main=in_main())
        roster.program = self
        by_pytest = in_run_of_pytest()
        if in_main() and not by_pytest:
            self._enter_in_main()
            return
        roster.popped[self] = None
        if can_be_taken() and not by_pytest:
            CallInMain(lambda _: self.settle()).ask()

    def settle(self) -> None:
        """Take the signals that could not be taken in another thread, if this is the main one. Does nothing the second time."""
        roster = self.process.roster
        is_settled = self not in roster.popped or self.left or self.process.foreign or roster.main
        if in_main() and not (is_settled or in_run_of_pytest()):
            self.host = host_here(in_main=True)
            roster.popped.pop(self)
            self._enter_in_main()

    def adopt_from(self, other: Stay) -> None:
        """Be what `pop_all` made of another guard: it outlives that one, holds on to its signals, and the exit nets find it."""
        self.host, self.signums = other.host, other.signums
        self.process.roster.popped[self] = None

    def close_alone(self) -> None:
        """Run the callbacks of a guard that was never entered."""
        self.host = host_here(in_main=in_main())
        self.departure.close_alone()

    async def aclose_alone(self, host: Host) -> None:
        """The same in a task."""
        self.host = host
        await self.departure.aclose_alone()


def _look_around(roster: Roster, ready_file: str | None) -> None:
    """What the environment says, and who wants to know whether the program is ready: systemd, or whoever looks for a file."""
    outermost = roster.outermost
    if outermost is None or outermost is roster.program:  # else that one has done it
        if is_any_set():
            grace_given()  # refuses what makes no sense
            if roster.notify is None and is_set("NOTIFY_SOCKET"):
                from cleanup_guard._process.notify import notify_of

                roster.notify = notify_of(os.environ)
        NETS.stretch()
        FORK_HOOKS.register()
    if ready_file is not None:
        roster.readiness = Readiness(ready_file)
        roster.readiness.withdraw()  # what an earlier process has left behind


def in_run_of_pytest() -> bool:
    """Whether our plugin of pytest sees to it that a SIGTERM tears everything down."""
    return is_tests(native.get_handler(SIGTERM))


# -- for the names that users import, and for the plugin of pytest --


def set_program(stay: Stay | None) -> Stay | None:
    """Have `on_exit` use this guard of the program's, or set up a new one. Returns the one before."""
    roster = REGISTRY.get().roster
    before, roster.program = roster.program, stay
    return before if isinstance(before, Stay) else None


def current_stay() -> Stay | None:
    """The innermost guard of this task or thread, else of main, else the program's."""
    process = REGISTRY.process
    if process is None:
        return None
    for each in (*reversed(CONTEXT.get()), *reversed(list(THREADS.members))):
        if isinstance(each, Stay) and not (each.process.foreign or each.gone):
            return each
    entered = [each for each in list(process.roster.main) if isinstance(each, Stay)]
    for each in reversed(entered):
        if not each.host.in_loop:
            return each
    if entered:
        return entered[-1]  # in a task that knows of none
    program = process.roster.program
    return program if isinstance(program, Stay) else None


def everybody() -> list[Member]:
    """All guards of this process."""
    process = REGISTRY.process
    return [] if process is None else process.roster.everybody()
