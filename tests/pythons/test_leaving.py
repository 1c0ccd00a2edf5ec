"""A stop that comes while main leaves its guard: honoured, or too late, but never an error of ours, and callbacks run once."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from support import run

HELD = """
from cleanup_guard import current_guard
# A thread asks for a stop, and is held at its k-th line inside the package while main leaves: for every k.
package = os.path.dirname(sys.modules["cleanup_guard"].__file__)
class Held:
    def __init__(self, at):
        self.left, self.arrived, self.go = at, threading.Event(), threading.Event()
    def trace(self, frame, event, argument):
        if not frame.f_code.co_filename.startswith(package): return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                self.arrived.set()
                self.go.wait(HOLD)
        return self.trace
def attempt(at):
    held, calls, refused = Held(at), [], []
    def ask(g):
        sys.settrace(held.trace)
        try: g.request_stop("lease lost", status=7)
        except BaseException as error: refused.append(error)
        finally:
            sys.settrace(None)
            held.arrived.set()
    try:
        with guard(hooks=[], grace=20, **OPTIONS) as g:
            g.callback(calls.append, 1)
            thread = threading.Thread(target=ask, args=[g])
            thread.start()
            held.arrived.wait(30)
        end = "left"
    except SystemExit as error: end = error.code
    except BaseException as error: end = repr(error)
    held.go.set()
    thread.join(30)
    if calls != [1] or end not in ("left", 7) or thread.is_alive(): print("WRONG", at, end, calls, refused, flush=True)
    for error in refused:
        if not isinstance(error, RuntimeError): print("REFUSED", at, repr(error), flush=True)
    with guard(signals=(), hooks=[]): pass  # the stop before is over
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL: print("NOT GIVEN BACK", at, end, flush=True)
    return held.left <= 0
ready()
k = 1
while attempt(k): k += 1
print("tried", k > 5, flush=True)
"""


@pytest.mark.parametrize("options", ["interrupt=False", "interrupt=True"])
@pytest.mark.parametrize("hold", [0.0, 0.02], ids=["briefly", "for 20 ms"])
def test_a_thread_that_asks_for_a_stop_is_overtaken_at_each_line(options: str, hold: float) -> None:
    """Whoever wins, main or the thread that asks: one of them decides, nothing is half done, and everything is given back."""
    ended = run(HELD.replace("OPTIONS", f"dict({options})").replace("HOLD", str(hold)))
    assert (ended.out, ended.status) == (["tried True"], 0), ended.err
    assert "Traceback" not in ended.err


AT_THE_END = """
import os, random, signal, sys, threading
from cleanup_guard import guard
sys.setswitchinterval(1e-6)
def spin(n):
    for _ in range(n): pass
n, go, calls = random.randrange(200, 3500), threading.Event(), []
def send():
    go.wait()
    spin(n)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=send).start()
try:
    with guard(hooks=[], interrupt=False, grace=30) as g:
        g.callback(calls.append, 1)
        go.set()
        spin(1500)
finally:
    if calls != [1]: print("CALLBACKS", calls)
if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL: print("NOT GIVEN BACK")
spin(1_000_000)
"""


@pytest.mark.parametrize("processes", [50, pytest.param(3000, marks=pytest.mark.nightly)])
def test_a_signal_around_the_end_of_a_guard(processes: int) -> None:
    """SIGTERM at a random moment around the end: the guard's 143, or the death of a process without a guard; nothing else."""
    ends: Counter[tuple[int, str]] = Counter()
    for _ in range(processes):
        done = subprocess.run(
            [sys.executable, "-c", AT_THE_END], capture_output=True, text=True, check=False, timeout=60
        )
        told = done.stderr if "Traceback" in done.stderr or "Illegal" in done.stderr else ""
        ends[done.returncode, done.stdout + told] += 1
    assert set(ends) <= {(143, ""), (-15, "")}, ends
