"""Main is inside a C call that no Python handler can interrupt.

The known limit has a test, too: a call that holds the GIL when the stop arrives cannot be ended before it returns, because
neither handler nor watcher can run, and the last resort is armed by one of them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import child, run

WITHOUT_GIL = {
    "pbkdf2": 'import hashlib; ready(); hashlib.pbkdf2_hmac("sha256", b"x", b"y", 1 << 30)',
    "sqlite3": """
import sqlite3
query = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
connection = sqlite3.connect(":memory:")
ready()
connection.execute(query).fetchone()
""",
    "os.system": 'ready(); os.system("exec sleep 20")',
    "sigwait": "ready(); signal.sigwait([signal.SIGUSR2])",
    "ctypes": """
import ctypes
libc = ctypes.CDLL(None)
lock = (ctypes.c_char * 128)()
ready()
libc.pthread_mutex_lock(lock)
libc.pthread_mutex_lock(lock)
""",
}


GRACE = 4 if getattr(sys, "_is_gil_enabled", lambda: True)() else 8
"""Seconds. Without the GIL a thread waits longer for a busy processor."""


def indent(code: str) -> str:
    return "".join(f"    {line}\n" for line in code.strip().splitlines())


@pytest.mark.parametrize("code", WITHOUT_GIL.values(), ids=WITHOUT_GIL)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_a_main_stuck_in_c_is_cleaned_up_after_by_the_watcher(code: str, signum: signal.Signals) -> None:
    """A call that never returns to Python does not keep the callbacks from running, or the process from ending in time."""
    if "os.system" in code and signum == signal.SIGINT:
        pytest.skip("system(3) ignores SIGINT in the caller while the command runs")
    program = f"""
@guard(grace={GRACE})
def main():
    on_exit(print, "one")
    on_exit(print, "two")
{indent(code)}
main()
"""
    for _ in range(20):  # now and then a signal meets main between its ready line and the call
        ended = run(program, signum)
        assert (ended.out, ended.status) == (
            ["two", "one"],
            143 if signum == signal.SIGTERM else -signal.SIGINT,
        )
        assert "giving up" not in ended.err
        if "running the callbacks in a thread" in ended.err:
            return
    pytest.fail("the watcher never took over")


def test_callbacks_that_run_while_main_is_stuck_may_use_threads_and_children() -> None:
    """What the watcher runs for a stuck main has a whole interpreter: threads, executors and subprocesses work."""
    ended = run(
        f"""
import hashlib, subprocess
from concurrent.futures import ThreadPoolExecutor
def callback():
    with ThreadPoolExecutor() as pool: print(list(pool.map(abs, [-1, -2])))
    print(subprocess.run(["echo", "child"], capture_output=True, text=True).stdout.strip())
@guard(grace={2 * GRACE})
def main():
    on_exit(callback)
    ready()
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 1 << 30)
main()
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["[1, 2]", "child"], 143)


def test_a_callback_stuck_in_c_is_reported_and_the_process_ends_in_time() -> None:
    """A callback that never returns to Python: a report names it and what did not run, before the SIGKILL would come."""
    ended = run(
        f"""
import hashlib
def flush(): hashlib.pbkdf2_hmac("sha256", b"x", b"y", 1 << 30)
@guard(grace={GRACE})
def main():
    on_exit(print, "never")
    on_exit(flush)
    ready()
    time.sleep(60)
main()
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == ([], 143)
    assert "callback flush is still running; did not run: print" in ended.err
    assert "in flush" in ended.err


INTERRUPTIBLE = {
    "regex": 'import re; ready(); re.match(r"(a+)+$", "a" * 64 + "b")',
    "big int": "ready(); pow(3, 10**9)",
    "json": "import json; data = [0] * 1000; ready()\n    while True: json.dumps(data)",
}


@pytest.mark.parametrize("code", INTERRUPTIBLE.values(), ids=INTERRUPTIBLE)
def test_c_code_that_looks_for_signals_is_stopped_in_main(code: str) -> None:
    """A catastrophic regex and big numbers look for signals now and then, and end as Python code does."""
    ended = run(
        f"""
@guard(grace=20)
def main():
    on_exit(lambda: print("in main", threading.current_thread() is threading.main_thread()))
    {code}
main()
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["in main True"], 143)


