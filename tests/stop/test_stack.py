"""The registry of one guard: claimed exactly once, in LIFO order, whoever claims, registers, moves or discards meanwhile."""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from cleanup_guard._ground import once
from cleanup_guard._stop import running
from cleanup_guard._stop import stack as stack_module
from cleanup_guard._stop.running import Outcome, run_calls, take_steps
from cleanup_guard._stop.running import run_all as steps_of_all
from cleanup_guard._stop.stack import AsyncCallback, Callback, CallbackStack, describe, proper

THREADS = 4
ROUNDS = 30


class Silent:
    """An observer that notes what it hears, and may put another failure in place of one."""

    def __init__(self, replace: Callable[[BaseException], BaseException] | None = None) -> None:
        self.heard: list[str] = []
        self.replace = replace

    def began(self, callback: Callback) -> None:
        """Note the beginning."""
        self.heard.append(f"began {callback.name}")

    def ended(self, callback: Callback, error: BaseException | None) -> BaseException | None:
        """Note the end."""
        self.heard.append(f"ended {callback.name}")
        return error if error is None or self.replace is None else self.replace(error)

    def branch(self) -> Any:
        """No group is run here."""
        raise NotImplementedError

    def join(self, branch: object) -> None:
        """None is."""


class Looking(Silent):
    """One that looks for itself what is being called, while there is no alarm."""

    def __init__(self) -> None:
        super().__init__()
        self.running: Any = None
        self.started = 0.0
        self.count = 0
        self.alarms: list[object] = []


def of(function: Callable[..., object], *args: object, name: str | None = None) -> Callback:
    """A callback."""
    return Callback(function, args, {}, label=name)


def exit_of(function: Callable[..., object]) -> Callback:
    """An exit callback."""
    return Callback(function, (), {}, "exit")


def run_all(
    stack: CallbackStack, error: BaseException | None, observer: Silent, outcome: Outcome | None = None
) -> Outcome:
    """Run all that is left; awaiting is calling here."""
    outcome = outcome or Outcome(error)
    if isinstance(observer, Looking):
        run_calls(stack, outcome, observer, observer.alarms, time.monotonic)
    take_steps(steps_of_all(stack, outcome, observer), lambda pending: pending.take_awaitable()())  # type: ignore[union-attr]
    return outcome


def at_once(*functions: Callable[[], object]) -> None:
    """Run functions in threads that start together, and raise what they raise."""
    barrier = threading.Barrier(len(functions))
    errors: list[BaseException] = []

    def work(function: Callable[[], object]) -> None:
        barrier.wait()
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors


def test_callbacks_run_last_registered_first() -> None:
    """LIFO, each with its arguments, and the stack is closed and empty afterwards."""
    ran: list[object] = []
    stack = CallbackStack()
    for number in range(3):
        assert stack.push(Callback(lambda *a, **k: ran.append((a, k)), (number,), {"key": number}))
    assert len(stack) == 3
    run_all(stack, None, Silent())
    assert ran == [((number,), {"key": number}) for number in (2, 1, 0)]
    assert stack.closed
    assert len(stack) == 0


def test_the_observer_hears_of_each_callback() -> None:
    """Each callback is told before and after, in order."""
    stack = CallbackStack()
    stack.push(of(int, name="first"))
    stack.push(of(int, name="second"))
    observer = Silent()
    run_all(stack, None, observer)
    assert observer.heard == ["began second", "ended second", "began first", "ended first"]


def test_a_closed_stack_takes_nothing() -> None:
    """What is registered after the end is refused, not forgotten silently."""
    stack = CallbackStack()
    run_all(stack, None, Silent())
    assert not stack.push(of(print))
    assert len(stack) == 0


def test_a_callback_registered_by_a_callback_runs() -> None:
    """A callback may register another one, also the last callback of all."""
    ran: list[str] = []
    stack = CallbackStack()

    def register() -> None:
        ran.append("outer")
        assert stack.push(of(ran.append, "inner"))

    stack.push(of(register))
    run_all(stack, None, Silent())
    assert ran == ["outer", "inner"]


