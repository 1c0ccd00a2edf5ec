"""Whose stop is it: each row of the table, with the handlers that Python, event loops and programs really install."""

from __future__ import annotations

import asyncio
import functools
import signal
from collections.abc import Callable, Iterator
from types import FrameType

import anyio
import pytest
import trio
import uvloop

from cleanup_guard._process.signals import is_of_ended_loop
from cleanup_guard._stop.owner import Owner, is_loops, owner_of

OURS, THEIRS = Owner.OURS, Owner.THEIRS


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Python's own at the beginning, and afterwards what was there before."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def handler(signum: int, frame: FrameType | None) -> None:
    """A program's own."""


class Server:
    """One whose handler is a method, or itself."""

    def stop(self, signum: int, frame: FrameType | None) -> None:
        """The method."""

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Itself."""


ROWS: dict[str, tuple[object, Owner]] = {
    "the default": (signal.SIG_DFL, OURS),
    "the default, as a number": (0, OURS),
    "Python's own of SIGINT": (signal.default_int_handler, OURS),
    "ignored, and named": (signal.SIG_IGN, OURS),
    "a function": (handler, THEIRS),
    "a lambda": (lambda _signum, _frame: None, THEIRS),
    "a method": (Server().stop, THEIRS),
    "an object": (Server(), THEIRS),
    "a partial": (functools.partial(handler, 1), THEIRS),
    "a builtin": (print, THEIRS),
    "in C": (None, THEIRS),
}


@pytest.mark.parametrize(("there", "owner"), ROWS.values(), ids=ROWS)
def test_what_is_there(there: object, owner: Owner) -> None:
    """Each row of the table."""
    assert owner_of(there) is owner


def found(signum: int) -> object:
    """What is installed now."""
    return signal.getsignal(signum)


def in_asyncio(look: Callable[[], object]) -> object:
    """Look inside `asyncio.run`."""

    async def main() -> object:
        return look()

    return asyncio.run(main())


def in_runner(look: Callable[[], object]) -> object:
    """Look inside `asyncio.Runner.run`."""

    async def main() -> object:
        return look()

    with asyncio.Runner() as runner:
        return runner.run(main())


def in_uvloop(look: Callable[[], object]) -> object:
    """Look inside `uvloop.run`."""

    async def main() -> object:
        return look()

    return uvloop.run(main())


def in_trio(look: Callable[[], object]) -> object:
    """Look inside `trio.run`."""

    async def main() -> object:
        return look()

    return trio.run(main)


def in_anyio(look: Callable[[], object]) -> object:
    """Look inside `anyio.run`, which is asyncio's or its own."""

    async def main() -> object:
        return look()

    return anyio.run(main)


LOOPS = [in_asyncio, in_runner, in_uvloop, in_trio, in_anyio]


@pytest.mark.parametrize("run", LOOPS, ids=lambda run: run.__name__)
def test_a_loops_own_way_with_ctrl_c_is_ours(run: Callable[[Callable[[], object]], object]) -> None:
    """It cancels the main task, which the guard does itself."""
    there = run(lambda: found(signal.SIGINT))
    assert callable(there)
    assert owner_of(there) is OURS
    assert there is signal.default_int_handler or is_loops(there)


@pytest.mark.parametrize("run", LOOPS, ids=lambda run: run.__name__)
def test_a_loops_own_way_ends_with_the_loop(run: Callable[[Callable[[], object]], object]) -> None:
    """Whoever has taken its place does not put it back once the loop has ended; and what is no loop's ends with none."""

    def look() -> object:
        there = found(signal.SIGINT)
        assert not is_of_ended_loop(there)
        return there

    there = run(look)
    assert is_of_ended_loop(there) is (there is not signal.default_int_handler)
    assert not is_of_ended_loop(handler)


@pytest.mark.parametrize("run", LOOPS, ids=lambda run: run.__name__)
def test_a_loop_leaves_sigterm_alone(run: Callable[[Callable[[], object]], object]) -> None:
    """It is at its default there, and so ours."""
    assert owner_of(run(lambda: found(signal.SIGTERM))) is OURS


@pytest.mark.parametrize("runs", ["asyncio", "uvloop"])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_what_a_program_has_told_a_loop_is_theirs(runs: str, signum: signal.Signals) -> None:
    """`add_signal_handler` installs a handler of the loop by which the loop hears of the program's."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signum, print)
        try:
            assert owner_of(found(signum)) is THEIRS
        finally:
            loop.remove_signal_handler(signum)

    asyncio.run(main()) if runs == "asyncio" else uvloop.run(main())


def test_what_a_closed_loop_leaves_behind_is_ours() -> None:
    """Uvloop's handler stays where it is: it would wake a loop that is no more."""

    async def main() -> object:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, print)
        return found(signal.SIGTERM)

    try:
        assert owner_of(uvloop.run(main())) is OURS
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_what_a_program_has_told_trio_is_theirs() -> None:
    """`open_signal_receiver` puts the signals in a queue of the program's."""

    async def main() -> object:
        with trio.open_signal_receiver(signal.SIGTERM):
            return found(signal.SIGTERM)

    assert owner_of(trio.run(main)) is THEIRS


def test_whatever_a_handler_says_of_itself() -> None:
    """One whose module is None, or that has a `func` of its own, is somebody's."""

    class Odd:
        __module__ = None  # type: ignore[assignment]

        def __call__(self, signum: int, frame: FrameType | None) -> None:
            """Nothing."""

    class Wrapper(Server):
        """It wraps another handler, as a partial does."""

        func = staticmethod(handler)

    assert owner_of(Odd()) is THEIRS
    assert owner_of(Wrapper()) is THEIRS
