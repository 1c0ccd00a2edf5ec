"""The alarm proof's engine: run a scenario once for every place in it, and let somebody else's handler raise there.

`python alarms.py SCENARIO START STEP` prints what went wrong, one line of JSON for each place, and how many places there are.

Job queues and test runners have handlers that raise, for SIGALRM most of all: a time limit. Nobody can tell such an exception
where not to land. A place is where CPython looks for signals (3.11 to 3.13): in the lines of cleanup_guard, at the start of a
function, at a loop's end, and after a call of what is no Python function. Each place is tried in a process of its own, forked
before anything has been guarded, which ends as any program does, exit nets included. It writes a line for each callback that
begins: "ran N".
"""

from __future__ import annotations

import asyncio
import dis
import inspect
import json
import logging
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

import trio

import cleanup_guard
from cleanup_guard import Guard, guard, on_exit

OURS = os.path.dirname(cleanup_guard.__file__) + os.sep
PATIENCE = 60.0
"""Seconds after which a process that should take milliseconds hangs."""

LATE = 40.0
"""Seconds after which the watcher must have helped, where nobody should need help."""

CALLBACKS = 4


class TimeLimit(Exception):
    """What the handler raises."""


def ran(number: int) -> None:
    """A callback."""
    os.write(1, f"ran {number}\n".encode())


async def ran_async(number: int) -> None:
    """An async one."""
    ran(number)
    await sleep(0)


