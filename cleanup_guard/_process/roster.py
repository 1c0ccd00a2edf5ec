"""Who is in: the guards that are entered, the callbacks in progress, and what each of them is to the floors below.

Every collection is a dict that is used as an ordered set: entering and leaving cost the same however many there are, in
whatever
order they come and go (tasks, generators and threads leave guards in any). `list(...)` of one is one C call, so any thread
and any handler may look.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar

from cleanup_guard._ground.events import Event, WorkCut
from cleanup_guard._process import native
from cleanup_guard._process.readiness import Readiness
from cleanup_guard._process.report import Reporter, log_event
from cleanup_guard._stop.delivery import WORK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Any, Protocol

    from cleanup_guard._ground.clock import Grace
    from cleanup_guard._ground.events import Hook
    from cleanup_guard._ground.once import Once
    from cleanup_guard._process.last_resort import LastResort
    from cleanup_guard._process.moment import Moment
    from cleanup_guard._process.signals import Signals
    from cleanup_guard._stop.delivery import Delivery
    from cleanup_guard._stop.history import History
    from cleanup_guard._stop.stack import Callback, CallbackStack
    from cleanup_guard._stop.state import State
    from cleanup_guard._stop.stop import Ballot, ExitStatus, Stop

    class Wishes(Protocol):
        """What a guard was asked for."""

        @property
        def interrupt(self) -> bool: ...
        @property
        def insist(self) -> bool: ...
        @property
        def grace(self) -> Grace | None: ...
        @property
        def drain(self) -> float | None: ...
        @property
        def exit_status(self) -> ExitStatus: ...
        @property
        def hooks(self) -> tuple[Hook, ...] | None: ...

    class Member(Protocol):
        """A guard's stay in the process, seen from below."""

        stop_hooks: list[Callback]
        host: Place
        signums: tuple[int, ...]
        left: bool

        @property
        def hooks(self) -> tuple[Hook, ...]: ...
        @property
        def stack(self) -> CallbackStack: ...
        @property
        def options(self) -> Wishes: ...
        @property
        def label(self) -> str: ...
        def wake_waiters(self) -> None: ...
        def run_callbacks(self, error: BaseException | None) -> None: ...  # for the take-over
        def leave_at_exit(self) -> None: ...  # for the nets

    class Asking(Protocol):
        """Asks a loop to cancel its guarded task (`_hosts/host.py`)."""

        asked_at: float  # when it was asked and has not answered since; infinity if it owes no answer

        @property
        def handling(self) -> bool: ...  # the task is on its way out because of the stop, or not told of it
        def ask(self) -> None: ...  # once
        def insist(self) -> None: ...
        def withdraw(self) -> None: ...  # the stop was raised in main

    class Host(Protocol):
        """A task with guards in it."""

        in_main: bool

        @property
        def asking(self) -> Asking: ...
        @property
        def alive(self) -> bool: ...
        @property
        def may_be_interrupted(self) -> bool: ...  # now, without harm to a loop itself; main's handler only
        @property
        def holds(self) -> bool: ...  # its loop keeps the stop's exception until it ends
        def lift_shields(self) -> None: ...

    class Place(Protocol):
        """Where a guard was entered: a thread, or a task."""

        in_loop: bool  # its tasks are cancelled, rather than interrupted

        @property
        def alive(self) -> bool: ...  # there is a task that can be cancelled
        def run_here(self, start: Callable[[], Coroutine[Any, Any, object]], patience: float) -> bool: ...

    class Turn(Protocol):
        """One guard's callbacks in progress (`turn.py`)."""

        ident: int
        daemon: bool
        in_main: bool
        started: float
        stack: CallbackStack

        @property
        def current(self) -> Callback | None: ...
        @property
        def interrupt(self) -> Interrupt: ...
        @property
        def interruptible(self) -> bool: ...
        def due(self, *, others_wait: bool) -> float: ...
        def why_due(self) -> str: ...
        def interrupt_thread(self, callback: Callback) -> None: ...

    class Section(Protocol):
        """Work in flight (`_guard/work.py`)."""

        name: str
        began: float
        stack: CallbackStack
        in_main: bool
        holds: bool
        cut: bool
        named: Once

    class Listener(Protocol):
        """Systemd, if it wants to know how the service is (`notify.py`)."""

        def say(self, *lines: str) -> None: ...
        def stopping(self) -> None: ...  # once
        def look(self, process: ProcessView, stop: Stop, now: float) -> float: ...  # when to look again

    class Interrupt(Protocol):
        """The interrupt of the callback in progress."""

        wanted: bool
        why: str
        sent_at: float

        def ask(self, why: str, now: float) -> None: ...
        def make(self) -> BaseException: ...


