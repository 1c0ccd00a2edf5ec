"""Ways out that lost something once: each was a program that a reviewer ran."""

from __future__ import annotations

import os
import signal

from support import run

TERM = signal.SIGTERM


def test_on_exit_releases_an_executor_that_was_imported_later() -> None:
    """Callbacks come before concurrent.futures joins its workers, even if it was imported after the first `on_exit`."""
    code = """
gate = threading.Event()
on_exit(gate.set)
from concurrent.futures import ThreadPoolExecutor
ThreadPoolExecutor(1).submit(gate.wait)
ready()
"""
    assert run(code).status == 0


def test_a_callback_in_a_thread_is_interrupted_once_and_the_others_run() -> None:
    """Where callbacks run in a thread, an interrupt spares the callback's own `finally`, and no other callback is lost."""
    code = """
ran = []
def slow(number):
    limit = time.monotonic() + 0.3
    try:
        while time.monotonic() < limit: time.sleep(0.001)
    finally:
        for _ in range(5): time.sleep(0.02)
        ran.append(number)
def work():
    try:
        with guard(signals=(), hooks=()) as g:
            for number in range(4): g.options(timeout=0.03).callback(slow, number)
    except CleanupError as group: ran.append(len(group.exceptions))
thread = threading.Thread(target=work); thread.start(); thread.join()
ready(); print(ran)
"""
    assert run(code).out == ["[3, 2, 1, 0, 4]"]


def test_a_fork_in_a_thread_while_main_enters_and_leaves_guards() -> None:
    """The watcher comes and goes with guards, and steps aside for forks in another thread, without harm to either."""
    code = """
leave = False
def fork():
    while not leave:
        pid = os.fork()
        if pid == 0: os._exit(0)
        os.waitpid(pid, 0)
thread = threading.Thread(target=fork); thread.start()
for _ in range(150):
    with guard(): pass
leave = True; thread.join()
ready(); print(threading.active_count())
"""
    ended = run(code, flags=["-W", "ignore::DeprecationWarning"])
    assert (ended.status, ended.out, ended.err) == (0, ["1"], "")


def test_a_report_does_not_kill_a_program_with_sigpipe_at_its_default() -> None:
    """With SIGPIPE deadly and nobody reading stderr, the callbacks run and the status is the signal's."""
    reader, writer = os.pipe()
    os.close(reader)
    code = """
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
with guard() as g:
    g.callback(print, "A"); g.callback(int, "x"); ready(); time.sleep(60)
"""
    try:
        ended = run(code, TERM, stderr=writer)
    finally:
        os.close(writer)
    assert (ended.status, ended.out) == (143, ["A"])


def test_a_stop_during_on_exit_callbacks_decides_the_status() -> None:
    """SIGTERM while callbacks of `on_exit` run after a normal return: nothing is cut short, and the status is 143."""
    ended = run("def slow(): ready(); time.sleep(0.5); print('done')\non_exit(slow)", TERM)
    assert (ended.status, ended.out) == (143, ["done"])


def test_a_slow_hook_hears_of_everything_in_order() -> None:
    """Events reach a hook that takes its time, all of them and in order, on a normal exit too."""
    code = """
def hook(event): time.sleep(0.02); print(type(event).__name__, flush=True)
with guard(hooks=[hook]) as g:
    for number in range(3): g.callback(len, "x")
    ready()
"""
    assert run(code).out == ["CallbackStarted", "CallbackDone"] * 3 + ["Finished"]


def test_a_main_that_comes_back_during_a_take_over_is_stopped() -> None:
    """Main was stuck in C, its callbacks run in a thread, and it comes back: it does not run on with its resources closed."""
    code = """
@guard(grace=6)
def main():
    def close(): print("close begins", flush=True); time.sleep(1.5); print("close ends", flush=True)
    on_exit(close)
    ready()
    os.system("sleep 3.2")
    while True: time.sleep(0.01)
main()
"""
    ended = run(code, TERM)
    assert (ended.status, ended.out) == (143, ["close begins", "close ends"])
    assert "giving up" not in ended.err


def test_a_wakeup_fd_that_its_owner_has_closed() -> None:
    """An event loop that had the wakeup fd and is closed does not keep the handlers from being given back."""
    code = """
import asyncio
async def work():
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, print)
    current = guard(); current.__enter__(); current.callback(print, "A")
    return current
current = asyncio.run(work())
current.close()
print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
ready()
"""
    with_all = run(code)
    assert (with_all.status, with_all.err) == (0, "")


def test_on_stop_of_a_guard_in_a_thread() -> None:
    """A guard in a thread hears of the stop: its on_stop callbacks run, too."""
    code = """
def work():
    with guard(signals=()) as g:
        g.on_stop(print, "told", flush=True); entered.set(); g.wait()
entered = threading.Event()
with guard() as g:
    thread = threading.Thread(target=work); thread.start(); g.callback(thread.join)
    entered.wait(); ready(); time.sleep(60)
"""
    assert run(code, TERM).out == ["told"]
