"""Ctrl-C in a terminal is a person's: nobody will send SIGKILL, so nothing is cut short unless he says so."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from support import PREAMBLE, sleeps, wait_until
from terminals import Screen, screen

pytestmark = pytest.mark.one_python  # a person is slow

ENDLESS = """\
os.environ["CLEANUP_GUARD_GRACE"] = "4"  # a platform's: it counts only for a platform's stop
def endless():
    while True: time.sleep(0.05)
def other(): os.write(1, b"other has run\\n")
"""

CALLBACK = (
    ENDLESS + "with guard() as g:\n    g.callback(other); g.callback(endless); ready(); time.sleep(600)\n"
)

NO_END = (
    "SIGINT received in the foreground of a terminal, no time limit: press Ctrl-C again to interrupt what is running, "
    "a third time to leave"
)


def program(tmp_path: Path, code: str) -> str:
    """A file with this program in it."""
    file = tmp_path / "program.py"
    file.write_text(PREAMBLE + code)
    return str(file)


def press(shown: Screen, *, first: bool = False) -> None:
    """Press Ctrl-C; not the first time only after somebody was named, so that it is another press."""
    if not first:
        shown.wait_for("has been running for")
    shown.type("\x03")


def test_a_second_press_interrupts_what_runs(tmp_path: Path) -> None:
    """A callback has all the time of the world; who runs is said; the second Ctrl-C ends it, and the others still run."""
    with screen(sys.executable, program(tmp_path, CALLBACK)) as shown:
        shown.wait_for("ready")
        press(shown, first=True)
        shown.wait_for(NO_END)
        shown.wait_for("callback endless has been running for 3 s; Ctrl-C interrupts it")
        shown.wait_for("callback endless has been running for 6 s")
        press(shown)
        shown.wait_for("callback endless interrupted after")
        shown.wait_for("Ctrl-C was pressed again")
        shown.wait_for("other has run")
        assert shown.end() == -signal.SIGINT
    assert "giving up" not in shown.text


def test_the_second_press_reaches_a_main_that_is_stuck_in_c(tmp_path: Path) -> None:
    """Nothing can be raised in it: its callbacks run in a thread of ours."""
    code = ENDLESS + (
        "import ctypes\n"
        "lock, mutex = ctypes.CDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(128)\n"
        "with guard() as g:\n    g.callback(other); lock(mutex); ready(); lock(mutex)\n"
    )
    with screen(sys.executable, program(tmp_path, code)) as shown:
        shown.wait_for("ready")
        wait_until(lambda: all(sleeps(shown.pid) for _ in range(50)), "main to be stuck")
        press(shown, first=True)
        shown.wait_for("main (in <module>")
        assert "other has run" not in shown.text
        press(shown)
        shown.wait_for("main has not come back")
        shown.wait_for("other has run")
        assert shown.end() == -signal.SIGINT


def test_the_third_press_leaves(tmp_path: Path) -> None:
    """At once, and says what did not run."""
    code = CALLBACK.replace(
        "    while True: time.sleep(0.05)",
        "    while True:\n      try:  # an interrupt may come between the inner ones, too\n       while True:\n"
        "        try: time.sleep(600)\n        except BaseException: os.write(1, b'not me\\n')\n"
        "      except BaseException: pass",
    )
    with screen(sys.executable, program(tmp_path, code)) as shown:
        shown.wait_for("ready")
        press(shown, first=True)
        press(shown)
        shown.wait_for("not me")
        shown.wait_for("has been running for", times=2)
        shown.type("\x03")
        shown.wait_for("giving up after")
        assert "did not run: other" in shown.text
        assert shown.end() == -signal.SIGINT


def test_a_sigterm_that_follows_starts_the_clock(tmp_path: Path) -> None:
    """From that moment on the platform's grace period counts: the endless callback is interrupted, the other one runs."""
    with screen(sys.executable, program(tmp_path, CALLBACK)) as shown:
        shown.wait_for("ready")
        press(shown, first=True)
        shown.wait_for("has been running for")
        os.kill(shown.pid, signal.SIGTERM)
        shown.wait_for("another stop received")
        shown.wait_for("4 s to clean up from now: given by CLEANUP_GUARD_GRACE")
        shown.wait_for("the grace period is nearly over")
        shown.wait_for("other has run")
        assert shown.end() == -signal.SIGINT


def test_a_terminal_that_goes_starts_the_clock(tmp_path: Path) -> None:
    """Its end is a SIGHUP, which would kill without a guard; there is nowhere to write to, and the callbacks run."""
    done = tmp_path / "done"
    code = CALLBACK.replace("def other():", f"def other(): open({str(done)!r}, 'x').close()\ndef unused():")
    with screen(sys.executable, program(tmp_path, code)) as shown:
        shown.wait_for("ready")
        press(shown, first=True)
        shown.wait_for("has been running for")
        shown.hang_up()
        wait_until(done.exists, "the other callback")
        assert shown.end() == -signal.SIGINT


@pytest.mark.parametrize("where", ["background", "no terminal"])
def test_outside_of_the_foreground_the_clock_counts(tmp_path: Path, where: str) -> None:
    """A SIGINT there is a machine's, or a script's: nobody looks at the screen."""
    file = program(tmp_path, CALLBACK)
    options = "process_group=0" if where == "background" else "start_new_session=True"
    starter = f"""
import signal, subprocess, sys
child = subprocess.Popen([sys.executable, {file!r}], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, {options})
assert child.stdout.readline() == b"ready\\n"
child.send_signal(signal.SIGINT)
print(child.stdout.read().decode(), "status", child.wait(), flush=True)
"""
    with screen(sys.executable, "-c", starter) as shown:
        shown.wait_for("the grace period is nearly over")
        shown.wait_for("other has run")
        shown.wait_for(f"status {-signal.SIGINT}")
        assert "4 s to clean up: given by CLEANUP_GUARD_GRACE" in shown.text
        assert "in the foreground" not in shown.text
