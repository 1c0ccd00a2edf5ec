"""Starts the program as PID 1 of a PID namespace of its own, where that is allowed, and traced from its first instruction."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

if sys.platform != "linux":
    raise NotImplementedError("rehearsing a stop needs Linux")

from cleanup_guard._rehearse import _ptrace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NAMESPACES = _ptrace.CLONE_NEWPID | _ptrace.CLONE_NEWNS


class Starter:
    """A forked process that becomes the program, or the parent of it. It waits until it is told to `go`.

    Args:
        file: what to execute.
        argv: its arguments, its own name first.
        output: the descriptor for its stdout and stderr.
        alone: whether to try for a PID namespace.
        copies: files that it sees in place of others: path and path; only in a namespace.
        environ: its environment.
    """

    def __init__(
        self,
        file: str,
        argv: list[str],
        output: int,
        *,
        alone: bool,
        copies: Mapping[str, str],
        environ: Mapping[str, str],
    ) -> None:
        go, writer = os.pipe()
        reader, news = os.pipe()
        self._go = open(writer, "wb", buffering=0)  # noqa: SIM115 - lives longer than this call
        self.news = open(reader, "rb", buffering=0)  # noqa: SIM115
        """Where to read how it went; see `read_news`. At its end the program has been executed, or has failed to be."""
        self._text = b""
        self.pid = os.fork()
        if self.pid == 0:
            self._go.close()  # our own copy would keep us waiting if whoever started us is killed
            self.news.close()
            _start(file, argv, output, go, news, alone=alone, copies=copies, environ=environ)
        os.close(go)
        os.close(news)

    def go(self) -> None:
        """Let it begin."""
        self._go.write(b"\n")
        self._go.close()

    def read_news(self) -> bool:
        """Read what there is to read. Returns whether that was all."""
        data = os.read(self.news.fileno(), 4096)
        self._text += data
        return not data

    def close(self) -> None:
        """Forget about it. One that was not let go ends."""
        self._go.close()
        self.news.close()

    @property
    def told(self) -> dict[str, str]:
        """`first`: the pid of PID 1; `user`: it is in a user namespace; `failed`: why there is no program."""
        lines = self._text.decode("utf-8", "replace").splitlines()
        return {name: value for name, _, value in (line.partition(" ") for line in lines)}


def _start(
    file: str,
    argv: list[str],
    output: int,
    go: int,
    news: int,
    *,
    alone: bool,
    copies: Mapping[str, str],
    environ: Mapping[str, str],
) -> NoReturn:
    def tell(line: str) -> None:
        os.write(news, f"{line}\n".encode())

    try:
        os.setsid()  # as runc does; and no Ctrl-C of ours is for it
        if not os.read(go, 1):
            os._exit(127)  # nobody watches
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if alone and _unshare(tell):
            first = os.fork()
            if first:
                tell(f"first {first}")
                os._exit(0)
            _prepare(tell, _ptrace.mount_proc, "a /proc of its own could not be mounted")
            for path, copy in copies.items():
                _ptrace.cover(path, copy)
        elif copies:
            tell("failed a changed copy of a file can be tried in a namespace only")
            os._exit(127)
        else:
            tell(f"first {os.getpid()}")
        for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.execve(file, argv, environ)  # noqa: S606 - no shell is what is wanted
    except OSError as error:
        tell(f"failed {file!r} could not be executed: {error.strerror}")
    except BaseException as error:
        tell(f"failed {file!r} could not be executed: {error!r}")
    finally:
        os._exit(127)


def _prepare(tell: Callable[[str], None], step: Callable[[], None], complaint: str) -> None:
    try:
        step()
    except OSError as error:
        tell(f"unfit {complaint}: {error.strerror}")
        os._exit(127)


def _unshare(tell: Callable[[str], None]) -> bool:
    """Have the next child be PID 1 of a new namespace. Returns whether it will."""
    try:
        _ptrace.unshare(NAMESPACES)
    except OSError:
        pass
    else:
        return True
    user, group = os.geteuid(), os.getegid()
    try:
        _ptrace.unshare(NAMESPACES | _ptrace.CLONE_NEWUSER)
    except OSError:
        return False
    _prepare(tell, lambda: _stay(user, group), "the user could not be kept in a user namespace")
    tell("user namespace")
    return True


def _stay(user: int, group: int) -> None:
    """Be the same user in this user namespace as outside.

    Raises:
        OSError: it is not allowed here.
    """
    for name, text in (
        ("setgroups", b"deny"),
        ("uid_map", b"%d %d 1" % (user, user)),
        ("gid_map", b"%d %d 1" % (group, group)),
    ):
        with open(f"/proc/self/{name}", "wb", buffering=0) as file:  # nor is a codec to be had from here on
            file.write(text)
