"""The callbacks of one guard: a LIFO stack from which each callback is claimed exactly once.

Rules:
1. Only the holder of the turn runs callbacks, so two claimers never run two callbacks at once or out of order. Who cannot
   go on hands the turn back, and main, the watcher and the exit nets can all take it. Neighbours of one group are in the hand
   together: the holder has them called beside each other, and puts them down when the last of them is over.
2. A callback is moved from the stack to the hand by one C call, and called by another one that takes it from there. No signal
   and no other thread can come in between (hazard H63): however the runner is cut short, by somebody's alarm between two of
   our lines for example, whoever comes next sees what has been called and what has not.
3. A registration that returned is kept: it is run, or moved, or undone by `unregister`.
4. What is only to be called is registered as it is: the function, or a partial of it. It becomes a `Callback` when there is
   more to say of it, which nearly never comes to pass (`run_calls`).

This module knows nothing of signals, time limits or processes: it tells an observer what begins and what ended.
"""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial
from itertools import takewhile

from cleanup_guard._ground.errors import CallbackInterrupted
from cleanup_guard._ground.events import SLOW
from cleanup_guard._ground.once import Once
from cleanup_guard._stop.token import came_by_signal

try:
    from _operator import call
except ImportError:  # PyPy, where it is not written in C
    from operator import call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from types import CodeType
    from typing import Any, Literal, Protocol, TypeAlias, TypeVar

    T = TypeVar("T")

    Entry: TypeAlias = "Callback | Callable[[], Any]"
    """What is registered."""
    Pending: TypeAlias = "AsyncCallback | Aside | Callable[[], bool]"
    Steps = Generator["AsyncCallback | Aside | Callable[[], bool]", Any, "T"]
    """What needs time, written once for threads and for event loops: it yields what is to be awaited, a callback that has been
    called and whose `awaitable` is pending, or a condition that is to become true; or steps that are to begin beside these."""

    class Flight(Protocol):
        """A callback that an event loop awaits."""

        def cancel(self) -> None: ...  # any thread
        def holds_thread(self) -> bool: ...  # whether its code is running, rather than waiting

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


class Callback:
    """One registered callback. Compared by identity, so that `list.remove` never calls a user's `__eq__`."""

    __slots__ = ("args", "call", "function", "kind", "kwargs", "label", "returned", "timeout")

    flight: Flight | None = None
    group: str | None = None

    def __init__(  # noqa: PLR0917  # made 100,000 times: keywords cost
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        kind: Literal["callback", "exit"] = "callback",
        timeout: float | None = None,
        label: str | None = None,
    ) -> None:
        self.function: Callable[..., Any] = function
        self.args: tuple[Any, ...] = args
        self.kwargs: Mapping[str, Any] = kwargs
        self.kind: Literal["callback", "exit"] = kind
        self.timeout: float | None = timeout
        self.label: str | None = label
        self.call: list[Callable[[], Any]] | None = None  # prepared; empty once it has been made
        self.returned: list[Any] | None = None  # what it returned

    @property
    def name(self) -> str:
        """What reports call it: the name it was given, else the function's qualified name."""
        return self.label or describe(self.function)

    @property
    def called(self) -> bool:
        """Whether it has been called."""
        call = self.call
        return call is not None and not call

    done = called
    """Whether nothing of it is left to do."""

    def make_call(self, error: BaseException | None) -> None:
        """Call it, unless it has been called, and keep what it returns: all in one C call."""
        if self.call is None:
            self.returned = []
            if self.kind == "exit":
                self.call = [partial(self.function, *_details(error))]
            else:
                self.call = [partial(self.function, *self.args, **self.kwargs)]
        if self.call and self.returned is not None:
            next(map(self.returned.append, map(call, iter(self.call.pop, None))))

    def run(self, error: BaseException | None) -> bool:
        """Call it. Returns True when it is an exit callback that suppresses the error."""
        self.make_call(error)
        return self.kind == "exit" and any(self.returned or ())


