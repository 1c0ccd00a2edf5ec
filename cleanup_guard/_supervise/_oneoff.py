"""`run`: what `subprocess.run` does, but a stop asks the child before it kills it, and waits for it inside the grace period.

`subprocess.run` kills its child on SystemExit, which is how a SIGTERM arrives, and leaves it running on KeyboardInterrupt.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from contextlib import ExitStack

from cleanup_guard._ground.clock import grace_from_environment, inf, seconds
from cleanup_guard._ground.here import foreground, own
from cleanup_guard._ground.platforms import grace_here
from cleanup_guard._guard.on_exit import current_guard
from cleanup_guard._guard.options import Default
from cleanup_guard._supervise._household import LONGEST_WAIT, LOST, peek, reap, signal_group
from cleanup_guard._supervise._tie import sent_to_everybody
from cleanup_guard._supervise._tree import children, descendants, members

if sys.platform != "linux":
    raise NotImplementedError("cleanup_guard.run needs Linux: it waits for its child by pidfd")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta
    from typing import IO, Any, NoReturn

    from _typeshed import FileDescriptorLike

    from cleanup_guard._supervise._tree import Process

    File = int | IO[bytes] | IO[str]

SIGTERM, SIGCONT, SIGKILL = 15, 18, 9
CHUNK = 65536
LOOK_AGAIN = 0.05
"""Seconds between two looks at a process group whose leader has ended."""

SHARE = 0.7
"""What the child may have of the time that a guard's stop leaves: the callbacks need theirs."""


def run(
    args: Sequence[str | os.PathLike[str]],
    *,
    stdin: File | None = None,
    input: str | bytes | None = None,  # noqa: A002 - subprocess.run's name for it
    stdout: File | None = None,
    stderr: File | None = None,
    capture_output: bool = False,
    cwd: str | os.PathLike[str] | None = None,
    timeout: float | timedelta | None = None,
    check: bool = False,
    encoding: str | None = None,
    errors: str | None = None,
    text: bool | None = None,
    env: Mapping[str, str] | None = None,
    grace: float | timedelta | Default | None = Default.GRACE,
    stop_signal: int = SIGTERM,
) -> subprocess.CompletedProcess[Any]:
    """Run a program and wait for it. When a stop, Ctrl-C or the timeout ends the wait, the program is asked to stop first.

    The program has a process group of its own, all of which is asked. In the foreground of a terminal it stays in ours, so that
    it may read from the terminal, and Ctrl-C reaches it from there; then it and its descendants are asked. Any thread.

    Args:
        args: the program, looked up on PATH, and its arguments.
        stdin, stdout, stderr: a file, a descriptor, `subprocess.PIPE` (not for stdin), `DEVNULL`, or `STDOUT` for stderr.
        input: what to write to its stdin.
        capture_output: have stdout and stderr in the result.
        cwd: where to run it.
        timeout: seconds after which it is asked to stop, and TimeoutExpired is raised.
        check: raise if it fails.
        encoding, errors, text: have str, not bytes.
        env: its environment; None for ours.
        grace: seconds between asking and SIGKILL; None for no limit; by default what the platform gives, or
            CLEANUP_GUARD_GRACE says. In a guard's stop less, if less is left.
        stop_signal: what asks it.

    Returns:
        How it ended, and what it wrote.

    Raises:
        subprocess.CalledProcessError: `check` was given and it failed.
        subprocess.TimeoutExpired: it took longer than `timeout`.
        FileNotFoundError, PermissionError: there is no such program, or it cannot be executed; or so with `cwd`.
        NotADirectoryError: `cwd` is none.
        ValueError, TypeError: the arguments make no sense.

    Example:
        >>> run(["echo", "done"], check=True, capture_output=True, text=True).stdout.strip()
        'done'
    """
    if isinstance(args, (str, bytes)):
        raise TypeError(f"args must be a list of words such as {str(args).split()!r}: no shell is involved")
    if capture_output:
        if stdout is not None or stderr is not None:
            raise ValueError("capture_output and stdout or stderr exclude each other")
        stdout = stderr = subprocess.PIPE
    _check_input(stdin, input)
    codec = _codec(encoding, errors, text=text)
    data = input.encode(*(codec or ("utf-8", "strict"))) if isinstance(input, str) else input
    words = [os.fspath(word) for word in args]
    talk = Conversation(words, seconds(timeout, "timeout"), _own_grace(grace), stop_signal)
    with talk.files:
        talk.start(
            cwd=None if cwd is None else os.fspath(cwd),
            env=env,
            data=data,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )
        status = talk.hold()
    out, err = (talk.output(fd, codec) for fd in (1, 2))
    if check and status:
        raise subprocess.CalledProcessError(status, words, out, err)
    return subprocess.CompletedProcess(words, status, out, err)


