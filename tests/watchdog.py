"""No test can hang the suite: one that takes too long is ended, with its name and the stacks of all threads.

Loaded by `conftest.py`. A small process of its own watches the runner, which tells it through a pipe what it is doing.
When a test is late it sends SIGUSR2, for which `faulthandler` prints the stacks from C, wherever main is; then SIGINT, so
that pytest says what it knows; and then it kills the runner and whatever the runner has started.

Things that don't work:
- pytest's own `faulthandler_timeout` and timer threads: Python 3.12 and later warn of every fork beside a thread.
- `signal.setitimer`: SIGALRM is what tests are about.
- A child of the runner: tests look at the runner's children. The process that watches is nobody's.

`pytest --patience=SECONDS` sets another limit, `--last-words=SECONDS` another time between Ctrl-C and the end.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

FEW_MINUTES = 300.0
"""Seconds for a test."""

LONG = 2 * 3600.0
"""Seconds for a test that is marked as one that takes long."""

LONG_MARKERS = ("nightly", "benchmark", "container")

THE_END = "the end of the run"

STACKS = 20.0
"""Seconds that they may take."""

LAST_WORDS = 60.0
"""Seconds that pytest has, after Ctrl-C, to say what it knows: a moment, but not on a machine that has others to serve."""


# -- the process that watches; nothing but the standard library --


class Watch:
    """Reads lines "SECONDS WHAT", and does something when the last one is older than it says. "0" is: nothing to watch."""

    def __init__(self, runner: int, pipe: int, last_words: float) -> None:
        self.runner = runner
        self.pipe = pipe
        self.last_words = last_words
        # Readable when the runner has ended; elsewhere the pipe is closed then, unless a fork of the runner's has it open.
        self.ended = os.pidfd_open(runner) if sys.platform == "linux" else pipe
        self.what = ""
        self.limit: float | None = None
        self._rest = b""

    def run(self) -> None:
        """Watch until the runner is gone, or has to go."""
        while True:
            left = None if self.limit is None else max(0.0, self.limit - time.monotonic())
            readable = select.select([self.ended, self.pipe], [], [], left)[0]
            if not readable:
                self._end_it()
                return
            if self.ended in readable and self.ended != self.pipe:
                return
            if not self._read():
                return

    def _read(self) -> bool:
        data = os.read(self.pipe, 65536)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            seconds, _, what = line.decode(errors="replace").partition(" ")
            self.what = what
            self.limit = time.monotonic() + float(seconds) if float(seconds) else None
        return bool(data)

    def _end_it(self) -> None:
        say(f"\nwatchdog: {self.what} takes too long. The stacks of all threads of the runner:\n")
        os.kill(self.runner, signal.SIGUSR2)
        wait_for_handler(self.runner, signal.SIGUSR2)
        if self.what != THE_END:
            say("watchdog: Ctrl-C, so that pytest says what it knows\n")
            os.kill(self.runner, signal.SIGINT)
            if self._has_ended(self.last_words):
                return
        say("watchdog: killed\n")
        for pid in [*descendants(self.runner), self.runner]:
            kill(pid)

    def _has_ended(self, patience: float) -> bool:
        limit = time.monotonic() + patience
        while (left := limit - time.monotonic()) > 0:
            if select.select([self.ended], [], [], left)[0] and (self.ended != self.pipe or not self._read()):
                return True
        return False


def wait_for_handler(pid: int, signum: int) -> None:
    """Wait until a process has dealt with a signal: before, it is pending, and then blocked while the handler runs."""
    limit = time.monotonic() + STACKS
    while time.monotonic() < limit:
        time.sleep(0.1)
        try:
            with open(f"/proc/{pid}/status") as status:
                masks = dict(
                    line.split(":") for line in status if line.startswith(("SigPnd", "ShdPnd", "SigBlk"))
                )
        except OSError:  # it has ended, or this is not Linux
            time.sleep(1)
            return
        if not any(int(mask, 16) & 1 << signum - 1 for mask in masks.values()):
            return


def say(text: str) -> None:
    """Tell it on stderr."""
    os.write(2, text.encode())


def kill(pid: int) -> None:
    """Kill a process that may be gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have started (Linux; elsewhere none are known)."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        try:
            with open(f"/proc/{name}/stat") as stat:
                parents[int(name)] = int(stat.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            pass
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]


def leave_and_watch(runner: int, pipe: int, last_words: float) -> None:
    """Become nobody's child, and watch."""
    if os.fork():
        os._exit(0)
    os.setsid()
    Watch(runner, pipe, last_words).run()


# -- the plugin --

if __name__ != "__main__":
    import pytest

    class Watched:
        """The runner's end."""

        def __init__(self, patience: float | None, last_words: float) -> None:
            self.patience = patience
            self.stderr = os.dup(2)
            reader, self.pipe = os.pipe()
            faulthandler.register(signal.SIGUSR2, file=self.stderr, all_threads=True, chain=False)
            # A call that the kernel restarted afterwards would not see a Ctrl-C that came during it.
            signal.siginterrupt(signal.SIGUSR2, True)  # noqa: FBT003  # as the function has it
            words = [str(each) for each in (os.getpid(), reader, last_words)]
            command = [sys.executable, "-I", "-S", __file__, *words]
            subprocess.run(command, stderr=self.stderr, stdout=self.stderr, pass_fds=[reader], check=True)
            os.close(reader)

        def tell(self, seconds: float, what: str) -> None:
            """Tell what is being done, and how long it may take."""
            os.write(self.pipe, f"{seconds} {what}\n".encode())

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
            """A test, its fixtures included."""
            long = any(item.get_closest_marker(each) for each in LONG_MARKERS)
            self.tell(self.patience or (LONG if long else FEW_MINUTES), item.nodeid)
            try:
                return (yield)
            finally:
                self.tell(0, "")

        def pytest_unconfigure(self) -> None:
            """What is left, threads of tests for example, has to end, too."""
            self.tell(self.patience or FEW_MINUTES, THE_END)

    def pytest_addoption(parser: pytest.Parser) -> None:
        """The limit."""
        parser.addoption("--patience", type=float, metavar="SECONDS", help="how long a test may take")
        parser.addoption(
            "--last-words", type=float, metavar="SECONDS", default=LAST_WORDS, help="and after Ctrl-C"
        )

    def pytest_configure(config: pytest.Config) -> None:
        """Begin to watch, but not for `--collect-only` and the like."""
        if not config.option.collectonly:
            watched = Watched(config.option.patience, config.option.last_words)
            config.pluginmanager.register(watched, "watched")

else:
    leave_and_watch(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
