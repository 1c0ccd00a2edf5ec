"""A stop that comes while main is in the standard library: the `with` or `try` block that called it is left properly.

There the stop is not raised at once, but at a line of the program behind it. That line may be the exit of the block.
"""

from __future__ import annotations

import signal

import pytest
from support import run

LOOPS = {
    "with": """
    while True:
        with lock:
            event.set()
""",
    "with, on one line": """
    while True:
        with lock: event.set()
""",
    "with, two locks": """
    while True:
        with lock, \\
             other:
            event.set()
""",
    "with in with": """
    while True:
        with lock:
            with other:
                event.set()
            event.clear()
""",
    "with, return": """
    def inner():
        with lock:
            return event.set()
    while True: inner()
""",
    "with, continue": """
    while True:
        with lock:
            event.set()
            if event: continue
""",
    "with, an exception of the library": """
    import queue
    items = queue.Queue()
    while True:
        try:
            with lock:
                items.get_nowait()
        except queue.Empty:
            event.set()
""",
    "condition": """
    while True:
        with condition:
            condition.notify_all()
""",
    "finally": """
    while True:
        depth += 1
        try:
            event.set()
        finally:
            depth -= 1
""",
    "finally, return": """
    def inner():
        global depth
        depth += 1
        try:
            return event.set()
        finally:
            depth -= 1
    while True: inner()
""",
    "finally, an exception of the library": """
    import queue
    items = queue.Queue()
    while True:
        try:
            depth += 1
            try:
                items.get_nowait()
            finally:
                depth -= 1
        except queue.Empty:
            event.set()
""",
    "finally in with": """
    while True:
        with lock:
            depth += 1
            try:
                event.set()
            finally:
                depth -= 1
""",
}
"""Every block is entered and left without a look for signals in between, so that only an exception of ours can skip an exit."""

PROGRAM = """
import random
lock, other, condition, event = threading.Lock(), threading.Lock(), threading.Condition(), threading.Event()
depth = wrong = 0
def main():
    with guard(grace=30, hooks=[]):
        entered.set()
        loop()
def loop():
    global depth
{loop}
seed = int.from_bytes(os.urandom(4))
random.seed(seed)
print("seed", seed, flush=True)
ready()
for turn in range({stops}):
    entered = threading.Event()
    def send():
        entered.wait()
        time.sleep(random.random() * 0.004)
        os.kill(os.getpid(), signal.SIGTERM)
    thread = threading.Thread(target=send)
    thread.start()
    try: main()
    except SystemExit: pass
    thread.join()
    with guard(signals=(), hooks=[]): pass  # the stop before is over
    held = not condition.acquire(blocking=False)
    wrong += held or bool(depth) or lock.locked() or other.locked()
    depth, condition, lock, other = 0, threading.Condition(), threading.Lock(), threading.Lock()
print("wrong", wrong, flush=True)
"""


@pytest.mark.two_pythons
@pytest.mark.parametrize("stops", [60, pytest.param(1000, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_no_exit_is_skipped(loop: str, stops: int) -> None:
    """Stops at random moments: each block that was entered has been left when the guard has ended."""
    ended = run(PROGRAM.format(loop=loop, stops=stops))
    assert (ended.out, ended.status) == (["wrong 0"], 0), ended.err


def test_a_stop_comes_through_a_finally_that_lasts() -> None:
    """A `finally` that the program runs for ever is not waited for to its end."""
    ended = run(
        """
@guard(grace=10)
def main():
    on_exit(print, "callback", flush=True)
    event = threading.Event()
    ready()
    while True:
        try:
            event.set()
        finally:
            for _ in range(1000): len(())
main()
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["callback"], 143), ended.err