def test_the_turn_is_given_once() -> None:
    """Only one of many may run the callbacks; who hands the turn back lets one other have it."""
    for _ in range(ROUNDS):
        stack = CallbackStack()
        won: list[bool] = []
        at_once(*[lambda: won.append(stack.turn.claim())] * THREADS)  # noqa: B023 - used within the round
        assert sorted(won) == [False] * (THREADS - 1) + [True]
        stack.turn.give_back()
        assert stack.turn.claim()


def test_what_is_in_the_hand_stays_there_until_it_is_put_down() -> None:
    """Whoever takes next, after the holder of the turn was cut short, finds the same callback in the hand."""
    stack = CallbackStack([of(print, name="first"), of(print, name="last")])
    taken = stack.take()
    assert taken is not None
    assert stack.take() is taken
    assert stack.names() == ["last", "first"]
    taken.make_call(None)
    assert stack.names() == ["first"]
    stack.put_down()
    again = stack.take()
    assert again is not None
    assert again.name == "first"
    stack.put_down()
    assert stack.take() is None


def test_a_callback_is_called_once() -> None:
    """Calling it again does nothing, whether it returned or raised."""
    ran: list[int] = []
    once = of(ran.append, 1)
    assert not once.called
    for _ in range(3):
        once.run(None)
    assert once.called
    assert ran == [1]
    failing = of(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        failing.run(None)
    assert failing.called
    assert failing.run(None) is False


def test_a_fork_child_has_nothing_to_run() -> None:
    """What is in the hand of the parent is not the child's either; and nothing is let go of, which would close a generator."""
    left: list[int] = []

    @contextlib.contextmanager
    def manager() -> Iterator[None]:
        try:
            yield
        finally:
            left.append(1)

    entered = manager()
    entered.__enter__()
    stack = CallbackStack([exit_of(entered.__exit__), of(print)])
    del entered
    stack.take()
    inherited = stack.disown()
    assert (stack.names(), stack.take(), stack.push(of(print))) == ([], None, False)
    assert (len(inherited), left) == (2, [])


def test_registering_while_another_thread_closes() -> None:
    """A registration that returned true runs; one that returned false does not."""
    for _ in range(ROUNDS):
        stack = CallbackStack()
        ran: list[object] = []
        kept: list[object] = []
        refused: list[object] = []

        def register(number: int) -> None:
            for each in range(100):
                name = (number, each)
                (kept if stack.push(of(ran.append, name)) else refused).append(name)  # noqa: B023

        at_once(
            *[functools.partial(register, number) for number in range(THREADS)],
            lambda: run_all(stack, None, Silent()),  # noqa: B023
        )
        assert sorted(map(repr, ran)) == sorted(map(repr, kept))
        assert len(kept) + len(refused) == THREADS * 100


def test_discarding_while_another_thread_runs() -> None:
    """A callback is either discarded or run, never both and never neither."""
    for _ in range(ROUNDS):
        ran: list[int] = []

        def count() -> None:
            ran.append(1)  # noqa: B023 - used within the round

        stack = CallbackStack([of(count) for _ in range(300)])
        removed: list[int] = []
        at_once(
            lambda: removed.append(stack.discard(count)),  # noqa: B023
            lambda: removed.append(stack.discard(count)),  # noqa: B023
            lambda: run_all(stack, None, Silent()),  # noqa: B023
        )
        assert sum(removed) + len(ran) == 300


def test_moving_while_another_thread_registers() -> None:
    """What is registered during a move is in the old stack or in the new one, never in both or lost."""
    for _ in range(ROUNDS):
        stack = CallbackStack()
        moved: list[CallbackStack] = []

        def register() -> None:
            for number in range(300):
                assert stack.push(of(print, number))  # noqa: B023

        def move() -> None:
            for _ in range(20):
                moved.append(CallbackStack())  # noqa: B023
                stack.move_to(moved[-1])  # noqa: B023

        at_once(register, move)
        found = [proper(callback).args[0] for each in (*moved, stack) for callback in each.callbacks]
        assert sorted(found) == list(range(300))


def test_move_leaves_an_open_stack() -> None:
    """After a move the callbacks are the new stack's, and the old one can be used on."""
    stack = CallbackStack()
    stack.push(of(print, name="moved"))
    moved = CallbackStack()
    stack.move_to(moved)
    assert stack.push(of(print, name="stays"))
    assert (stack.names(), moved.names()) == (["stays"], ["moved"])
    assert moved.turn.claim()
    assert stack.turn.claim()


def test_discard_compares_functions_with_equality() -> None:
    """As `atexit.unregister`: equal bound methods are one function, and unknown ones are no error."""
    numbers: list[int] = []
    stack = CallbackStack([of(numbers.append, 1), of(numbers.extend, [2]), of(numbers.append, 3)])
    assert stack.discard(numbers.append) == 2
    assert stack.discard(print) == 0
    run_all(stack, None, Silent())
    assert numbers == [2]


def test_a_failure_does_not_stop_the_others() -> None:
    """All callbacks run, failures are kept in order and chained, as ExitStack does."""
    ran: list[int] = []

    def fail(error: BaseException) -> None:
        raise error

    first, second = ValueError("first"), KeyboardInterrupt("second")
    stack = CallbackStack([of(ran.append, 1), of(fail, second), of(ran.append, 2), of(fail, first)])
    outcome = run_all(stack, None, Silent())
    assert ran == [2, 1]
    assert outcome.failures == [first, second]
    assert second.__context__ is first


def test_the_observer_may_replace_a_failure() -> None:
    """What the observer returns is what is reported."""
    stack = CallbackStack([of(lambda: 1 / 0)])
    replacement = TimeoutError("too slow")
    assert run_all(stack, None, Silent(lambda _: replacement)).failures == [replacement]


def test_exits_are_told_of_main_and_of_failures() -> None:
    """Exit callbacks see main's exception, then the last failure, then nothing once one has suppressed it."""
    seen: list[object] = []

    def look(kind: object, error: BaseException | None, trace: object) -> bool:
        seen.append((kind, error))
        return False

    def suppress(kind: object, error: BaseException | None, trace: object) -> bool:
        return True

    def fail(kind: object, error: BaseException | None, trace: object) -> bool:
        raise failure

    failure, original = LookupError("a callback's"), ValueError("main's")
    stack = CallbackStack([exit_of(each) for each in (look, suppress, look, fail, look)])
    outcome = run_all(stack, original, Silent())
    assert seen == [(ValueError, original), (LookupError, failure), (None, None)]
    assert outcome.suppressed


def test_suppressing_nothing_is_not_suppressing() -> None:
    """An exit that returns true when main returned suppresses nothing."""
    outcome = run_all(CallbackStack([exit_of(lambda *_: True)]), None, Silent())
    assert not outcome.suppressed


def test_raising_mains_own_exception_again_is_no_failure() -> None:
    """Exits written by hand that raise what they were told have not failed, and are not told of as if they had."""
    original, told = ValueError("main's"), Silent(lambda error: pytest.fail(f"told of {error!r}"))

    def raise_again(_kind: object, error: BaseException, _trace: object) -> None:
        raise error

    outcome = run_all(CallbackStack([exit_of(raise_again)]), original, told)
    assert (outcome.failures, outcome.suppressed) == ([], False)


class Weird:
    """A callable that claims to be equal to everything."""

    __hash__ = None  # type: ignore[assignment]

    def __call__(self) -> None:
        """Do nothing."""

    def __eq__(self, other: object) -> bool:
        return True


def test_a_callback_is_taken_back_by_identity() -> None:
    """A user's `__eq__` is asked by `discard` only, never while a stack is closed or a callback claimed."""
    ours, theirs = of(Weird()), of(print)
    stack = CallbackStack([theirs, ours])
    assert stack._take_back(ours)
    assert stack.callbacks == [theirs]
    assert not stack._take_back(ours)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (print, "print"),
        (functools.partial(functools.partial(describe)), "cleanup_guard._stop.stack.describe"),
        (Weird(), "Weird object"),
        ([].append, "list.append"),
    ],
)
def test_names(function: object, name: str) -> None:
    """A report names what a callback calls, through partials and bound methods."""
    assert describe(function) == name


