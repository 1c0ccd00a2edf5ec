"""The public API as a user's type checker sees it. This file is checked by mypy and pyright, never run."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Generator
from datetime import timedelta
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
        g.on_stop(close, "db")
        with g.shield():
            pass


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
