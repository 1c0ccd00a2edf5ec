"""`pop_all` at any moment: what it moves runs when the new guard is left or closed, at the latest when the process ends."""

from __future__ import annotations

import signal

import pytest
from support import run

POPS = {
    "kept": ("kept = []", "kept.append(g.pop_all())"),
    "dropped": ("", "g.pop_all()"),
}


@pytest.mark.parametrize("stopped", [False, True], ids=["return", "stop"])
@pytest.mark.parametrize(("before", "pop"), POPS.values(), ids=POPS)
def test_in_a_callback(before: str, pop: str, stopped: bool) -> None:
    """A callback moves what is left to a new guard, which nobody closes: the process's end runs it, once and in order."""
    ended = run(
        f"""
{before}
with guard(hooks=()) as g:
    g.callback(print, "first", flush=True)
    g.callback(print, "second", flush=True)
    g.callback(lambda: {pop})
    g.callback(print, "last", flush=True)
    ready()
    if {stopped}: time.sleep(60)
""",
        *([signal.SIGTERM] if stopped else []),
    )
    assert (ended.out, ended.status) == (["last", "second", "first"], 143 if stopped else 0), ended.err


CLOSES = {
    "in the callback": "g.pop_all().close()",
    "with, in the callback": "with g.pop_all(): print('inside', flush=True)",
    "after the guard": "kept.append(g.pop_all())",
}


@pytest.mark.parametrize("how", CLOSES)
def test_in_a_callback_that_closes_it(how: str) -> None:
    """The new guard is used there or later, and runs its callbacks then."""
    ended = run(
        f"""
ready()
kept = []
def pop():
    {CLOSES[how]}
    print("popped", flush=True)
with guard(hooks=()) as g:
    g.callback(print, "first", flush=True)
    g.callback(pop)
for each in kept: each.close()
print("the end", flush=True)
"""
    )
    wanted = {
        "in the callback": ["first", "popped", "the end"],
        "with, in the callback": ["inside", "first", "popped", "the end"],
        "after the guard": ["popped", "first", "the end"],
    }
    assert (ended.out, ended.status) == (wanted[how], 0), ended.err


def test_in_a_callback_of_a_task() -> None:
    """The same where main is a task."""
    ended = run(
        """
import asyncio
ready()
async def main():
    kept = []
    async with guard(hooks=()) as g:
        g.callback(print, "first", flush=True)
        g.callback(lambda: kept.append(g.pop_all()))
    await kept[0].aclose()
    print("the end", flush=True)
asyncio.run(main())
"""
    )
    assert (ended.out, ended.status) == (["first", "the end"], 0), ended.err


def test_in_on_stop() -> None:
    """At the start of a stop: what is moved runs at the end, with the rest."""
    ended = run(
        """
kept = []
with guard(hooks=()) as g:
    g.callback(print, "first", flush=True)
    g.on_stop(lambda: kept.append(g.pop_all()))
    ready()
    time.sleep(60)
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["first"], 143), ended.err


def test_in_a_callback_of_a_thread() -> None:
    """In a thread's guard; the process's end runs it."""
    ended = run(
        """
ready()
def work():
    with guard(signals=(), hooks=()) as g:
        g.callback(print, "first", flush=True)
        g.callback(g.pop_all)
thread = threading.Thread(target=work)
thread.start()
thread.join()
print("the end", flush=True)
"""
    )
    assert (ended.out, ended.status) == (["the end", "first"], 0), ended.err
