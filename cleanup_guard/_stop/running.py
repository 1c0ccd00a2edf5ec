"""How the callbacks of a stack are run: one after the other, a group beside each other, in threads or awaited by an event loop.

Written once for all of them, as steps (`Steps`). This module knows nothing of signals, time limits or processes: it tells an
observer what begins and what ended.
"""

from __future__ import annotations

from contextvars import ContextVar

from cleanup_guard._ground.errors import CallbackInterrupted
from cleanup_guard._ground.events import SLOW
from cleanup_guard._ground.once import Once
from cleanup_guard._stop.stack import AsyncCallback, Callback, call, proper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
    from typing import Any, Protocol, TypeAlias, TypeVar

    from cleanup_guard._stop.stack import CallbackStack, Entry, GroupedCallback

    T = TypeVar("T")

    Pending: TypeAlias = "AsyncCallback | Aside | Callable[[], bool]"
    Steps = Generator["AsyncCallback | Aside | Callable[[], bool]", Any, "T"]
    """What needs time, written once for threads and for event loops: it yields what is to be awaited, a callback that has been
    called and whose `awaitable` is pending, or a condition that is to become true; or steps that are to begin beside these."""

    class Observer(Protocol):
        """Hears of each callback from the thread that runs it."""

        def began(self, callback: Callback) -> None: ...
        def ended(self, callback: Callback, error: BaseException | None) -> BaseException | None: ...
        def branch(self) -> Branch: ...  # for the thread that calls this
        def join(self, branch: Branch) -> None: ...  # its callback is over

    class Watcher(Observer, Protocol):
        """Looks for itself what is being called, where it need not hear of each."""

        running: Entry | None
        started: float
        count: int

    class Branch(Observer, Protocol):
        """Hears of one callback of a group."""

        @property
        def hangs(self) -> bool: ...  # it was interrupted, and has had its time to end
        def leave(self, callback: Callback) -> BaseException | None: ...  # `ended`, for who waits no longer
        def close(self) -> None: ...


IN_CALLBACK: ContextVar[bool] = ContextVar("cleanup_guard callback", default=False)
"""Whether this is an async callback, or a task that one has begun."""


def run_calls(
    stack: CallbackStack,
    outcome: Outcome,
    watcher: Watcher,
    alarms: Sequence[object],
    clock: Callable[[], float],
) -> None:
    """Run what is only to be called, until it comes to something else, or to the end: `run_all` goes on from there.

    The caller holds the turn. The end of each is the beginning of the next.

    Args:
        stack: whose callbacks they are.
        outcome: what it leads to.
        watcher: sees what is being called. It is told of one that fails, that took long, or that meets with an alarm.
        alarms: no longer empty once the watcher has to hear of each.
        clock: what time it is.
    """
    hand, callbacks = stack.hand, stack.callbacks
    if hand:
        return  # of one who was cut short
    popped: Iterator[Any] = iter(callbacks.pop, None)
    claimed: Iterator[Any] = iter(hand.pop, None)
    take, make_call = map(hand.append, popped), map(call, claimed)
    count, started = 0, clock()
    try:
        while stack.callbacks is callbacks:
            try:
                next(take)
            except IndexError:
                return
            entry = hand[0]
            if isinstance(entry, Callback):
                return
            watcher.started = started
            watcher.running = entry
            if alarms:
                return
            failure = None
            try:
                next(make_call)
            except BaseException as raised:
                if hand:
                    raise  # somebody's signal handler, before the call
                failure = raised
            now = clock()
            count += 1
            watcher.running = None
            if failure is not None or alarms or now - started >= SLOW:
                outcome.ends(watcher.ended(proper(entry), None if outcome.knows(failure) else failure))
            started = now
    finally:
        watcher.running = None
        watcher.count += count


