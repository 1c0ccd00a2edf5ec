"""The public API as a user's type checker sees it. This file is checked by mypy and pyright, never run."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import assert_type

from cleanup_guard import (
    CleanupError,
    Event,
    Guard,
    SignalExit,
    StopReceived,
    current_guard,
    guard,
    log_event,
    on_exit,
    unregister,
)


@guard
def plain(number: int, *, text: str = "") -> bool:
    return bool(number) and bool(text)


@guard(
    grace=timedelta(seconds=30),
    signals=(signal.SIGTERM, signal.SIGHUP),
    exit_status="signal",
    hooks=[log_event],
)
def with_options(number: int) -> list[int]:
    return [number]


@guard
def numbers(limit: int) -> Generator[int, str, bool]:
    yield limit
    return True


@guard
async def coroutine(number: int, *, text: str = "") -> bool:
    return bool(number) and bool(text)


@guard(grace=30)
async def async_numbers(limit: int) -> AsyncGenerator[int, str]:
    yield limit


@guard(run="asyncio", grace=30, drain=5, ready_file=Path("/run/ready"))
async def main(number: int, *, text: str = "") -> bool:
    return bool(number) and bool(text)


assert_type(async_numbers(3), AsyncGenerator[int, str])
assert_type(main(1, text="x"), bool)
main("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
assert_type(plain(1, text="x"), bool)
assert_type(with_options(1), list[int])
assert_type(numbers(3), Generator[int, str, bool])


def hook(event: Event) -> None:
    if isinstance(event, StopReceived):
        assert_type(event.signum, int | None)
        assert_type(event.grace, float | None)


def close(name: str, *, force: bool = False) -> int:
    return len(name) + force


def block() -> None:
    with guard(grace=None, interrupt=False, exit_status=0, hooks=(hook,)) as g:
        assert_type(g, Guard)
        registered = g.callback(close, "db", force=True)
        g.callback(close, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        registered("again")
        assert_type(g.enter_context(tempfile.TemporaryDirectory()), str)
        assert_type(g.remaining(), float | None)
        assert_type(g.wait(1), bool)
        assert_type(g.sleep(timedelta(seconds=1)), bool)
        assert_type(g.pop_all(), Guard)
        assert_type(g.stopping, bool)
        g.options(timeout=2, name="flush").callback(close, "db", force=True)
        g.options(parallel="pools").callback(close, "db", force=True)
        g.on_stop(close, "db")
        with g.shield():
            pass
        with g.work("GET /"), g.work():
            pass
        g.ready()
        assert_type(g.is_ready, bool)


async def flush(name: str, *, force: bool = False) -> int:
    return len(name) + force


@asynccontextmanager
async def connect() -> AsyncGenerator[int]:
    yield 1


async def task() -> None:
    assert_type(await coroutine(1, text="x"), bool)
    await coroutine("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async with guard(grace=None) as g:
        assert_type(g, Guard)
        registered = g.callback(flush, "db", force=True)
        assert_type(await registered("again"), int)
        assert_type(await g.push_async_callback(flush, "db")("again"), int)
        g.push_async_callback(flush, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        g.push_async_callback(close, "db")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        g.options(timeout=2, name="flush").push_async_callback(flush, "db", force=True)
        g.on_stop(flush, "db")
        assert_type(await g.enter_async_context(connect()), int)
        g.push_async_exit(connect())
        assert_type(await g.stopped(timeout=1), bool)
        async with g.shield(), g.work("GET /"):
            pass
        await g.aclose()


def drop_in() -> None:
    @on_exit
    def save() -> None:
        pass

    decorated: Callable[[], None] = save
    on_exit(close, "db", force=True)
    on_exit(close)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(unregister(decorated), int)
    assert_type(current_guard(), Guard | None)


def errors(group: CleanupError, stop: SignalExit) -> None:
    for failure in group.exceptions:
        raised: Exception = failure
        raise raised
    assert_type(stop.signum, int | None)
