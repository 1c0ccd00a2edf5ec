"""What a guard costs, beside what the standard library offers, in one run. Figures are ratios; nothing is asserted of them."""

from __future__ import annotations

import asyncio
import atexit
import timeit
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack

import pytest

from cleanup_guard import Guard, guard

pytestmark = pytest.mark.benchmark

MANY = 100_000


def best(function: Callable[[], object], number: int = 1) -> float:
    """Microseconds of the best of seven rounds."""
    return min(timeit.repeat(function, number=number, repeat=7)) / number * 1e6


def nothing() -> None:
    """A callback that does nothing."""


def fill_guard() -> None:
    """Register and run many callbacks on a guard."""
    g = Guard(hooks=())
    for _ in range(MANY):
        g.callback(nothing)
    g.close()


def fill_stack() -> None:
    """The same with ExitStack."""
    with ExitStack() as stack:
        for _ in range(MANY):
            stack.callback(nothing)


def fill_atexit() -> None:
    """The same with atexit, which does only the registering here."""
    for _ in range(MANY):
        atexit.register(nothing)
    atexit.unregister(nothing)


def test_registering_and_running() -> None:
    """Register and run 100,000 callbacks: guard, ExitStack, atexit (register and unregister)."""
    ours, stack, plain = best(fill_guard), best(fill_stack), best(fill_atexit)
    print(
        f"\nregister+run one callback: guard {ours / MANY:.2f} µs, ExitStack {stack / MANY:.2f} µs, "
        f"atexit {plain / MANY:.2f} µs; guard/ExitStack {ours / stack:.2f}"
    )


def test_entering_and_leaving() -> None:
    """A guarded call: signals taken, watcher started, both given back."""

    @guard
    def guarded() -> None:
        pass

    def nested() -> None:
        with guard():
            inner = best(guarded, 1000)
        print(f"inside another guard {inner:.0f} µs")

    alone = best(guarded, 100)
    print(f"\na guarded call: {alone:.0f} µs alone, ", end="")
    nested()


async def nothing_async() -> None:
    """An async callback that does nothing."""


async def fill_async_guard() -> None:
    """Register and await many async callbacks on a guard."""
    async with guard(hooks=(), signals=()) as g:
        for _ in range(MANY // 10):
            g.push_async_callback(nothing_async)


async def fill_async_stack() -> None:
    """The same with AsyncExitStack, which awaits them in its own task, where any cancellation reaches them."""
    async with AsyncExitStack() as stack:
        for _ in range(MANY // 10):
            stack.push_async_callback(nothing_async)


def test_awaiting() -> None:
    """Register and await 10,000 async callbacks: guard, AsyncExitStack."""
    ours = best(lambda: asyncio.run(fill_async_guard()))
    stack = best(lambda: asyncio.run(fill_async_stack()))
    each = MANY // 10
    print(
        f"\nawait one async callback: guard {ours / each:.2f} µs, AsyncExitStack {stack / each:.2f} µs; "
        f"guard/AsyncExitStack {ours / stack:.2f}"
    )
