"""Guards may be left in any order, in any mix of tasks, generators and threads: signals are the process's, not a guard's."""

from __future__ import annotations

import functools
import operator
import signal
from itertools import permutations

import pytest
from belongings import BELONGINGS
from support import run

KINDS = {
    "with": """
def enter(name):
    g = guard(hooks=())
    g.__enter__()
    g.callback(print, name, flush=True)
    return lambda: g.__exit__(None, None, None)
""",
    "close": """
def enter(name):
    g = Guard(hooks=())
    g.__enter__()
    g.callback(print, name, flush=True)
    return g.close
""",
    "generator": """
@guard(hooks=())
def generate(name):
    on_exit(print, name, flush=True)
    yield
def enter(name):
    generator = generate(name)
    next(generator)
    return generator.close
""",
    "exit stack": """
import contextlib
def enter(name):
    stack = contextlib.ExitStack()
    stack.enter_context(guard(hooks=())).callback(print, name, flush=True)
    return stack.close
""",
    "popped": """
def enter(name):
    with guard(hooks=()) as g:
        g.callback(print, name, flush=True)
        kept = g.pop_all()
    return kept.close
""",
}

MIXED = """
import itertools
KINDS = [{kinds}]
turn = itertools.cycle(KINDS)
def enter(name): return next(turn)(name)
"""


def mixed() -> str:
    """Every guard of another kind."""
    text, names = "", []
    for kind in ("generator", "with", "popped"):
        name = f"enter_{kind}"
        text += KINDS[kind].replace("def enter(", f"def {name}(")
        names.append(name)
    return text + MIXED.format(kinds=", ".join(names))


ALL_KINDS = {**KINDS, "mixed": mixed()}


@pytest.mark.parametrize(("order", "left"), [("ABC", 1), ("ABC", 2), ("BAC", 2), ("ACB", 2)])
@pytest.mark.parametrize("kind", ALL_KINDS.values(), ids=ALL_KINDS)
def test_a_stop_runs_what_is_left_whatever_was_left_before(kind: str, order: str, left: int) -> None:
    """Three guards are entered, some are left, not the last first; SIGTERM runs the callbacks of the others."""
    ended = run(
        kind
        + f"""
leave = {{name: enter(name) for name in "ABC"}}
for name in {order[:left]!r}: leave[name]()
ready()
time.sleep(60)
""",
        signal.SIGTERM,
    )
    rest = sorted(order[left:])
    assert (sorted(ended.out), ended.status) == (rest, 143), ended.err
    if kind != KINDS["popped"] and "cycle" not in kind:  # what was popped outlives what is entered
        assert ended.out == rest[::-1]


@pytest.mark.parametrize("kind", ALL_KINDS.values(), ids=ALL_KINDS)
def test_nothing_is_left_behind_in_any_order(kind: str) -> None:
    """Three guards, left in each of the six orders: handlers, descriptors and threads are then what they were before."""
    ended = run(
        BELONGINGS
        + kind
        + """
import itertools
ready()
for order in itertools.permutations("ABC"):
    leave = {name: enter(name) for name in "ABC"}
    for name in order: leave[name]()
    print(is_back(BEFORE), flush=True)
"""
    )
    orders = [[*order, "True"] for order in permutations("ABC")]
    assert (ended.out, ended.status, ended.err) == (functools.reduce(operator.iadd, orders, []), 0, "")


def test_the_signals_that_are_held_are_those_of_the_guards_that_are_entered() -> None:
    """Whoever is left, the process holds exactly the signals that the guards still in it want; the others are given back."""
    ended = run(
        """
NAMES = {signal.SIGTERM: "TERM", signal.SIGINT: "INT", signal.SIGHUP: "HUP"}
def hangup(*_): pass
signal.signal(signal.SIGHUP, hangup)
theirs = {each: signal.getsignal(each) for each in NAMES}
def held(): return " ".join(name for each, name in NAMES.items() if signal.getsignal(each) != theirs[each])
ready()
for first_leaves_first in (True, False):
    first = guard(signals=[signal.SIGTERM, signal.SIGINT])
    second = guard(signals=[signal.SIGTERM, signal.SIGHUP])
    first.__enter__(); second.__enter__()
    print("both:", held())
    (first if first_leaves_first else second).close()
    print("one:", held())
    (second if first_leaves_first else first).close()
    print("none:", held())
"""
    )
    assert ended.out == [
        "both: TERM INT HUP",
        "one: TERM HUP",
        "none: ",
        "both: TERM INT HUP",
        "one: TERM INT",
        "none: ",
    ]


