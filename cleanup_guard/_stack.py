"""The callbacks of one guard: a LIFO stack from which each callback is claimed exactly once.

Rules:
1. A callback is claimed by `list.pop()`, one C call that no signal and no other thread can split (hazard H63). Main, the
   watcher and the exit net all claim from the same list, so none can run what another has run.
2. Only the holder of the turn runs callbacks, so two claimers never run two callbacks at once or out of order.
3. A registration that returned is kept: it is run, or moved, or undone by `unregister`.

This module knows nothing of signals, time limits or processes: it tells an observer what begins and what ended.
"""

from __future__ import annotations

from contextvars import ContextVar

from cleanup_guard._ground.errors import CallbackInterrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping
    from typing import Any, Literal, Protocol, TypeVar

    T = TypeVar("T")

    Steps = Generator["AsyncCallback | Callable[[], bool]", Any, "T"]
    """What needs time, written once for threads and for event loops: it yields what is to be awaited, a callback that has been
    called and whose `awaitable` is pending, or a condition that is to become true."""

    class Flight(Protocol):
        """A callback that an event loop awaits."""

        def cancel(self) -> None: ...  # any thread
        def holds_thread(self) -> bool: ...  # whether its code is running, rather than waiting

    class Observer(Protocol):
        """Hears of each callback from the thread that runs it."""

        def began(self, callback: Callback) -> None: ...
        def ended(self, callback: Callback, error: BaseException | None) -> BaseException | None: ...


IN_CALLBACK: ContextVar[bool] = ContextVar("cleanup_guard callback", default=False)
"""Whether this is an async callback, or a task that one has begun."""


class Callback:
    """One registered callback. Compared by identity, so that `list.remove` never calls a user's `__eq__`."""

    __slots__ = ("args", "function", "kind", "kwargs", "label", "timeout")

    flight: Flight | None = None

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

    @property
    def name(self) -> str:
        """What reports call it: the name it was given, else the function's qualified name."""
        return self.label or describe(self.function)

    def run(self, error: BaseException | None) -> bool:
        """Call it. Returns True when it is an exit callback that suppresses the error."""
        if self.kind == "exit":
            return bool(self.function(*_details(error)))
        self.function(*self.args, **self.kwargs)
        return False


class AsyncCallback(Callback):
    """One whose result must be awaited.

    Attributes:
        awaitable: what calling it gave.
        flight: while an event loop awaits it.
        scope: what the loop put around the context manager whose exit it is.
    """

    awaitable: Any = None
    flight: Flight | None = None
    scope: Any = None

    def start(self, error: BaseException | None) -> None:
        """Call it; what it returned is still to be awaited."""
        if self.kind == "exit":
            self.awaitable = self.function(*_details(error))
        else:
            self.awaitable = self.function(*self.args, **self.kwargs)


def _details(error: BaseException | None) -> tuple[Any, Any, Any]:
    """What an `__exit__` is told."""
    return (None, None, None) if error is None else (type(error), error, error.__traceback__)


def describe(function: object) -> str:
    """A name for a callable that says where it comes from: partials and bound methods are looked through."""
    while not hasattr(function, "__qualname__") and hasattr(function, "func"):
        function = getattr(function, "func")  # noqa: B009  # a partial, which `object` does not say
    name = getattr(function, "__qualname__", None)
    if not isinstance(name, str):
        return type(function).__qualname__ + " object"
    module = getattr(function, "__module__", None)
    return name if module in (None, "__main__", "builtins") else f"{module}.{name}"


