"""Sessions with a person: Ctrl-C is the person's, ends what is running, and the session lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from guests.stage import PROGRAMS, require
from support import CLEAN, PATIENCE, wait_until
from terminals import Screen, screen

pytestmark = pytest.mark.guests

CTRL_C = "\x03"
GRACE = 3.0
LONGER = 4.0
"""Seconds: a session that Ctrl-C has doomed is gone when the grace period is over."""

SESSIONS = {
    "repl": ("-q",),
    "basic repl": ("-q",),
    "ipython": ("-m", "IPython", "--no-banner", "--no-confirm-exit", "--colors=NoColor"),
    "ipython simple": (
        "-m",
        "IPython",
        "--simple-prompt",
        "--no-banner",
        "--no-confirm-exit",
        "--colors=NoColor",
    ),
    "code.interact": ("interactive.py",),
    "python -i": ("-i", "interactive.py", "prompt by -i"),
}


@contextmanager
def session(name: str, folder: Path, at: str = "nowhere") -> Iterator[Screen]:
    """A session on a terminal; its facts go to a file in the folder."""
    if name.startswith("ipython"):
        require("IPython")
    with screen(
        *environment(folder, at, PYTHON_BASIC_REPL="1" if name == "basic repl" else ""), *python(name)
    ) as shown:
        yield shown


def python(name: str) -> list[str]:
    """The command of a session."""
    return [
        sys.executable,
        *(str(PROGRAMS / word) if word.endswith(".py") else word for word in SESSIONS[name]),
    ]


def environment(folder: Path, at: str, **more: str) -> list[str]:
    """A command that sets the environment for the one after it."""
    variables = {
        "PYTHONPATH": str(PROGRAMS),
        "PYTHONDONTWRITEBYTECODE": "1",
        "GUEST_FOLDER": str(folder),
        "GUARD_AT": at,
        "CLEANUP_GUARD_GRACE": str(GRACE),
        "HOME": str(folder),
        "TERM": "xterm",
        **more,
    }
    return ["env", *(f"{name}={value}" for name, value in variables.items())]


def facts(folder: Path) -> list[str]:
    """What the session's process has noted."""
    path = folder / "facts"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.partition(" ")[2] for line in lines]


def enter(shown: Screen, line: str, expect: str) -> None:
    """Type a line and wait for what it prints, which must differ from what was typed."""
    shown.type(line + "\r")
    shown.wait_for(expect)


def press(shown: Screen, word: str, answer: str = "KeyboardInterrupt") -> None:
    """Press Ctrl-C, and see that the session lives."""
    before = shown.text.count(answer)
    shown.type(CTRL_C)
    shown.wait_for(answer, before + 1)  # what is typed earlier belongs to what was interrupted
    enter(shown, f"alive('{word}')", f"{word} lives")


def leave(shown: Screen) -> int:
    """See that it still lives when a grace period has passed, and leave it. Returns the exit status."""
    enter(shown, f"alive('still', {LONGER})", "still lives")
    shown.type("exit()\r")
    return shown.end()


@pytest.mark.parametrize("register", ["at_exit", "on_exit_here"])
@pytest.mark.parametrize("name", SESSIONS)
def test_on_exit_leaves_ctrl_c_to_the_person(name: str, register: str, tmp_path: Path) -> None:
    """One press ends the line that runs; the session lives on, and its callback runs once when it is left: as with atexit."""
    with session(name, tmp_path) as shown:
        enter(shown, "from prompted import *", "begun")
        enter(shown, f"{register}()", "registered")
        for word in ("first", "second"):
            enter(shown, f"snooze('{word}')", f"{word} sleeps")
            press(shown, word)
        assert facts(tmp_path) == []
        assert leave(shown) == 0
    assert facts(tmp_path) == ["callback"]


@pytest.mark.parametrize("name", SESSIONS)
def test_a_guard_inside_one_line_ends_that_line(name: str, tmp_path: Path) -> None:
    """Ctrl-C there: the guard's callback runs, the session lives, and so it does the next time."""
    with session(name, tmp_path) as shown:
        enter(shown, "from prompted import *", "begun")
        calls = (("guarded", "first"), ("decorated", "second"), ("guarded", "third"))
        for call, word in calls:
            enter(shown, f"{call}('{word}')", f"{word} sleeps")
            press(shown, word, answer="done after SIGINT")
            assert facts(tmp_path)[-1] == word
        assert leave(shown) == 0
    assert facts(tmp_path) == ["first", "second", "third"]


