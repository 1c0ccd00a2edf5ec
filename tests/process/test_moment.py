"""Whether an exception may be raised in a frame: not in our own code, in Python's library only where main waits."""

from __future__ import annotations

import concurrent.futures
import difflib
import json
import os
import queue
import re
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import pytest
from support import run

from cleanup_guard._process import moment as moment_module
from cleanup_guard._process.moment import (
    CALL,
    LOAD_SPECIAL,
    LOOKS,
    PATIENCE,
    STILL,
    STILL_WAITING,
    TRACED_PATIENCE,
    Moment,
    is_stdlib,
)
from cleanup_guard._stop.stack import Callback
from cleanup_guard._stop.token import OURS


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Seeker:
    """A moment that is looked for, and the frames at which it was found right by the tracing."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.looks: list[FrameType] = []
        self.moment = Moment(self.clock, self.looks.append)

    def run_on(self, seconds: float) -> None:
        """Main runs, or waits, outside of our handler, and then is in it again."""
        self.clock.now += seconds
        self.moment.entered = self.clock.now


@pytest.fixture
def seeker() -> Iterator[Seeker]:
    """One that leaves no tracing behind."""
    before = sys.gettrace()
    sys.settrace(None)
    made = Seeker()
    yield made
    made.moment.stop_tracing()
    sys.settrace(before)


def frame_in(function: Callable[[Callable[..., Any]], object]) -> FrameType:
    """The frame in which a function of somebody's calls what it is given."""
    frames: list[FrameType] = []

    def look(*_: object) -> Any:
        caller = sys._getframe(1)
        frames.append(caller)
        return "x"

    function(look)
    return frames[0]


def in_program() -> FrameType:
    """This very module's."""
    return sys._getframe()


def in_queue() -> FrameType:
    """Of `queue.py`, which is a Python frame with locks half taken."""

    def look(call: Callable[..., Any]) -> None:
        watched: Any = queue.Queue()
        watched._put = call
        watched.put(1)

    return frame_in(look)


def in_json() -> FrameType:
    """Of `json`, which holds nothing: its caller counts."""
    return frame_in(lambda call: json.dumps({"a": object()}, default=call, indent=1))


def in_ours() -> FrameType:
    """Of our own code, in a function of a user's that is called from it: the caller is ours."""
    frames: list[FrameType] = []

    def function() -> None:
        caller: FrameType | None = sys._getframe(1)
        assert caller is not None
        frames.append(caller)

    Callback(function, (), {}).run(None)
    return frames[0]


def test_in_the_program_every_moment_is_right(seeker: Seeker) -> None:
    """At once, and whatever it waits for; and where there is no frame."""
    assert seeker.moment.is_right(in_program(), seeker.clock.now)
    assert seeker.moment.is_right(None, None)
    assert sys.gettrace() is None


def test_in_the_library_no_moment_is_right_while_main_moves(seeker: Seeker) -> None:
    """`queue` is not made for an exception between two of its lines: main is traced to the next line of the program."""
    frame = in_queue()
    assert is_stdlib(frame.f_code.co_filename)
    assert not seeker.moment.is_right(frame, seeker.clock.now)
    assert sys.gettrace() == seeker.moment._on_trace
    seeker.run_on(STILL / 2)
    assert not seeker.moment.is_right(in_queue(), seeker.clock.now)  # another call: it moves


def test_in_a_trace_function_no_moment_is_right_while_it_moves(seeker: Seeker) -> None:
    """Whose trace function raises is not traced any more. Who stands still there waits for a person, or for good."""
    answers: list[bool] = []

    class Tool:
        def trace(self, frame: FrameType, event: str, arg: object) -> Any:
            if frame.f_code is traced.__code__ and not answers:
                self.decide()
            return self.trace

        def decide(self) -> None:
            answers.append(seeker.moment.is_right(sys._getframe(), began))
            seeker.run_on(PATIENCE)
            answers.append(seeker.moment.is_right(sys._getframe(), began))
            inside = sys._getframe()
            for _ in range(3):
                answers.append(seeker.moment.is_right(inside, began))
                seeker.run_on(STILL)
            seeker.run_on(TRACED_PATIENCE)
            answers.append(seeker.moment.is_right(sys._getframe(), began))

    def traced() -> None:
        pass

    began = seeker.clock.now
    sys.settrace(Tool().trace)
    traced()
    sys.settrace(None)
    assert answers == [False, False, False, False, True, True]
    assert seeker.moment.is_right(in_program(), seeker.clock.now)


