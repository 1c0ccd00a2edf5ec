"""Starting a program with nothing of ours: signal mask empty, dispositions default, only fds 0-2, a process group of its own.

`posix_spawn` does all that in C, from any thread, without running Python between fork and exec: a stop that arrives meanwhile
is neither lost nor taken for the parent's (supervisord loses it there). It can neither take the terminal nor call prctl; for
these there is `fork_spawn`, which forks, and is only for a process that we own and that has one thread.
"""

from __future__ import annotations

import os
import sys

if sys.platform != "linux":
    raise NotImplementedError("supervising children needs Linux")

from cleanup_guard._ground.kernel import PR_SET_CHILD_SUBREAPER, prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, NoReturn
else:
    import _signal

NOT_FOUND, NOT_EXECUTABLE = 127, 126
STDERR = 2


class CannotStart(Exception):
    """A program cannot be started. `status` is what a shell would exit with: 127 not found, 126 not executable."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def find(program: str, path: str | None = None, cwd: str | None = None) -> str:
    """The file that a command means, as a shell looks it up.

    Args:
        program: a name to look up, or a path.
        path: where to look, as in PATH; None for the default path.
        cwd: the directory that a relative path is relative to; None for the current one.

    Raises:
        CannotStart: there is none, or it cannot be executed.
    """
    if not program:
        raise CannotStart("'' is no program: its name is empty", NOT_FOUND)
    here = cwd or ""
    forbidden = ""
    for candidate in _candidates(program, os.defpath if path is None else path):
        seen_from = os.path.join(here, candidate)
        if os.path.isfile(seen_from) and os.access(seen_from, os.X_OK):
            return candidate
        if os.path.exists(seen_from):
            forbidden = forbidden or candidate
    if forbidden:
        why = "is a directory" if os.path.isdir(os.path.join(here, forbidden)) else "is not executable"
        raise CannotStart(f"{forbidden!r} {why}", NOT_EXECUTABLE)
    where = "" if "/" in program else " on PATH"
    raise CannotStart(f"{program!r} was not found{where}", NOT_FOUND)


def _candidates(program: str, path: str) -> list[str]:
    """Where a program may be: a path is no name that is looked up."""
    if "/" in program:
        return [program]
    return [os.path.join(folder, program) for folder in path.split(os.pathsep)]


def spawn(
    file: str,
    argv: list[str],
    environ: Mapping[str, str],
    *,
    dup: Iterable[tuple[int, int]] = (),
    mask: Iterable[int] = (),
    keep_ignored: Iterable[int] = (),
    own_group: bool = True,
) -> int:
    """Start a program. Any thread.

    Args:
        file: what `find` found.
        argv: its arguments, its own name first.
        environ: its environment.
        dup: pairs (ours, its) of file descriptors.
        mask: the signals that it starts with blocked.
        keep_ignored: signals that are ignored here and stay so; all others get their default.
        own_group: whether it leads a process group; if not, it is in ours.

    Returns:
        Its pid. When this returns the program has been executed.

    Raises:
        CannotStart: the system could not execute it.
    """
    actions = [(os.POSIX_SPAWN_DUP2, ours, its) for ours, its in dup]
    defaults = [signum for signum in _signal.valid_signals() if signum not in set(keep_ignored)]
    group: dict[str, Any] = {"setpgroup": 0} if own_group else {}
    try:
        return os.posix_spawn(
            file, argv, environ, file_actions=actions, setsigmask=mask, setsigdef=defaults, **group
        )
    except OSError as error:
        raise _explain(file, error) from None


def _explain(file: str, error: OSError) -> CannotStart:
    import errno

    if error.errno == errno.ENOEXEC:
        return CannotStart(
            f"{file!r} has no format that can be executed: does its first line lack #!/bin/sh ?",
            NOT_EXECUTABLE,
        )
    if error.errno == errno.ENOENT:
        return CannotStart(
            f"{file!r} could not be executed: the interpreter that its first line names is missing", NOT_FOUND
        )
    return CannotStart(f"{file!r} could not be executed: {error.strerror}", NOT_EXECUTABLE)


def fork_spawn(
    file: str,
    argv: list[str],
    environ: Mapping[str, str],
    *,
    dup: Iterable[tuple[int, int]] = (),
    mask: Iterable[int] = (),
    keep_ignored: Iterable[int] = (),
    prepare: Callable[[], None],
) -> int:
    """As `spawn`, and call `prepare` in the child before the exec. Only from a process that has one thread.

    Raises:
        CannotStart: the system could not execute it.
    """
    try:
        reader, writer = os.pipe()
    except OSError as error:
        raise _explain(file, error) from None
    try:
        pid = os.fork()
    except OSError as error:
        os.close(reader)
        os.close(writer)
        raise _explain(file, error) from None
    if pid == 0:
        _become(file, argv, environ, dup, mask, set(keep_ignored), prepare, writer)
    os.close(writer)
    with open(reader, "rb") as pipe:
        failure = pipe.read()
    if failure:
        os.waitpid(pid, 0)
        raise _explain(file, OSError(int(failure), os.strerror(int(failure))))
    return pid


def _become(  # noqa: PLR0917 - a continuation of fork_spawn
    file: str,
    argv: list[str],
    environ: Mapping[str, str],
    dup: Iterable[tuple[int, int]],
    mask: Iterable[int],
    keep_ignored: set[int],
    prepare: Callable[[], None],
    failures: int,
) -> NoReturn:
    try:
        os.setpgid(0, 0)
        for ours, its in dup:
            os.dup2(ours, its)
        prepare()
        # Not in _signals.py, because this process is about to be another program: nothing is ever put back.
        for signum in _signal.valid_signals() - keep_ignored - {_signal.SIGKILL, _signal.SIGSTOP}:
            _signal.signal(signum, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
        os.execve(file, argv, environ)  # noqa: S606 - no shell is what is wanted
    except OSError as error:
        os.write(failures, str(error.errno).encode())
    finally:
        os._exit(NOT_EXECUTABLE)


def open_fds() -> list[int]:
    """Our file descriptors above stderr."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        names = [str(fd) for fd in range(3, 256)]
    return [int(name) for name in names if int(name) > STDERR]


def keep_fds_to_ourselves() -> None:
    """Have no program that we start inherit what our caller left open, stdin, stdout and stderr aside."""
    for fd in open_fds():
        try:
            os.set_inheritable(fd, False)  # noqa: FBT003 - has no keyword
        except OSError:
            pass  # the one that listed the directory, or one of a range that is not open


def become_subreaper() -> bool:
    """Have orphans among our descendants become our children, as they do for PID 1. Returns whether that is so now."""
    return os.getpid() == 1 or prctl(PR_SET_CHILD_SUBREAPER, 1)
