"""Whether somebody is still on his way out because of an exception: in every block that an exception can be handled in."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator

import pytest

from cleanup_guard._stop.token import (
    OURS,
    Pulse,
    Token,
    came_by_signal,
    handles,
    is_all_ours,
    is_ours,
    leads_to,
    mark,
)

HERE = threading.get_ident


class Stopped:
    """An exception of ours, and what was seen of it."""

    def __init__(self) -> None:
        self.token = Token()
        self.exception = mark(SystemExit("stop"), self.token)
        self.answers: list[bool] = []

    def ask(self) -> None:
        """Note whether this thread handles it."""
        self.answers.append(handles(HERE(), self.token))


@pytest.fixture
def stop() -> Stopped:
    """One that has not been raised."""
    return Stopped()


@contextlib.contextmanager
def manager(stop: Stopped) -> Generator[None]:
    """Asks in its own `finally`."""
    try:
        yield
    finally:
        stop.ask()


class Exit:
    """Asks in its `__exit__`, and lets the exception pass or not."""

    def __init__(self, stop: Stopped, *, suppress: bool = False) -> None:
        self.stop = stop
        self.suppress = suppress

    def __enter__(self) -> None:
        pass

    def __exit__(self, *details: object) -> bool:
        self.stop.ask()
        return self.suppress


def in_except(stop: Stopped) -> None:
    try:
        raise stop.exception
    except SystemExit:
        stop.ask()


def in_bare_except(stop: Stopped) -> None:
    try:
        raise stop.exception
    except:  # noqa: E722
        stop.ask()


def in_finally(stop: Stopped) -> None:
    with contextlib.suppress(SystemExit):
        try:
            raise stop.exception
        finally:
            stop.ask()


def in_exit(stop: Stopped) -> None:
    with contextlib.suppress(SystemExit), Exit(stop):
        raise stop.exception


def in_suppressing_exit(stop: Stopped) -> None:
    with Exit(stop, suppress=True):
        raise stop.exception


def in_contextmanager(stop: Stopped) -> None:
    with contextlib.suppress(SystemExit), manager(stop):
        raise stop.exception


def in_exit_stack(stop: Stopped) -> None:
    with contextlib.suppress(SystemExit), contextlib.ExitStack() as stack:
        stack.callback(stop.ask)
        stack.enter_context(manager(stop))
        raise stop.exception


def in_generators_finally(stop: Stopped) -> None:
    def generate() -> Iterator[int]:
        try:
            yield 1
        finally:
            stop.ask()

    generator = generate()
    next(generator)
    with contextlib.suppress(SystemExit):
        generator.throw(stop.exception)  # type: ignore[attr-defined]


def in_generator_closed_by_it(stop: Stopped) -> None:
    def generate() -> Generator[int]:
        try:
            yield 1
        finally:
            stop.ask()

    generator = generate()
    next(generator)
    try:
        raise stop.exception
    except SystemExit:
        generator.close()


def in_generator_resumed_in_except(stop: Stopped) -> None:
    def generate() -> Iterator[int]:
        stop.ask()
        yield 1

    try:
        raise stop.exception
    except SystemExit:
        next(generate())


def in_nested_try(stop: Stopped) -> None:
    try:
        raise stop.exception
    except SystemExit:
        try:
            int("no number")
        except ValueError:
            stop.ask()
        stop.ask()


def in_what_was_raised_instead(stop: Stopped) -> None:
    try:
        try:
            raise stop.exception
        except SystemExit:
            raise ValueError("instead") from None
    except ValueError:
        stop.ask()


def in_a_call_from_except(stop: Stopped) -> None:
    try:
        raise stop.exception
    except SystemExit:
        list(map(lambda _: stop.ask(), [1]))  # noqa: C417  # a C frame in between


HANDLING: list[Callable[[Stopped], None]] = [
    in_except,
    in_bare_except,
    in_finally,
    in_exit,
    in_suppressing_exit,
    in_contextmanager,
    in_exit_stack,
    in_generators_finally,
    in_generator_closed_by_it,
    in_generator_resumed_in_except,
    in_nested_try,
    in_what_was_raised_instead,
    in_a_call_from_except,
]


@pytest.mark.parametrize("place", HANDLING, ids=lambda place: place.__name__)
def test_who_is_handled(place: Callable[[Stopped], None], stop: Stopped) -> None:
    """In every block that runs because of the exception; before and after it not, though the exception is kept."""
    stop.ask()
    place(stop)
    stop.ask()
    before, *inside, after = stop.answers
    assert not before
    assert inside
    assert all(inside)
    assert not after


def test_a_kept_exception_is_not_handled(stop: Stopped) -> None:
    """Not in a list, not as the cause or context of another one that is kept."""
    kept: list[BaseException] = []
    try:
        raise stop.exception
    except SystemExit as error:
        kept.append(error)
    stop.ask()
    try:
        try:
            raise kept[0]
        except SystemExit as error:
            raise ValueError from error
    except ValueError as error:
        kept.append(error)
    stop.ask()
    assert stop.answers == [False, False]


def test_a_suspended_generator_in_its_except_is_not_main(stop: Stopped) -> None:
    """It may never be resumed; main is elsewhere."""

    def generate() -> Iterator[int]:
        try:
            raise stop.exception
        except SystemExit:
            stop.ask()
            yield 1
            stop.ask()

    generator = generate()
    next(generator)
    stop.ask()
    next(generator, None)
    assert stop.answers == [True, False, True]


def test_a_suspended_coroutine_in_its_except_is_not_main(stop: Stopped) -> None:
    """Asked from another task while it awaits in its `except`."""

    async def suspended(entered: asyncio.Event, leave: asyncio.Event) -> None:
        try:
            raise stop.exception
        except SystemExit:
            entered.set()
            await leave.wait()
            stop.ask()

    async def main() -> None:
        entered, leave = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(suspended(entered, leave))
        await entered.wait()
        stop.ask()
        leave.set()
        await task

    asyncio.run(main())
    assert stop.answers == [False, True]


@pytest.mark.parametrize("inside", [True, False])
def test_any_thread_may_ask(inside: bool, stop: Stopped) -> None:
    """What another thread handles is seen from here, and what we handle is not that thread's."""
    entered, leave = threading.Event(), threading.Event()

    def handle() -> None:
        try:
            raise stop.exception
        except SystemExit:
            if inside:
                entered.set()
                leave.wait(60)
        entered.set()
        leave.wait(60)

    thread = threading.Thread(target=handle)
    thread.start()
    try:
        assert entered.wait(60)
        assert thread.ident is not None
        assert handles(thread.ident, stop.token) is inside
        assert not handles(HERE(), stop.token)
    finally:
        leave.set()
        thread.join()
    assert not handles(thread.ident, stop.token)


