"""`exit_status` is right from every way out: None is the table's, a number is that number, "signal" is death by the signal."""

from __future__ import annotations

import signal
from dataclasses import dataclass

import pytest
from support import child, swallowing

TERM, INT = signal.SIGTERM, signal.SIGINT
WISHES = ("None", "7", "'signal'")
ZERO = (*WISHES, "0")


def status_of(wish: str, signum: int) -> int:
    """What the table says."""
    if wish in ("0", "7"):
        return int(wish)
    return -signum if wish == "'signal'" or signum == INT else 128 + signum


@dataclass(frozen=True)
class Way:
    """A way out on which a stop arrives.

    Attributes:
        code: the program, with {wish} for the exit status; it says ready when the signal may come.
        ran: what its callbacks print.
        wishes: the exit statuses that can be wished for.
    """

    code: str
    ran: tuple[str, ...] = ("callback",)
    wishes: tuple[str, ...] = WISHES


SLOW = """
def slow():
    ready()
    time.sleep(0.7)
    print("slow", flush=True)
"""

STOPPED = {
    "stop during main, with": Way(
        """
with guard(exit_status={wish}) as g:
    g.callback(print, "callback", flush=True)
    ready()
    time.sleep(60)
""",
        wishes=ZERO,
    ),
    "stop during main, decorated": Way(
        """
@guard(exit_status={wish})
def main():
    on_exit(print, "callback", flush=True)
    ready()
    time.sleep(60)
main()
"""
    ),
    "stop during main, cooperative": Way(
        """
with guard(exit_status={wish}, interrupt=False) as g:
    g.callback(print, "callback", flush=True)
    ready()
    g.wait()
"""
    ),
    "stop in a finally": Way(
        """
with guard(exit_status={wish}) as g:
    g.callback(print, "callback", flush=True)
    try: raise LookupError
    finally:
        ready()
        time.sleep(60)
"""
    ),
    "stop in a thread's wait, main swallows": Way(
        """
with guard(exit_status={wish}) as g:
    g.callback(print, "callback", flush=True)
    try:
        ready()
        time.sleep(60)
    except BaseException: pass
"""
    ),
    "main turns the stop into an exit of its own": Way(
        """
with guard(exit_status={wish}) as g:
    g.callback(print, "callback", flush=True)
    try:
        ready()
        time.sleep(60)
    except BaseException: sys.exit(99)
"""
    ),
    "main turns the stop into an error": Way(
        """
with guard(exit_status={wish}) as g:
    g.callback(print, "callback", flush=True)
    try:
        ready()
        time.sleep(60)
    finally: raise LookupError
"""
    ),
    "a callback fails": Way(
        """
with guard(exit_status={wish}) as g:
    g.callback(print, "callback", flush=True)
    g.callback(int, "x")
    ready()
    time.sleep(60)
"""
    ),
    "a callback exits": Way(
        """
with guard(exit_status={wish}) as g:
    g.callback(print, "callback", flush=True)
    g.callback(sys.exit, 99)
    ready()
    time.sleep(60)
"""
    ),
    "stop during the callbacks at the end of with": Way(
        SLOW
        + """
with guard(exit_status={wish}) as g:
    g.callback(print, "callback", flush=True)
    g.callback(slow)
""",
        ("slow", "callback"),
    ),
    "stop during the callbacks after main has raised": Way(
        SLOW
        + """
with guard(exit_status={wish}) as g:
    g.callback(print, "callback", flush=True)
    g.callback(slow)
    raise LookupError
""",
        ("slow", "callback"),
    ),
    "stop during the callbacks after sys.exit": Way(
        SLOW
        + """
with guard(exit_status={wish}) as g:
    g.callback(print, "callback", flush=True)
    g.callback(slow)
    sys.exit(5)
""",
        ("slow", "callback"),
    ),
    "stop in the exit net": Way(
        SLOW
        + """
g = Guard(exit_status={wish})
g.__enter__()  # never left, as where CPython jumps over an exit
g.callback(print, "callback", flush=True)
g.callback(slow)
""",
        ("slow", "callback"),
        ZERO,
    ),
    "stop in the exit net, after sys.exit": Way(
        SLOW
        + """
g = Guard(exit_status={wish})
g.__enter__()
g.callback(print, "callback", flush=True)
g.callback(slow)
sys.exit(5)
""",
        ("slow", "callback"),
    ),
    "stop in the exit net, after an error": Way(
        SLOW
        + """
g = Guard(exit_status={wish})
g.__enter__()
g.callback(print, "callback", flush=True)
g.callback(slow)
raise LookupError
""",
        ("slow", "callback"),
    ),
    "stop in the exit net, in a join": Way(
        """
def linger():
    ready()
    time.sleep(0.7)
    print("slow", flush=True)
thread = threading.Thread(target=linger)
g = Guard(exit_status={wish})
g.__enter__()
g.callback(print, "callback", flush=True)
g.callback(thread.join)
thread.start()
""",
        ("slow", "callback"),
    ),
    "popped guard, stop in main": Way(
        """
with Guard(exit_status={wish}) as g:
    g.callback(print, "callback", flush=True)
    kept = g.pop_all()
ready()
time.sleep(60)
""",
        wishes=ZERO,
    ),
    "popped guard, stop in the exit net": Way(
        SLOW
        + """
with Guard(exit_status={wish}) as g:
    g.callback(print, "callback", flush=True)
    g.callback(slow)
    kept = g.pop_all()
""",
        ("slow", "callback"),
    ),
    "nested, the outer one says": Way(
        """
with guard(exit_status={wish}) as outer:
    outer.callback(print, "outer", flush=True)
    with guard() as inner:
        inner.callback(print, "inner", flush=True)
        ready()
        time.sleep(60)
""",
        ("inner", "outer"),
    ),
    "nested, stop in the inner one's callbacks": Way(
        SLOW
        + """
with guard(exit_status={wish}) as outer:
    outer.callback(print, "outer", flush=True)
    with guard() as inner:
        inner.callback(print, "inner", flush=True)
        inner.callback(slow)
    time.sleep(60)
""",
        ("slow", "inner", "outer"),
    ),
    "take-over, main is stuck in C": Way(
        """
import ctypes
wait = ctypes.CDLL(None).sem_wait
semaphore = ctypes.create_string_buffer(64)
ctypes.CDLL(None).sem_init(semaphore, 0, 0)
with guard(exit_status={wish}, grace=3) as g:
    g.callback(print, "callback", flush=True)
    ready()
    while True: wait(semaphore)
"""
    ),
    "take-over, main swallows for ever": Way(
        """
with guard(exit_status={wish}, grace=3) as g:
    g.callback(print, "callback", flush=True)
    ready()
    {swallowing}
""",
        wishes=ZERO,
    ),
    "take-over, main is in a finally": Way(
        """
with guard(exit_status={wish}, grace=3) as g:
    g.callback(print, "callback", flush=True)
    try:
        ready()
        time.sleep(60)
    finally: time.sleep(60)
"""
    ),
    "giving up, a callback hangs": Way(
        """
def stubborn():
    {swallowing}
with guard(exit_status={wish}, grace=3) as g:
    g.callback(stubborn)
    g.callback(print, "callback", flush=True)
    ready()
    time.sleep(60)
"""
    ),
    "giving up, a callback hangs in the exit net": Way(
        """
def stubborn():
    ready()
    {swallowing}
g = Guard(exit_status={wish}, grace=3)
g.__enter__()
g.callback(print, "never", flush=True)
g.callback(stubborn)
""",
        (),
    ),
    "on_exit without a guard": Way(
        """
on_exit(print, "callback", flush=True)
ready()
time.sleep(60)
""",
        wishes=("None",),
    ),
    "on_exit without a guard, stop in the exit net": Way(
        SLOW
        + """
on_exit(print, "callback", flush=True)
on_exit(slow)
""",
        ("slow", "callback"),
        ("None",),
    ),
    "asyncio": Way(
        """
import asyncio
@guard(exit_status={wish})
async def main():
    on_exit(print, "callback", flush=True)
    ready()
    await asyncio.sleep(60)
asyncio.run(main())
"""
    ),
    "asyncio, run by the guard": Way(
        """
import asyncio
@guard(run="asyncio", exit_status={wish})
async def main():
    on_exit(print, "callback", flush=True)
    ready()
    await asyncio.sleep(60)
main()
""",
        wishes=ZERO,
    ),
    "uvloop": Way(
        """
import asyncio
@guard(run="uvloop", exit_status={wish})
async def main():
    on_exit(print, "callback", flush=True)
    ready()
    await asyncio.sleep(60)
main()
"""
    ),
    "asyncio, stop during the callbacks": Way(
        """
import asyncio
async def slow():
    ready()
    await asyncio.sleep(0.7)
    print("slow", flush=True)
async def main():
    async with guard(exit_status={wish}) as g:
        g.callback(print, "callback", flush=True)
        g.callback(slow)
asyncio.run(main())
""",
        ("slow", "callback"),
    ),
    "asyncio, a guard in another task": Way(
        """
import asyncio
async def job():
    async with guard(exit_status={wish}) as g:
        g.callback(print, "callback", flush=True)
        ready()
        await asyncio.sleep(60)
async def main(): await asyncio.create_task(job())
asyncio.run(main())
"""
    ),
    "asyncio, the loop is blocked": Way(
        """
import asyncio
@guard(exit_status={wish})
async def main():
    on_exit(print, "callback", flush=True)
    ready()
    time.sleep(60)
asyncio.run(main())
"""
    ),
    "trio": Way(
        """
import trio
@guard(exit_status={wish})
async def main():
    on_exit(print, "callback", flush=True)
    ready()
    await trio.sleep(60)
trio.run(main)
"""
    ),
    "trio, stop during the callbacks": Way(
        """
import trio
async def slow():
    ready()
    await trio.sleep(0.7)
    print("slow", flush=True)
async def main():
    async with guard(exit_status={wish}) as g:
        g.callback(print, "callback", flush=True)
        g.callback(slow)
trio.run(main)
""",
        ("slow", "callback"),
    ),
    "guarded generator": Way(
        """
@guard(exit_status={wish})
def generate():
    on_exit(print, "callback", flush=True)
    yield
for _ in generate():
    ready()
    time.sleep(60)
"""
    ),
}


