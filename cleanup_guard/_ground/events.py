"""What happened, as frozen records. Each is told once, in order, to the hooks; `str(event)` is the line a person reads.

The records are built here rather than with `dataclasses`, whose import alone costs more than our whole budget
(hazards catalogue, 3.3); type checkers see them as frozen dataclasses, which is how they behave.
"""

from __future__ import annotations

from cleanup_guard._ground.clock import how_long

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass

else:

    def dataclass(*, frozen, kw_only):
        """The one kind of dataclass that is used here."""
        return record if frozen and kw_only else None

    def record(cls):
        """Give a class of annotations what a frozen keyword-only dataclass has: init, repr, ==, hash, no assignment."""
        fields = tuple(cls.__annotations__)

        def __init__(self, **values):
            if values.keys() != set(fields):
                raise TypeError(
                    f"{cls.__name__} takes the keywords {', '.join(fields)}, not {', '.join(values)}"
                )
            self.__dict__.update(values)

        def __setattr__(self, name, value):
            raise AttributeError(f"{cls.__name__} is frozen: {name!r} cannot be changed")

        def __eq__(self, other):
            return self.__dict__ == other.__dict__ if type(other) is type(self) else NotImplemented

        def __hash__(self):
            return hash((type(self), *self.__dict__.values()))

        def __repr__(self):
            return f"{cls.__name__}({', '.join(f'{name}={self.__dict__[name]!r}' for name in fields)})"

        for method in (__init__, __setattr__, __eq__, __hash__, __repr__):
            setattr(cls, method.__name__, method)
        cls.__delattr__ = __setattr__
        return cls


DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40
"""The levels of `logging`, which is not imported for four numbers."""

SLOW = 1.0
"""Seconds after which a callback is worth a line of its own."""

MOST_NAMED = 10
"""Pieces of work that one line names."""


class Event:
    """The base of all records.

    Attributes:
        level: how important, as a `logging` level.
        notable: shown on stderr by a program that has not configured logging.

    Example:
        >>> def hook(event: Event) -> None:  # for `guard(hooks=[hook])`
        ...     if event.level >= 30:
        ...         print("warning:", event)
        >>> hook(StopRedelivered(times=1))
        warning: main swallowed the stop and ran on; raising it again (time 1)
    """

    level: int = INFO
    notable: bool = True

    def failure(self) -> BaseException | None:
        """The exception that it tells of, if any."""
        error: BaseException | None = getattr(self, "error", None)
        return error

    def cut_short(self) -> tuple[tuple[str, float], ...]:
        """Whom it tells to have been cut short: what it was, and for how long it had run."""
        return ()


@dataclass(frozen=True, kw_only=True)
class StopReceived(Event):
    """A stop arrived: a signal, or `Guard.request_stop`. Repeats are not told again.

    Example:
        >>> known = {"where": "on Heroku (DYNO)", "how": "given by guard(grace=)"}
        >>> print(StopReceived(reason="SIGTERM", signum=15, sender=None, sure=10, grace=10, handler=None, **known))
        SIGTERM received on Heroku (DYNO), 10 s to clean up: given by guard(grace=)
    """

    reason: str
    signum: int | None
    sender: int | None
    sure: float | None
    """Seconds in which callbacks that others wait for have to be done."""
    grace: float | None
    """Seconds until the end: those that are sure, or those that are hoped for, if that is more."""
    where: str
    """Where the program runs, with what that is recognised by; empty if nothing is."""
    how: str
    """How the numbers are known: begins with "given", "read" or "guessed"; in a terminal what a person may do."""
    handler: str | None
    """Whose stop it is, if it is not ours: the handler that was there before the guard, or has replaced the guard's."""

    def __str__(self) -> str:
        if self.handler is None:
            return f"{_heard(self.reason, self.where)}, {how_long(self.sure, self.grace)}: {self.how}"
        known = "" if self.grace is None else f", {self.grace:g} s in all"
        return f"{self.reason} received: {self.handler} stops the program{known}; callbacks run when it has"


@dataclass(frozen=True, kw_only=True)
class ClockStarted(Event):
    """After a Ctrl-C in a terminal, which has no time limit, somebody stops the program who will kill it.

    Example:
        >>> print(ClockStarted(sure=10, grace=30, where="on Render (RENDER)", how="guessed"))
        another stop received on Render (RENDER), 10 s to clean up for sure, up to 30 s in hope from now: guessed
    """

    sure: float | None
    grace: float | None
    where: str
    how: str
    level = WARNING

    def __str__(self) -> str:
        return f"{_heard('another stop', self.where)}, {how_long(self.sure, self.grace)} from now: {self.how}"


