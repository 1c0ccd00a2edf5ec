"""The record at the end of a stop: what hooks are told, whichever way the stop ends."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any

import pytest
from support import PATIENCE, run
from tasks.stage import every_loop, perform

from cleanup_guard import DeadlineReached, Event, Finished, StopRecord
from cleanup_guard._ground.clock import Budget
from cleanup_guard._process import ends
from cleanup_guard._process.process import Process
from cleanup_guard._process.report import OUTBOX
from cleanup_guard._stop.stop import Stop

HOOK = """
def hook(event):
    if isinstance(event, StopRecord):
        say(*(name for name, _ in event.phases))
        say(*(f"{each.name}:{type(each.error).__name__}:{each.interrupted}" for each in event.callbacks))
        say("cut", *(name for name, _ in event.cut))
        say("skipped", *event.skipped)
        say(abs(time.time() - event.at - event.seconds) < 30, sum(each for _, each in event.phases) <= event.seconds + 1e-6)
"""

SAY = 'def say(*words): os.write(1, (" ".join(map(str, words)) + "\\n").encode())\n' + HOOK


def test_a_stop_in_all_its_phases() -> None:
    """A drain, an on_stop callback, a `finally`, work in another thread; one callback fails, one is cut."""
    ended = run(
        SAY
        + """
def fail(): raise OSError("disk full")
begun = threading.Event()
def job():
    while g.state != "unwinding": time.sleep(0.005)
    with g.work("job"):
        begun.set()
        while g.state != "cleaning up": time.sleep(0.005)
        time.sleep(0.1)
with guard(hooks=[hook], drain=0.1, grace=30) as g:
    g.options(name="last").callback(time.sleep, 0)
    g.callback(fail)
    g.options(name="slow", timeout=0.2).callback(time.sleep, 60)
    g.on_stop(time.sleep, 0.05)
    g.ready()
    worker = threading.Thread(target=job); worker.start()
    try:
        ready()
        time.sleep(60)
    finally: begun.wait()
""",
        signal.SIGTERM,
    )
    assert ended.out == [
        "draining stopping unwinding waiting for work cleaning up",
        "slow:CallbackInterrupted:True fail:OSError:False last:NoneType:False",
        "cut callback slow",
        "skipped",
        "True True",
    ]
    assert ended.status == 143


class Fake(SimpleNamespace):
    """A part of a guard, of which only this is there."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def test_a_stop_that_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs to the end was cut, and what had no turn was skipped; the record comes all the same."""
    process, told = Process(), list[Event]()
    process.clock = lambda: 109.0
    stop = Stop(signal.SIGTERM, "SIGTERM", status=143, budget=Budget(10.0, 100.0))
    hangs: Any = Fake(current=Fake(name="hang"), started=101.0)
    guard: Any = Fake(hooks=(told.append,), stack=Fake(names=lambda most: ["unlock"], left=1))
    process.roster.turns[hangs] = process.roster.main[guard] = None
    process.ballot.propose(stop)
    process.roster.history = stop.history

    def end_process(process: Process, stop: Stop, event: DeadlineReached) -> None:
        process.tell_finished(event.skipped)

    monkeypatch.setattr(ends, "end_process", end_process)
    monkeypatch.setattr(process, "announce", lambda: None)
    ends.give_up(process)
    assert OUTBOX.drain(PATIENCE)
    (record,) = (each for each in told if isinstance(each, StopRecord))
    assert record.cut == (("callback hang", 8.0),)
    assert record.skipped == ("unlock",)
    assert not any(isinstance(each, Finished) for each in told)


def test_a_main_that_is_taken_over_from_was_cut() -> None:
    """It never came back."""
    ended = run(
        SAY
        + """
with guard(hooks=[hook], grace=8) as g:
    g.options(name="saved").callback(time.sleep, 0)
    ready()
    os.system("kill -TERM $PPID; while kill -0 $PPID; do sleep 0.1; done")  # it is in C when the signal comes
"""
    )
    assert ended.out[:3] == ["stopping cleaning up", "saved:NoneType:False", "cut main"]
    assert ended.status == 143


@every_loop
def test_tasks_have_a_record_too(loop: str) -> None:
    """The cancellation of main's task is its unwinding."""
    ended = perform(
        loop,
        HOOK
        + """
async def bye(): await sleep(0)
async def main():
    async with guard(hooks=[hook]) as g:
        g.callback(bye)
        ready()
        await sleep(60)
run_main(main)
""",
        signal.SIGTERM,
    )
    assert ended.out == [
        "stopping unwinding cleaning up",
        "bye:NoneType:False",
        "cut",
        "skipped",
        "True True",
    ]
    assert ended.status == 143


@pytest.mark.parametrize("hooks", ["[]", "None"])
def test_without_a_hook_there_is_no_line_for_it(hooks: str) -> None:
    """Nobody reads a record on stderr."""
    ended = run(f"with guard(hooks={hooks}):\n    ready(); time.sleep(60)\n", signal.SIGTERM)
    assert "took" not in ended.err