@pytest.mark.parametrize("signum", [TERM, INT], ids=["term", "int"])
@pytest.mark.parametrize(
    ("way", "wish"),
    [pytest.param(way, wish, id=f"{name}-{wish}") for name, way in STOPPED.items() for wish in way.wishes],
)
def test_after_a_stop(way: Way, wish: str, signum: signal.Signals) -> None:
    """The status is what was wished for, and the callbacks have run, in whatever moment and whatever place the stop arrived."""
    with child(way.code.format(wish=wish, swallowing=swallowing(4))) as started:
        started.signal(signum)
        ended = started.end()
    assert ended.status == status_of(wish, signum), ended.err[-2000:]
    assert tuple(ended.out) == way.ran


UNSTOPPED = {
    "return": ("pass", 0),
    "error": ("raise LookupError", 1),
    "sys.exit": ("sys.exit(5)", 5),
    "sys.exit with words": ("sys.exit('a sentence')", 1),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", -INT),
}

SHAPES = {
    "with": """
with guard(exit_status={wish}) as g:
    g.callback(print, "callback", flush=True)
    {body}
""",
    "exit net": """
g = Guard(exit_status={wish})
g.__enter__()
g.callback(print, "callback", flush=True)
{body}
""",
    "popped": """
with guard(exit_status={wish}) as g:
    g.callback(print, "callback", flush=True)
    kept = g.pop_all()
{body}
""",
    "asyncio": """
import asyncio
@guard(exit_status={wish})
async def main():
    on_exit(print, "callback", flush=True)
    {body}
asyncio.run(main())
""",
    "trio": """
import trio
@guard(exit_status={wish})
async def main():
    on_exit(print, "callback", flush=True)
    {body}
trio.run(main)
""",
}


