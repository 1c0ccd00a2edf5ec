"""A program that survives its stop, or does more on the way out: nothing deadlocks, and what is guarded later is guarded."""

from __future__ import annotations

import signal

import pytest
from support import child, run

SURVIVE = """
try:
    with guard(hooks=()) as g:
        g.callback(print, "callback", flush=True)
        signal.raise_signal(signal.SIGTERM)
        time.sleep(60)
except SystemExit: pass
"""

BUSY = {
    "threading.enumerate": "threading.enumerate(); threading.active_count()",
    "threads": "t = threading.Thread(target=int); t.start(); t.join()",
    "a lock of the watcher's own kind": "with lock: pass",
    "event": "event.set(); event.clear()",
    "queue": "q.put(1); q.get()",
    "logging": "log.info('x')",
    "print": "print('x', file=null, flush=True)",
    "guards": "with guard(hooks=()): pass",
    "guards of a thread": "t = threading.Thread(target=elsewhere); t.start(); t.join()",
    "timers": "t = threading.Timer(10, int); t.start(); t.cancel(); t.join()",
    "forks": "pid = os.fork()\n    if pid == 0: os._exit(0)\n    os.waitpid(pid, 0)",
    "generators": "list(generate())",
}


@pytest.mark.parametrize("code", BUSY.values(), ids=BUSY)
def test_main_goes_on_after_a_stop_whatever_it_is_busy_with(code: str) -> None:
    """For two seconds, until the stop is forgotten: main does not deadlock with whoever forgets it."""
    ended = run(
        f"""
import logging, queue
logging.basicConfig(stream=open(os.devnull, "w"), level="INFO")
log, null, lock, event, q = logging.getLogger("x"), open(os.devnull, "w"), threading.Lock(), threading.Event(), queue.Queue()
def elsewhere():
    with guard(signals=(), hooks=()): pass
@guard(hooks=())
def generate(): yield 1
{SURVIVE}
ready()
end = time.monotonic() + 2
while time.monotonic() < end:
    {code}
print("survived", flush=True)
with guard(hooks=()) as g:
    g.callback(print, "again", flush=True)
    signal.raise_signal(signal.SIGTERM)
    time.sleep(60)
""",
        flags=["-W", "ignore"],
    )
    assert (ended.out, ended.status) == (["survived", "again"], 143), ended.err


def test_what_was_survived_many_times_leaves_nothing() -> None:
    """Twenty stops are survived one after the other: no descriptor, no thread, no handler is left."""
    ended = run(
        """
import ctypes  # which a watcher that asks main imports: newer versions of libffi keep their own file open
def belongings(): return len(os.listdir("/dev/fd")), threading.active_count(), signal.getsignal(signal.SIGTERM)
before = belongings()
ready()
for _ in range(20):
    try:
        with guard(hooks=()) as g:
            g.callback(int)
            signal.raise_signal(signal.SIGTERM)
            time.sleep(60)
    except SystemExit: pass
limit = time.monotonic() + 30
while belongings() != before and time.monotonic() < limit: time.sleep(0.05)
print(belongings() == before or (before, belongings()))
"""
    )
    assert (ended.out, ended.status) == (["True"], 0), ended.err


FINALLY = """
@guard({options})
def job():
    on_exit(print, "job's", flush=True)
    ready()
    time.sleep(60)
@guard(hooks=())
def report():
    on_exit(print, "report's", flush=True)
try: job()
finally:
    report()
    print("goes on", flush=True)
    {rest}
    print("the end", flush=True)
"""


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_a_guarded_function_in_a_finally_after_the_stop(first: int) -> None:
    """The stop goes on upwards; a `finally` on its way uses another guarded function: a repeated SIGTERM does not kill it."""
    with child(FINALLY.format(options="", rest="time.sleep(1)")) as started:
        started.signal(first)
        started.wait_for_line("goes on")
        for _ in range(5):
            started.process.send_signal(signal.SIGTERM)
        ended = started.end()
    assert ended.out == ["job's", "report's", "goes on", "the end"], ended.err
    assert ended.status == (143 if first == signal.SIGTERM else -signal.SIGINT), ended.err


def test_the_deadline_still_holds_there() -> None:
    """Such a `finally` that hangs is ended before SIGKILL would, with the stop's status."""
    with child(FINALLY.format(options="grace=3", rest="time.sleep(60)")) as started:
        started.signal(signal.SIGTERM)
        ended = started.end()
    assert ended.out[:3] == ["job's", "report's", "goes on"], ended.err
    assert ended.status == 143, ended.err
    assert ended.seconds < 6


