"""Subinterpreters: the import works, a guard without signals does what it does, one that wants signals gets a sentence."""

from __future__ import annotations

import signal
import sys

import pytest
from support import run

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 13), reason="older versions have no interpreters with a lock of their own"
)

INSIDE = """
import _interpreters
def inside(code):
    one = _interpreters.create("isolated")
    try: failed = _interpreters.exec(one, code)
    finally: _interpreters.destroy(one)
    if failed: print("FAILED", failed.formatted, flush=True)
"""


def test_every_name_can_be_imported() -> None:
    """What cannot be loaded in a subinterpreter (faulthandler) is not loaded by an import of ours."""
    ended = run(
        f"""{INSIDE}
ready()
inside('''
import cleanup_guard
for name in cleanup_guard.__all__: getattr(cleanup_guard, name)
print("imported", flush=True)
''')
""",
    )
    assert (ended.out, ended.status) == (["imported"], 0), ended.err


@pytest.mark.parametrize("body", ["pass", "raise ValueError", "raise SystemExit(3)"])
def test_a_guard_without_signals(body: str) -> None:
    """Its callbacks run at its end, however that comes, and the interpreter can be closed."""
    ended = run(
        f"""{INSIDE}
ready()
inside('''
from cleanup_guard import guard
try:
    with guard(signals=()) as g:
        g.callback(print, "first", flush=True)
        g.callback(print, "second", flush=True)
        {body}
except BaseException as error: print(type(error).__name__, flush=True)
''')
print("end", flush=True)
""",
    )
    raised = {"pass": [], "raise ValueError": ["ValueError"], "raise SystemExit(3)": ["SystemExit"]}[body]
    assert (ended.out, ended.status, ended.err) == (["second", "first", *raised, "end"], 0, "")


def test_a_guard_that_wants_signals_gets_one_sentence() -> None:
    """Only the main interpreter hears signals: a guard elsewhere says so, once, and what to write."""
    ended = run(
        f"""{INSIDE}
ready()
inside('''
from cleanup_guard import guard
try:
    with guard() as g: g.callback(print, "callback", flush=True)
except RuntimeError as error: print(error, flush=True)
''')
""",
    )
    told = [*ended.err.splitlines(), *(line for line in ended.out if line != "callback")]
    assert len(told) == 1, told
    assert "interpreter" in told[0]
    assert "signals=()" in told[0]
    assert ended.status == 0


@pytest.mark.skipif(sys.version_info < (3, 14), reason="InterpreterPoolExecutor is new in 3.14")
def test_guards_in_the_workers_of_a_pool_of_interpreters() -> None:
    """Each task has a guard of its own; main's guard, with its signals, is untouched by them."""
    ended = run(
        """
from concurrent.futures import InterpreterPoolExecutor
def task(number):
    from cleanup_guard import guard
    done = []
    with guard(signals=()) as g:
        g.callback(done.append, number)
        g.callback(done.append, "last")
    return done
@guard(grace=20)
def main():
    on_exit(print, "callback", flush=True)
    with InterpreterPoolExecutor(2) as pool:
        print([done == ["last", number] for number, done in enumerate(pool.map(task, range(6)))], flush=True)
        ready()
        time.sleep(60)
main()
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["callback"], 143), ended.err


def test_a_main_inside_another_interpreter_is_taken_over_from() -> None:
    """While main runs code of a subinterpreter no signal reaches it: callbacks come from the watcher."""
    ended = run(
        f"""{INSIDE}
@guard(grace=3)
def main():
    on_exit(print, "callback", flush=True)
    ready()
    inside("import time; time.sleep(60)")
main()
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["callback"], 143), ended.err