class Nameless:
    """A callable that fails whoever asks it for anything."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __call__(self) -> None:
        """Do nothing."""


def dead_proxy() -> object:
    """A weak reference's proxy whose object is gone."""
    return weakref.proxy(Weird())


@pytest.mark.parametrize("make", [Nameless, dead_proxy])
def test_there_is_a_name_whatever_happens(make: Callable[[], object]) -> None:
    """A callable that raises when it is asked for its name costs nobody his turn."""
    function = make()
    assert describe(function).endswith(" object")


def test_a_dead_proxy_costs_nobody_his_turn() -> None:
    """Calling it raises, which is reported as any failure."""
    ran: list[int] = []
    stack = CallbackStack([of(ran.append, 1), of(dead_proxy()), of(ran.append, 2)])  # type: ignore[arg-type]
    outcome = run_all(stack, None, Silent())
    assert ran == [2, 1]
    assert [type(each) for each in outcome.failures] == [ReferenceError]


# -- cut short -----------------------------------------------------------------------------------------------------------


class Alarm(BaseException):
    """What somebody's signal handler raises: a time limit of a job queue or a test runner."""


class Staged:
    """A stack of callbacks of every kind, and what has come of them. What is only to be called comes first and last."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.ended: list[str] = []
        self.stack = CallbackStack()
        self.push_calls(0)
        for number in range(2):
            self.stack.push(of(self.note, f"plain {number}"))
            self.stack.push(exit_of(lambda *_, number=number: self.note(f"exit {number}")))
            self.stack.push(of(self.fail, f"failing {number}"))
            self.stack.push(AsyncCallback(self.coroutine_function, (f"async {number}",), {}))
        self.push_calls(1)
        kinds = ("async", "failing", "exit", "plain")
        self.wanted = [f"call {number}" for number in (5, 4, 3)]
        self.wanted += [f"{kind} {number}" for number in (1, 0) for kind in kinds]
        self.wanted += [f"call {number}" for number in (2, 1, 0)]

    def push_calls(self, number: int) -> None:
        """As they are registered: functions, or partials of them."""
        self.stack.push(functools.partial(self.note, f"call {3 * number}"))
        self.stack.push(functools.partial(self.fail, f"call {3 * number + 1}"))
        self.stack.push(self.note_fifth if number else self.note_second)

    def note_fifth(self) -> None:
        """A bound method."""
        self.note("call 5")

    def note_second(self) -> None:
        """Another one."""
        self.note("call 2")

    def note(self, name: str) -> None:
        """The callback."""
        self.began.append(name)
        self.ended.append(name)

    def fail(self, name: str) -> None:
        """One that fails."""
        self.note(name)
        raise LookupError(name)

    def coroutine_function(self, name: str) -> Callable[[], object]:
        """One that is awaited. Returns what is awaited, which for this module is called."""
        return lambda: self.note(name)


class Tripwire:
    """Raises at one line, or one opcode, of `stack.py` and `running.py`, as a signal handler does that runs there."""

    FILES = (stack_module.__file__, running.__file__, once.__file__)

    def __init__(self, at: int, event: str) -> None:
        self.left, self.event = at, event
        self.place = ""

    def trace(self, frame: FrameType, event: str, argument: object) -> Any:
        """The trace function."""
        if frame.f_code.co_filename not in self.FILES or frame.f_code.co_name == "take_awaitable":
            return None  # whoever has taken the awaitable has it
        frame.f_trace_opcodes = self.event == "opcode"
        if event == self.event:
            self.left -= 1
            if self.left == 0:
                self.place = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                raise Alarm(self.place)
        return self.trace

    def run(self, function: Callable[[], object]) -> bool:
        """Run a function under the trace. Returns whether it was cut short."""
        before = sys.gettrace()
        # 3.12's `settrace` looks whether a frame has asked for opcodes by then; it does not hear of one that asks later.
        sys._getframe().f_trace_opcodes = self.event == "opcode"
        sys.settrace(self.trace)
        try:
            function()
        except Alarm:
            return True
        finally:
            sys.settrace(before)
        return False


def interruptions(event: str, step: int) -> Iterator[Tripwire]:
    """A tripwire for every line, or every so manyth opcode, until one is not reached."""
    for at in itertools.count(1, step):
        tripwire = Tripwire(at, event)
        yield tripwire
        if not tripwire.place:
            return


@pytest.mark.parametrize("kind", [Silent, Looking])
@pytest.mark.parametrize(("event", "step"), [("line", 1), ("opcode", 3)])
def test_an_exception_between_any_two_lines_loses_no_callback(
    event: str, step: int, kind: type[Silent]
) -> None:
    """Somebody's handler raises while the callbacks run: whoever comes next runs those that are left, and none twice."""
    tried = 0
    for tripwire in interruptions(event, step):
        staged, observer = Staged(), kind()
        outcome = Outcome(None)
        cut = tripwire.run(lambda: run_all(staged.stack, None, observer, outcome))  # noqa: B023
        if cut:
            run_all(staged.stack, None, observer, outcome)
        assert staged.began == staged.wanted, tripwire.place
        assert staged.stack.closed
        tried += 1
    assert tried > 100