def test_c_code_that_keeps_the_gil_does_not_keep_on_stop_callbacks_from_their_turn() -> None:
    """They run in a thread of their own, which main is not to deprive of the GIL for good before it has been told."""
    ended = run(
        """
with guard(grace=5) as g:
    g.on_stop(time.sleep, 0.01)
    g.on_stop(print, "on_stop", flush=True)
    g.callback(print, "callback")
    ready()
    pow(3, 10**9)
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["on_stop", "callback"], 143)


def test_c_code_that_keeps_the_gil_does_not_keep_the_watcher_from_setting_its_timer() -> None:
    """It lets go of the GIL in the middle, and main, which is told when the timer is set, is not to have that back for good."""
    ended = run(
        """
from cleanup_guard._process.process import Process
from cleanup_guard._process.last_resort import LastResort
opens, claim_signal, begun = LastResort._open, Process.claim_signal, threading.Event()
def is_main(): return threading.current_thread() is threading.main_thread()
def opens_slowly(self):
    if not is_main():
        begun.set()
        time.sleep(0.05)
    opens(self)
def claims_late(self, *args):
    if is_main(): begun.wait(30)
    claim_signal(self, *args)
LastResort._open, Process.claim_signal = opens_slowly, claims_late
with guard(grace=5) as g:
    g.callback(print, "callback")
    ready()
    pow(3, 10**9)
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["callback"], 143)


HOLDING = """
import ctypes
class Timespec(ctypes.Structure): _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]
libc = ctypes.PyDLL(None)
def hold(seconds):
    "Hold the GIL: not even another thread can run."
    libc.usleep  # looked up before
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        libc.clock_nanosleep(1, 1, ctypes.byref(Timespec(int(end), int(end % 1 * 1e9))), None)
def hold_for_ever():
    lock = (ctypes.c_char * 128)()
    libc.pthread_mutex_lock(lock)
    libc.pthread_mutex_lock(lock)
"""
# The mutex is what cannot be interrupted: nanosleep returns when a signal arrives.

PLACES = {
    "callback": ("on_exit(hold_for_ever)", "ready()\n    time.sleep(60)"),
    "finally": (
        "on_exit(print, 'never')",
        "try:\n        ready(); time.sleep(60)\n    finally: hold_for_ever()",
    ),
}


@pytest.mark.parametrize(("register", "body"), PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("wrapper", [(), ("unshare", "--pid", "--fork", "--kill-child")], ids=["", "pid 1"])
def test_the_gil_held_after_the_stop_does_not_outlast_the_grace_period(
    register: str, body: str, wrapper: tuple[str, ...]
) -> None:
    """C code that holds the GIL in a callback or a `finally` is ended from C, in time, with a report of all stacks."""
    if wrapper and not may_unshare():
        pytest.skip("no PID namespaces here")
    with child(
        f"{HOLDING}\n@guard(grace=2)\ndef main():\n    {register}\n    {body}\nmain()\n",
        wrapper=wrapper,
    ) as started:
        if wrapper:
            children = Path(f"/proc/{started.pid}/task/{started.pid}/children")
            os.kill(int(children.read_text().split()[0]), signal.SIGTERM)
        else:
            started.signal(signal.SIGTERM)
        ended = started.end()
    assert ended.out == []
    assert ended.status == 1
    assert "Timeout (" in ended.err
    assert "in hold_for_ever" in ended.err


def may_unshare() -> bool:
    return (
        subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True, check=False).returncode
        == 0
    )


LIMIT = {
    "sum": "sum(range(1 << 25))",
    "sort": "sorted([(i * 7919) % 10007 * 1.0 for i in range(1 << 21)])",
}


@pytest.mark.parametrize("call", LIMIT.values(), ids=LIMIT)
def test_a_call_that_already_holds_the_gil_ends_first(call: str) -> None:
    """The known limit: nobody can run before such a call returns; then the stop arrives at once and nothing is lost."""
    ended = run(
        f"""
@guard(grace=60)
def main():
    on_exit(print, "callback")
    ready()
    while True: {call}
main()
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["callback"], 143)


@pytest.mark.skipif(not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="there is no GIL to hold")
def test_a_call_that_holds_the_gil_for_ever_is_ended_by_sigkill_only() -> None:
    """The known limit at its worst: no Python and no C-level timer runs, because none was armed before the call."""
    with child(
        f"""{HOLDING}
@guard(grace=1)
def main():
    on_exit(print, "callback")
    ready()
    hold_for_ever()
main()
"""
    ) as started:
        started.signal(signal.SIGTERM)
        with pytest.raises(Exception, match="timed out"):
            started.process.wait(2)
        started.signal(signal.SIGKILL)
        assert started.end().status == -signal.SIGKILL
