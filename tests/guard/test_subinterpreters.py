"""A subinterpreter has no signals: guards there run their callbacks at their end."""

from __future__ import annotations

import pytest
from support import run

STAGE = """
try: import _interpreters as interpreters
except ImportError: import _xxsubinterpreters as interpreters
def within(code):
    each = interpreters.create()
    try:
        went_wrong = interpreters.run_string(each, code)
        if went_wrong is not None: print(went_wrong, flush=True)
    finally: interpreters.destroy(each)
ready()
"""


@pytest.mark.parametrize("options", ["signals=()", "signals=(), hooks=()"])
def test_a_guard_in_a_subinterpreter(options: str) -> None:
    """The import works, and the guard's callbacks run when it is left."""
    ended = run(
        STAGE
        + f'''
within("""
from cleanup_guard import guard
with guard({options}) as g:
    g.callback(print, "first", flush=True)
    g.callback(print, "last", flush=True)
""")
print("the end", flush=True)
'''
    )
    assert (ended.out, ended.status) == (["last", "first", "the end"], 0), ended.err


def test_two_of_them_and_main() -> None:
    """Subinterpreters and main have guards of their own, one after the other."""
    ended = run(
        STAGE
        + '''
code = """
from cleanup_guard import guard
with guard(signals=(), hooks=()) as g: g.callback(print, "within", flush=True)
"""
with guard(hooks=()) as g:
    g.callback(print, "main", flush=True)
    within(code)
    within(code)
'''
    )
    assert (ended.out, ended.status) == (["within", "within", "main"], 0), ended.err