TASKS = """
import anyio
async def job(name, leave):
    async with guard(hooks=()) as g:
        g.callback(print, name, flush=True)
        await leave.wait()
async def main():
    events = {{name: anyio.Event() for name in "ABC"}}
    async with anyio.create_task_group() as group:
        for name in "ABC":
            group.start_soon(job, name, events[name])
            await anyio.wait_all_tasks_blocked()
        for name in {left!r}:
            events[name].set()
            await anyio.wait_all_tasks_blocked()
        ready()
anyio.run(main, backend={backend!r}, backend_options={options!r})
"""

LOOPS = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}


@pytest.mark.parametrize("left", ["A", "AB", "BA", "AC"])
@pytest.mark.parametrize(("backend", "options"), LOOPS.values(), ids=LOOPS)
def test_tasks_leave_their_guards_in_any_order(backend: str, options: dict[str, bool], left: str) -> None:
    """A server whose handlers are guarded and whose main is not: SIGTERM runs the callbacks of those that are in it."""
    ended = run(TASKS.format(left=left, backend=backend, options=options), signal.SIGTERM)
    assert (sorted(ended.out), ended.status) == (sorted(set("ABC") - set(left)), 143), ended.err


ASYNC_GENERATORS = """
import asyncio
@guard(hooks=())
async def generate(name):
    on_exit(print, name, flush=True)
    yield
async def main():
    generators = {name: generate(name) for name in "AB"}
    for each in generators.values(): await anext(each)
    await generators["A"].aclose()
    ready()
    await asyncio.sleep(60)
asyncio.run(main())
"""


def test_async_generators_are_closed_in_any_order() -> None:
    """The async generator that was begun first is closed first; SIGTERM then runs the callbacks of the other."""
    ended = run(ASYNC_GENERATORS, signal.SIGTERM)
    assert (ended.out, ended.status) == (["B"], 143), ended.err


def test_a_generator_outlives_the_guard_that_was_there_before_it_and_a_thread_outlives_both() -> None:
    """Main's guard is left while a generator's and a thread's are entered: SIGTERM runs the callbacks of these two."""
    ended = run(
        """
entered = threading.Event()
def work():
    with guard(signals=()) as g:
        g.callback(print, "thread", flush=True)
        entered.set()
        time.sleep(60)
@guard
def generate():
    on_exit(print, "generator", flush=True)
    yield
outer = guard()
outer.__enter__()
outer.callback(print, "outer", flush=True)
generator = generate()
next(generator)
threading.Thread(target=work, daemon=True).start()
entered.wait()
outer.close()
ready()
time.sleep(60)
""",
        signal.SIGTERM,
    )
    assert (sorted(ended.out), ended.status) == (["generator", "thread"], 143), ended.err


def test_a_task_holds_a_generator_of_another_task() -> None:
    """A guarded generator that one task began goes on in another, and is there when the stop comes."""
    ended = run(
        """
import asyncio
def generate():
    with guard(hooks=()) as g:
        g.callback(print, "generator", flush=True)
        yield 1
        yield 2
async def begins(box):
    async with guard(hooks=()) as g:
        g.callback(print, "first task", flush=True)
        box.append(generate())
        next(box[0])
async def main():
    box = []
    await asyncio.create_task(begins(box))
    next(box[0])
    ready()
    await asyncio.sleep(60)
asyncio.run(main())
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["generator"], 143), ended.err


CLOSERS = {
    "inner closes outer": ("inner.callback(outer.close)", "with outer:\n    with inner: pass"),
    "outer closes inner": (
        "outer.callback(inner.close)",
        "outer.__enter__(); inner.__enter__(); outer.close()",
    ),
}


@pytest.mark.parametrize(("register", "go"), CLOSERS.values(), ids=CLOSERS)
def test_a_callback_may_leave_another_guard(register: str, go: str) -> None:
    """A callback closes another guard: each callback runs once, and nothing is left behind."""
    ended = run(
        BELONGINGS
        + f"""
outer, inner = guard(hooks=()), guard(hooks=())
outer.callback(print, "outer", flush=True)
inner.callback(print, "inner", flush=True)
{register}
ready()
{go}
print(is_back(BEFORE))
"""
    )
    assert (sorted(ended.out), ended.status) == (["True", "inner", "outer"], 0), ended.err