def run_all(stack: CallbackStack, outcome: Outcome, observer: Observer) -> Steps[None]:
    """Run every callback, last registered first, whatever each of them raises; then close the stack.

    The caller holds the turn. What a callback raises is told to the observer, which may put another exception in its place,
    and to the exit callbacks after it, as `contextlib.ExitStack` does. Called again it goes on where it was cut short.
    """
    while True:
        callback = stack.take()
        if callback is None:
            if stack.closed:
                return
            stack.closed = True  # then look once more: see CallbackStack.push
            continue
        if callback.group is not None:
            group = stack.take_neighbours()
            yield from _run_at_once(group, outcome, observer)
            stack.put_down(len(group))
            continue
        if not callback.done:
            yield from _run(callback, outcome, observer)
        if callback.done:
            stack.put_down()


def _run(callback: Callback, outcome: Outcome, observer: Observer) -> Steps[None] | tuple[()]:
    """Run a plain one, without a generator for each. Returns the steps that are left: those of one that must be awaited."""
    if isinstance(callback, AsyncCallback):
        return _await_one(callback, outcome, observer)
    _run_one(callback, outcome, observer)
    return ()


def _run_at_once(group: list[GroupedCallback], outcome: Outcome, observer: Observer) -> Steps[None]:
    """Begin all of a group that have not begun, and wait for the last of them."""
    asides: list[Aside] = []
    for each in group:
        if each.aside is None:
            each.aside = Aside(each, outcome.error, observer)
        asides.append(each.aside)
    for aside in asides:
        if not aside.over:
            yield aside
    yield lambda: all([aside.is_over() for aside in asides])  # noqa: C419  # each is looked at, not only up to the first
    for aside in asides:
        branch, aside.branch = aside.branch, None
        if branch is not None:
            observer.join(branch)
        while aside.outcome.failures:
            outcome.fail(aside.outcome.failures.pop(0))


class Aside:
    """A callback of a group, called beside the others of it.

    Args:
        callback: the callback.
        error: what exit callbacks are told at that time.
        observer: of the whole.

    Attributes:
        outcome: what calling it led to.
        branch: its own observer, once it has begun.
        over: it is waited for no longer.
        in_loop: a loop has taken it.
        stumbled: what was raised between two of our lines, for want of anything better to catch it.
    """

    __slots__ = ("_begun", "_observer", "branch", "callback", "in_loop", "outcome", "over", "stumbled")

    def __init__(self, callback: Callback, error: BaseException | None, observer: Observer) -> None:
        self.callback: Callback = callback
        self.outcome: Outcome = Outcome(error)
        self.branch: Branch | None = None
        self.over: bool = callback.done
        self.in_loop: bool = False
        self.stumbled: BaseException | None = None
        self._begun: Once = Once()
        self._observer: Observer = observer

    def steps(self) -> Steps[None]:
        """Call it. Nothing is left to do if somebody else does."""
        if not self._begun.claim():
            return
        branch: Branch | None = None
        try:
            self.branch = branch = self._observer.branch()
            while not (self.callback.done or self.over):
                yield from _run(self.callback, self.outcome, branch)
            self.over = True
        finally:
            if branch is not None:
                branch.close()
            if not self.over:
                self._begun.give_back()

    def end(self) -> None:
        """Nobody takes any more of its steps. If it did not end by itself, why not is its failure."""
        if not (self.over or self.stumbled is None or self._begun.claimed):
            self.outcome.fail(self.stumbled)
            self.over = True

    def begin_anew(self) -> None:
        """The loop that had taken it has ended."""
        if self.in_loop:
            self.in_loop = False
            self._begun.give_back()

    def is_over(self) -> bool:
        """Whether it has ended. One that hangs although it was interrupted is left behind."""
        branch = self.branch
        if not self.over and branch is not None and branch.hangs:
            failure = branch.leave(self.callback)
            if failure is not None:
                self.outcome.fail(failure)
                self.over = True
        return self.over


