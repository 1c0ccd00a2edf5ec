"""Callbacks that do not depend on each other run at once: `g.options(parallel="pools")`."""

from __future__ import annotations

import os
import signal
import threading
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import pytest
from support import child, run, swallowing, wait_until
from tasks.stage import every_loop, perform

from cleanup_guard import CallbackDone, CallbackFailed, CleanupError, Event, Guard
from cleanup_guard._ground.clock import Budget, Grace
from cleanup_guard._process import native
from cleanup_guard._process.report import OUTBOX
from cleanup_guard._process.turn import Turn
from cleanup_guard._stop.stack import Callback

GROUP = """
import ctypes
def say(*words): os.write(1, (" ".join(map(str, words)) + "\\n").encode())
together = threading.Barrier(3)
def meet(name):
    together.wait(50)  # for ever, if they come one after the other
    say(name)
def group(g, *functions):
    g.callback(say, "last")
    for number, function in enumerate(functions or [meet] * 3):
        g.options(parallel="pools", name=f"pool {number}").callback(function, number)
    g.callback(say, "first")
"""

ENDS = {
    "SIGTERM": ("ready(); time.sleep(60)", [signal.SIGTERM], 143),
    "Ctrl-C": ("ready(); time.sleep(60)", [signal.SIGINT], -2),
    "return": ("ready()", [], 0),
    "exception": ("ready(); raise ValueError", [], 1),
    "SIGTERM again and again": ("ready(); time.sleep(60)", [signal.SIGTERM] * 20, 143),
    "main is stuck": (
        "lock, mutex = ctypes.CDLL(None).pthread_mutex_lock, bytes(64); lock(mutex); ready(); lock(mutex)",
        [signal.SIGTERM],
        143,
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_group_runs_at_once_in_its_place(end: str) -> None:
    """What was registered after it has run before, what was registered before it runs when the last of it is over."""
    main, signums, status = ENDS[end]
    ended = run(GROUP + f"with guard(grace=10) as g:\n    group(g)\n    {main}\n", *signums)
    assert (ended.out[0], sorted(ended.out[1:4]), ended.out[4:]) == ("first", ["0", "1", "2"], ["last"])
    assert ended.status == status


def test_a_stop_comes_while_a_group_runs() -> None:
    """Main has ended, and waits for its callbacks: a signal changes nothing for them, and decides the status."""
    code = GROUP + (
        "told = threading.Event()\ndef tell(event):\n    if isinstance(event, StopReceived): told.set()\n"
        "def slow(number):\n    together.wait(50)\n    if not number: ready()\n    told.wait(50)\n    say('over')\n"
        "with guard(hooks=[tell]) as g: group(g, slow, slow, slow)\n"
    )
    ended = run(code, signal.SIGTERM)
    assert (ended.out, ended.status) == (["over"] * 3 + ["last"], 143)


HANGS = {
    "blocked in C": "time.sleep(60)",
    "busy": "\n        while True: pass",
    "swallows it": f"\n        {swallowing(8)}",
}


@pytest.mark.parametrize("hangs", HANGS)
def test_one_that_hangs_is_interrupted_in_its_own_time(hangs: str) -> None:
    """Its siblings finish meanwhile. Where no exception reaches it, it is left behind, and the others have their turn."""
    code = GROUP + (
        f"def work(number):\n    if number == 1: {HANGS[hangs]}\n    say(number)\n"
        "with guard(grace=60) as g:\n    g.options(timeout=0.5, parallel='pools', name='pool 3').callback(work, 1)\n"
        "    group(g, work, lambda number: work(0))\n    g.unregister(say)\n"
        "    g.options(timeout=0.5, parallel='pools', name='pool 4').callback(work, 1)\n    ready(); time.sleep(60)\n"
    )
    ended = run(code, signal.SIGTERM)
    assert ended.out == ["0", "0"]
    for name in ("pool 3", "pool 4"):
        assert ended.err.count(f"callback {name} interrupted after") == 1
    assert ended.err.count(": its timeout of 0.5 s is over\n") >= 2
    assert "goes on all the same" in ended.err or hangs == "busy"
    assert ended.status == 143


def test_a_second_ctrl_c_interrupts_all_that_run() -> None:
    """Each of them, and the one that was registered before them runs all the same."""
    code = GROUP + (
        "def loop(number):\n    together.wait(50)\n    say('begun')\n    try:\n        while True: time.sleep(0.01)\n"
        "    finally: say('interrupted')\n"
        "with guard(grace=None) as g:\n    group(g, loop, loop, loop)\n    ready(); time.sleep(60)\n"
    )
    with child(code) as started:
        started.signal(signal.SIGINT)
        wait_until(lambda: started.out.count("begun") == 3, "all of them")
        threading.Event().wait(0.6)  # duplicates within half a second are one press
        started.signal(signal.SIGINT)
        ended = started.end()
    assert ended.out == ["first", *["begun"] * 3, *["interrupted"] * 3, "last"]
    for number in range(3):
        assert ended.err.count(f"callback pool {number} interrupted after") == 1
    assert ended.status == -2


def test_a_fork_in_a_group_runs_nothing_twice() -> None:
    """The child has none of the callbacks, whether it forks in the group or beside it."""
    code = GROUP + (
        "def fork(number):\n    together.wait(50)\n    pid = os.fork()\n    if not pid: os._exit(number)\n"
        "    say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
        "with guard(grace=20) as g:\n    group(g, fork, fork, fork)\n    ready(); time.sleep(60)\n"
    )
    ended = run(code, signal.SIGTERM, flags=("-W", "ignore"))
    assert (ended.out[0], sorted(ended.out[1:4]), ended.out[4:]) == ("first", ["0", "1", "2"], ["last"])
    assert ended.status == 143


@pytest.mark.parametrize(
    ("main", "signums", "status"), [ENDS["SIGTERM"], ENDS["return"]], ids=["SIGTERM", "return"]
)
def test_a_fork_that_returns_in_a_group_ends_with_its_thread(
    main: str, signums: list[int], status: int
) -> None:
    """The thread is all that the child has: it runs none of its parent's callbacks, and waits for nobody."""
    code = GROUP + (
        "def fork(number):\n    together.wait(50)\n    pid = os.fork()\n    if not pid:\n        say('child')\n"
        "        if number: return\n        raise OSError('in the child')\n"
        "    say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
        f"with guard(grace=60) as g:\n    group(g, fork, fork, fork)\n    {main}\n"
    )
    ended = run(code, *signums, flags=("-W", "ignore"))
    assert (ended.out[0], sorted(ended.out[1:-1]), ended.out[-1]) == (
        "first",
        ["0"] * 3 + ["child"] * 3,
        "last",
    )
    assert ended.err.count("OSError: in the child") in {1, 2}  # with or without a traceback
    assert ended.status == status


def test_the_record_names_each() -> None:
    """Which ended, and who was cut short."""
    code = GROUP + (
        "from cleanup_guard import StopRecord\n"
        "def tell(event):\n"
        "    if isinstance(event, StopRecord):\n"
        "        for each in event.callbacks: say(each.name, each.interrupted, each.error is None)\n"
        "def work():\n    while True: time.sleep(0.01)\n"
        "with guard(grace=60, hooks=[tell]) as g:\n    group(g)\n    g.unregister(say)\n"
        "    g.options(timeout=1, parallel='pools', name='pool 3').callback(work)\n    ready(); time.sleep(60)\n"
    )
    ended = run(code, signal.SIGTERM)
    names = [line for line in ended.out if line.startswith("pool")]
    assert sorted(names) == [*(f"pool {number} False True" for number in range(3)), "pool 3 True False"]


@every_loop
def test_async_callbacks_of_a_group_wait_for_each_other(loop: str) -> None:
    """They are tasks of the loop, and a plain function among them is in a thread; the loop goes on meanwhile."""
    code = """
arrived = []
def here(name):
    arrived.append(name)
async def meet(name):
    here(name)
    while len(arrived) < 3: await sleep(0.01)
    say("met")
def plain():
    here("plain")
    while len(arrived) < 3: time.sleep(0.01)
    say("met")
async def endless():
    try: await sleep(60)
    finally: say("cancelled")
async def main():
    async with guard(grace=20) as g:
        g.callback(bye, "last")
        pools = g.options(parallel="pools")
        pools.callback(meet, 1)
        pools.callback(plain)
        pools.push_async_callback(meet, 2)
        g.options(parallel="pools", timeout=0.2, name="endless").callback(endless)
        ready()
        await sleep(60)
run_main(main)
"""
    ended = perform(loop, code, signal.SIGTERM)
    assert sorted(ended.out[:-1]) == ["cancelled", "met", "met", "met"]
    assert (ended.out[-1], ended.status) == ("last", 143)
    assert "callback endless interrupted" in ended.err
    assert "Task" not in ended.err, ended.err


DEATHS = {
    "the task is cancelled": ("asyncio", "task.cancel()", "over"),
    "the loop is stopped": ("asyncio", "loop.stop()", "cut"),
    "all tasks are cancelled": ("asyncio", "for each in asyncio.all_tasks(): each.cancel()", "cut"),
    "trio's task is cancelled": ("trio", "scope.cancel()", "over"),
    "trio crashes": ("trio", "trio.lowlevel.spawn_system_task(boom)", "over"),
}


@pytest.mark.parametrize("death", DEATHS)
def test_a_loop_that_dies_in_the_middle_of_a_group(death: str) -> None:
    """Each of the group has begun and comes to an end, be it its own; then the callback below has its turn."""
    loop, dies, end = DEATHS[death]
    scope = "trio.CancelScope()" if loop == "trio" else "contextlib.nullcontext()"
    code = f"""
import contextlib
arrived = []
def here():
    arrived.append(None)
def plain():
    here()
    while len(arrived) < 4: time.sleep(0.01)
    say("plain")
async def slow(name, dies=None):
    here()
    try:
        while len(arrived) < 4: await sleep(0.01)
        if dies: dies()
        await sleep({0.05 if end == "over" else 30})
        say(name, "over")
    except BaseException: say(name, "cut"); raise
async def boom(): raise ValueError("boom")
def die():
    {dies}
async def main():
    global task, loop, scope
    if {loop!r} == "asyncio": task, loop = asyncio.current_task(), asyncio.get_running_loop()
    with {scope} as scope:
        async with guard(grace=60) as g:
            g.callback(bye, "last")
            pools = g.options(parallel="pools")
            pools.callback(slow, "one")
            pools.callback(plain)
            pools.callback(slow, "two")
            pools.callback(slow, "three", die)
            ready()
            await sleep(60)
run_main(main)
"""
    ended = perform(loop, code, signal.SIGTERM)
    assert sorted(ended.out[:-1]) == sorted([f"one {end}", f"two {end}", f"three {end}", "plain"])
    assert (ended.out[-1], ended.status) == ("last", 143)


@pytest.mark.parametrize("how", ["alone", "in a group"])
@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("end", ["SIGTERM", "return"])
def test_a_loop_that_is_stopped_in_the_middle_and_never_run_again(
    how: str, end: str, *, closed: bool
) -> None:
    """At the end of the process the task goes on in its loop. If that is closed this callback is lost, no other."""
    code = f"""
async def endless():
    say("begun")
    loop.stop()
    await sleep(0.05)
    say("over")
async def main():
    async with guard(grace=60) as g:
        g.callback(bye)
        ({how!r} == "alone" and g or g.options(parallel="pools")).callback(endless)
        ready()
        if {end!r} == "SIGTERM": await sleep(60)
loop = asyncio.new_event_loop()
try: loop.run_until_complete(main())
except RuntimeError as error: say("stopped")
if {closed}: loop.close()
"""
    ended = perform("asyncio", code, *ENDS[end][1])
    assert ended.out == ["begun", "stopped", *["over"] * (not closed), "bye"]
    assert ended.status == (143 if end == "SIGTERM" else int(closed))
    assert ("callback endless failed" in ended.err) is closed


# -- in this process --


def alone(**options: object) -> Guard:
    """A guard that takes no signals."""
    return Guard(signals=(), **{"hooks": (), **options})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_failures_are_told_in_the_order_of_the_callbacks() -> None:
    """Whoever fails first; all have run, and each failure is there once, with a record of its own."""
    told: list[Event] = []
    second = threading.Event()

    def fail(number: int) -> None:
        if number == 2:
            second.wait(50)
        else:
            second.set()
        raise OSError(number)

    g = alone(hooks=[told.append])
    for number in (1, 2):
        g.options(parallel="a", name=f"fail {number}").callback(fail, number)
    g.options(parallel="a").callback(second.is_set)
    with pytest.raises(CleanupError) as caught:
        g.close()
    assert [error.args for error in caught.value.exceptions] == [(2,), (1,)]
    OUTBOX.drain(30)
    assert [each.name for each in told if isinstance(each, CallbackFailed)] == ["fail 1", "fail 2"]
    assert len([each for each in told if isinstance(each, CallbackDone)]) == 1
    assert "3 callbacks" in str(told[-1])


def test_context_variables_are_those_of_who_leaves_the_guard() -> None:
    """What one of them sets the others do not see."""
    variable: ContextVar[str] = ContextVar("variable", default="nothing")
    seen: list[str] = []
    together = threading.Barrier(2)

    def look() -> None:
        seen.append(variable.get())
        variable.set("changed")
        together.wait(50)

    variable.set("the caller's")
    with alone() as g:
        for _ in range(2):
            g.options(parallel="a").callback(look)
        g.callback(lambda: None)
    assert seen == ["the caller's"] * 2
    assert variable.get() == "the caller's"


def test_what_runs_cannot_be_unregistered_and_what_waits_can() -> None:
    """From a member of the group: its sibling has begun, the callback below has not; a new member runs after them."""
    ran: list[str] = []
    begun, asked = threading.Event(), threading.Event()

    def below() -> None:
        ran.append("below")

    def sibling() -> None:
        begun.set()
        asked.wait(50)
        ran.append("sibling")

    def ask() -> None:
        begun.wait(50)
        assert g.unregister(sibling) == 0
        assert g.unregister(below) == 1
        g.options(parallel="a").callback(ran.append, "new")
        asked.set()

    with alone() as g:
        g.callback(below)
        g.options(parallel="a").callback(sibling)
        g.options(parallel="a").callback(ask)
        assert len(g.pending) == 3
    assert ran == ["sibling", "new"]


def test_without_threads_they_run_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread is to be had nothing is lost."""
    monkeypatch.setattr(native.Thread, "start", lambda self: False)
    ran: list[tuple[int, int]] = []
    g = alone()

    def note(number: int) -> None:
        ran.append((number, threading.get_ident()))

    for number in range(3):
        g.options(parallel="a").callback(note, number)
    g.close()
    assert ran == [(number, threading.get_ident()) for number in (2, 1, 0)]


def test_a_budget_for_all_is_one_for_a_group() -> None:
    """The time limit of a normal exit interrupts each of them, and none costs the others a share of theirs."""

    def loop() -> None:
        while True:
            threading.Event().wait(0.01)

    g = alone(exit_timeout=0.3)
    for number in range(3):
        g.options(parallel="a", name=f"loop {number}").callback(loop)
    with pytest.raises(CleanupError) as caught:
        g.close()
    assert [type(each) for each in caught.value.exceptions] == [TimeoutError] * 3
    assert all("the time limit for a normal exit is over" in str(each) for each in caught.value.exceptions)


@pytest.mark.parametrize(
    ("sent_at", "left_at"), [(None, 2.0), (35.0, 1.5), (37.0, 0.5), (39.0, 2.0), (57.0, 0.5)]
)
def test_who_hangs_is_left_behind_while_there_is_time_for_the_others(
    sent_at: float | None, left_at: float
) -> None:
    """After two seconds, or half of what is left: of the 38 usable seconds that are sure, then of the 58 in hope."""
    now = [0.0]
    process = SimpleNamespace(
        clock=lambda: now[0],
        roster=SimpleNamespace(turns={}),
        signals=SimpleNamespace(previous={}),
        watch=SimpleNamespace(wake=list),
        stop=None if sent_at is None else SimpleNamespace(budget=Budget(Grace(40, 60), 0.0)),
    )
    turn: Any = Turn(process, SimpleNamespace(wants_details=False, emit=list), None, None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    branch = turn.branch()
    assert not branch.hangs
    branch.running = Callback(print, (), {})
    branch.interrupt.ask("it is time", sent_at or 0.0)
    now[0] = (sent_at or 0.0) + left_at - 0.01
    assert not branch.hangs
    now[0] += 0.02
    assert branch.hangs


def test_what_is_no_name_is_refused() -> None:
    """At once, with what to write."""
    with pytest.raises(
        TypeError, match=r'parallel must be a name that neighbours share, such as "pools", not True'
    ):
        alone().options(parallel=True)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_no_thread_stays() -> None:
    """Those of a group end with it."""
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with alone() as g:
        for _ in range(5):
            g.options(parallel="a").callback(threading.Event().wait, 0.01)
    limit = threading.Event()
    for _ in range(5000):
        if threading.active_count() <= before[0]:
            break
        limit.wait(0.01)
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before