class CallbackStack:
    """The registry of one guard. Every method may be called from any thread."""

    __slots__ = ("_callbacks", "_turn", "closed")

    def __init__(self, callbacks: list[Callback] | None = None) -> None:
        self._callbacks: list[Callback] = [] if callbacks is None else callbacks
        self._turn = [None]
        self.closed: bool = False

    def __len__(self) -> int:
        return len(self._callbacks)

    def push(self, callback: Callback) -> bool:
        """Register. Returns False when the stack is closed and the callback will not run.

        The second look at `closed` is for the thread that registers while another one closes: either the closer's last
        look finds the callback, or we take it back ourselves.
        """
        if self.closed:
            return False
        self._callbacks.append(callback)
        return not (self.closed and self._take_back(callback))

    def _take_back(self, callback: Callback) -> bool:
        try:
            self._callbacks.remove(callback)
        except ValueError:
            return False  # claimed in the meantime: it ran
        return True

    def claim(self) -> Callback | None:
        """Take the callback that was registered last; it is the caller's to run."""
        try:
            return self._callbacks.pop()
        except IndexError:
            return None

    def discard(self, function: object) -> int:
        """Remove every callback of this function, compared with `==` as `atexit.unregister` does. Returns how many."""
        return sum(
            self._take_back(each) for each in reversed(self._callbacks[:]) if each.function == function
        )

    def move(self) -> CallbackStack:
        """Move all callbacks to a new stack; this one is empty and open afterwards."""
        moved, self._callbacks = self._callbacks, []
        return CallbackStack(moved)

    def names(self) -> list[str]:
        """The callbacks that have not been claimed, in the order in which they would run."""
        return [each.name for each in reversed(self._callbacks[:])]

    @property
    def awaited(self) -> str | None:
        """The name of a callback that must be awaited, if there is one."""
        return next(
            (each.name for each in reversed(self._callbacks[:]) if isinstance(each, AsyncCallback)), None
        )

    @property
    def has_timeouts(self) -> bool:
        """Whether any callback that is left has a timeout of its own."""
        return any(each.timeout is not None for each in self._callbacks[:])

    def take_turn(self) -> bool:
        """Become the one who runs the callbacks. False when somebody else is, or has been."""
        try:
            self._turn.pop()
        except IndexError:
            return False
        return True


def run_all(stack: CallbackStack, error: BaseException | None, observer: Observer) -> Steps[Outcome]:
    """Run every callback, last registered first, whatever each of them raises; then close the stack.

    The caller holds the turn. What a callback raises is told to the observer, which may put another exception in its place,
    and to the exit callbacks after it, as `contextlib.ExitStack` does.
    """
    outcome = Outcome(error)
    while True:
        callback = stack.claim()
        if callback is None:
            if stack.closed:
                return outcome
            stack.closed = True  # then look once more: see CallbackStack.push
        elif isinstance(callback, AsyncCallback):
            yield from _await_one(callback, outcome, observer)
        else:
            _run_one(callback, outcome, observer)


def _run_one(callback: Callback, outcome: Outcome, observer: Observer) -> None:
    failure: BaseException | None = None
    try:
        observer.began(callback)
        try:
            if callback.run(outcome.error):
                outcome.suppress()
        except BaseException as raised:
            failure = None if outcome.knows(raised) else raised
        failure = observer.ended(callback, failure)
    except (
        CallbackInterrupted
    ) as late:  # in a thread the interrupt may arrive a few instructions after the callback's end
        failure = observer.ended(callback, failure or late)
    if failure is not None:
        outcome.fail(failure)


def _await_one(callback: AsyncCallback, outcome: Outcome, observer: Observer) -> Steps[None]:
    failure: BaseException | None = None
    around = IN_CALLBACK.get()
    IN_CALLBACK.set(True)
    observer.began(callback)
    try:
        callback.start(outcome.error)
        suppresses = yield callback
        if callback.kind == "exit" and suppresses:
            outcome.suppress()
    except BaseException as raised:
        failure = None if outcome.knows(raised) else raised
    IN_CALLBACK.set(around)
    failure = observer.ended(callback, failure)
    if failure is not None:
        outcome.fail(failure)


def take_steps(steps: Steps[T], wait: Callable[[AsyncCallback | Callable[[], bool]], object]) -> T:
    """Take all steps in a thread that may block.

    Args:
        steps: what to do.
        wait: blocks until what it is given has come about.
    """
    try:
        pending = next(steps)
        while True:
            try:
                value = wait(pending)
            except BaseException as error:
                pending = steps.throw(error)
            else:
                pending = steps.send(value)
    except StopIteration as end:
        result: T = end.value
    return result


async def take_steps_with(
    steps: Steps[T], wait: Callable[[AsyncCallback | Callable[[], bool]], Awaitable[object]]
) -> T:
    """Take all steps in a task.

    Args:
        steps: what to do.
        wait: awaits what it is given, undisturbed.
    """
    try:
        pending = next(steps)
        while True:
            try:
                value = await wait(pending)
            except BaseException as error:
                pending = steps.throw(error)
            else:
                pending = steps.send(value)
    except StopIteration as end:
        result: T = end.value
    return result


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

    def knows(self, raised: BaseException) -> bool:
        """Whether this is no failure: exits written by hand, and task groups, raise again what they were told."""
        return raised is self.original or raised is self.error

    def fail(self, failure: BaseException) -> None:
        """A callback raised."""
        if failure.__context__ is None and self.error is not None and failure is not self.error:
            failure.__context__ = self.error
        self.failures.append(failure)
        self.error = failure