def _heard(reason: str, where: str) -> str:
    return f"{reason} received {where}" if where else f"{reason} received"


@dataclass(frozen=True, kw_only=True)
class StillRunning(Event):
    """What a person who has pressed Ctrl-C is waiting for; told every few seconds.

    Example:
        >>> print(StillRunning(what="callback flush", seconds=6.1))
        callback flush has been running for 6 s; Ctrl-C interrupts it
    """

    what: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.what} has been running for {self.seconds:.0f} s; Ctrl-C interrupts it"


@dataclass(frozen=True, kw_only=True)
class Draining(Event):
    """The program is not ready any more, and serves on for some seconds until nobody sends it work; then the stop begins.

    Example:
        >>> print(Draining(seconds=5.0, asked=5.0))
        draining: not ready any more, serving on for 5 s
    """

    seconds: float
    asked: float

    def __str__(self) -> str:
        less = f" ({self.asked:g} s do not fit into the grace period)" if self.seconds < self.asked else ""
        return f"draining: not ready any more, serving on for {self.seconds:g} s{less}"


@dataclass(frozen=True, kw_only=True)
class StopRedelivered(Event):
    """Main swallowed the stop (a bare `except:`, `__del__`, a C callback) and ran on; it was raised again.

    Example:
        >>> print(StopRedelivered(times=1))
        main swallowed the stop and ran on; raising it again (time 1)
    """

    times: int
    level = WARNING
    notable = True

    def __str__(self) -> str:
        return f"main swallowed the stop and ran on; raising it again (time {self.times})"


@dataclass(frozen=True, kw_only=True)
class HeldToTheEnd(Event):
    """A critical section, or a main that cooperates, held the stop back for as long as the grace period allows.

    Example:
        >>> held = HeldToTheEnd(what="a critical section", seconds=8.1, where="in app.py:12")
        >>> str(held)[:47]
        'a critical section has held the stop back for 8'
    """

    what: str
    seconds: float
    where: str
    level = WARNING

    def cut_short(self) -> tuple[tuple[str, float], ...]:
        """What held it."""
        return ((self.what.partition(",")[0], self.seconds),)

    def __str__(self) -> str:
        return (
            f"{self.what} has held the stop back for {self.seconds:.1f} s; interrupting it {self.where}, to leave time for the "
            "callbacks"
        )


@dataclass(frozen=True, kw_only=True)
class WorkAwaited(Event):
    """Main has left its guard, and the callbacks wait for work in flight. Each piece: its name, and for how long it has run.

    Example:
        >>> print(WorkAwaited(work=(("request", 0.2),)))
        waiting for work in flight: request (running for 0.2 s)
    """

    work: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        return f"waiting for work in flight: {say_work(self.work)}"


@dataclass(frozen=True, kw_only=True)
class WorkCut(Event):
    """Work in flight is waited for no longer, because time is nearly over or Ctrl-C was pressed again.

    Each piece: its name, and for how long it has run.

    Example:
        >>> print(WorkCut(work=(("request", 8.1),)))
        work in flight is waited for no longer: request (running for 8.1 s)
    """

    work: tuple[tuple[str, float], ...]
    level = WARNING

    def cut_short(self) -> tuple[tuple[str, float], ...]:
        """All of it."""
        return self.work

    def __str__(self) -> str:
        return f"work in flight is waited for no longer: {say_work(self.work)}"


def say_work(work: tuple[tuple[str, float], ...]) -> str:
    """Pieces of work for a person to read, no more than a line holds."""
    said = [f"{name} (running for {seconds:.1f} s)" for name, seconds in work[:MOST_NAMED]]
    return ", ".join([*said, f"{len(work) - MOST_NAMED} more"] if len(work) > MOST_NAMED else said)


@dataclass(frozen=True, kw_only=True)
class HookLeftRunning(Event):
    """An `on_stop` callback has used up its part of the grace period; main is stopped while it runs on.

    Example:
        >>> print(HookLeftRunning(name="unready", seconds=2.0))
        on_stop unready is still running after 2.0 s; the stop goes on without waiting for it
    """

    name: str
    seconds: float
    level = WARNING

    def cut_short(self) -> tuple[tuple[str, float], ...]:
        """It."""
        return ((f"on_stop {self.name}", self.seconds),)

    def __str__(self) -> str:
        return f"on_stop {self.name} is still running after {self.seconds:.1f} s; the stop goes on without waiting for it"


