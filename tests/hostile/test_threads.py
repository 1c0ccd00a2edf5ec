"""Threads and guards: released by callbacks, registering callbacks, waiting for the stop, started in callbacks."""

from __future__ import annotations

import signal
import sys

import pytest
from support import run

STOPS = pytest.mark.parametrize("stopped", [False, True], ids=["return", "stop"])


@STOPS
@pytest.mark.parametrize(
    "form", ["with guard() as g: g.callback(leave.set); body()", "decorated", "on_exit(leave.set); body()"]
)
def test_a_callback_releases_non_daemon_threads(form: str, stopped: bool) -> None:
    """A non-daemon thread that waits for a callback ends, after a stop and after a normal return, whatever the form."""
    code = "@guard\ndef main(): on_exit(leave.set); body()\nmain()" if form == "decorated" else form
    ended = run(
        f"""
leave = threading.Event()
def work():
    leave.wait()
    print("released", flush=True)
threading.Thread(target=work).start()
def body():
    ready()
    if {stopped}: time.sleep(60)
{code}
""",
        *([signal.SIGTERM] if stopped else []),
    )
    assert (ended.out, ended.status) == (["released"], 143 if stopped else 0)


@STOPS
def test_callbacks_registered_from_threads_run(stopped: bool) -> None:
    """`on_exit` in any thread registers on main's guard; each callback runs once."""
    ended = run(
        f"""
@guard
def main():
    ran = []
    on_exit(lambda: print(len(ran), len(set(ran)), flush=True))
    threads = [threading.Thread(target=lambda n: [on_exit(ran.append, (n, m)) for m in range(50)], args=[n]) for n in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    ready()
    if {stopped}: time.sleep(60)
main()
""",
        *([signal.SIGTERM] if stopped else []),
    )
    assert (ended.out, ended.status) == (["400 400"], 143 if stopped else 0)


@STOPS
def test_wait_wakes_all_threads(stopped: bool) -> None:
    """Fifty threads in `g.wait` or `g.sleep` all wake when the stop comes, or when main returns."""
    ended = run(
        f"""
woken = []
with guard(grace=20) as g:
    def wake(n): woken.append(g.wait() if n % 2 else not g.sleep(600))
    threads = [threading.Thread(target=wake, args=[n]) for n in range(50)]
    for thread in threads: thread.start()
    @g.callback
    def _():
        for thread in threads: thread.join(10)
        print(len(woken), all(woken), flush=True)
    ready()
    if {stopped}: time.sleep(60)
""",
        *([signal.SIGTERM] if stopped else []),
    )
    assert (ended.out, ended.status) == (["50 True"], 143 if stopped else 0)


@STOPS
@pytest.mark.parametrize("form", ["@guard", ""], ids=["decorated", "on_exit only"])
def test_threads_and_executors_started_in_callbacks_work(form: str, stopped: bool) -> None:
    """A callback may start threads, timers, executors and an event loop with `to_thread`."""
    if not form and (3, 12) <= sys.version_info < (3, 12, 3):
        pytest.skip("CPython refuses new threads from the end of the main module on (gh-113964)")
    ended = run(
        f"""
import asyncio
from concurrent.futures import ThreadPoolExecutor
def callback():
    thread = threading.Thread(target=print, args=["thread"]); thread.start(); thread.join()
    with ThreadPoolExecutor(2) as pool: print(list(pool.map(abs, [-1, -2])))
    asyncio.run(asyncio.to_thread(print, "to_thread"))
{form}
def main():
    on_exit(callback)
    ready()
    if {stopped}: time.sleep(60)
main()
""",
        *([signal.SIGTERM] if stopped else []),
    )
    assert (ended.out, ended.status) == (["thread", "[1, 2]", "to_thread"], 143 if stopped else 0)


POOLS = {
    "shut down by a callback": """
    pool = ThreadPoolExecutor(4)
    on_exit(pool.shutdown, wait=True, cancel_futures=True)
    for _ in range(100): pool.submit(work)
    ready()
    time.sleep(60)
""",
    "entered on the guard": """
    pool = g.enter_context(ThreadPoolExecutor(4))
    g.on_stop(pool.shutdown, wait=False, cancel_futures=True)
    for _ in range(100): pool.submit(work)
    ready()
    time.sleep(60)
""",
    "with block": """
    with ThreadPoolExecutor(4) as pool:
        g.on_stop(pool.shutdown, wait=False, cancel_futures=True)
        for _ in range(100): pool.submit(work)
        ready()
        time.sleep(60)
""",
    "waiting for a result": """
    pool = g.enter_context(ThreadPoolExecutor(4))
    g.on_stop(pool.shutdown, wait=False, cancel_futures=True)
    future = pool.submit(work)
    ready()
    future.result()
""",
}


@pytest.mark.parametrize("code", POOLS.values(), ids=POOLS)
def test_executor_patterns_end_inside_the_grace_period(code: str) -> None:
    """Workers that look at `g.stopping` or `g.sleep`, and a pool that is shut down: the program ends before the SIGKILL."""
    ended = run(
        f"""
from concurrent.futures import ThreadPoolExecutor
def work():
    while g.sleep(0.05): pass
@guard(grace=20)
def main():
    global g
    g = current_guard()
    on_exit(print, "callback")
{code}
main()
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["callback"], 143)
    assert "giving up" not in ended.err


def test_a_thread_that_never_ends_does_not_outlast_the_grace_period() -> None:
    """A non-daemon thread that nobody releases costs no callback; the process ends in time, with the signal's status."""
    ended = run(
        """
threading.Thread(target=time.sleep, args=[600]).start()
@guard(grace=2)
def main():
    on_exit(print, "callback")
    ready()
    time.sleep(60)
main()
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["callback"], 143)
    assert "giving up" in ended.err


def test_request_stop_from_a_thread_stops_main() -> None:
    """`g.request_stop` in a worker ends main's blocking call, and its status is the process's."""
    ended = run(
        """
@guard
def main():
    g = current_guard()
    on_exit(print, "callback", flush=True)
    ready()
    threading.Thread(target=g.request_stop, args=["disk full"], kwargs={"status": 3}).start()
    time.sleep(60)
main()
"""
    )
    assert (ended.out[-1:], ended.status) == (["callback"], 3)
