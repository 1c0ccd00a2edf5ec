"""`docker run -it`, with a real pseudo-terminal: Ctrl-C, Ctrl-Z, window size, and the terminal given back as it was."""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import struct
import sys
import termios
import time
from pathlib import Path

import pytest
from run.supervised import COMMAND, TELLS, is_alive, python
from support import wait_until
from terminals import screen


def test_ctrl_c_comes_once() -> None:
    """One press, one SIGINT for the child, and we go on until the child ends."""
    with screen(*COMMAND, "--", *python(TELLS)) as shown:
        shown.wait_for("ready")
        shown.type("\x03")
        shown.wait_for(f"got {signal.SIGINT:d}")
        os.kill(shown.pid, signal.SIGUSR1)
        shown.wait_for(f"got {signal.SIGUSR1:d}")
        assert shown.text.count(f"got {signal.SIGINT:d}\r") == 1
        shown.type("\x03")
        shown.wait_for(f"got {signal.SIGINT:d}\r", times=2)


def test_a_shell_has_job_control_and_its_status_is_ours() -> None:
    """An interactive shell works: it reads, Ctrl-C ends its job and not itself, and exit ends us."""
    with screen(*COMMAND, "--", "bash", "--norc", "-i") as shown:
        shown.wait_for("prompt> ")
        shown.type("sleep 60\n")
        shown.wait_for("sleep 60")
        group = os.tcgetpgrp(shown.fd)
        wait_until(
            lambda: os.tcgetpgrp(shown.fd) != group or _name(os.tcgetpgrp(shown.fd)) == "sleep", "the job"
        )
        shown.type("\x03")
        shown.wait_for("prompt> ", times=2)
        shown.type("echo $((6 * 7)) $(tty)\n")
        shown.wait_for("42 /dev/")
        shown.type("exit 9\n")
        assert shown.end() == 9
        assert "no job control" not in shown.text


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


