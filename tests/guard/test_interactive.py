"""A session with a person: Ctrl-C is the person's, and the session goes on."""

from __future__ import annotations

import signal
import sys

import pytest
from terminals import screen

SESSIONS = {
    "on_exit": "from cleanup_guard import on_exit; x = on_exit(print, 'call' + 'back')",
    "a guard that was left": "from cleanup_guard import guard\nwith guard(hooks=()): pass\n",
}

AT_ITS_END = (0, -signal.SIGINT) if sys.version_info >= (3, 14) else (0,)
"""From 3.14 on a session in which a line was interrupted dies of SIGINT at its end, without us, too."""


@pytest.mark.parametrize("code", SESSIONS.values(), ids=SESSIONS)
def test_ctrl_c_in_a_session_interrupts_a_line_and_not_the_session(code: str) -> None:
    """After `on_exit` at the prompt Ctrl-C raises KeyboardInterrupt; the session goes on, and its end runs the callback."""
    with screen("env", "PYTHON_BASIC_REPL=1", sys.executable, "-q", "-i", "-c", code) as shown:
        shown.wait_for(">>> ")
        shown.type(
            "import time; print('sleep' + 'ing', flush=True); all(time.sleep(0.1) is None for _ in range(600))\n"
        )
        shown.wait_for("sleeping")
        shown.type("\x03")
        shown.wait_for("KeyboardInterrupt")
        shown.wait_for(">>> ", 2)
        shown.type("print('still ' + 'here')\n")
        shown.wait_for("still here")
        shown.type("exit()\n")
        assert shown.end() in AT_ITS_END
        assert shown.text.count("callback") == ("on_exit" in code), shown.text