CONTEXT: ContextVar[tuple[Member, ...]] = ContextVar("cleanup_guard", default=())
"""The guards around what runs, from the first `async with` on, outermost first; child tasks inherit it."""


class Threads(threading.local):
    """The guards that were entered in this thread, if it is not main."""

    def __init__(self) -> None:
        self.members: dict[Member, None] = {}


THREADS = Threads()


class Roster:
    """Who is in.

    Attributes:
        main: guards entered in main, outermost first.
        elsewhere: guards entered in other threads.
        popped: what `pop_all` made and nobody has entered: it outlives the others, and the exit nets find it here.
        program: the guard that `on_exit` set up where there was none.
        leaving: those of `main` that are being left; the last one is the innermost.
        turns: callbacks in progress.
        hosts: tasks with guards in them, by what identifies them.
        shields: how many critical sections main is in.
        work: the work in flight, oldest first.
        readiness: whether the program takes work, once it has said so.
        notify: systemd, if it wants to know.
        history: of the stop, if there is one.
    """

    def __init__(self) -> None:
        self.main: dict[Member, None] = {}
        self.elsewhere: dict[Member, None] = {}
        self.popped: dict[Member, None] = {}
        self.leaving: dict[Member, None] = {}
        self.turns: dict[Turn, None] = {}
        self.program: Member | None = None
        self.hosts: dict[object, Host] = {}
        self.shields: int = 0  # main's alone
        self.work: dict[Section, None] = {}
        self.readiness: Readiness | None = None
        self.notify: Listener | None = None
        self.history: History | None = None

    def everybody(self) -> list[Member]:
        """All guards, outermost and oldest first."""
        return [*list(self.popped), *list(self.main), *list(self.elsewhere)]

    @property
    def outermost(self) -> Member | None:
        """The oldest of main's guards, without a look at the others, who may be thousands. Any thread."""
        try:
            return next(iter(self.main), None)
        except RuntimeError:  # somebody came or went between the two calls
            return next(iter(list(self.main)), None)

    @property
    def empty(self) -> bool:
        """Whether nobody is in, and no callback is in progress."""
        return not (self.main or self.elsewhere or self.popped or self.turns)

    @property
    def listens(self) -> bool:
        """Whether main is inside a guard, or one is left that wants its signals."""
        return bool(self.main) or (bool(self.popped) and any(member.signums for member in list(self.popped)))

    def concerned(self, stop: Stop | None) -> list[Member]:
        """Main's guards that a stop ends: not the one that `on_exit` set up, if it leaves the signal to Python."""
        signum, program = None if stop is None else stop.signum, self.program
        return [
            each
            for each in list(self.main)
            if each is not program or signum is None or signum in each.signums
        ]

    def is_last(self, member: Member, stop: Stop | None) -> bool:
        """Whether a stop ends this guard alone. One at most is spared, so that thousands need not be looked at one by one."""
        return len(self.main) <= 2 and self.concerned(stop) == [member]  # noqa: PLR2004  # it, and the program's

    def remove(self, member: Member) -> None:
        """Take a guard off every list."""
        for each in (self.main, self.elsewhere, self.popped, self.leaving):
            each.pop(member, None)
        if self.program is member:
            self.program = None
        if not self.main:
            self.readiness = self.notify = None

    @property
    def grace(self) -> Grace | None:
        """The grace period that a guard in main names: the outermost decides; None if none does."""
        for each in list(self.main):  # no generator, here and below: asked in the handler
            grace = each.options.grace
            if grace is not None:
                return grace
        return None

    def drain(self, platform: float) -> float:
        """For how many seconds the program serves on after a stop has come: the outermost guard that says so decides.

        Args:
            platform: for how long requests arrive here; of no account to who has never said that he is ready for any.
        """
        for each in list(self.main):
            drain = each.options.drain
            if drain is not None:
                return drain
        return platform if self.readiness is not None and self.readiness.ready else 0.0

    def declare(self, file: str | None) -> None:
        """The program takes work.

        Args:
            file: what is to say so.

        Raises:
            OSError: the file cannot be written.
        """
        if self.readiness is None:
            self.readiness = Readiness(file)
        self.readiness.declare()
        if self.notify is not None:
            self.notify.say("READY=1", "STATUS=running")

    def withdraw(self, *, waits: bool = False) -> None:
        """The program takes no work any more.

        Args:
            waits: whoever calls this may wait for a file system; else it is done in a thread of ours.
        """
        if self.notify is not None:
            self.notify.stopping()
        readiness = self.readiness
        if readiness is not None and readiness.ready:
            readiness.ready = False
            if waits or not native.Thread(readiness.withdraw, "cleanup_guard readiness", brief=True).start():
                readiness.withdraw()

    @property
    def exit_status(self) -> ExitStatus:
        """What the outermost guard that names an exit status wants."""
        for each in (*list(self.popped), *list(self.main)):
            status = each.options.exit_status
            if status is not None:
                return status
        return None

    @property
    def held(self) -> str | None:
        """What holds a stop back, for a person to read."""
        work = list(self.work)
        if self.shields > sum(each.in_main for each in work):
            return "a critical section"
        if self.shields > 0:
            return WORK
        if self.cooperates:
            return f"main, which looks for the stop itself ({list(self.main)[-1].label}, interrupt=False),"
        return WORK if self.working else None

    @property
    def working(self) -> bool:
        """Whether work in other threads is in flight that main's stop waits for."""
        return bool(self.work) and any(each.holds and not each.cut for each in list(self.work))

    def cut_work(self, sections: Iterable[Section], now: float) -> None:
        """Say which of these are in flight and not waited for any longer, once each."""
        cut = [each for each in sections if each in self.work and each.named.claim()]
        if cut:
            self.tell(WorkCut(work=tuple((each.name, now - each.began) for each in cut)))
        for each in cut:
            each.cut = True  # only now: who waits for it may end the process

    @property
    def cooperates(self) -> bool:
        """Whether main looks for the stop itself, as its innermost guard says."""
        inside = list(self.main)
        return bool(inside) and not inside[-1].options.interrupt

    def wanted_signals(self) -> set[int]:
        """The signals that any guard wants."""
        if not (self.main or self.popped or self.elsewhere):
            return set()
        return {signum for member in self.everybody() for signum in member.signums}

    @property
    def others_wait(self) -> bool:
        """Whether any callback has not begun."""
        return any(len(each.stack) for each in self.everybody())

    @property
    def callbacks_left(self) -> bool:
        """Whether any callback has not been called."""
        return any(each.stack.left for each in self.everybody())

    def loops_in_main(self) -> list[Host]:
        """The tasks with guards in them that run in main's thread."""
        if not self.hosts:
            return []
        return [host for host in list(self.hosts.values()) if host.in_main and host.alive]

    def reporter(self) -> Reporter:
        """A reporter for what concerns the whole process: the hooks of all guards, each once."""
        everybody = self.everybody()
        hooks = {id(hook): hook for each in everybody for hook in each.hooks}
        return Reporter(hooks.values() if hooks or everybody else (log_event,))

    def tell(self, event: Event) -> None:
        """Tell all hooks."""
        if self.history is not None:
            self.history.told(event)
        self.reporter().emit(event)


