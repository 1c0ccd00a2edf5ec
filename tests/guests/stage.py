"""A real host in a child, one piece of work in flight, and a stop: the stage of the tests in this folder.

`without` runs a host as it is; what it then does with its work, its own shutdown and its status is what `check` demands of it
with a guard inside. No test here knows what a host ought to do: it is asked.
"""

from __future__ import annotations

import functools
import http.client
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import pytest
from run.supervised import default_signals, kill_marked, marked
from support import CLEAN, PATIENCE, wait_until

PROGRAMS = Path(__file__).with_name("programs")
ANSWERED = b"the whole answer"
SECONDS = 1.2
"""For how long the work in flight goes on after the stop, unless a test says otherwise."""
LATE = 20.0
"""Seconds after which processes are taken for left behind: a loaded machine does not reach them."""


@dataclass(frozen=True)
class Host:
    """Somebody else's program that owns the stop.

    Attributes:
        name: for the test's id.
        command: words after `python`; {folder} in them stands for an empty folder, {socket} for a Unix socket in it, and
            {python} for the Python.
        needs: the libraries that must be importable.
        listens: it is a web server on that socket, and the piece of work is a request.
        says: what it prints when its own shutdown is over, where no hook of it can note that.
        env: more environment variables, as pairs.
    """

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...]
    listens: bool = False
    says: str = ""
    env: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return self.name

    def shutdowns(self, stopped: Stopped) -> int:
        """How often its own shutdown ran."""
        return stopped.output.count(self.says) if self.says else stopped.times("host over")

    def on(self, redis: str) -> Host:
        """The same with a Redis at this URL."""
        return replace(self, env=(*self.env, ("REDIS_URL", redis)))


@dataclass(frozen=True)
class Stopped:
    """What became of a host that was stopped.

    Attributes:
        pid: the first process.
        status: its own, as subprocess says it.
        facts: what its processes noted, in order: pid and words.
        answer: what the client of a web server got.
        output: stdout and stderr.
        seconds: from the signal to the end of the first process.
        left: command lines of processes that were still there long after it.
        files: the names of all files in its folder.
    """

    pid: int
    status: int
    facts: list[tuple[int, str]]
    answer: bytes
    output: str
    seconds: float
    left: list[str]
    files: set[str]

    def times(self, fact: str) -> int:
        """How often a fact was noted."""
        return sum(words == fact for _, words in self.facts)

    def by_process(self, fact: str) -> Counter[int]:
        """How often it was noted in each process."""
        return Counter(pid for pid, words in self.facts if words == fact)

    def order(self, *facts: str) -> list[str]:
        """These facts in the order in which they were noted."""
        return [words for _, words in self.facts if words in facts]

    @property
    def is_beneath(self) -> bool:
        """Whether a callback ran before the work had ended: in the process that worked, or in the first one."""
        worked = {self.pid, *self.by_process("begins")}
        order = [
            words for pid, words in self.facts if words == "ends" or (words == "callback" and pid in worked)
        ]
        return order[:1] == ["callback"]

    @property
    def stepped_in(self) -> bool:
        """Whether a guard says that it ended what nobody else did. Seconds do not tell: Celery alone takes thirty at times."""
        words = ("has not stopped the program", "has not come back", "giving up", "held the stop back")
        return any(word in self.output for word in words)

    def __str__(self) -> str:
        facts = "\n".join(f"  {pid} {words}" for pid, words in self.facts)
        return (
            f"status {self.status} after {self.seconds:.2f} s, answer {self.answer!r}, left {self.left}\n"
            f"{facts}\n{self.output[-6000:]}"
        )


def as_a_shell_says(status: int) -> int:
    """The status that a shell and an engine report, for which a death by a signal and an exit with 128 + n are one."""
    return status if status >= 0 else 128 - status


def do_without(sentence: str) -> NoReturn:
    """Skip; but where CLEANUP_GUARD_REQUIRE_GUESTS=1, as in CI, fail."""
    if os.environ.get("CLEANUP_GUARD_REQUIRE_GUESTS") == "1":
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)


def require(*libraries: str) -> None:
    """Skip, or fail, if one of these cannot be imported."""
    for name in libraries:
        if importlib.util.find_spec(name) is None:
            do_without(f"{name} is not installed here: make GUESTS=1 brings it.")