def _own_grace(grace: float | timedelta | Default | None) -> float | Default | None:
    """Seconds between asking and SIGKILL; what the platform gives is found out only when somebody has to be asked."""
    if isinstance(grace, Default):
        grace_from_environment(os.environ)  # refuses one that makes no sense
        return grace
    return seconds(grace, "grace")


def _check_input(stdin: File | None, data: str | bytes | None) -> None:
    """Refuse what says twice, or not at all, what the child is to read."""
    if data is not None and stdin is not None:
        raise ValueError("input and stdin exclude each other")
    if stdin == subprocess.PIPE:
        raise ValueError("stdin cannot be a pipe that nobody writes to: pass what is to be read as input")


def _codec(encoding: str | None, errors: str | None, *, text: bool | None) -> tuple[str, str] | None:
    """What to decode output with, and how; None if it stays bytes."""
    return (encoding or "utf-8", errors or "strict") if text or encoding or errors else None


class Conversation:
    """One child, from its start to its end, and the pipes to it."""

    def __init__(
        self, words: list[str], timeout: float | None, grace: float | Default | None, stop_signal: int
    ) -> None:
        self.files = ExitStack()
        self._words = words
        self._timeout = timeout
        self._grace = grace
        self._stop_signal = stop_signal
        self._pid = self._pidfd = -1
        self._own_group = foreground() != os.getpgrp()
        self._selector = selectors.DefaultSelector()
        self.files.callback(self._selector.close)
        self.files.callback(self._close_pipes)
        self._read: dict[int, bytearray] = {}
        self._input = memoryview(b"")

    def start(
        self,
        *,
        cwd: str | None,
        env: Mapping[str, str] | None,
        data: bytes | None,
        stdin: File | None,
        stdout: File | None,
        stderr: File | None,
    ) -> None:
        """Start the child with its pipes."""
        process = subprocess.Popen(
            self._words,
            bufsize=0,
            cwd=cwd,
            env=env,
            stdin=subprocess.PIPE if data is not None else stdin,
            stdout=stdout,
            stderr=stderr,
            process_group=0 if self._own_group else None,
        )
        self._pid = process.pid
        process.returncode = LOST  # for it to leave the child to us
        if process.stdin is not None and data is not None:
            self._feed(process.stdin, data)
        for fd, pipe in ((1, process.stdout), (2, process.stderr)):
            if pipe is not None:
                self._read[fd] = bytearray()
                self._selector.register(pipe, selectors.EVENT_READ, self._read[fd])
        try:
            self._pidfd = os.pidfd_open(self._pid)
        except OSError:  # there are no descriptors left
            self._signal(SIGKILL)
            os.waitpid(self._pid, 0)
            raise
        self._selector.register(self._pidfd, selectors.EVENT_READ, self._pidfd)

    def _feed(self, pipe: IO[bytes], data: bytes) -> None:
        os.set_blocking(pipe.fileno(), False)
        self._input = memoryview(data)
        self._selector.register(pipe, selectors.EVENT_WRITE)

    def hold(self) -> int:
        """Wait for the end. Whatever cuts the wait short, the child is asked to stop, and waited for, first."""
        try:
            limit = inf if self._timeout is None else time.monotonic() + self._timeout
            if not self._talk(limit):
                self._give_up()
        except BaseException as error:
            pressed = isinstance(error, KeyboardInterrupt) and not self._own_group
            self._ask(told=pressed or sent_to_everybody() == self._stop_signal)
            if isinstance(error, subprocess.TimeoutExpired):
                error.output, error.stderr = (
                    bytes(self._read[fd]) if fd in self._read else None for fd in (1, 2)
                )
            raise
        finally:
            status = peek(self._pidfd)
            if status is None:
                self._signal(SIGKILL)
                os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT)
            reap(self._pidfd)
        assert status is not None
        return status

    def _give_up(self) -> NoReturn:
        assert self._timeout is not None
        raise subprocess.TimeoutExpired(self._words, self._timeout)

    def _close_pipes(self) -> None:
        for key in list(self._selector.get_map().values()):
            if key.fd != self._pidfd:
                self._close(key.fileobj)

    def _talk(self, limit: float) -> bool:
        """Feed and read until the child has ended and its pipes are at their ends, or until the limit."""
        while self._selector.get_map():
            left = limit - time.monotonic()
            if left <= 0:
                return False
            for key, _ in self._selector.select(None if left == inf else min(left, LONGEST_WAIT)):
                if key.fd == self._pidfd:
                    self._selector.unregister(key.fd)
                elif key.data is None:
                    self._write_some(key)
                else:
                    self._drain(key)
        return True

    def _write_some(self, key: selectors.SelectorKey) -> None:
        try:
            self._input = self._input[os.write(key.fd, self._input[:CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._input = memoryview(b"")  # it does not want to read it all
        if not self._input:
            self._close(key.fileobj)

    def _drain(self, key: selectors.SelectorKey) -> None:
        data = os.read(key.fd, CHUNK)
        key.data.extend(data)
        if not data:
            self._close(key.fileobj)

    def _close(self, pipe: FileDescriptorLike) -> None:
        self._selector.unregister(pipe)
        if not isinstance(pipe, int):
            pipe.close()  # type: ignore[attr-defined]  # registered above as files

    def _ask(self, *, told: bool) -> None:
        """Ask everybody to stop, and give them the time they need, up to the grace period; then SIGKILL.

        Args:
            told: Ctrl-C, or the platform, has told them already, most likely: they are asked at half time only.
        """
        guard = current_guard()
        left = None if guard is None else guard.remaining()
        grace = grace_here(own()).hope if isinstance(self._grace, Default) else self._grace
        allowed = min(inf if grace is None else grace, inf if left is None else left * SHARE)
        limit = time.monotonic() + allowed
        try:
            if told and self._talk(limit - allowed / 2 if allowed < inf else inf):
                return
            self._signal(self._stop_signal)
            self._signal(SIGCONT)
            self._talk(limit)
            while time.monotonic() < limit and any(each.pid != self._pid for each in self._everybody()):
                time.sleep(LOOK_AGAIN)
        finally:
            self._signal(SIGKILL)

    def _everybody(self) -> list[Process]:
        return members(self._pid) if self._own_group else descendants(children(self._pid))

    def _signal(self, signum: int) -> None:
        if self._own_group:
            signal_group(self._pid, signum)
            return
        for pid in (self._pid, *(each.pid for each in self._everybody())):
            try:
                os.kill(pid, signum)
            except (ProcessLookupError, PermissionError):
                pass  # gone, or running as somebody else

    def output(self, fd: int, codec: tuple[str, str] | None) -> str | bytes | None:
        """What the child wrote there, if that was asked for."""
        if fd not in self._read:
            return None
        data = bytes(self._read[fd])
        return data.decode(*codec).replace("\r\n", "\n") if codec else data