if TYPE_CHECKING:

    class Watch(Protocol):
        """The watcher's life, seen by those it watches (`watch.py`)."""

        pokes: dict[int, int]
        answers: int
        resume_due: bool

        @property
        def running(self) -> bool: ...
        def resume(self) -> None: ...
        @property
        def hooks_are_over(self) -> bool: ...
        def wake(self) -> None: ...
        def poke(self, *, spares_theirs: bool = False) -> None: ...
        def release(self, *, in_handler: bool = False) -> None: ...

    class ReceiverView(Protocol):
        """Main's handler, seen by the watcher (`receiver.py`)."""

        calls: dict[int, int]
        moment: Moment

    class ProcessView(Protocol):
        """The process, seen by its parts (`process.py` puts them together)."""

        pid: int
        foreign: bool
        clock: Callable[[], float]
        roster: Roster
        ballot: Ballot
        delivery: Delivery
        last_act: Any  # what main has ended by, if it has: a `LastAct`
        exiting: bool

        @property
        def signals(self) -> Signals: ...
        @property
        def receiver(self) -> ReceiverView: ...
        @property
        def watch(self) -> Watch: ...
        @property
        def last_resort(self) -> LastResort: ...
        @property
        def stop(self) -> Stop | None: ...
        @property
        def state(self) -> State: ...
        @property
        def noticed(self) -> bool: ...
        @property
        def announced(self) -> bool: ...
        @property
        def may_tell(self) -> bool: ...
        @property
        def handling(self) -> bool: ...
        @property
        def insists(self) -> bool: ...
        @property
        def main_is_owed(self) -> bool: ...
        def exit_status(self) -> ExitStatus: ...
        def claim_signal(self, signum: int, theirs: object) -> None: ...
        def ask_main(self) -> None: ...
        def prepare(self) -> None: ...
        def announce(self) -> None: ...
        def tell_finished(self, skipped: tuple[str, ...] | None = None) -> None: ...
        def make_exception(self) -> BaseException: ...
        def forget(self) -> None: ...
        def tidy(self, *, in_handler: bool = False) -> None: ...