@pytest.mark.parametrize("name", SESSIONS)
def test_sigterm_ends_a_session_and_its_callbacks_run(name: str, tmp_path: Path) -> None:
    """That one is not the person's: while a line runs, it ends the session."""
    with session(name, tmp_path) as shown:
        enter(shown, "from prompted import *", "begun")
        enter(shown, "on_exit_here()", "registered")
        enter(shown, "snooze('it')", "it sleeps")
        os.kill(shown.pid, signal.SIGTERM)
        shown.end()
    assert facts(tmp_path) == ["callback"]


@pytest.mark.parametrize("at", ["nowhere", "module", "main"])
def test_pdb_stops_in_the_program(at: str, tmp_path: Path) -> None:
    """Ctrl-C in a debugged program stops in its own code, not in ours; it can go on, and the callback runs once at the end."""
    command = [sys.executable, "-m", "pdb", str(PROGRAMS / "debugged.py")]
    with screen(*environment(tmp_path, at), *command) as shown:
        shown.wait_for("(Pdb)")
        for times in (1, 2):
            (tmp_path / "beat").unlink(missing_ok=True)
            shown.type("continue\r")
            wait_until((tmp_path / "beat").exists, "the program's next beat")
            shown.type(CTRL_C)
            shown.wait_for("Program interrupted", times)
            shown.wait_for("(Pdb)", 1 + times)
            assert "debugged.py(" in shown.text.rpartition("Program interrupted")[2], shown.text
        shown.type("quit\r")
        shown.type("y\r")  # newer ones ask
        shown.end()
    assert "cleanup_guard/" not in shown.text
    assert facts(tmp_path) == ([] if at == "nowhere" else ["registered", "callback"])


KERNEL = """\
#base
import asyncio, guest, time
from cleanup_guard import guard, on_exit
async def awake(note):  # the kernel's handler cancels a task that waits, and does not wake an idle loop
    await asyncio.sleep(0.02)
    note()
    for _ in range(3000):
        await asyncio.sleep(0.02)
print(1)
---
#slept
guest.note("slept"); time.sleep(60)
---
#slept_async
await awake(lambda: guest.note("slept_async"))
---
#guarded
with guard() as g:
    g.callback(guest.note, "guarded callback")
    guest.note("guarded")
    time.sleep(60)
---
#called
@guard
def call():
    on_exit(guest.note, "called callback")
    guest.note("called")
    time.sleep(60)
call()
---
#awaited
async with guard() as g:
    g.callback(guest.note, "awaited callback")
    await awake(lambda: guest.note("awaited"))
---
#waits
time.sleep(2)
---
#alive
guest.note("still alive")
"""


@pytest.mark.parametrize("register", [False, True], ids=["cells", "on_exit"])
def test_a_notebooks_kernel_lives(register: bool, tmp_path: Path) -> None:
    """Interrupting a cell ends that cell: its guard's callbacks run, the kernel lives, `on_exit` runs when the kernel ends."""
    require("ipykernel", "jupyter_client")
    cells = KERNEL.replace("print(1)", "on_exit(guest.note, 'callback')") if register else KERNEL
    done = subprocess.run(
        [*environment(tmp_path, "nowhere"), sys.executable, str(PROGRAMS / "kernel_client.py")],
        input=cells.encode(),
        capture_output=True,
        env=CLEAN,
        timeout=4 * PATIENCE,
        check=False,
    )
    fates = {
        "slept": "KeyboardInterrupt",
        "slept_async": "CancelledError",
        "guarded": "KeyboardInterrupt",
        "called": "KeyboardInterrupt",
        "awaited": "CancelledError",
    }
    assert done.stdout.decode().splitlines() == [
        "base ok ",
        *(f"{word} error {fate}" for word, fate in fates.items()),
        "waits ok ",
        "alive ok ",
        "kernel ended",
    ], done.stderr.decode()[:6000]
    noted = facts(tmp_path)
    for word in ("guarded", "called", "awaited"):
        assert noted.count(f"{word} callback") == 1, noted
    assert noted[-1:] == (["callback"] if register else ["still alive"]), noted
    assert noted.count("callback") == register
