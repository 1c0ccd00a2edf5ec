"""Nobody reads what a dying program has to say: reporting never aborts, delays or blocks a cleanup."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from support import child, wait_until

PROGRAM = """
def fail(): raise ValueError("callback failed")
@guard(grace=4)
def main():
    {logging}
    on_exit(open({marker!r}, "a").write, "last ")
    on_exit(fail)
    on_exit(open({marker!r}, "a").write, "first ")
    open({marker!r} + ".ready", "w").close()
    {ready}
    time.sleep(60)
main()
"""

LOGGING = {
    "plain": "pass",
    "logging": "import logging; logging.basicConfig(level=0)",
    "noisy": "import logging; logging.basicConfig(level=0); on_exit(logging.error, 'x' * 1000)",
}


@contextmanager
def closed_pipe() -> Iterator[int]:
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@contextmanager
def full_pipe() -> Iterator[int]:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    yield writer
    os.close(reader)
    os.close(writer)


@contextmanager
def hung_up_terminal() -> Iterator[int]:
    master, slave = pty.openpty()
    os.close(master)
    yield slave
    os.close(slave)


@contextmanager
def full_terminal() -> Iterator[int]:
    master, slave = pty.openpty()
    os.set_blocking(slave, False)
    try:
        while True:
            os.write(slave, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(slave, True)
    yield slave
    os.close(master)
    os.close(slave)


@contextmanager
def full_disk() -> Iterator[int]:
    fd = os.open("/dev/full", os.O_WRONLY)
    yield fd
    os.close(fd)


OUTPUTS = [closed_pipe, full_pipe, hung_up_terminal, full_terminal, full_disk]


@pytest.mark.parametrize("logging", LOGGING.values(), ids=LOGGING)
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_cleanup_does_not_depend_on_stderr(
    output: Callable[[], AbstractContextManager[int]], logging: str, signum: int, tmp_path: Path
) -> None:
    """With stderr closed, full, hung up or failing, with or without logging on it: all callbacks run, the status is right."""
    if signum == signal.SIGINT and logging != LOGGING["plain"]:
        pytest.skip("the signal makes no difference here, and each takes its grace period")
    marker = str(tmp_path / "marker")
    code = PROGRAM.format(marker=marker, logging=logging, ready="ready()")
    with output() as stderr, child(code, stderr=stderr) as started:
        started.signal(signum)
        ended = started.end()
    assert Path(marker).read_text() == "first last "
    assert ended.status == (143 if signum == signal.SIGTERM else -signal.SIGINT)


@pytest.mark.parametrize("logging", LOGGING.values(), ids=LOGGING)
def test_cleanup_works_with_all_standard_streams_closed(logging: str, tmp_path: Path) -> None:
    """A program started with 0, 1 and 2 closed has no `sys.stderr`; it cleans up, and writes into nobody's file."""
    marker = tmp_path / "marker"
    program = tmp_path / "program.py"
    preamble = "import os, signal, sys, time\nfrom cleanup_guard import *\nopened = open('opened', 'w')\n"
    program.write_text(preamble + PROGRAM.format(marker=str(marker), logging=logging, ready="pass"))
    command = ["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', sys.executable, str(program)]
    with subprocess.Popen(command, cwd=tmp_path) as process:
        wait_until(Path(f"{marker}.ready").exists, "the ready file")
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
    assert marker.read_text() == "first last "
    assert status == 143
    assert (tmp_path / "opened").read_text() == ""


def test_a_callback_that_prints_to_a_full_pipe_costs_only_itself(tmp_path: Path) -> None:
    """A callback that blocks on output that nobody reads is interrupted near the end; the others run, in time."""
    marker = tmp_path / "marker"
    with full_pipe() as stdout:
        code = f"""
def chatty(): print("x" * 100_000, flush=True)
@guard(grace=6)
def main():
    on_exit(os.write, os.open({str(marker)!r}, os.O_WRONLY | os.O_CREAT), b"last")
    on_exit(chatty)
    ready()
    os.dup2({stdout}, 1)
    time.sleep(60)
main()
"""
        with child(code, pass_fds=[stdout]) as started:
            started.signal(signal.SIGTERM)
            ended = started.end()
    assert marker.read_text() == "last"
    assert ended.status == 143
    assert "callback chatty interrupted" in ended.err