class Alarm:
    """Raises at one place, and then never again. The places of main's thread are counted, those of other threads are not."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0
        self.place = ""
        self._last: dict[int, str] = {}  # by frame, the instruction before
        self._called: FrameType | None = None  # the frame to which a Python function has just returned
        self._names = _instructions()

    def set(self, *_: object) -> None:
        """Begin to count: in functions that are called from now on, and in those that are running."""
        self._last.clear()
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename.startswith(OURS):
                frame.f_trace_opcodes = True
                frame.f_trace = self._trace
            frame = frame.f_back
        sys.settrace(self._enter)

    def off(self) -> None:
        """Count no more."""
        sys.settrace(None)

    def _enter(self, frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        self._ring(frame)
        return self._trace

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "opcode":
            before = self._last.get(id(frame), "")
            self._last[id(frame)] = self._names(frame)
            called, self._called = self._called, None
            looks = before.startswith("JUMP_BACKWARD") or (before.startswith("CALL") and called is not frame)
            if looks and "INTRINSIC" not in before:
                self._ring(frame)
        elif event == "return":
            self._last.pop(id(frame), None)
            resumed = frame.f_code.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE)
            self._called = None if resumed else frame.f_back  # what is resumed is called by C: next(), send()
        return self._trace

    def _ring(self, frame: FrameType) -> None:
        self.count += 1
        if self.count == self.at:
            sys.settrace(None)
            code = frame.f_code
            self.place = f"{os.path.basename(code.co_filename)}:{frame.f_lineno} in {code.co_qualname}"
            os.write(1, f"at {self.place}\n".encode())
            raise TimeLimit


def _instructions() -> Callable[[FrameType], str]:
    known: dict[tuple[Any, int], str] = {}

    def name(frame: FrameType) -> str:
        key = (frame.f_code, frame.f_lasti)
        if key not in known:
            for each in dis.get_instructions(frame.f_code):
                known[frame.f_code, each.offset] = each.opname
        return known.get(key, "")

    return name


def register(g: Guard) -> None:
    """Some callbacks; the numbers grow."""
    for number in range(CALLBACKS):
        g.callback(ran, number)


# -- scenarios: what main does; the alarm is set in it, or by its callbacks --


def leave(alarm: Alarm) -> None:
    """Main leaves its guard."""
    with guard(hooks=()) as g:
        register(g)
        alarm.set()
    alarm.off()


def leave_and_tell(alarm: Alarm) -> None:
    """The same with hooks and a time limit, inside another guard."""
    with guard(hooks=[lambda event: None]) as outer:
        register(outer)
        with guard(hooks=[lambda event: None], exit_timeout=20) as g:
            for number in range(CALLBACKS, 2 * CALLBACKS):
                g.options(timeout=10, name="a name").callback(ran, number)
            alarm.set()
        alarm.off()


def leave_nothing(alarm: Alarm) -> None:
    """Main leaves guards that have nothing to run, inside another one."""
    with guard(hooks=()) as g:
        register(g)
        with guard():
            with guard(signals=()):
                alarm.set()
            alarm.off()


def enter(alarm: Alarm) -> None:
    """Main enters a guard inside a guard, and registers."""
    with guard(hooks=()) as g:
        register(g)
        alarm.set()
        with guard(hooks=()) as inner:
            inner.callback(ran, CALLBACKS)
            alarm.off()


def enter_first(alarm: Alarm) -> None:
    """Main enters the first guard."""
    alarm.set()
    with guard(hooks=()) as g:
        alarm.off()
        register(g)


def use(alarm: Alarm) -> None:
    """Main uses its guard: registers, shields, asks, waits."""
    with guard(hooks=()) as g:
        register(g)
        alarm.set()
        with g.shield():
            g.wait(0)
        g.unregister(print)
        g.options(timeout=5).callback(len, "")
        g.on_stop(len, "")
        g.pop_all().close()
        alarm.off()


def stop(alarm: Alarm) -> None:
    """SIGTERM arrives, and the alarm comes between the callbacks."""
    with guard(hooks=(), grace=120) as g:
        register(g)
        g.callback(alarm.set)
        signal.raise_signal(signal.SIGTERM)
        time.sleep(60)


def interrupt(alarm: Alarm) -> None:
    """The same for SIGINT, in nested guards."""
    with guard(hooks=(), grace=120) as outer:
        register(outer)
        with guard(hooks=()) as g:
            g.callback(ran, CALLBACKS)
            g.callback(alarm.set)
            signal.raise_signal(signal.SIGINT)
            time.sleep(60)


def net(alarm: Alarm) -> None:
    """Callbacks of `on_exit` without a guard, at the end of the program."""
    for number in range(CALLBACKS):
        on_exit(ran, number)
    on_exit(alarm.set)


def thread_and_main(alarm: Alarm) -> None:
    """Main leaves while a thread is guarded."""
    entered, leave_it = threading.Event(), threading.Event()

    def work() -> None:
        with guard(signals=(), hooks=()) as g:
            g.callback(ran, 100)
            entered.set()
            leave_it.wait()

    thread = threading.Thread(target=work)
    thread.start()
    entered.wait()
    try:
        leave(alarm)
    finally:
        alarm.off()
        leave_it.set()
        thread.join()


async def leave_task(alarm: Alarm) -> None:
    """A task leaves its guard: sync and async callbacks."""
    async with guard(hooks=()) as g:
        for number in range(CALLBACKS):
            g.callback(ran_async if number % 2 else ran, number)
        alarm.set()
    alarm.off()


async def enter_task(alarm: Alarm) -> None:
    """A task enters a guard inside a guard, registers, and leaves that."""
    async with guard(hooks=()) as g:
        register(g)
        alarm.set()
        async with guard(hooks=()) as inner:
            inner.callback(ran_async, CALLBACKS)
        alarm.off()


async def stop_task(alarm: Alarm) -> None:
    """SIGTERM arrives, and the alarm comes before the callbacks, or between them."""
    async with guard(hooks=(), grace=120) as g:
        for number in range(CALLBACKS):
            g.callback(ran_async if number % 2 else ran, number)
        alarm.set()
        signal.raise_signal(signal.SIGTERM)
        await sleep(60)


async def sleep(seconds: float) -> None:
    """In either loop."""
    if trio.lowlevel.in_trio_run():
        await trio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)


def in_asyncio(main: Callable[[Alarm], Coroutine[Any, Any, None]]) -> Callable[[Alarm], None]:
    """Main is a task of asyncio."""
    return lambda alarm: asyncio.run(main(alarm))


def in_trio(main: Callable[[Alarm], Coroutine[Any, Any, None]]) -> Callable[[Alarm], None]:
    """Main is a task of trio."""
    return lambda alarm: trio.run(main, alarm)


SCENARIOS: dict[str, tuple[Callable[[Alarm], None], tuple[int, ...], int]] = {
    # name: what runs, the statuses it may end with, how many callbacks it has
    "leave": (leave, (0, 1), CALLBACKS),
    "leave_nothing": (leave_nothing, (0, 1), CALLBACKS),
    "leave_and_tell": (leave_and_tell, (0, 1), 2 * CALLBACKS),
    "enter": (enter, (0, 1), CALLBACKS),
    "enter_first": (enter_first, (0, 1), 0),
    "use": (use, (0, 1), CALLBACKS),
    "stop": (stop, (128 + signal.SIGTERM,), CALLBACKS),
    "interrupt": (interrupt, (-signal.SIGINT,), CALLBACKS + 1),
    "net": (net, (0, 1, 120), CALLBACKS),
    "asyncio_leave": (in_asyncio(leave_task), (0, 1), CALLBACKS),
    "asyncio_enter": (in_asyncio(enter_task), (0, 1), CALLBACKS),
    "asyncio_stop": (in_asyncio(stop_task), (1, 128 + signal.SIGTERM), CALLBACKS),
    "trio_leave": (in_trio(leave_task), (0, 1), CALLBACKS),
    "trio_enter": (in_trio(enter_task), (0, 1), CALLBACKS),
    "trio_stop": (in_trio(stop_task), (1, 128 + signal.SIGTERM), CALLBACKS),
    "thread_and_main": (thread_and_main, (0, 1), CALLBACKS),
}


@dataclass
class Came:
    """What came of one place."""

    number: int
    place: str
    faults: list[str]


class Child:
    """A process in which the alarm comes at one place."""

    def __init__(self, pid: int, reader: int) -> None:
        self.pid = pid
        self.reader = reader

    def end(self) -> tuple[str, int | None]:
        """Its output, and its status, or None if it had to be killed."""
        output, limit = b"", time.monotonic() + PATIENCE
        while time.monotonic() < limit:
            if select.select([self.reader], [], [], 0.5)[0]:
                more = os.read(self.reader, 65536)
                if not more:
                    break
                output += more
        status: int | None = None
        while status is None and time.monotonic() < limit:
            pid, wait_status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                status = os.waitstatus_to_exitcode(wait_status)
            else:
                time.sleep(0.002)
        if status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.reader)
        return output.decode(errors="replace"), status


def judge(name: str, number: int, output: str, status: int | None, seconds: float) -> Came:
    """What is wrong with how it went."""
    _, statuses, registered = SCENARIOS[name]
    lines = output.splitlines()
    place = next((line[3:] for line in lines if line.startswith("at ")), "")
    began = [int(line[4:]) for line in lines if line.startswith("ran ")]
    faults = []
    if status is None:
        faults.append("it hangs")
    elif status not in statuses:
        faults.append(f"ended with {status}, not {statuses}")
    elif seconds > LATE:
        faults.append(f"took {seconds:.1f} s")
    if len(set(began)) != len(began):
        faults.append(f"a callback ran twice: {began}")
    # The one that was about to begin is the one in which the exception was raised: it has failed.
    if len(set(began) & set(range(registered))) < registered - (1 if place else 0):
        faults.append(f"lost: of {registered} callbacks only {began} ran")
    for numbers in (range(CALLBACKS), range(CALLBACKS, 2 * CALLBACKS)):
        mine = [each for each in began if each in numbers]
        if mine != sorted(mine, reverse=True):
            faults.append(f"not last in, first out: {began}")
    if faults:
        faults += [line for line in lines if not line.startswith(("at ", "ran "))][-12:]
    return Came(number, place, faults)


def explore(name: str, start: int, step: int) -> None:
    """Try the places, and print what came of it."""
    number, places, failures = start, 0, 0
    while failures < 3:
        reader, writer = os.pipe()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            os.dup2(writer, 1)
            os.dup2(writer, 2)
            os.close(writer)
            SCENARIOS[name][0](Alarm(number))
            return  # as a program ends
        os.close(writer)
        began = time.monotonic()
        came = judge(name, number, *Child(pid, reader).end(), time.monotonic() - began)
        if came.faults:
            failures += 1
            print(json.dumps(asdict(came)), flush=True)
        if not came.place:
            break
        places += 1
        number += step
    print(json.dumps({"places": places, "failures": failures}), flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys._getframe().f_trace_opcodes = True  # 3.12 looks for that when a trace function is set, and only then
    # What is imported before the fork is imported once.
    del logging, traceback
    explore(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