def test_in_the_library_a_main_that_stands_still_waits_there(seeker: Seeker) -> None:
    """The same frame at the same instruction for a while: it waits in a C call, and no line of the library is cut."""
    frame, since = in_queue(), seeker.clock.now
    assert not seeker.moment.is_right(frame, since)
    seeker.run_on(STILL * 0.9)
    assert not seeker.moment.is_right(frame, since)
    seeker.run_on(STILL * 0.2)
    assert seeker.moment.is_right(frame, since)


def test_nothing_is_looked_for_when_there_is_nothing_to_raise(seeker: Seeker) -> None:
    """The program went on after its stop: a frame of it is not kept, nor is main poked for a moment."""
    assert not seeker.moment.is_right(in_queue(), seeker.clock.now)
    assert seeker.moment.searching
    seeker.moment.forget()
    assert not seeker.moment.searching
    assert seeker.moment._seen_at is None


Wait = tuple[Callable[[], object], Callable[[], object]]
"""What waits for a notice, and what gives it."""


def frame_below(function: Callable[[], object], code: CodeType) -> FrameType:
    """The frame of this code under the call of a function, in a thread, as soon as that blocks; it ends with the test run."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    while True:
        frame: FrameType | None = sys._current_frames().get(thread.ident or 0)
        while frame is not None and frame.f_code is not code:
            frame = frame.f_back
        if frame is not None:
            return frame
        time.sleep(0.001)


@contextmanager
def waiting(function: Callable[[], object], release: Callable[[], object]) -> Iterator[FrameType]:
    """The frame of `Condition.wait` in a thread, once it waits for a notice; it is released, and waited for, at the end."""
    before = set(threading.enumerate())
    frame = frame_below(function, threading.Condition.wait.__code__)
    (thread,) = set(threading.enumerate()) - before
    try:
        while frame.f_locals.get("gotit") is None:
            time.sleep(0.001)
        yield frame
    finally:
        release()
        thread.join()


def stands_still_after(seeker: Seeker, frame: FrameType, pause: float) -> float:
    """How long a main that is looked at this often must stand there."""
    since = seeker.clock.now
    while not seeker.moment.is_right(frame, since):
        seeker.run_on(pause)
    return seeker.clock.now - since


def an_event(timeout: float | None = None) -> Wait:
    event = threading.Event()
    return lambda: event.wait(timeout), event.set


def a_queue() -> Wait:
    items = queue.Queue[None]()
    return items.get, lambda: items.put(None)


def a_semaphore() -> Wait:
    semaphore = threading.Semaphore(0)
    return semaphore.acquire, semaphore.release


def a_future() -> Wait:
    future = concurrent.futures.Future[None]()
    return future.result, lambda: future.set_result(None)


@pytest.mark.parametrize(
    "make",
    [an_event, lambda: an_event(60), a_queue, a_semaphore, a_future],
    ids=["an event", "an event, for a time", "a queue", "a semaphore", "a future"],
)
def test_who_waits_to_be_notified_is_told_at_once(seeker: Seeker, make: Callable[[], Wait]) -> None:
    """The condition says that nobody has notified him: he is not between two lines of the library."""
    wait, release = make()
    with waiting(wait, release) as frame:
        assert seeker.moment.is_right(frame, seeker.clock.now)
        assert not seeker.moment.searching
        assert sys.gettrace() is None


@pytest.mark.parametrize("lock", [threading.Lock, threading.RLock, threading._PyRLock])  # type: ignore[attr-defined]
def test_who_is_being_notified_is_told_a_moment_later(seeker: Seeker, lock: Callable[[], Any]) -> None:
    """Else the notice would be lost, with somebody else waiting for the next one."""
    condition: Any = threading.Condition(lock())
    answers: list[bool] = []

    def wait() -> None:
        with condition:
            condition.wait()

    def notify() -> None:
        with condition:
            condition.notify()

    with waiting(wait, notify) as frame:
        waiter = frame.f_locals["waiter"]
        with condition:  # `notify` may have opened the waiter, and main have closed it: that is not seen
            answers.append(seeker.moment.is_right(frame, seeker.clock.now))
            condition._waiters.remove(waiter)
        answers.append(seeker.moment.is_right(frame, seeker.clock.now))
        condition._waiters.append(waiter)
        answers.append(seeker.moment.is_right(frame, seeker.clock.now))
    assert answers == [False, False, lock is not threading._PyRLock]  # type: ignore[attr-defined]  # his own is not asked


def test_who_waits_for_the_end_of_a_thread_is_told_soon(seeker: Seeker) -> None:
    """Nothing is half done, but nothing says whether he has just come back from that wait: he must be seen three times."""
    release = threading.Event()
    threads = [threading.Thread(target=release.wait, daemon=True) for _ in range(2)]
    for each in threads:
        each.start()
    join = getattr(threading.Thread, "_wait_for_tstate_lock", threading.Thread.join)
    try:
        frame = frame_below(threads[0].join, join.__code__)
        assert stands_still_after(seeker, frame, STILL_WAITING / 2) <= 2 * STILL_WAITING
        frame = frame_below(threads[1].join, join.__code__)
        assert stands_still_after(seeker, frame, STILL) == pytest.approx(2 * STILL)  # the third time
    finally:
        release.set()
        for each in threads:
            each.join()


def test_who_starts_a_thread_waits_for_it_with_something_half_done(seeker: Seeker) -> None:
    """Whoever starts it has yet to write it down: a pool's thread that it does not know is joined by nobody."""

    class Slow(threading.Thread):
        def _bootstrap(self) -> None:
            release.wait()
            super()._bootstrap()  # type: ignore[misc]

    release = threading.Event()
    slow = Slow(daemon=True)
    frame = frame_below(slow.start, threading.Condition.wait.__code__)
    try:
        assert stands_still_after(seeker, frame, STILL / 4) >= STILL
    finally:
        release.set()
        while slow.ident is None or not slow._started.is_set():  # type: ignore[attr-defined]
            time.sleep(0.001)
        slow.join()


