"""Wrong use gets one clear sentence: what, where, what to do."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, Literal

import pytest
from support import run

from cleanup_guard import CallbackDone, Event, Guard, SignalsUnheard, current_guard, guard, on_exit
from cleanup_guard._process.report import OUTBOX


def test_off_the_main_thread_a_guard_says_that_no_signal_would_reach_it() -> None:
    """A guard in another thread works, and says in one line what it will not hear; with signals=() it says nothing."""
    told: list[Event] = []
    ran: list[str] = []

    def enter() -> None:
        with guard(hooks=[told.append]) as g:
            g.callback(ran.append, "explicit")
        with guard(signals=(), hooks=[told.append]) as g:
            g.callback(ran.append, "quiet")

    thread = threading.Thread(target=enter, name="worker-1")
    thread.start()
    thread.join()
    assert ran == ["explicit", "quiet"]
    OUTBOX.drain(30)
    lines = [str(event) for event in told if isinstance(event, SignalsUnheard)]
    assert len(lines) == 1
    assert "'worker-1'" in lines[0]
    assert "signals=()" in lines[0]


def test_on_exit_off_the_main_thread_without_a_guard() -> None:
    """`on_exit` in a thread works as atexit does, and on SIGTERM, too, as soon as main has run a line."""
    code = """
thread = threading.Thread(target=on_exit, args=(print, "bye"), kwargs={"flush": True})
thread.start()
thread.join()
ready()
if len(sys.argv) == 1: time.sleep(60)
"""
    ended = run(code, signal.SIGTERM)
    assert (ended.out, ended.status) == (["bye"], 143)
    ended = run(code.replace("len(sys.argv) == 1", "False"))
    assert (ended.out, ended.status) == (["bye"], 0)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"grace": -1}, ValueError, "grace must be 0 or more seconds"),
        ({"grace": 0}, ValueError, "grace must be more than 0 seconds"),
        ({"grace": float("nan")}, ValueError, "grace"),
        ({"grace": "10"}, TypeError, "grace must be a number of seconds, a timedelta or None, not '10'"),
        ({"signals": [signal.SIGKILL]}, ValueError, "SIGKILL cannot be caught"),
        ({"signals": [signal.SIGSTOP]}, ValueError, "SIGSTOP cannot be caught"),
        ({"signals": [500]}, ValueError, "no signal 500"),
        ({"signals": "SIGTERM"}, TypeError, "signals must be a collection"),
        ({"signals": ["SIGTERM"]}, TypeError, "signal numbers"),
        ({"signals": signal.SIGTERM}, TypeError, "signals must be a collection"),
        ({"exit_status": 256}, ValueError, "from 0 to 255"),
        ({"exit_status": "Signal"}, ValueError, "'signal'"),
        ({"exit_timeout": -1}, ValueError, "exit_timeout"),
        ({"hooks": [1]}, TypeError, "a hook must be callable, not 1"),
    ],
)
def test_options_are_checked_when_the_guard_is_made(
    options: dict[str, object], kind: type[Exception], words: str
) -> None:
    """A bad option is refused at once, by name."""
    with pytest.raises(kind, match=r".") as caught:
        guard(**options)  # type: ignore[call-overload]
    assert words in str(caught.value)


def test_a_broken_grace_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """CLEANUP_GUARD_GRACE that is no duration is an error that names the variable and the value."""
    monkeypatch.setenv("CLEANUP_GUARD_GRACE", "ten")
    with pytest.raises(
        ValueError, match="CLEANUP_GUARD_GRACE must be a number of seconds such as 30, or none: it is 'ten'"
    ):
        guard().__enter__()
    assert current_guard() is None


async def coroutine() -> None:
    """A coroutine function."""


@pytest.mark.parametrize("what", [None, 3, "print"])
def test_what_is_not_callable_is_refused(what: object) -> None:
    """A callback, a hook or a decorated thing that is not callable is named in the error."""
    g = Guard()
    registers: list[Any] = [g.callback, g.on_stop, g.push, on_exit, Guard()]
    for register in registers:
        with pytest.raises(TypeError, match="must be callable, not"):
            register(what)


async def async_generator() -> AsyncIterator[int]:
    """An async generator function."""
    yield 1


def test_what_must_be_awaited_is_refused_where_nothing_can_await_it() -> None:
    """A coroutine function on a guard of a `with` block gets a clear error at once, and never a callback that does nothing."""
    with guard() as g:
        registers: list[Any] = [g.callback, g.on_stop, g.push_async_callback, g.options().callback, on_exit]
        for register in registers:
            with pytest.raises(
                TypeError, match=r"callback '(.*\.)?coroutine' is an async function.*`async with`"
            ):
                register(coroutine)
        with pytest.raises(TypeError, match="must be awaited: push it with push_async_exit"):
            g.push(coroutine)
        with pytest.raises(TypeError, match=r"AsyncExitStack.__aexit__' is an async function"):
            g.push_async_exit(AsyncExitStack())
    with pytest.raises(TypeError, match=r"no guard is active that could await it.*async with guard\(\)"):
        on_exit(coroutine)


def test_a_guard_with_async_callbacks_is_entered_and_closed_in_a_task() -> None:
    """`with` and `close` say what to write instead, and lose nothing."""
    g = guard()
    g.push_async_callback(coroutine)
    with pytest.raises(
        TypeError, match=r"callback '.*coroutine' is an async function.*`async with`, not `with`"
    ):
        g.__enter__()
    with pytest.raises(RuntimeError, match=r"await guard\.aclose\(\)"):
        g.close()
    hooked = guard()
    hooked.on_stop(coroutine)
    with pytest.raises(TypeError, match="`async with`, not `with`"):
        hooked.__enter__()
    asyncio.run(g.aclose())
    assert g.state == "done"


def test_an_async_generator_function_is_no_callback() -> None:
    """Calling one does nothing, so registering it is a mistake."""
    with pytest.raises(
        TypeError, match="is an async generator function, which does nothing when it is called"
    ):
        Guard().callback(async_generator)


def test_an_async_guard_needs_a_running_loop() -> None:
    """Outside asyncio and trio the error says what is missing."""
    for enter in (guard().__aenter__(), guard().aclose(), guard().stopped()):
        with pytest.raises(RuntimeError, match="no event loop is running here"):
            enter.send(None)
    assert current_guard() is None


def test_what_is_not_an_async_context_manager() -> None:
    """`enter_async_context` names the type."""
    with pytest.raises(TypeError, match="int object is not an async context manager"):
        asyncio.run(guard().enter_async_context(3))  # type: ignore[arg-type]


def test_run_takes_an_async_def_and_a_loop_that_it_knows() -> None:
    """The two mistakes with `guard(run=...)`."""
    with pytest.raises(ValueError, match="run must be one of 'asyncio', 'uvloop', 'trio', not 'twisted'"):
        guard(run="twisted")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"guard\(run='asyncio'\) runs an async def: 'print' is none"):
        guard(run="asyncio")(print)  # type: ignore[arg-type]


@pytest.mark.parametrize("loop", ["uvloop", "trio"])
def test_run_says_what_is_not_installed(
    loop: Literal["uvloop", "trio"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop that is missing is named, with the command that gets it."""
    monkeypatch.setitem(sys.modules, loop, None)
    with pytest.raises(ModuleNotFoundError, match=f"needs the package {loop}: pip install {loop}"):
        guard(run=loop)(coroutine)()