@pytest.mark.parametrize("method", ["began", "ended"])
def test_an_observer_that_raises_loses_no_callback(method: str) -> None:
    """A handler may raise in the observer's lines, too: the callback is called once, before or after."""
    for number in range(8):
        staged, observer, outcome, calls = Staged(), Silent(), Outcome(None), itertools.count()
        honest = getattr(observer, method)

        def raising(
            *arguments: object,
            calls: Iterator[int] = calls,
            number: int = number,
            honest: Callable[..., object] = honest,
        ) -> object:
            if next(calls) == number:
                raise Alarm
            return honest(*arguments)

        setattr(observer, method, raising)
        for _ in range(2):
            try:
                run_all(staged.stack, None, observer, outcome)
            except Alarm:
                continue
        assert staged.began == staged.wanted, number


def test_who_looks_for_himself_is_told_of_what_failed() -> None:
    """He sees what is being called, counts all, and hears of those of which there is something to tell."""
    seen: list[object] = []
    observer, calls = Looking(), CallbackStack()

    def look() -> None:
        seen.append((observer.running, observer.started > 0))

    def fail() -> None:
        raise LookupError

    def stop() -> None:
        raise StopIteration

    for each in (look, fail, look, stop):
        assert calls.push(each)
    outcome = run_all(calls, None, observer)
    assert seen == [(look, True)] * 2
    assert observer.heard == [f"ended {describe(each)}" for each in (stop, fail)]
    assert [type(each) for each in outcome.failures] == [StopIteration, LookupError]
    assert (observer.count, observer.running, calls.closed) == (4, None, True)


