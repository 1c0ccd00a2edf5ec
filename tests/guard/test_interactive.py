"""A session with a person: Ctrl-C is the person's, and the session goes on."""

from __future__ import annotations

import sys

import pytest
from terminals import screen

SESSIONS = {
    "on_exit": "from cleanup_guard import on_exit; x = on_exit(print, 'call' + 'back')",
    "a guard that was left": "from cleanup_guard import guard\nwith guard(hooks=()): pass\n",
}


@pytest.mark.parametrize("code", SESSIONS.values(), ids=SESSIONS)
def test_ctrl_c_in_a_session_interrupts_a_line_and_not_the_session(code: str) -> None:
    """After `on_exit` at the prompt Ctrl-C raises KeyboardInterrupt; the session goes on, and its end runs the callback."""
    with screen("env", "PYTHON_BASIC_REPL=1", sys.executable, "-q", "-i", "-c", code) as shown:
        shown.wait_for(">>> ")
        shown.type("import time; print('sleep' + 'ing', flush=True); time.sleep(60)\n")
        shown.wait_for("sleeping")
        shown.type("\x03")
        shown.wait_for("KeyboardInterrupt")
        shown.wait_for(">>> ", 2)
        shown.type("print('still ' + 'here')\n")
        shown.wait_for("still here")
        shown.type("exit()\n")
        assert shown.end() == 0
        assert shown.text.count("callback") == ("on_exit" in code)
