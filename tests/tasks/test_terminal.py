"""Ctrl-C on a real terminal, where main is a task."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from terminals import screen

EXAMPLE = Path(__file__).parents[2] / "examples" / "08_async.py"


def test_one_press_is_a_cleanup() -> None:
    """The callbacks are awaited, nothing else is shown, and the program dies of SIGINT."""
    with screen(sys.executable, str(EXAMPLE)) as shown:
        shown.wait_for("ready")
        shown.type("\x03")
        status = shown.end()
    assert status == -signal.SIGINT
    assert shown.text.count("goodbye") == 1
    assert "Traceback" not in shown.text
    assert "KeyboardInterrupt" not in shown.text