@pytest.mark.parametrize("timeout", [None, 0.05], ids=["notified", "time is up"])
@pytest.mark.parametrize("lock", [threading.Lock, threading.RLock, threading._PyRLock])  # type: ignore[attr-defined]
def test_who_takes_a_lock_back_is_not_told_there(
    seeker: Seeker, lock: Callable[[], Any], timeout: float | None
) -> None:
    """He is in a `with` block that releases it on the way out: another thread's."""
    condition, waits = threading.Condition(lock()), threading.Event()

    def wait() -> None:
        with condition:
            waits.set()
            condition.wait(timeout)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    waits.wait()
    with condition:
        if timeout is None:
            condition.notify()
        frame = None
        while frame is None or not moment_module._takes_lock_back(frame):
            frame = sys._current_frames().get(thread.ident or 0)
            time.sleep(0.001)
        since = seeker.clock.now
        for _ in range(2 * LOOKS):
            assert not seeker.moment.is_right(frame, since)
            seeker.run_on(PATIENCE)
    thread.join()


def test_a_slow_handler_is_no_standing_still(seeker: Seeker) -> None:
    """Two signals at one moment are two looks at one instruction: main has not waited there, however long ours took."""
    frame, since = in_queue(), seeker.clock.now
    for _ in range(LOOKS):
        assert not seeker.moment.is_right(frame, since)
        seeker.clock.now += STILL