def test_a_callback_registered_after_the_guard_is_done() -> None:
    """Registering on a guard that is done is an error that names the callback."""
    with guard(name="db") as g:
        pass
    for register in (g.callback, g.on_stop, g.push, g.options(name="print").callback):
        with pytest.raises(
            RuntimeError,
            match=r"callback '.*print' was not registered: <Guard 'db' done, 0 callbacks> is done",
        ):
            register(print)


def test_a_guard_is_used_once() -> None:
    """Entering a guard again is an error; closing it again does nothing."""
    with guard() as g, pytest.raises(RuntimeError, match="a guard is used once"):
        g.__enter__()
    with pytest.raises(RuntimeError, match="a guard is used once"):
        g.__enter__()
    g.close()


def test_what_is_not_a_context_manager() -> None:
    """`enter_context` names the type that is no context manager."""
    with guard() as g, pytest.raises(TypeError, match="int object is not a context manager"):
        g.enter_context(3)  # type: ignore[arg-type]


def test_request_stop_needs_a_guard_that_is_entered() -> None:
    """Without a process to stop, `request_stop` says so."""
    with pytest.raises(RuntimeError, match="is not entered"):
        Guard().request_stop("now")


def test_durations_may_be_timedeltas() -> None:
    """A timedelta is as good as seconds."""
    with guard(grace=timedelta(seconds=30)) as g:
        assert g._options.grace is not None
        assert g._options.grace.sure == 30.0
        assert g.sleep(timedelta(milliseconds=1))


def test_records_are_frozen() -> None:
    """An event record cannot be changed, compares by value, and says what it is."""
    event = CallbackDone(name="close", seconds=0.5)
    assert event == CallbackDone(name="close", seconds=0.5)
    assert hash(event) == hash(CallbackDone(name="close", seconds=0.5))
    assert repr(event) == "CallbackDone(name='close', seconds=0.5)"
    with pytest.raises(AttributeError, match="frozen"):
        event.name = "open"  # type: ignore[misc]
    with pytest.raises(TypeError, match="keywords"):
        CallbackDone(name="close")  # type: ignore[call-arg]


def test_request_stop_in_main_raises_at_once() -> None:
    """In main, outside a shield, `request_stop` does not return."""
    ended = run(
        """
ready()
try:
    with guard(hooks=()) as g:
        g.request_stop("enough", status=3)
        print("came back")
except SignalExit as stop:
    print(stop.code, stop.signum, stop.reason)
"""
    )
    assert (ended.out, ended.status, ended.err) == (["3 None enough"], 0, "")