def test_nobody_handles_nothing(stop: Stopped) -> None:
    """No token, another token, an unknown thread, an exception that is nobody's."""
    try:
        raise stop.exception
    except SystemExit:
        assert handles(HERE(), stop.token)
        assert not handles(HERE(), None)
        assert not handles(HERE(), Token())
        assert not handles(-1, stop.token)
    try:
        int("no number")
    except ValueError:
        assert not handles(HERE(), stop.token)


def test_a_circle_of_contexts_has_an_end(stop: Stopped) -> None:
    """CPython breaks those that it makes; one that is made by hand is walked once."""
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first
    assert not leads_to(first, stop.token)
    second.__context__ = None
    second.__context__ = stop.exception
    stop.exception.__context__ = first
    assert leads_to(first, stop.token)
    stop.exception.__context__ = second.__context__ = first.__context__ = None


def test_a_long_chain_is_walked() -> None:
    """Longer than the recursion limit."""
    token = Token()
    error: BaseException = mark(ValueError("innermost"), token)
    for _ in range(sys.getrecursionlimit() + 10):
        outer = ValueError()
        outer.__context__ = error
        error = outer
    assert leads_to(error, token)
    while error.__context__ is not None:  # or its destruction would be the recursion
        error, error.__context__ = error.__context__, None


def test_what_is_ours() -> None:
    """What is marked, and groups of nothing else."""
    ours, other = mark(KeyboardInterrupt(), Token()), KeyboardInterrupt()
    assert is_ours(ours)
    assert not is_ours(other)
    assert not is_ours(None)
    assert is_all_ours(ours)
    assert is_all_ours(BaseExceptionGroup("trio's", [BaseExceptionGroup("inner", [ours])]))
    assert not is_all_ours(BaseExceptionGroup("trio's", [ours, other]))
    assert not is_all_ours(other)


def test_a_pulse_beats_as_long_as_the_exception_lives() -> None:
    """And not before one is followed."""
    pulse, token = Pulse(), Token()
    assert not pulse.beats
    error: BaseException | None = mark(KeyboardInterrupt(), token)
    pulse.follow(token)
    assert pulse.beats
    del token
    assert pulse.beats
    assert error is not None
    error = None
    gc.collect()
    assert not pulse.beats


class Alarm:
    """Handlers of all shapes, which raise."""

    def method(self, signum: int, frame: object) -> None:
        raise ValueError

    @staticmethod
    def loose(*args: object) -> None:
        raise ValueError

    def outer(self, signum: int, frame: object) -> None:
        self.inner()

    def inner(self) -> None:
        raise SystemExit


@pytest.mark.parametrize(
    "handler", [Alarm().method, Alarm.loose, Alarm().outer], ids=["method", "loose", "outer"]
)
def test_what_a_handler_raises_came_by_a_signal(handler: Callable[[int, object], object]) -> None:
    """In whatever shape it is told where it came, and however deep it raises."""
    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises((ValueError, SystemExit)) as caught:
            signal.raise_signal(signal.SIGALRM)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert came_by_signal(caught.value)


def test_a_ctrl_c_out_of_nowhere_came_by_a_signal() -> None:
    """In a line of ours nothing else raises it; a hook may do so itself."""
    ours = compile("raise error", OURS + "made_up.py", "exec")
    for code, came in ((ours, True), (compile("raise error", "hook.py", "exec"), False)):
        with pytest.raises(KeyboardInterrupt) as caught:
            exec(code, {"error": KeyboardInterrupt()})
        assert came_by_signal(caught.value) is came


def test_what_is_raised_by_what_was_called_did_not() -> None:
    """Of whatever kind it is."""
    for call in (lambda: int("x"), lambda: Alarm().inner(), lambda: Alarm().method(1, None)):
        with pytest.raises((ValueError, SystemExit)) as caught:
            call()
        assert not came_by_signal(caught.value)
