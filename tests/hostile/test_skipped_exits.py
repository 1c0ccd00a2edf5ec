"""CPython jumps over `finally` and `__exit__` when a signal's exception lands on a tight loop (hazard H9).

Which loops do depends on the version, so all forms run on all: what is promised is that nobody can tell from outside.
"""

from __future__ import annotations

import signal

import pytest
from support import run

LOOPS = {
    "while True: pass": "while True: pass",
    "while not name": "while not flag: pass",
    "while not attribute": "while not thing.flag: pass",
    "while not call": "while not never(): pass",
    "while clock": "end = time.time() + 60\n        while time.time() < end: pass",
    "for if break": "for each in iter(int, 1):\n            if each: break",
    "for pass": "for each in iter(int, 1): pass",
    "nested": "while True:\n            while flag: pass",
    "try in loop": "while True:\n            try: pass\n            finally: pass",
}

NAMES = """
flag = False
class thing: flag = False
def never(): return False
"""


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_a_tight_loop_in_a_with_block_is_stopped_and_cleaned_up_after(
    loop: str, signum: signal.Signals
) -> None:
    """A stop that lands in a tight loop inside `with guard()` runs the callbacks once, in order, with the stop's status."""
    code = f"""{NAMES}
def main():
    with guard() as g:
        g.callback(print, "one")
        g.callback(print, "two")
        ready()
        {loop}
main()
"""
    ended = run(code, signum)
    assert ended.out == ["two", "one"]
    assert ended.status == (143 if signum == signal.SIGTERM else -signal.SIGINT)


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_a_tight_loop_at_module_level_is_cleaned_up_after(loop: str) -> None:
    """A `with guard()` at module level around a tight loop has no caller to clean up for it, and runs its callbacks."""
    code = f"""{NAMES}
if True:
    with guard() as g:
        g.callback(print, "one")
        ready()
        {loop}
"""
    ended = run(code, signal.SIGTERM)
    assert (ended.out, ended.status) == (["one"], 143)


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_a_tight_loop_in_a_try_block_costs_no_callback(loop: str) -> None:
    """A `finally` that CPython skips is the program's loss; what was registered with `on_exit` runs all the same."""
    code = f"""{NAMES}
def main():
    on_exit(print, "callback")
    try:
        ready()
        {loop}
    finally:
        pass
main()
"""
    ended = run(code, signal.SIGTERM)
    assert (ended.out, ended.status) == (["callback"], 143)


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("form", ["with", "decorator", "on_exit"])
def test_callbacks_release_the_non_daemon_threads_that_the_interpreter_joins(loop: str, form: str) -> None:
    """A non-daemon thread that only a callback releases does not hold up the exit, even if `__exit__` was skipped."""
    before, release, after = {
        "with": ("def main():\n    with guard() as g:", "g.callback(leave.set)", "main()"),
        "decorator": ("@guard\ndef main():\n    if True:", "on_exit(leave.set)", "main()"),
        "on_exit": ("def main():\n    if True:", "on_exit(leave.set)", "main()"),
    }[form]
    code = f"""{NAMES}
leave = threading.Event()
def work():
    leave.wait()
    print("released", flush=True)
threading.Thread(target=work).start()
{before}
        {release}
        ready()
        {loop}
{after}
"""
    ended = run(code, signal.SIGTERM)
    assert (ended.out, ended.status) == (["released"], 143)
    assert "giving up" not in ended.err


def test_nested_guards_whose_exits_are_skipped_run_inside_out() -> None:
    """Guards that are nested in one frame around a tight loop run their callbacks inner first, each once."""
    code = f"""{NAMES}
def main():
    with guard() as outer:
        outer.callback(print, "outer")
        with guard() as inner:
            inner.callback(print, "inner")
            ready()
            while not flag: pass
main()
"""
    ended = run(code, signal.SIGTERM)
    assert (ended.out, ended.status) == (["inner", "outer"], 143)
