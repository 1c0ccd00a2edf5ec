"""Stops that land while main holds a lock of the standard library: callbacks use the same object, nothing hangs or breaks.

Each child is stopped again and again at random moments by a thread, without a signal and with one in turn; the seed is in
its output.
"""

from __future__ import annotations

import signal

import pytest
from support import run

NOTIFIED = """
def notify():
    while True:
        with condition:
            condition.notify()
            time.sleep(0.0002)  # who has been notified, or whose time is up, wants the lock back meanwhile
        time.sleep(0.0001)
threading.Thread(target=notify, daemon=True).start()
"""

SHARED = """
import queue
items = queue.Queue()
def consume():
    while True: items.get()
def produce():
    while True:
        items.put(1)
        time.sleep(0.0002)
for each in consume, produce: threading.Thread(target=each, daemon=True).start()
def all_gone():
    limit = time.monotonic() + 10
    while items.qsize() and time.monotonic() < limit: time.sleep(0.0001)
    return not items.qsize()
"""

OBJECTS = {
    "Lock": (
        "lock = threading.Lock()",
        "with lock: pass",
        "with lock: pass",
    ),
    "RLock": (
        "lock = threading.RLock()",
        "with lock: pass",
        "with lock: pass\n    in_thread(lambda: (lock.acquire(), lock.release()))",
    ),
    "Condition": (
        "condition = threading.Condition()",
        "with condition: condition.notify_all()",
        "with condition: condition.notify_all(); condition.wait(0.001)",
    ),
    "Condition(), notified all the time": (
        "condition = threading.Condition()" + NOTIFIED,
        "with condition: condition.wait(0.0004)",
        "with condition: condition.wait(0.001)\n    assert not condition._waiters",
    ),
    "Condition(Lock()), notified all the time": (
        "condition = threading.Condition(threading.Lock())" + NOTIFIED,
        "with condition: condition.wait(0.0004)",
        "with condition: condition.wait(0.001)\n    assert not condition._waiters",
    ),
    "queue.Queue, with another consumer": (
        SHARED,
        "items.get()",
        "assert all_gone(), 'nobody is told of what is there'",
    ),
    "Event": (
        "event = threading.Event()",
        "event.set(); event.clear()",
        "event.set(); assert event.wait(10)",
    ),
    "Semaphore": (
        "semaphore = threading.Semaphore(1)",
        "with semaphore: pass",
        "assert semaphore.acquire(timeout=10); semaphore.release()",
    ),
    "queue.Queue": (
        "import queue\nitems = queue.Queue()",
        "items.put(1); items.get(); items.task_done()",
        "items.put(2)\n    while items.get(timeout=10) != 2: pass",
    ),
    "mp.Lock": (
        "import multiprocessing as mp\nlock = mp.Lock()",
        "with lock: pass",
        "assert lock.acquire(timeout=10); lock.release()",
    ),
    "mp.Event": (
        "import multiprocessing as mp\nevent = mp.Event()",
        "event.set(); event.clear()",
        "event.set(); assert event.wait(10); event.clear()",
    ),
    "mp.Queue": (
        "import multiprocessing as mp\nitems = mp.SimpleQueue()",
        "items.put(1); items.get()",
        "items.put(2)\n    while items.get() != 2: pass",
    ),
    "logging": (
        "import logging\nlogging.basicConfig(stream=open(os.devnull, 'w'))",
        "logging.error('main')",
        "logging.error('callback'); in_thread(logging.error, 'thread')",
    ),
    "buffered writer": (
        "out = open(os.devnull, 'w')",
        "out.write('x' * 100); out.flush()",
        "out.write('y'); out.flush()",
    ),
    "import": (
        "import importlib",
        "sys.modules.pop('colorsys', None); import colorsys",
        "import colorsys; assert colorsys.rgb_to_hsv; in_thread(importlib.import_module, 'colorsys')",
    ),
}

PROGRAM = """
import random
from concurrent.futures import ThreadPoolExecutor
{setup}
def in_thread(function, *args):
    result = []
    thread = threading.Thread(target=lambda: result.append(function(*args)), daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "a thread hangs"
    return result or [None]
def callback():
    {callback}
    callbacks.append(1)
def main(stop):
    with guard(grace=30, hooks=[]) as g:
        g.callback(callback)
        entered.set()
        while True:
            {body}
def stopper(stop):
    entered.wait()
    time.sleep(random.random() * 0.004)
    stop()
seed = int.from_bytes(os.urandom(4))
random.seed(seed)
print("seed", seed, flush=True)
ready()
callbacks, slowest = [], 0
for turn in range({turns}):
    entered = threading.Event()
    def by_signal(): os.kill(os.getpid(), signal.SIGTERM if turn % 3 else signal.SIGINT)
    thread = threading.Thread(target=stopper, args=[by_signal])
    thread.start()
    try: main(None)
    except (SystemExit, KeyboardInterrupt): pass
    else: print("no stop")
    thread.join()
    if len(callbacks) != turn + 1: print("callbacks", callbacks, turn)
    with guard(signals=(), hooks=[]): pass  # the stop before is over
print("end", len(callbacks), flush=True)
"""


def hammer(name: str, turns: int) -> None:
    setup, body, callback = OBJECTS[name]
    ended = run(PROGRAM.format(setup=setup, body=body, callback=callback, turns=turns))
    assert ended.status == 0, ended.err
    assert ended.out == [f"end {turns}"], ended.err
    for trouble in ("reentrant", "Traceback", "Error"):
        assert trouble not in ended.err