def test_the_first_instruction_of_a_function_may_be_met_twice(seeker: Seeker) -> None:
    """Traced from there on it is run again, after a wait for the GIL: in a call that waits one is met more often."""
    frame, since = in_queue(), seeker.clock.now
    for seconds in (0.0, 0.0, STILL):  # two signals at once, and that
        seeker.run_on(seconds)
        assert not seeker.moment.is_right(frame, since)
    seeker.run_on(STILL)
    assert seeker.moment.is_right(frame, since)


def test_patience_with_the_library_has_an_end(seeker: Seeker) -> None:
    """A main that is in it for good, and moves, is told after half a second."""
    since = seeker.clock.now
    while seeker.clock.now - since < PATIENCE:
        assert not seeker.moment.is_right(in_queue(), since)
        seeker.run_on(STILL / 2)
    assert seeker.moment.is_right(in_queue(), since)


def test_patience_begins_when_main_first_looks(seeker: Seeker) -> None:
    """That may be at a lock half taken, and main only needs to run on, for which it needs a processor: it has some turns."""
    since = seeker.clock.now
    for _ in range(LOOKS):
        seeker.run_on(PATIENCE)
        assert not seeker.moment.is_right(in_queue(), since)
    seeker.run_on(PATIENCE)
    assert seeker.moment.is_right(in_queue(), since)


def test_when_an_exception_was_raised_the_search_begins_anew(seeker: Seeker) -> None:
    """Where main stood still before it does not count."""
    frame = in_queue()
    assert not seeker.moment.is_right(frame, seeker.clock.now)
    seeker.run_on(STILL)
    assert not seeker.moment.is_right(frame, seeker.clock.now)
    seeker.run_on(STILL)
    seeker.moment.found()
    assert not seeker.moment.is_right(frame, seeker.clock.now)


@pytest.mark.parametrize("look", [in_json], ids=["json"])
def test_libraries_that_hold_nothing_are_the_callers(look: Callable[[], FrameType], seeker: Seeker) -> None:
    """Their C code keeps the GIL for long: nobody could tell that main stands still."""
    assert is_stdlib(look().f_code.co_filename)
    assert seeker.moment.is_right(look(), seeker.clock.now)


def test_which_libraries_hold_nothing() -> None:
    """They are where the list says."""
    for module in (json, re, difflib, statistics):
        assert str(module.__file__).startswith(moment_module.PURE), module


def test_our_own_code_is_never_interrupted(seeker: Seeker) -> None:
    """But where it has called a user's function that is written in C, and waits there."""
    frame = in_ours()
    assert frame.f_code.co_filename.startswith(OURS)
    assert Moment.is_ours(frame)
    for _ in range(2):
        assert not seeker.moment.is_right(frame, seeker.clock.now)
        seeker.run_on(PATIENCE)
    assert seeker.moment.is_right(frame, seeker.clock.now)  # it stands still, in a call of a user's function


def test_our_lines_that_call_no_user_are_not_interrupted_however_long(seeker: Seeker) -> None:
    """A frame of ours in which no user's function was called."""
    frames: list[FrameType] = []

    class Claimed:
        def __eq__(self, other: object) -> bool:
            frames.append(sys._getframe(1))
            return False

        __hash__ = None  # type: ignore[assignment]

    from cleanup_guard._stop.stack import CallbackStack

    CallbackStack([Callback(Claimed(), (), {})]).discard(print)  # type: ignore[arg-type]
    for _ in range(3):
        assert not seeker.moment.is_right(frames[0], 0.0)
        seeker.run_on(PATIENCE * 4)