def test_many_guarded_functions_in_such_a_finally() -> None:
    """Not one, but twenty, one of them in a thread and one a generator: each runs its callback once."""
    ended = run(
        """
@guard
def job():
    on_exit(print, "job's", flush=True)
    ready()
    time.sleep(60)
@guard(hooks=())
def report(): on_exit(print, "report's", flush=True)
@guard(hooks=())
def generate():
    on_exit(print, "report's", flush=True)
    yield
def elsewhere():
    with guard(signals=(), hooks=()) as g: g.callback(print, "report's", flush=True)
try: job()
finally:
    for _ in range(18): report()
    list(generate())
    thread = threading.Thread(target=elsewhere)
    thread.start(); thread.join()
    print("the end", flush=True)
""",
        signal.SIGTERM,
    )
    assert ended.out == ["job's", *["report's"] * 20, "the end"], ended.err
    assert ended.status == 143


UNENTERED = {
    "close": "stack.close()",
    "with": "with stack: pass",
    "exit without enter": "stack.__exit__(None, None, None)",
    "pop_all and close": "stack.pop_all().close()",
    "never": "del stack",
}


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
@pytest.mark.parametrize("guarded", [True, False], ids=["inside a guard", "outside"])
@pytest.mark.parametrize("code", UNENTERED.values(), ids=UNENTERED)
def test_a_guard_that_serves_as_a_plain_stack(code: str, guarded: bool, signum: int) -> None:
    """A `finally` closes a guard that was never entered: its callback runs, and no traceback is shown for Ctrl-C."""
    if not guarded and signum == signal.SIGTERM:
        pytest.skip("SIGTERM kills what is not guarded")
    enter = 'with guard() as g:\n        g.callback(print, "guard\'s", flush=True)' if guarded else "if True:"
    ended = run(
        f"""
def main():
    {enter}
        stack = Guard(hooks=())
        stack.callback(print, "stack's", flush=True)
        try:
            ready()
            time.sleep(60)
        finally:
            {code}
main()
""",
        signum,
    )
    runs = 0 if code.startswith(("del", "stack.__exit__")) else 1
    assert ended.out == ["stack's"] * runs + ["guard's"] * guarded, ended.err
    assert ended.status == (143 if signum == signal.SIGTERM else -signal.SIGINT)
    if guarded:
        assert "Traceback" not in ended.err


def test_one_that_is_awaited() -> None:
    """The same for `aclose` in a task."""
    ended = run(
        """
import asyncio
@guard
async def main():
    on_exit(print, "guard's", flush=True)
    stack = Guard(hooks=())
    stack.callback(print, "stack's", flush=True)
    try:
        ready()
        await asyncio.sleep(60)
    finally: await stack.aclose()
asyncio.run(main())
""",
        signal.SIGINT,
    )
    assert (ended.out, ended.status) == (["stack's", "guard's"], -signal.SIGINT), ended.err
    assert "Traceback" not in ended.err


MASKS = ["SIGTERM", "SIGINT", "SIGTERM, signal.SIGINT", "SIGTERM, signal.SIGUSR2"]

LEAVES = {
    "with": "with guard(): pass",
    "nested": "with guard(), guard(): pass",
    "decorated": "guard(lambda: None)()",
    "error": "try:\n    with guard(): raise LookupError\nexcept LookupError: pass",
    "task": "import asyncio\nasync def main():\n    async with guard(): pass\nasyncio.run(main())",
    "in any order": "a, b = guard(), guard()\na.__enter__(); b.__enter__(); a.close(); b.close()",
    "survived stop": SURVIVE.replace('g.callback(print, "callback", flush=True)', "pass")
    .replace("signal.SIGTERM", "signal.SIGUSR1")
    .replace("guard(hooks=())", "guard(hooks=(), signals=[signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])"),
}


@pytest.mark.parametrize("blocked", MASKS)
@pytest.mark.parametrize("leave", LEAVES.values(), ids=LEAVES)
def test_what_the_program_had_blocked_is_blocked_again(blocked: str, leave: str) -> None:
    """A stop signal that was blocked before the guard is blocked after it; none is blocked that was not."""
    ended = run(
        f"""
before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.{blocked}]) | {{signal.{blocked}}}
ready()
{leave}
limit = time.monotonic() + 20
def now(): return signal.pthread_sigmask(signal.SIG_BLOCK, [])
while now() != before and time.monotonic() < limit: time.sleep(0.02)
print(now() == before or now())
"""
    )
    assert (ended.out, ended.status) == (["True"], 0), ended.err