@pytest.mark.parametrize("wish", ["None", "7", "'signal'"])
@pytest.mark.parametrize(("body", "status"), UNSTOPPED.values(), ids=UNSTOPPED)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_without_a_stop(shape: str, body: str, status: int, wish: str) -> None:
    """Where no stop comes `exit_status` says nothing: 0, 1 with a traceback, or what `sys.exit` was told."""
    with child("ready()\n" + shape.format(wish=wish, body=body)) as started:
        ended = started.end()
    assert (ended.out, ended.status) == (["callback"], status), ended.err


REQUESTED = {
    "None": 3,
    "0": 0,
    "7": 7,
    "'signal'": 3,  # there is no signal to die of
}


@pytest.mark.parametrize(("wish", "status"), REQUESTED.items())
@pytest.mark.parametrize("thread", [False, True], ids=["main", "thread"])
def test_after_a_requested_stop(wish: str, status: int, thread: bool) -> None:
    """`request_stop` brings its own status, which a number in `exit_status` overrides, as it does a signal's."""
    go = "threading.Thread(target=stop).start()" if thread else "stop()"
    code = f"""
with guard(exit_status={wish}) as g:
    g.callback(print, "callback", flush=True)
    def stop(): g.request_stop("enough", status=3)
    ready()
    {go}
    time.sleep(60)
"""
    with child(code) as started:
        ended = started.end()
    assert (ended.out, ended.status) == (["callback"], status), ended.err