def proper(entry: Entry) -> Callback:
    """What is registered, as a callback of which all can be said."""
    if isinstance(entry, Callback):
        return entry
    if isinstance(entry, partial):
        return Callback(entry.func, entry.args, entry.keywords)
    return Callback(entry, (), {})


class GroupedCallback(Callback):
    """One that may be called at the same time as its neighbours.

    Attributes:
        group: what they have in common; None for one that is called alone all the same.
        aside: while they are called.
    """

    group: str | None = None
    aside: Aside | None = None


class AsyncCallback(GroupedCallback):
    """One whose result must be awaited.

    Attributes:
        flight: while an event loop awaits it.
        scope: what the loop put around the context manager whose exit it is.
    """

    flight: Flight | None = None
    scope: Any = None

    @property
    def done(self) -> bool:
        """Whether it has been called, and somebody awaits what it returned, or has."""
        return self.called and not self.returned

    def land(self) -> None:
        """What it returned has been awaited."""
        self.flight = None
        if self.returned is not None:
            self.returned.clear()

    def take_awaitable(self) -> Any:
        """What it returned, for the one who awaits it."""
        assert self.returned
        return self.returned.pop()


def _details(error: BaseException | None) -> tuple[Any, Any, Any]:
    """What an `__exit__` is told."""
    return (None, None, None) if error is None else (type(error), error, error.__traceback__)


CALLERS: set[CodeType] = {Callback.make_call.__code__}
"""The code of ours that calls user functions inside a `try` or `with` of its own."""


def describe(function: object) -> str:
    """A name for a callable that says where it comes from: partials and bound methods are looked through.

    Whatever the callable does when it is asked for its name (a dead proxy raises), there is a name.
    """
    try:
        return _describe(function)
    except BaseException as error:
        if came_by_signal(error):
            raise
        return f"{type(function).__qualname__} object"


def _describe(function: object) -> str:
    while type(function) is partial:  # whoever answers every attribute, as mocks do, has a `func`, too
        function = function.func  # pyright: ignore[reportFunctionMemberAccess]
    name = getattr(function, "__qualname__", None)
    if not isinstance(name, str):
        return type(function).__qualname__ + " object"
    module = getattr(function, "__module__", None)
    return f"{module}.{name}" if isinstance(module, str) and module not in ("__main__", "builtins") else name