def _run_one(callback: Callback, outcome: Outcome, observer: Observer) -> None:
    failure: BaseException | None = None
    try:
        observer.began(callback)
        try:
            if callback.run(outcome.error):
                outcome.suppress()
        except BaseException as raised:
            if not callback.done:
                raise  # somebody's signal handler, before the call
            failure = None if outcome.knows(raised) else raised
        failure = observer.ended(callback, failure)
    except (
        CallbackInterrupted
    ) as late:  # in a thread the interrupt may arrive a few instructions after the callback's end
        failure = observer.ended(callback, failure or late)
    outcome.ends(failure)


def _await_one(callback: AsyncCallback, outcome: Outcome, observer: Observer) -> Steps[None]:
    failure: BaseException | None = None
    around = IN_CALLBACK.get()
    IN_CALLBACK.set(True)
    try:
        observer.began(callback)
        callback.make_call(outcome.error)
        suppresses = yield callback
        if callback.kind == "exit" and suppresses:
            outcome.suppress()
    except BaseException as raised:
        if not callback.done:
            raise  # as in `_run_one`, before it was awaited
        failure = None if outcome.knows(raised) else raised
    finally:
        IN_CALLBACK.set(around)
    outcome.ends(observer.ended(callback, failure))


def take_steps(steps: Steps[T], wait: Callable[[Pending], object]) -> T:
    """Take all steps in a thread that may block.

    Args:
        steps: what to do.
        wait: blocks until what it is given has come about, or begins it if it is an `Aside`.
    """
    go: Callable[[Any], Any] = steps.send
    came: Any = None
    while True:
        try:
            while True:
                go, came = steps.send, wait(go(came))
        except BaseException as error:
            if _are_over(steps):
                result: T = _result(error)
                return result
            go, came = (
                steps.throw,
                error,
            )  # be it somebody's signal handler's, from between two of these lines


def _are_over(steps: Any) -> bool:
    return steps.gi_frame is None


def _result(error: BaseException) -> Any:
    """What steps that are over led to, told how they ended."""
    if isinstance(error, StopIteration):
        return error.value
    raise error


async def take_steps_with(steps: Steps[T], wait: Callable[[Pending], Awaitable[object] | None]) -> T:
    """Take all steps in a task.

    Args:
        steps: what to do.
        wait: begins what it is given. What it returns awaits the rest, undisturbed; None if nothing is left.
    """
    go: Callable[[Any], Any] = steps.send
    came: Any = None
    while True:
        try:
            while True:
                rest = wait(go(came))
                go, came = steps.send, None if rest is None else await rest
        except BaseException as error:
            if _are_over(steps):
                result: T = _result(error)
                return result
            go, came = steps.throw, error


class Outcome:
    """What running a stack led to.

    Attributes:
        error: what the exit callbacks still to come are told: main's exception, or the last failure.
        failures: what callbacks raised, first one first.
        suppressed: main's exception was suppressed by an exit callback.
    """

    __slots__ = ("error", "failures", "original", "suppressed")

    def __init__(self, error: BaseException | None) -> None:
        self.original: BaseException | None = error
        self.error: BaseException | None = error
        self.failures: list[BaseException] = []
        self.suppressed: bool = False

    def suppress(self) -> None:
        """An exit callback returned true: the exits after it see no exception."""
        self.error = None
        self.suppressed = self.original is not None

    def knows(self, raised: BaseException | None) -> bool:
        """Whether this is no failure: exits written by hand, and task groups, raise again what they were told."""
        return raised is self.original or raised is self.error

    def ends(self, failure: BaseException | None) -> None:
        """A callback has ended, and perhaps failed."""
        if failure is not None:
            self.fail(failure)

    def fail(self, failure: BaseException) -> None:
        """A callback raised."""
        if failure.__context__ is None and self.error is not None and failure is not self.error:
            failure.__context__ = self.error
        self.failures.append(failure)
        self.error = failure
