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
   more to say of it, which nearly never comes to pass (`running.run_calls`).

How they are run is in `running`, which is loaded when the first guard is entered. Neither knows of signals or processes.
"""

from __future__ import annotations

from functools import partial
from itertools import takewhile

from cleanup_guard._ground.once import Once

try:
    from _operator import call as _call
except ImportError:  # PyPy, where it is not written in C
    from operator import call as _call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import CodeType
    from typing import Any, Literal, Protocol, TypeAlias

    Entry: TypeAlias = "Callback | Callable[[], Any]"
    """What is registered."""

    class Flight(Protocol):
        """A callback that an event loop awaits."""

        def cancel(self) -> None: ...  # any thread
        def holds_thread(self) -> bool: ...  # whether its code is running, rather than waiting


call = _call
"""Calls what it is given, without a line of Python."""


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
        aside: while they are called, what `running` makes of it.
    """

    group: str | None = None
    aside: Any = None


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
        from cleanup_guard._stop.token import came_by_signal

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
    """The registry of one guard. Every method may be called from any thread.

    Attributes:
        callbacks: what waits, the one registered last at the end. It is another list once they have been moved.
        hand: the one that is being called, or the group.
        turn: who may run them.
        closed: nothing is registered any more.
    """

    __slots__ = ("callbacks", "closed", "hand", "turn")

    def __init__(self, callbacks: Iterable[Entry] = ()) -> None:
        self.callbacks: list[Entry] = [*callbacks]
        self.hand: list[Entry] = []
        self.turn: Once = Once()
        self.closed: bool = False

    def __len__(self) -> int:
        return len(self.callbacks)

    def push(self, entry: Entry) -> bool:
        """Register. Returns False when the stack is closed and the callback will not run.

        The second look at `closed` is for the thread that registers while another one closes: either the closer's last
        look finds the callback, or we take it back ourselves.
        """
        if self.closed:
            return False
        self.callbacks.append(entry)
        return not (self.closed and self._take_back(entry))

    def _take_back(self, entry: Entry) -> bool:
        try:
            self.callbacks.remove(entry)
        except ValueError:
            return False  # claimed in the meantime: it ran
        return True

    def take(self) -> Callback | None:
        """Take the callback that was registered last into the hand, unless one is there. For the holder of the turn."""
        hand = self.hand
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
        popped: Iterator[Any] = iter(self.callbacks.pop, None)
        next(map(self.hand.append, popped))

    def take_neighbours(self) -> list[GroupedCallback]:
        """Take those of the group of the callback in the hand that were registered right before it. For the holder of the turn.

        Returns:
            All of the group that are in the hand. Behind them there may be one that was registered at this very moment.
        """
        hand = self.hand
        group = _group_of(hand[0])
        while _group_of(hand[-1]) == group and any(_group_of(each) == group for each in self.callbacks[-1:]):
            self._take_last()
        together = takewhile(lambda each: _group_of(each) == group, hand[:])
        return [each for each in together if isinstance(each, GroupedCallback)]

    @property
    def idle(self) -> bool:
        """Whether nothing is registered, and nobody is at what was."""
        return not (self.callbacks or self.hand) and bool(self.turn.free)

    def put_down(self, number: int = 1) -> None:
        """The callback in the hand is done with, or so many of them."""
        del self.hand[:number]

    def discard(self, function: object) -> int:
        """Remove every callback of this function, compared with `==` as `atexit.unregister` does. Returns how many."""
        return sum(
            self._take_back(each) for each in reversed(self.callbacks[:]) if proper(each).function == function
        )

    def move_to(self, other: CallbackStack) -> None:
        """Move all callbacks to another stack, which has none; this one is empty and open afterwards.

        Between the first and the last instruction nothing is called: no signal and no exception comes in between.
        """
        other.callbacks, self.callbacks = self.callbacks, other.callbacks

    def disown(self) -> list[Entry]:
        """Forget everything, in a fork child: what its parent registered is not the child's.

        Returns:
            What it was. It must be kept: a generator that is let go of, such as a context manager's, runs its `finally`.
        """
        inherited = [*self.hand, *self.callbacks]
        self.closed = True
        self.callbacks.clear()  # whoever forked in a callback has these in use
        self.hand.clear()
        return inherited

    @property
    def left(self) -> int:
        """How many callbacks have not been called."""
        return sum(not _is_called(each) for each in self.hand[:]) + len(self.callbacks)

    def names(self, most: int | None = None) -> list[str]:
        """Their names, in the order in which they would be called, not more than so many."""
        waiting = self.callbacks[:] if most is None else self.callbacks[-most:]
        names = [proper(each).name for each in (*self.hand[:], *reversed(waiting)) if not _is_called(each)]
        return names[:most]

    @property
    def awaited(self) -> str | None:
        """The name of a callback that must be awaited, if there is one."""
        for each in reversed(self.callbacks[:]):
            if isinstance(each, AsyncCallback):
                return each.name
        return None

    @property
    def has_timeouts(self) -> bool:
        """Whether any callback that is left has a timeout of its own."""
        return any(isinstance(each, Callback) and each.timeout is not None for each in self.callbacks[:])


def _group_of(entry: Entry) -> str | None:
    return entry.group if isinstance(entry, Callback) else None


def _is_called(entry: Entry) -> bool:
    """Of one in the hand: what is called as it was registered is not there any more (`run_calls`)."""
    return isinstance(entry, Callback) and entry.called