class CallbackStack:
    """The registry of one guard. Every method may be called from any thread."""

    __slots__ = ("_callbacks", "_hand", "closed", "turn")

    def __init__(self, callbacks: Iterable[Entry] = ()) -> None:
        self._callbacks: list[Entry] = [*callbacks]
        self._hand: list[Entry] = []  # the one that is being called, or the group
        self.turn: Once = Once()
        self.closed: bool = False

    def __len__(self) -> int:
        return len(self._callbacks)

    def push(self, entry: Entry) -> bool:
        """Register. Returns False when the stack is closed and the callback will not run.

        The second look at `closed` is for the thread that registers while another one closes: either the closer's last
        look finds the callback, or we take it back ourselves.
        """
        if self.closed:
            return False
        self._callbacks.append(entry)
        return not (self.closed and self._take_back(entry))

    def _take_back(self, entry: Entry) -> bool:
        try:
            self._callbacks.remove(entry)
        except ValueError:
            return False  # claimed in the meantime: it ran
        return True

    def take(self) -> Callback | None:
        """Take the callback that was registered last into the hand, unless one is there. For the holder of the turn."""
        hand = self._hand
        if not hand:
            try:
                self._take_last()
            except IndexError:
                return None
        taken = hand[0]
        if not isinstance(taken, Callback):
            hand[0] = taken = proper(taken)
        return taken

    def _take_last(self) -> None:
        popped: Iterator[Any] = iter(self._callbacks.pop, None)
        next(map(self._hand.append, popped))

    def take_neighbours(self) -> list[GroupedCallback]:
        """Take those of the group of the callback in the hand that were registered right before it. For the holder of the turn.

        Returns:
            All of the group that are in the hand. Behind them there may be one that was registered at this very moment.
        """
        hand = self._hand
        group = _group_of(hand[0])
        while _group_of(hand[-1]) == group and any(_group_of(each) == group for each in self._callbacks[-1:]):
            self._take_last()
        together = takewhile(lambda each: _group_of(each) == group, hand[:])
        return [each for each in together if isinstance(each, GroupedCallback)]

    @property
    def idle(self) -> bool:
        """Whether nothing is registered, and nobody is at what was."""
        return not (self._callbacks or self._hand) and bool(self.turn.free)

    def put_down(self, number: int = 1) -> None:
        """The callback in the hand is done with, or so many of them."""
        del self._hand[:number]

    def discard(self, function: object) -> int:
        """Remove every callback of this function, compared with `==` as `atexit.unregister` does. Returns how many."""
        return sum(
            self._take_back(each)
            for each in reversed(self._callbacks[:])
            if proper(each).function == function
        )

    def move_to(self, other: CallbackStack) -> None:
        """Move all callbacks to another stack, which has none; this one is empty and open afterwards.

        Between the first and the last instruction nothing is called: no signal and no exception comes in between.
        """
        other._callbacks, self._callbacks = self._callbacks, other._callbacks

    def disown(self) -> list[Entry]:
        """Forget everything, in a fork child: what its parent registered is not the child's.

        Returns:
            What it was. It must be kept: a generator that is let go of, such as a context manager's, runs its `finally`.
        """
        inherited = [*self._hand, *self._callbacks]
        self.closed = True
        self._callbacks.clear()  # whoever forked in a callback has these in use
        self._hand.clear()
        return inherited

    @property
    def left(self) -> int:
        """How many callbacks have not been called."""
        return sum(not _is_called(each) for each in self._hand[:]) + len(self._callbacks)

    def names(self, most: int | None = None) -> list[str]:
        """Their names, in the order in which they would be called, not more than so many."""
        waiting = self._callbacks[:] if most is None else self._callbacks[-most:]
        names = [proper(each).name for each in (*self._hand[:], *reversed(waiting)) if not _is_called(each)]
        return names[:most]

    @property
    def awaited(self) -> str | None:
        """The name of a callback that must be awaited, if there is one."""
        for each in reversed(self._callbacks[:]):
            if isinstance(each, AsyncCallback):
                return each.name
        return None

    @property
    def has_timeouts(self) -> bool:
        """Whether any callback that is left has a timeout of its own."""
        return any(isinstance(each, Callback) and each.timeout is not None for each in self._callbacks[:])

    def run_calls(
        self, outcome: Outcome, watcher: Watcher, alarms: Sequence[object], clock: Callable[[], float]
    ) -> None:
        """Run what is only to be called, until it comes to something else, or to the end: `run_all` goes on from there.

        The caller holds the turn. The end of each is the beginning of the next.

        Args:
            outcome: what it leads to.
            watcher: sees what is being called. It is told of one that fails, that took long, or that meets with an alarm.
            alarms: no longer empty once the watcher has to hear of each.
            clock: what time it is.
        """
        hand, callbacks = self._hand, self._callbacks
        if hand:
            return  # of one who was cut short
        popped: Iterator[Any] = iter(callbacks.pop, None)
        claimed: Iterator[Any] = iter(hand.pop, None)
        take, make_call = map(hand.append, popped), map(call, claimed)
        count, started = 0, clock()
        try:
            while self._callbacks is callbacks:
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


def _group_of(entry: Entry) -> str | None:
    return entry.group if isinstance(entry, Callback) else None


def _is_called(entry: Entry) -> bool:
    """Of one in the hand: what is called as it was registered is not there any more (`run_calls`)."""
    return isinstance(entry, Callback) and entry.called


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
