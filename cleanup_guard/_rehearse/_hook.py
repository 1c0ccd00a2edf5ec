"""Commands that run beside the program, in its namespaces: what a platform executes before it stops a container."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn, Self

if sys.platform != "linux":
    raise NotImplementedError("rehearsing a stop needs Linux")

from cleanup_guard._rehearse import _ptrace
from cleanup_guard._supervise._spawn import CannotStart, find

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMESPACES = ("user", "pid", "mnt")
"""In this order: who is root in the user namespace may enter the others."""

CANNOT = 126


class Beside:
    """A process of ours that is none of the program's. How it ends is known to the Watch, who reaps all our children.

    Args:
        pid: of a child of this process.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid

    @classmethod
    def inside(cls, first: int, command: list[str], *, alone: bool) -> Self:
        """Start a command beside a program.

        Args:
            first: the program's first process.
            command: the command.
            alone: whether it has namespaces of its own.
        """
        pid = os.fork()
        if pid == 0:
            _enter_and_execute(first, command, NAMESPACES if alone else ())
        return cls(pid)

    def close(self, *, ended: bool) -> None:
        """It is not needed any more."""
        if not ended:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def _enter_and_execute(first: int, command: list[str], namespaces: Sequence[str]) -> NoReturn:
    status = CANNOT
    try:
        os.setsid()
        folder = os.getcwd()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        fds = [
            os.open(f"/proc/{first}/ns/{name}", os.O_RDONLY) for name in namespaces if _differs(first, name)
        ]
        for fd in fds:
            _ptrace.setns(fd)
        os.chdir(folder)
        inner = os.fork()  # who is in a PID namespace is decided at birth
        if inner == 0:
            _execute(command)
        status = os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1])
    finally:  # whatever it was, it is told by the status only
        os._exit(128 - status if status < 0 else status)


def _differs(first: int, name: str) -> bool:
    theirs, ours = os.stat(f"/proc/{first}/ns/{name}"), os.stat(f"/proc/self/ns/{name}")
    return theirs.st_ino != ours.st_ino


def _execute(command: list[str]) -> NoReturn:
    try:
        for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.execv(find(command[0], os.environ.get("PATH")), command)  # noqa: S606 - no shell is what is wanted
    except (OSError, CannotStart):
        pass
    finally:
        os._exit(CANNOT)
