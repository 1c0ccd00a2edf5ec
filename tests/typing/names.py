"""The rest of the public names as a user's type checker sees them: records, children, becoming a program, rehearsals.

This file is checked by mypy and pyright, never run. `tests/test_reference.py` sees to it that no public name is missing.
"""

from __future__ import annotations

from typing import NoReturn, assert_type

import cleanup_guard
from cleanup_guard import (
    CallbackDone,
    CallbackFailed,
    CallbackRecord,
    CallbackStarted,
    CallbackTimedOut,
    Child,
    ClockStarted,
    DeadlineReached,
    Draining,
    Event,
    Finished,
    HandlerReplaced,
    HeldToTheEnd,
    HookLeftRunning,
    MainFailed,
    SignalsUnheard,
    SteppedIn,
    StillRunning,
    StopRecord,
    StopRedelivered,
    Supervisor,
    TasksLeft,
    TookOver,
    WorkAwaited,
    WorkCut,
    exec_into,
)
from cleanup_guard.testing import Advice, CannotRehearse, Heard, Rehearsal, Requests, Seen, rehearse

assert_type(cleanup_guard.__version__, str)


def records(event: Event) -> None:
    assert_type(event.level, int)
    assert_type(event.notable, bool)
    assert_type(event.failure(), BaseException | None)
    assert_type(event.cut_short(), tuple[tuple[str, float], ...])
    match event:
        case CallbackStarted() | CallbackDone() | CallbackFailed() | CallbackTimedOut():
            assert_type(event.name, str)
        case StopRedelivered():
            assert_type(event.times, int)
        case Draining():
            assert_type(event.asked, float)
        case WorkAwaited() | WorkCut():
            assert_type(event.work, tuple[tuple[str, float], ...])
        case HeldToTheEnd() | SteppedIn() | TookOver():
            assert_type(event.where, str)
        case HookLeftRunning() | StillRunning():
            assert_type(event.seconds, float)
        case _:
            more_records(event)


def more_records(event: Event) -> None:
    match event:
        case ClockStarted():
            assert_type(event.sure, float | None)
        case SignalsUnheard():
            assert_type(event.thread, str)
        case TasksLeft():
            assert_type(event.names, tuple[str, ...])
        case HandlerReplaced():
            assert_type(event.signum, int)
        case MainFailed():
            assert_type(event.error, BaseException)
        case DeadlineReached():
            assert_type(event.running, str | None)
        case Finished():
            assert_type(event.callbacks, int)
        case StopRecord():
            assert_type(event.phases, tuple[tuple[str, float], ...])
            assert_type(event.callbacks, tuple[CallbackRecord, ...])
            assert_type(event.callbacks[0].error, BaseException | None)
            assert_type(event.cut, tuple[tuple[str, float], ...])
            assert_type(event.skipped, tuple[str, ...])
        case _:
            pass


def children() -> None:
    with Supervisor(grace=10, when_one_exits="wait") as supervisor:
        child = supervisor.start("web", "--port", "80", name="web")
        assert_type(child, Child)
        assert_type(child.pid, int)
        assert_type(child.status, int | None)
        assert_type(supervisor.wait(), int)
    Supervisor(when_one_exits="go")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def become() -> NoReturn:
    exec_into("gunicorn", "app:app", user="app", umask=0o027, signals="inherit")


def rehearsal() -> None:
    try:
        found = rehearse(["python", "app.py"], ready="started", grace=3)
    except CannotRehearse as error:
        raise SystemExit(str(error)) from None
    assert_type(found, Rehearsal)
    assert_type(found.clean, bool)
    assert_type(found.processes, list[Seen])
    assert_type(found.processes[0].heard, list[Heard])
    assert_type(found.advice, list[Advice])
    assert_type(found.requests, Requests | None)