def test_with_an_alarm_each_is_told() -> None:
    """From the callback on in which it comes."""
    observer = Looking()

    def raise_alarm() -> None:
        observer.alarms.append("stop")

    raise_alarm.__qualname__ = "alarm"
    ran: list[str] = []
    stack = CallbackStack(
        [functools.partial(ran.append, "last"), raise_alarm, functools.partial(ran.append, "first")]
    )
    run_all(stack, None, observer)
    assert ran == ["first", "last"]
    assert observer.heard == [
        f"ended {raise_alarm.__module__}.alarm",
        "began list.append",
        "ended list.append",
    ]


def test_a_callback_may_move_or_disown_what_is_left() -> None:
    """What a callback moves to another guard is not called here; in a child that it forks nothing is."""
    ran: list[str] = []
    for leave in ("move", "disown"):
        stack, moved = CallbackStack(), CallbackStack()
        stack.push(functools.partial(ran.append, leave))
        stack.push(functools.partial(stack.move_to, moved) if leave == "move" else stack.disown)
        run_all(stack, None, Looking())
        assert (ran, stack.closed) == ([], True)
        assert moved.names() == (["list.append"] if leave == "move" else [])


def test_what_raises_stop_iteration_has_failed() -> None:
    """As if it had raised anything else."""

    def stop() -> None:
        raise StopIteration

    assert [type(each) for each in run_all(CallbackStack([of(stop)]), None, Silent()).failures] == [
        StopIteration
    ]


def test_a_registration_during_a_resumed_run_is_kept() -> None:
    """The stack is closed by the run that comes to its end, not by one that was cut short."""
    ran: list[str] = []
    stack, observer = CallbackStack([of(ran.append, "first"), of(ran.append, "last")]), Silent()
    observer.began = lambda callback: (_ for _ in ()).throw(Alarm())  # type: ignore[method-assign]
    with pytest.raises(Alarm):
        run_all(stack, None, observer)
    assert not stack.closed
    assert stack.push(of(ran.append, "late"))
    run_all(stack, None, Silent())
    assert ran == ["last", "late", "first"]