def test_a_debuggers_tracing_is_left_alone(seeker: Seeker) -> None:
    """Then the watcher's pokes are the only way to look again."""

    def debugger(frame: FrameType, event: str, argument: object) -> None:
        return None

    sys.settrace(debugger)
    assert not seeker.moment.is_right(in_queue(), seeker.clock.now)
    assert sys.gettrace() is debugger
    assert not seeker.moment.stop_tracing()
    assert sys.gettrace() is debugger
    sys.settrace(None)


def test_tracing_finds_the_next_line_of_the_program(seeker: Seeker) -> None:
    """And ends with it: main looks there."""

    def program() -> int:
        watched: Any = queue.Queue()
        original = watched._put

        def put(item: int) -> None:
            assert not seeker.moment.is_right(sys._getframe(1), seeker.clock.now)
            original(item)

        watched._put = put
        watched.put(1)
        return int(watched.get())  # the next line

    assert program() == 1
    assert [frame.f_code.co_filename for frame in seeker.looks] == [__file__]
    assert sys.gettrace() is None


class FakeCode:
    """Code of the program as 3.14 compiles `with`, at the call of an `__enter__`."""

    co_filename = __file__
    co_code = bytes((LOAD_SPECIAL, 0, CALL, 0, 0, 0))
    co_exceptiontable = b""


class FakeFrame:
    """A frame that has just come to that call, or waits in it."""

    f_code, f_lasti, f_back = FakeCode, 2, None


def test_between_an_enter_in_c_and_its_block_no_moment_is_right(
    seeker: Seeker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On 3.14 the exit would be skipped: main is traced to the next opcode, or found to wait in the call."""
    monkeypatch.setattr(moment_module, "GAP", True)
    frame: Any = FakeFrame()
    assert not seeker.moment.is_right(frame, seeker.clock.now)
    assert sys.gettrace() == seeker.moment._on_trace
    assert frame.f_trace_opcodes
    for _ in range(2):
        assert not seeker.moment.is_right(frame, seeker.clock.now)
        seeker.run_on(STILL)
    assert seeker.moment.is_right(frame, seeker.clock.now)
    frame.f_lasti = 4
    assert seeker.moment.is_right(frame, seeker.clock.now)


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        (queue.__file__, True),
        (threading.__file__, True),
        ("<frozen importlib._bootstrap>", True),
        (os.path.join(os.path.dirname(queue.__file__), "site-packages", "celery", "app.py"), False),
        (os.path.join(os.path.dirname(queue.__file__), "dist-packages", "apt.py"), False),
        (__file__, False),
        ("<stdin>", False),
        ("<string>", False),
    ],
)
def test_what_is_the_library(filename: str, expected: bool) -> None:
    """Python's own, the frozen part too; what is installed beside it is the program's."""
    assert is_stdlib(filename) is expected


def test_time_is_the_moments_own() -> None:
    """A real clock does as well."""
    assert Moment(time.monotonic, lambda frame: None).is_right(in_program(), time.monotonic())


SLOW_LIBRARY = """
import traceback
said = {"sleep": time.sleep, "here": threading.get_ident, "main": threading.get_ident()}
exec(compile("def exists(path):\\n    sleep(0.3 * (here() == main))\\n    return False\\n", os.__file__, "exec"), said)
os.path.exists = said["exists"]  # slow, as a file system is at times, for our handler, which asks where the program runs
def generate():
    try: yield 1
    finally: print("finally", sys.gettrace(), flush=True)
def item(_):
    ready()
    time.sleep(60)
"""


def test_our_handler_is_not_interrupted_in_the_library_and_keeps_no_frame() -> None:
    """A poke comes while it is in the library: it goes on, raises the stop in main, and what main held is let go of."""
    ended = run(
        f"""{SLOW_LIBRARY}
def main():
    for each in generate(): item(each)
with guard() as g:
    g.callback(print, "callback", flush=True)
    try: main()
    except SystemExit as error:
        print([frame.name for frame in traceback.extract_tb(error.__traceback__) if frame.name == "exists"], flush=True)
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["finally None", "[]", "callback"], 143), ended.err