@dataclass(frozen=True, kw_only=True)
class SteppedIn(Event):
    """Whoever owns the stop has not stopped the program in time; the guard does.

    Example:
        >>> late = SteppedIn(seconds=7.2, handler="app.stop", where="in app.py:12")
        >>> str(late)[:50]
        'app.stop has not stopped the program after 7.2 s; '
    """

    seconds: float
    handler: str
    where: str
    level = WARNING

    def cut_short(self) -> tuple[tuple[str, float], ...]:
        """Main."""
        return (("main", self.seconds),)

    def __str__(self) -> str:
        return (
            f"{self.handler} has not stopped the program after {self.seconds:.1f} s; stopping main {self.where}, to leave time "
            "for the callbacks"
        )


@dataclass(frozen=True, kw_only=True)
class SignalsUnheard(Event):
    """A guard was entered where no signal reaches it.

    Example:
        >>> str(SignalsUnheard(thread="worker"))[:69]
        "a guard was entered in thread 'worker', where no signal reaches it: i"
    """

    thread: str
    level = WARNING

    def __str__(self) -> str:
        return (
            f"a guard was entered in thread {self.thread!r}, where no signal reaches it: its callbacks run when it is left, "
            "when a guard in the main thread hears a stop, or when the program ends. To say that this is meant: "
            "guard(signals=())"
        )


@dataclass(frozen=True, kw_only=True)
class TasksLeft(Event):
    """Tasks that were begun inside the guard outlive it: nobody awaited or cancelled them.

    Example:
        >>> print(TasksLeft(names=("poll", "send")))
        tasks outlive the guard, nobody has awaited them: poll, send
    """

    names: tuple[str, ...]
    level = WARNING
    notable = True

    def __str__(self) -> str:
        return f"tasks outlive the guard, nobody has awaited them: {', '.join(self.names)}"


@dataclass(frozen=True, kw_only=True)
class TookOver(Event):
    """Main did not come back to run the callbacks; the watcher thread runs them.

    Example:
        >>> print(TookOver(seconds=4.5, where="in app.py:12"))
        main has not come back after 4.5 s (in app.py:12); running the callbacks in a thread of ours
    """

    seconds: float
    where: str
    level = WARNING

    def cut_short(self) -> tuple[tuple[str, float], ...]:
        """Main."""
        return (("main", self.seconds),)

    def __str__(self) -> str:
        return f"main has not come back after {self.seconds:.1f} s ({self.where}); running the callbacks in a thread of ours"


@dataclass(frozen=True, kw_only=True)
class HandlerReplaced(Event):
    """Somebody else's handler was found where the guard's had been; it was left in place.

    Example:
        >>> print(HandlerReplaced(signum=15, signal="SIGTERM", handler="app.stop"))
        the SIGTERM handler was replaced by app.stop; leaving it in place
    """

    signum: int
    signal: str
    handler: str
    level = WARNING

    def __str__(self) -> str:
        return f"the {self.signal} handler was replaced by {self.handler}; leaving it in place"


@dataclass(frozen=True, kw_only=True)
class CallbackStarted(Event):
    """A callback begins.

    Example:
        >>> print(CallbackStarted(name="flush"))
        callback flush started
    """

    name: str
    level = DEBUG
    notable = False

    def __str__(self) -> str:
        return f"callback {self.name} started"


@dataclass(frozen=True, kw_only=True)
class CallbackDone(Event):
    """A callback returned.

    Example:
        >>> print(CallbackDone(name="flush", seconds=1.5))
        callback flush took 1.5 s
    """

    name: str
    seconds: float

    @property
    def level(self) -> int:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """WARNING for a slow one."""
        return WARNING if self.notable else DEBUG

    @property
    def notable(self) -> bool:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """True for a slow one."""
        return self.seconds >= SLOW

    def __str__(self) -> str:
        return (
            f"callback {self.name} took {self.seconds:.1f} s"
            if self.notable
            else f"callback {self.name} done"
        )


@dataclass(frozen=True, kw_only=True)
class CallbackFailed(Event):
    """A callback raised; the others still run.

    Example:
        >>> print(CallbackFailed(name="flush", seconds=0.1, error=OSError("disk full"), during_stop=True))
        callback flush failed: OSError: disk full
    """

    name: str
    seconds: float
    error: BaseException
    during_stop: bool
    level = ERROR

    def __str__(self) -> str:
        return f"callback {self.name} failed: {type(self.error).__name__}: {self.error}"


