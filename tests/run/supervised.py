"""Real `cleanup-guard run` processes for tests, and small programs for them to look after."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support import OTHERS, PATIENCE, state_of, wait_until

LATE = 2.0
"""Seconds that a loaded machine may add to a grace period. That the budget itself holds is shown on a fake clock."""

SIGTERM = signal.SIGTERM  # `Run` has a method named signal

COMMAND = [sys.executable, "-m", "cleanup_guard", "run"]

# They sleep in turns, because a signal that comes right before `signal.pause()` is not answered until the next one comes.

CLEANS_UP = r"""\
import os, signal, sys, time
def stop(signum, frame):
    os.write(1, f"stopped by {signal.Signals(signum).name}\n".encode())  # print is not reentrant
    time.sleep(SECONDS)
    os.write(1, b"cleaned up\n")
    os._exit(STATUS)
for each in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
    signal.signal(each, stop)
print(f"ready {os.getpid()}", flush=True)
while True:
    time.sleep(0.1)
"""

STUBBORN = """\
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
print(f"ready {os.getpid()}", flush=True)
while True:
    time.sleep(0.1)
"""

TELLS = r"""\
import os, signal, time
def tell(signum, frame):
    os.write(1, f"got {signum}\n".encode())
for each in signal.valid_signals() - {9, 19, 17, 11, 13}:
    try:
        signal.signal(each, tell)
    except OSError:
        pass
print(f"ready {os.getpid()}", flush=True)
while True:
    time.sleep(0.1)
"""


def python(code: str) -> list[str]:
    """A Python program that starts quickly."""
    return [sys.executable, "-I", "-S", "-c", code]


def cleans_up(seconds: float = 0, status: int = 0) -> list[str]:
    """A program that says which signal it got, takes its time to clean up, and exits."""
    return python(CLEANS_UP.replace("SECONDS", str(seconds)).replace("STATUS", str(status)))


class Run:
    """A `cleanup-guard run` that was started, its output in files."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self.pid = process.pid
        self.seconds = 0.0
        self.began = time.monotonic()
        self._folder = folder

    @property
    def out(self) -> list[str]:
        """The lines on stdout so far."""
        return (self._folder / "out").read_text(errors="replace").splitlines()

    @property
    def err(self) -> str:
        """Stderr so far."""
        return (self._folder / "err").read_text(errors="replace")

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until so many lines that begin with this text have been printed."""

        def there() -> bool:
            return sum(line.startswith(text) for line in self.out) >= times

        wait_until(lambda: there() or self.process.poll() is not None, f"the line {text!r}")
        assert there(), f"ended with {self.process.returncode}, without {text!r}:\n{self.out}\n{self.err}"

    def pids(self) -> list[int]:
        """The pids that programs have told with their ready lines."""
        return [int(line.split()[-1]) for line in self.out if "ready " in line]

    def signal(self, signum: int) -> None:
        """Send one signal to the supervisor."""
        self.began = time.monotonic()
        self.process.send_signal(signum)

    def stop(self, signum: int = SIGTERM) -> int:
        """Send a stop and wait for the end. Returns the exit status."""
        self.signal(signum)
        return self.end()

    def end(self) -> int:
        """Wait for the end. Returns the exit status."""
        status = self.process.wait(PATIENCE)
        self.seconds = time.monotonic() - self.began
        return status


@contextmanager
def running(
    *words: str,
    env: Mapping[str, str] | None = None,
    wrapper: Sequence[str] = (),
    command: Sequence[str] = COMMAND,
    **options: Any,
) -> Iterator[Run]:
    """Start `cleanup-guard run` with these words; nobody whom it started is left when the block ends."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environ = {
            key: value for key, value in os.environ.items() if key not in OTHERS - {"PYTHONUNBUFFERED"}
        }
        key, value = "CLEANUP_GUARD_TEST", f"{os.getpid()}.{time.monotonic_ns()}"
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            process = subprocess.Popen[bytes](
                [*wrapper, *command, *words],
                stdout=options.pop("stdout", out),
                stderr=options.pop("stderr", err),
                stdin=options.pop("stdin", subprocess.DEVNULL),
                env={**environ, "PYTHONDONTWRITEBYTECODE": "1", **(env or {}), key: value},
                preexec_fn=options.pop("preexec_fn", default_signals),
                **options,
            )
        try:
            yield Run(process, folder)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            kill_marked(f"{key}={value}")


def default_signals() -> None:
    """In a child: a runner started with & has SIGINT ignored, and would pass that on."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def marked(mark: str) -> Iterator[int]:
    """The processes that have inherited this mark, a NAME=VALUE, in their environment."""
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            try:
                if mark.encode() in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                    yield int(name)
            except OSError:
                pass  # it has ended meanwhile, or is somebody else's


def kill_marked(mark: str) -> None:
    """End what a failed test left behind: by pid, and only who carries this mark."""
    for pid in marked(mark):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has ended meanwhile


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return state_of(pid) not in "ZX"
    except OSError:
        return False


def blocks_term(status: Path) -> bool:
    """Whether a /proc/PID/status says that SIGTERM is blocked."""
    line = next(line for line in status.read_text().splitlines() if line.startswith("SigBlk"))
    return bool(int(line.split()[1], 16) & 1 << signal.SIGTERM - 1)