@contextmanager
def redis_server() -> Iterator[str]:
    """A Redis of our own on a free port; yields its URL."""
    program = shutil.which("redis-server")
    if program is None:
        do_without(
            "There is no redis-server here: install it (on Debian and Ubuntu: apt install redis-server)."
        )
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        words = [
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            folder,
        ]
        process = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: process.poll() is not None or accepts(("127.0.0.1", port)), "Redis")
            assert process.poll() is None, f"redis-server ended with {process.returncode}"
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port that the kernel says is free."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def accepts(address: str | tuple[str, int]) -> bool:
    """Whether somebody takes connections there."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        return sock.connect_ex(address) == 0


class Client(threading.Thread):
    """One request to a server on a Unix socket, repeated until the server is up."""

    def __init__(self, path: str, running: subprocess.Popen[bytes]) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.running = running
        self.answer = b""

    def run(self) -> None:
        """Wait for the server, then ask."""
        while not accepts(self.path):
            if self.running.poll() is not None:
                return
            time.sleep(0.02)
        connection = http.client.HTTPConnection("guest", timeout=PATIENCE)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.sock.settimeout(PATIENCE)
            connection.sock.connect(self.path)
            connection.request("GET", "/")
            self.answer = connection.getresponse().read()
        except (OSError, http.client.HTTPException) as error:
            self.answer = repr(error).encode()
        finally:
            connection.close()


def stop(
    host: Host,
    at: str = "nowhere",
    signum: int = signal.SIGTERM,
    *,
    then: tuple[int, ...] = (),
    seconds: float = SECONDS,
    env: Mapping[str, str] | None = None,
) -> Stopped:
    """Start a host, wait until its work is in flight, stop its first process, and see what comes of it.

    Args:
        host: the host.
        at: where the guard is; see `programs/guest.py`.
        signum: the stop.
        then: more signals, each as soon as the program has noted "called N" for the one before.
        seconds: for how long the work goes on after the last of them.
        env: more environment variables.
    """
    require(*host.needs)
    with tempfile.TemporaryDirectory(prefix="guest") as name:
        folder = Path(name)
        path = str(folder / "socket")
        mark = f"{os.getpid()}.{time.monotonic_ns()}"
        environ = {
            **CLEAN,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(PROGRAMS),
            "GUEST_FOLDER": name,
            "GUARD_AT": at,
            "WORK_SECONDS": str(seconds),
            **dict(host.env),
            **(env or {}),
            "CLEANUP_GUARD_TEST": mark,
        }
        with (folder / "output").open("wb") as output:
            process = subprocess.Popen[bytes](
                [
                    sys.executable,
                    *(
                        _filled(word, folder=name, socket=path, python=sys.executable)
                        for word in host.command
                    ),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=PROGRAMS,
                env=environ,
                preexec_fn=default_signals,
                start_new_session=True,
            )
        try:
            return _stop(process, host, folder, (signum, *then), f"CLEANUP_GUARD_TEST={mark}")
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            kill_marked(f"CLEANUP_GUARD_TEST={mark}")


def _filled(word: str, **values: str) -> str:
    for name, value in values.items():
        word = word.replace(f"{{{name}}}", value)
    return word


def _stop(
    process: subprocess.Popen[bytes], host: Host, folder: Path, signums: tuple[int, ...], mark: str
) -> Stopped:
    """The part of `stop` during which the host runs."""
    facts = folder / "facts"
    client = Client(str(folder / "socket"), process)
    if host.listens:
        client.start()

    def begun() -> bool:
        return facts.exists() and " begins\n" in facts.read_text()

    wait_until(lambda: begun() or process.poll() is not None, f"{host}'s work")
    output = folder / "output"
    assert process.poll() is None, f"{host} ended with {process.returncode}:\n{output.read_text()}"
    began = time.monotonic()
    for number, signum in enumerate(signums):
        if number:
            called = f"called {number}\n"
            wait_until(lambda: process.poll() is not None or called in facts.read_text(), "its handler")  # noqa: B023 - now
        process.send_signal(signum)
    (folder / "sent").touch()
    try:
        status = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        pytest.fail(f"{host} did not end:\n{facts.read_text()}\n{output.read_text()}", pytrace=False)
    seconds = time.monotonic() - began
    if host.listens:
        client.join(PATIENCE)
    left = left_behind(mark)
    lines = [line.partition(" ") for line in facts.read_text().splitlines()]
    noted = [(int(pid), words) for pid, _, words in lines]
    text = output.read_text(errors="replace")
    return Stopped(process.pid, status, noted, client.answer, text, seconds, left, set(os.listdir(folder)))


def left_behind(mark: str) -> list[str]:
    """Command lines of those that carry a mark and do not end by themselves soon."""
    limit = time.monotonic() + LATE
    while (pids := list(marked(mark))) and time.monotonic() < limit:
        time.sleep(0.02)
    found = []
    for pid in pids:
        try:
            found.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
        except OSError:
            pass  # it has ended meanwhile
    return found


@functools.cache
def without(host: Host, signum: int = signal.SIGTERM) -> Stopped:
    """The same host without a guard: what is to stay as it is."""
    return stop(host, signum=signum)


def check(
    host: Host, at: str, signum: int = signal.SIGTERM, *, seconds: float = SECONDS, grace: str = ""
) -> Stopped:
    """A guard there changes nothing for the host; its callback runs once, after the work, in each process that registered.

    Args:
        host: the host.
        at: where the guard is.
        signum: the stop.
        seconds: for how long the work goes on after it.
        grace: what the platform says it gives, if it says so.
    """
    alone = without(host, signum)
    stopped = stop(host, at, signum, seconds=seconds, env={"CLEANUP_GUARD_GRACE": grace} if grace else {})
    assert stopped.answer == alone.answer, stopped
    assert stopped.times("begins") == stopped.times("ends") == 1, f"the work was cut:\n{stopped}"
    # A worker that signals itself to death may be gone before its server's last hook; with us it may come to that.
    assert host.shutdowns(stopped) >= host.shutdowns(alone), f"the host's own shutdown:\n{stopped}"
    assert stopped.by_process("registered"), f"no guard was there:\n{stopped}"
    assert stopped.by_process("callback") == stopped.by_process("registered"), f"callbacks:\n{stopped}"
    assert not stopped.is_beneath, f"the callback ran beneath the work:\n{stopped}"
    assert as_a_shell_says(stopped.status) == as_a_shell_says(alone.status), f"not {alone.status}:\n{stopped}"
    assert not stopped.stepped_in, f"the guard ended it, and not the host:\n{stopped}"
    assert stopped.left == [], stopped
    return stopped


def check_alone(host: Host, signum: int = signal.SIGTERM) -> None:
    """Without a guard the work is whole and the host's own shutdown runs: what the other tests compare with is so."""
    alone = without(host, signum)
    assert alone.times("begins") == alone.times("ends") == 1, alone
    assert alone.answer == (ANSWERED if host.listens else b""), alone
    assert host.shutdowns(alone) >= 1, alone
    assert alone.left == [], alone