@dataclass(frozen=True, kw_only=True)
class CallbackTimedOut(Event):
    """A callback was interrupted, because its time was up or a person pressed Ctrl-C again; the others still run.

    Example:
        >>> record = CallbackTimedOut(
        ...     name="flush", seconds=2.0, why="its 2 s are over", error=TimeoutError(), during_stop=True
        ... )
        >>> print(record)
        callback flush interrupted after 2.0 s: its 2 s are over
    """

    name: str
    seconds: float
    why: str
    error: BaseException
    during_stop: bool
    level = ERROR

    def __str__(self) -> str:
        return f"callback {self.name} interrupted after {self.seconds:.1f} s: {self.why}"


@dataclass(frozen=True, kw_only=True)
class MainFailed(Event):
    """Main raised something else while the stop unwound it; the process still ends as the stop says.

    Example:
        >>> print(MainFailed(error=ValueError("no number")))
        main raised ValueError while it was being stopped: no number
    """

    error: BaseException
    level = ERROR

    def __str__(self) -> str:
        return f"main raised {type(self.error).__name__} while it was being stopped: {self.error}"


@dataclass(frozen=True, kw_only=True)
class DeadlineReached(Event):
    """The grace period is nearly over and something does not yield; the process ends itself.

    Example:
        >>> print(DeadlineReached(seconds=9.0, running="flush", skipped=("unlock",)))
        giving up after 9.0 s: callback flush is still running; did not run: unlock
    """

    seconds: float
    running: str | None
    skipped: tuple[str, ...]
    level = ERROR

    def __str__(self) -> str:
        doing = f"callback {self.running} is still running" if self.running else "the process has not ended"
        skipped = (
            f"; did not run: {', '.join(self.skipped)}" if self.skipped else "; no callback is left to run"
        )
        return f"giving up after {self.seconds:.1f} s: {doing}{skipped}"


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """All callbacks of a guard, or after a stop of all guards, have had their turn.

    Example:
        >>> print(Finished(reason="SIGTERM", callbacks=2, failures=0, seconds=0.31))
        done after SIGTERM: 2 callbacks, 0.31 s
    """

    reason: str | None
    callbacks: int
    failures: int
    seconds: float

    @property
    def notable(self) -> bool:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """True after a stop."""
        return self.reason is not None

    def __str__(self) -> str:
        after = f" after {self.reason}" if self.reason else ""
        failed = f", {self.failures} failed" if self.failures else ""
        plural = "" if self.callbacks == 1 else "s"
        return f"done{after}: {self.callbacks} callback{plural}{failed}, {self.seconds:.2f} s"


@dataclass(frozen=True, kw_only=True)
class CallbackRecord:
    """One callback of a stop, in its `StopRecord`.

    Example:
        >>> CallbackRecord(name="flush", began=0.1, seconds=0.3, error=None, interrupted=False).name
        'flush'
    """

    name: str
    began: float
    """Seconds since the stop came; less than nothing for one that had begun before."""
    seconds: float
    error: BaseException | None
    interrupted: bool


@dataclass(frozen=True, kw_only=True)
class StopRecord(Event):
    """All that a stop took, at its end: for metrics and traces. No line is written for it.

    Example:
        >>> flush = CallbackRecord(name="flush", began=0.1, seconds=0.3, error=None, interrupted=False)
        >>> known = {"where": "", "sure": 10, "grace": 10, "at": 1764115200.0, "cut": (), "skipped": ()}
        >>> phases = (("unwinding", 0.1), ("cleaning up", 0.3))
        >>> print(StopRecord(reason="SIGTERM", signum=15, seconds=0.4, phases=phases, callbacks=(flush,), **known))
        SIGTERM took 0.40 s: unwinding 0.10 s, cleaning up 0.30 s
    """

    reason: str
    signum: int | None
    where: str
    sure: float | None
    grace: float | None
    at: float
    """When it came, as `time.time` tells it."""
    seconds: float
    phases: tuple[tuple[str, float], ...]
    """What it went through, each with its seconds: "draining", "stopping", "unwinding", "waiting for work", "cleaning up"."""
    callbacks: tuple[CallbackRecord, ...]
    """Those that have ended, first one first."""
    cut: tuple[tuple[str, float], ...]
    """Who was cut short, and how long he had run then: work, main, a callback."""
    skipped: tuple[str, ...]
    """Callbacks that had no turn."""
    level = DEBUG
    notable = False

    def __str__(self) -> str:
        phases = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in self.phases)
        return f"{self.reason} took {self.seconds:.2f} s: {phases}"


if TYPE_CHECKING:
    Hook = Callable[[Event], object]