@pytest.mark.parametrize("name", OBJECTS)
def test_stops_at_random_moments_break_no_lock(name: str) -> None:
    """A stop that lands in the standard library's lock handling leaves the object whole; callbacks and threads can use it."""
    hammer(name, 25)


@pytest.mark.nightly
@pytest.mark.parametrize("name", OBJECTS)
def test_many_stops_at_random_moments_break_no_lock(name: str) -> None:
    """As above, a thousand times."""
    hammer(name, 1000)


NOTIFYING = """
import queue
from collections import deque
sys.setswitchinterval(5)  # nobody gets the GIL who is not given it
main, armed, got = threading.main_thread().ident, [1], []
class Waiters(deque):
    def remove(self, waiter):  # `notify` has opened the waiter, and is about to strike it off the list
        if armed and threading.get_ident() != main:
            armed.clear()
            until = time.perf_counter() + 0.003  # main comes out of its wait, and wants the GIL
            while time.perf_counter() < until: pass
            signal.pthread_kill(main, signal.SIGTERM)
            time.sleep(0.05)
        super().remove(waiter)
items = queue.Queue()
items.not_empty._waiters = Waiters()
def consume():
    while len(items.not_empty._waiters) < 1: time.sleep(0.001)
    got.append(items.get())
def produce():
    while len(items.not_empty._waiters) < 2: time.sleep(0.001)
    items.put("item")
def callback():
    limit = time.monotonic() + 10
    while items.qsize() and time.monotonic() < limit: time.sleep(0.001)
    print("left", items.qsize())
with guard(hooks=[]) as g:
    g.callback(callback)
    for each in consume, produce: threading.Thread(target=each, daemon=True).start()
    ready()
    items.get()
    time.sleep(60)
"""


def test_a_stop_in_the_middle_of_a_notice_loses_none() -> None:
    """The item is there, and main has been told so: it takes it, or another one who waits is told."""
    ended = run(NOTIFYING)
    assert (ended.status, ended.out) == (143, ["left 0"]), ended.err


HELD = {
    "Lock": ("lock = threading.Lock()", "with lock: {wait}", "with lock: pass"),
    "RLock": ("lock = threading.RLock()", "with lock: {wait}", "with lock: pass"),
    "Condition.wait": ("lock = threading.Condition()", "with lock: lock.wait()", "with lock: lock.notify()"),
    "Queue.get": (
        "import queue; items = queue.Queue()",
        "items.get()",
        "items.put(1); items.get(timeout=10)",
    ),
    "mp.Event.wait": (
        "import multiprocessing as mp; event = mp.Event()",
        "event.wait()",
        "event.set(); event.wait(10)",
    ),
    "mp.Lock": ("import multiprocessing as mp; lock = mp.Lock()", "with lock: {wait}", "with lock: pass"),
    "mp.Queue.get": (
        "import multiprocessing as mp; items = mp.Queue()",
        "items.get()",
        "items.put(1); items.get(timeout=10)",
    ),
    "logging handler": (
        "import logging; handler = logging.StreamHandler()",
        "handler.acquire()\n    try: {wait}\n    finally: handler.release()",
        "handler.acquire(); handler.release()",
    ),
}


@pytest.mark.parametrize(("setup", "body", "callback"), HELD.values(), ids=HELD)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_a_stop_that_finds_main_waiting_with_a_lock_arrives_at_once(
    setup: str, body: str, callback: str, signum: signal.Signals
) -> None:
    """Main waits for ever inside lock code or with a lock in hand: it is stopped at once, and callbacks get the lock."""
    ended = run(
        f"""
{setup}
def callback():
    {callback}
    print("callback", threading.current_thread() is threading.main_thread())
@guard(grace=30)
def main():
    on_exit(callback)
    ready()
    {body.format(wait="time.sleep(60)")}
main()
""",
        signum,
    )
    assert (ended.out, ended.status) == (
        ["callback True"],
        143 if signum == signal.SIGTERM else -signal.SIGINT,
    )
    assert ended.seconds < 15


TAKEN_BACK = {
    "Condition": (
        "lock = threading.Condition(); wait = lock.wait; notify = lock.notify",
        "with lock: wait()",
    ),
    "Queue.get": (
        "import queue; items = queue.Queue(); lock = items.mutex; notify = lambda: items._put(1) or items.not_empty.notify()",
        "items.get()",
    ),
}


@pytest.mark.parametrize(("setup", "body"), TAKEN_BACK.values(), ids=TAKEN_BACK)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_a_stop_waits_for_a_lock_that_main_takes_back(setup: str, body: str, signum: signal.Signals) -> None:
    """Main was notified by a thread that keeps the lock for a while: it is not stopped before it has the lock to release."""
    ended = run(
        f"""
{setup}
def holds():
    while not main_waits(): time.sleep(0.001)
    with lock:
        notify()
        ready()
        time.sleep(1)
        print("still held", not lock.acquire(False) if isinstance(lock, type(threading.Lock())) else lock._is_owned())
def main_waits():
    frame = sys._current_frames()[threading.main_thread().ident]
    return started and frame.f_code is threading.Condition.wait.__code__ and "waiter" in frame.f_locals
started = []
@guard(grace=30)
def main():
    thread = threading.Thread(target=holds)
    on_exit(lambda: (thread.join(), print("callback")))
    thread.start()
    started.append(True)
    {body}
    time.sleep(60)
main()
""",
        signum,
    )
    status = 143 if signum == signal.SIGTERM else -signal.SIGINT
    assert (ended.out, ended.status) == (["still held True", "callback"], status), ended.err
    assert "Error" not in ended.err
