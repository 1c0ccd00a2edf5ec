"""Real children for tests about signals: start one, wait for its ready line, signal it, and look at how it ended.

Nothing here sleeps a guessed time: every wait polls for a fact, with a limit that a loaded machine does not reach.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cleanup_guard._ground.clock import GRACE_VARIABLE
from cleanup_guard._ground.platforms import Surroundings, detect

PATIENCE = 60.0
"""Seconds after which a wait gives up: a bug, not a slow machine."""

PREAMBLE = """\
import atexit, os, signal, sys, threading, time
from cleanup_guard import *
def ready():  # one write: the signal must not meet us between the word and the end of the line
    sys.stdout.flush(); os.write(1, b"ready\\n")
"""


def _told_by_platforms() -> set[str]:
    """The variables that say on which platform this is, as on a CI runner."""
    asked: set[str] = set()

    class Asked(dict[str, str]):
        def get(self, name: str, default: Any = None) -> Any:
            asked.add(name)
            return default

    detect(Surroundings(Asked(), 0, lambda path: False))
    return asked


OTHERS = {"PYTHONUNBUFFERED", GRACE_VARIABLE, *_told_by_platforms()}

CLEAN = {name: value for name, value in os.environ.items() if name not in OTHERS}
"""The environment of children: nothing that changes how they buffer or how long they may take."""

GUESSED = "10 s to clean up: guessed; CLEANUP_GUARD_GRACE says it better"
"""How long children may take, in a container or on a machine of which nothing is known."""


COMPILED = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""The environment of what is measured: an installed package is compiled once, not at every start."""


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        status: as subprocess says it: negative for a death by signal.
        out: the lines it printed after the ready line.
        err: its stderr.
        seconds: from the first signal (or from the ready line) to its end.
    """

    status: int
    out: list[str]
    err: str
    seconds: float


class Child:
    """A Python child that has printed its ready line. Its output goes to files, so that it never waits for a reader."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self.pid = process.pid
        self.folder = folder
        self.began = time.monotonic()

    @property
    def out(self) -> list[str]:
        """All complete lines printed so far, the ready line included."""
        return (self.folder / "out").read_text().split("\n")[:-1]

    @property
    def err(self) -> str:
        """What it has written to stderr so far."""
        return (self.folder / "err").read_text(errors="replace")

    def signal(self, *signums: int) -> None:
        """Send signals, one after the other at once."""
        self.began = time.monotonic()
        for signum in signums:
            self.process.send_signal(signum)

    def wait_for_line(self, line: str) -> None:
        """Wait until it has printed this line."""
        wait_until(lambda: line in self.out or self.process.poll() is not None, f"the line {line!r}")
        assert line in self.out, (
            f"ended with {self.process.returncode} without printing {line!r}:\n{self.out}\n{self.err}"
        )

    def end(self) -> Ended:
        """Wait for its end."""
        status = self.process.wait(PATIENCE)
        seconds = time.monotonic() - self.began
        lines = self.out
        after = lines[lines.index("ready") + 1 :] if "ready" in lines else lines
        return Ended(status, after, self.err, seconds)


def wait_until(fact: Callable[[], bool], what: str) -> None:
    """Poll until something is true."""
    limit = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < limit, f"waited {PATIENCE:g} s in vain for {what}"
        time.sleep(0.005)


def state_of(pid: int) -> str:
    """The letter of its main thread's state: S sleeps, Z is a zombie, and so on. Raises OSError where there is none."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def sleeps(pid: int) -> bool:
    """Whether its main thread waits for something; asked again a moment later."""
    time.sleep(0.005)
    return state_of(pid) == "S"


def swallowing(indent: int) -> str:
    """Statements that wait for ever, whatever is raised in them; indented so far, but for the first line."""
    text = """while True:
    try:
        while True:  # twice: an exception can also come where it has just caught one
            try: time.sleep(60)
            except BaseException: pass
    except BaseException: pass"""
    return text.replace("\n", "\n" + " " * indent)


@contextmanager
def child(
    code: str,
    *,
    preamble: str = PREAMBLE,
    env: Mapping[str, str] | None = None,
    wrapper: Sequence[str] = (),
    flags: Sequence[str] = (),
    ready: str = "ready",
    **options: Any,
) -> Iterator[Child]:
    """Run Python code in a child of its own and wait for its ready line; whatever happens, it is gone afterwards.

    Args:
        code: the program; it finds `cleanup_guard`'s names imported, and calls `ready()` when it may be signalled.
        preamble: what comes before the code.
        env: environment variables to add.
        wrapper: a command to put before Python, such as `unshare`.
        flags: for the interpreter.
        ready: the line to wait for.
        options: for `subprocess.Popen`.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = folder / "program.py"
        program.write_text(preamble + code)
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            process: subprocess.Popen[bytes] = subprocess.Popen(  # pyright: ignore[reportAssignmentType]  # no text=True
                [*wrapper, sys.executable, *flags, str(program)],
                stdout=options.pop("stdout", out),
                stderr=options.pop("stderr", err),
                stdin=options.pop("stdin", subprocess.DEVNULL),
                start_new_session=options.pop(
                    "start_new_session", True
                ),  # without the terminal of who runs the tests: a Ctrl-C there is another thing
                env={**CLEAN, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
                # A runner started with & has SIGINT ignored, and a child would inherit that.
                preexec_fn=options.pop("preexec_fn", _default_signals),
                **options,
            )
        started = Child(process, folder)
        try:
            started.wait_for_line(ready)
            yield started
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def _default_signals() -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def run(code: str, *signums: int, **options: Any) -> Ended:
    """Run a child, send it signals once it is ready, and wait for its end."""
    with child(code, **options) as started:
        started.signal(*signums)
        return started.end()