def test_a_new_window_size_reaches_the_child() -> None:
    """The kernel tells the foreground, which is the child."""
    with screen(*COMMAND, "--", *python(TELLS)) as shown:
        shown.wait_for("ready")
        fcntl.ioctl(shown.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        shown.wait_for(f"got {signal.SIGWINCH:d}")


def test_ctrl_z_without_a_shell_above_does_not_hang() -> None:
    """As PID 1 of a terminal there is nobody to resume a stopped child: it goes on by itself."""
    code = "import os\nprint(f'ready {os.getpid()}', flush=True)\nwhile True: print('read', input(), flush=True)\n"
    with screen(*COMMAND, "--", *python(code)) as shown:
        shown.wait_for("ready")
        shown.type("one\n")
        shown.wait_for("read one")
        shown.type("\x1a")
        shown.type("two\n")
        shown.wait_for("read two")


def test_ctrl_z_under_a_shell_is_a_stopped_job(tmp_path: Path) -> None:
    """Under a shell the whole job stops, the shell has the terminal again, and fg resumes it."""
    code = "import os\nprint(f'ready {os.getpid()}', flush=True)\nwhile True: print('read', input(), flush=True)\n"
    program = tmp_path / "program.py"
    program.write_text(code)
    with screen("bash", "--norc", "-i") as shown:
        shown.wait_for("prompt> ")
        shown.type(shlex.join([*COMMAND, "--", sys.executable, "-I", "-S", str(program)]) + "\n")
        shown.wait_for("ready ")
        shown.type("\x1a")
        shown.wait_for("Stopped")
        shown.type("echo $((6 * 7))\n")
        shown.wait_for("42")
        shown.type("fg\n")
        shown.type("three\n")
        shown.wait_for("read three")


@pytest.mark.parametrize("ending", ["exit 3", "kill -9 $$"])
def test_the_terminal_is_given_back_as_it_was(ending: str) -> None:
    """A program that left the terminal raw, or was killed in it, does not leave it so."""
    script = f"{' '.join(COMMAND)} -- sh -c 'stty raw -echo; {ending}'; stty -a; echo over"
    with screen("sh", "-c", script) as shown:
        shown.wait_for("over")
        assert " icanon" in shown.text
        assert " echo " in shown.text


def test_a_stop_from_outside_works_in_a_terminal() -> None:
    """SIGTERM to us while the child has the terminal: asked, waited for, status told, nobody left."""
    with screen(*COMMAND, "--", *python(TELLS)) as shown:
        shown.wait_for("ready")
        child = int(shown.text.split()[1])
        os.kill(shown.pid, signal.SIGTERM)
        shown.wait_for(f"got {signal.SIGTERM:d}")
        os.kill(child, signal.SIGKILL)
        assert shown.end() == 137
        assert not is_alive(child)


ONE_OFF = """\
import sys
from cleanup_guard import guard, run
child = '''
import time
try:
    print("child", input("name? "), flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.5)
    print("child cleaned up", flush=True)
'''
with guard() as g:
    g.callback(print, "callback")
    run([sys.executable, "-I", "-S", "-c", child])
"""


def test_a_one_off_program_may_use_the_terminal() -> None:
    """What main runs and waits for reads from the terminal, and one Ctrl-C is a cleanup for it, and then for main."""
    with screen(sys.executable, "-c", ONE_OFF) as shown:
        shown.wait_for("name? ")
        shown.type("Ada\n")
        shown.wait_for("child Ada")
        shown.type("\x03")
        shown.wait_for("callback")
        assert shown.end() == -signal.SIGINT
        assert shown.text.index("child cleaned up") < shown.text.index("callback")


READS = (
    "import os\nprint(f'ready {os.getpid()}', flush=True)\nwhile True: print('read', input(), flush=True)\n"
)


@pytest.mark.parametrize("how", ["ctrl-z and bg", "&"])
def test_in_the_background_who_reads_is_a_stopped_job_and_fg_works(tmp_path: Path, how: str) -> None:
    """No busy loop: the job is shown as stopped, as it would be without us, and fg brings it back."""
    program = tmp_path / "program.py"
    program.write_text(READS)
    command = shlex.join([*COMMAND, "--", sys.executable, "-I", "-S", str(program)])
    with screen("bash", "--norc", "-i") as shown:
        shown.wait_for("prompt> ")
        if how == "&":
            shown.type(command + " &\n")
            shown.wait_for("ready ")
        else:
            shown.type(command + "\n")
            shown.wait_for("ready ")
            shown.type("\x1a")
            shown.wait_for("Stopped")
            shown.type("bg\n")
        for attempt in range(600):
            shown.type(f"jobs; echo seen $(({attempt} + 1))\n")
            shown.wait_for(f"seen {attempt + 1}\r")
            if "Stopped" in shown.text.rpartition("jobs;")[2]:
                break
        shown.type("fg\n")
        shown.wait_for("program.py", times=3)
        shown.type("three\n")
        shown.wait_for("read three")


def test_several_programs_and_ctrl_z(tmp_path: Path) -> None:
    """Without a shell above nobody is stopped; Ctrl-C then stops both."""
    with screen(*COMMAND, "--", *python(TELLS), ":::", *python(TELLS)) as shown:
        shown.wait_for("ready", times=2)
        shown.type("\x1a")
        shown.wait_for("^Z")  # with which the terminal drops what it has not shown
        os.kill(shown.pid, signal.SIGUSR1)
        shown.wait_for(f"got {signal.SIGUSR1:d}\r", times=2)
        assert f"got {signal.SIGTSTP:d}\r" not in shown.text
        shown.type("\x03")
        shown.wait_for(f"got {signal.SIGINT:d}\r", times=2)


def test_several_programs_under_a_shell_are_one_job() -> None:
    """Ctrl-Z stops us and both programs; fg resumes all."""
    code = shlex.join([*COMMAND, "--", *python(TELLS), ":::", *python(TELLS)])
    with screen("bash", "--norc", "-i") as shown:
        shown.wait_for("prompt> ")
        shown.type(code + "\n")
        shown.wait_for("\rready", times=0)
        shown.wait_for("ready ", times=4)  # as typed, and as printed
        shown.type("\x1a")
        shown.wait_for(f"got {signal.SIGTSTP:d}\r", times=2)
        shown.wait_for("Stopped")
        shown.type("fg\n")
        shown.wait_for(f"got {signal.SIGCONT:d}\r", times=2)


def test_a_callback_may_set_the_terminal() -> None:
    """--on-exit 'stty sane' is in the background, and does not hang there."""
    with screen(*COMMAND, "--on-exit", "stty sane", "--on-exit", "echo over", "--", "true") as shown:
        shown.wait_for("over")
        assert shown.end() == 0


@pytest.mark.parametrize("grace", ["10", "none"])
def test_ctrl_c_ends_a_callback_that_hangs(grace: str) -> None:
    """The first press is the stop, the second interrupts the callback in progress, the third ends everything."""
    hangs = "trap '' TERM INT; echo hangs; while :; do sleep 0.1; done"
    words = [
        "--grace",
        grace,
        "--on-exit",
        "echo first; sleep 60",
        "--on-exit",
        hangs,
        "--on-exit",
        "echo last",
    ]
    with screen(*COMMAND, *words, "--", "sh", "-c", "echo ready; exec sleep 60") as shown:
        shown.wait_for("ready")
        shown.type("\x03")
        shown.wait_for("first")
        time.sleep(0.6)  # what counts as the same press is over
        shown.type("\x03")
        shown.wait_for("hangs")
        time.sleep(0.6)
        shown.type("\x03")
        shown.wait_for("number 3 was not run")
        shown.end()
        assert "\nlast" not in shown.text
