"""`exec_into`: prepare in Python, then become the program: same process, same PID, no shell and no parent in between.

Rules:
1. The program is looked up first; if it cannot be executed nothing has been torn down.
2. Inside a guard main ends as by `sys.exit`: `with` and `finally` unwind, callbacks run, and the exec comes last. It
   is bound to the exception: a main that swallows it, or ends by another one, does not become the program.
3. A stop that came before wins, and so does a callback that failed, unless told otherwise.
4. Without a guard there is nothing to wait for, and the exec happens at once.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping
    from typing import Literal, NoReturn

    from cleanup_guard._process import Process
    from cleanup_guard._target import Target

    Word = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    Environment = Mapping[str, str] | Mapping[bytes, bytes]


def exec_into(
    program: Word,
    /,
    *args: Word,
    env: Environment | None = None,
    cwd: Word | None = None,
    argv0: Word | None = None,
    user: str | int | None = None,
    group: str | int | None = None,
    umask: int | None = None,
    pass_fds: Iterable[int] = (),
    signals: Literal["default", "inherit"] = "default",
    despite_failures: bool = False,
) -> NoReturn:
    """Become another program, which keeps the PID and starts clean. Main thread only, and not inside an event loop.

    Inside a guard this ends main as `sys.exit` would: `with` and `finally` blocks unwind, the callbacks of all guards run,
    and the exec is the last act, at the end of the outermost guard. What lies outside of that, `atexit` and threads
    included, is gone as after `os.execv`. A stop that arrives before the exec ends the process instead.

    The program finds all signals at their defaults and none blocked, no timer running, stdout, stderr and log handlers
    flushed, and no file descriptors but 0 to 2 and those that are passed.

    Args:
        program: a path, or a name to look for in the PATH of the new environment.
        args: its arguments, passed on byte for byte; without the program's own name.
        env: its whole environment; None for this one.
        cwd: its working directory. A relative path to the program starts from there.
        argv0: the name it is called by; None for `program`.
        user: whom to become, a name or a number. HOME is set, unless `env` does. Needs root, unless nothing changes.
        group: the group to have, as the only one; None for those of `user`.
        umask: its file mode creation mask; None for this one.
        pass_fds: file descriptors that it is to inherit besides 0, 1 and 2.
        signals: "inherit" keeps ignored what is ignored now, but for SIGPIPE and SIGXFSZ, which Python itself ignores.
        despite_failures: exec even if cleanup callbacks failed; their failures are only told.

    Raises:
        FileNotFoundError: there is no such program or working directory (a shell's status 127).
        OSError: it cannot be executed, and `strerror` says why (126). Inside a guard what only the exec itself finds out
            ends the process with that sentence and 126 instead.
        PermissionError: only root can become that user.
        RuntimeError: not in the main thread, inside an event loop, or in a cleanup callback.
        TypeError, ValueError: an argument makes no sense, or the user or group does not exist.
        NotImplementedError: on Windows, where a process cannot become another program.
    """
    if sys.platform == "win32":
        raise NotImplementedError(
            "exec_into needs a POSIX system: on Windows a process cannot become another program. Use subprocess.run and exit "
            "with its status."
        )
    from cleanup_guard import _target

    _refuse_here(program)
    process = _active_process()
    who = _target.identity(user, group)
    target = _target.describe(
        program,
        args,
        env=_environment(env, None if who is None else who.home),
        cwd=cwd,
        argv0=argv0,
        who=who,
        umask=umask,
        pass_fds=pass_fds,
        signals=signals,
    )
    if process is not None:
        _leave_guards(process, target, despite_failures)
    _target.become(target, lambda: False)
    raise AssertionError("an exec that did not fail does not return")


def _refuse_here(program: Word) -> None:
    threading = sys.modules.get("threading")
    if threading is not None and threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            f"exec_into({program!r}) was called in thread {threading.current_thread().name!r}: it would end the main thread "
            "where it stands. Call it in the main thread"
        )
    asyncio, trio = sys.modules.get("asyncio.events"), sys.modules.get("trio")
    if (asyncio is not None and asyncio._get_running_loop() is not None) or (
        trio is not None and trio.lowlevel.in_trio_run()
    ):
        raise RuntimeError(
            f"exec_into({program!r}) was called inside a running event loop, whose tasks it would not end properly: "
            "call it after the loop has returned"
        )


def _environment(env: Environment | None, home: str | None) -> Environment:
    import os

    known = os.environ if env is None else env
    if home is None or (env is not None and ("HOME" in env or b"HOME" in env)):
        return known
    return {os.fsencode(key): os.fsencode(value) for key, value in known.items()} | {b"HOME": os.fsencode(home)}


def _active_process() -> Process | None:
    """The guards of this process, if there are any. Guards are not imported for that: without the module there are none."""
    module = sys.modules.get("cleanup_guard._process")
    return None if module is None else module.REGISTRY.process


def _leave_guards(process: Process, target: Target, despite_failures: bool) -> None:
    """End main, if it is inside a guard; returns if it is inside none."""
    import os
    import threading

    from cleanup_guard._exits import leave_elsewhere
    from cleanup_guard._last_act import LastAct

    if any(run.ident == threading.get_ident() for run in process.runs):
        raise RuntimeError(
            f"exec_into({os.fsdecode(target.argv[0])!r}) was called in a cleanup callback, after main: call it as the last thing that main does"
        )
    if process.guards:
        raise LastAct(process, lambda: _become(process, target), despite_failures=despite_failures)
    if process.stop is not None:
        raise process.make_exception()  # it has been cleaned up after, and is on its way out
    leave_elsewhere(process)


def _become(process: Process, target: Target) -> int:
    """The last act. Returns the exit status if it failed, or if a stop came first."""
    import signal

    from cleanup_guard._exits import leave_elsewhere
    from cleanup_guard._report import write_line
    from cleanup_guard._target import become

    def stopped() -> bool:
        return process.stop is not None or not process.handlers.previous.keys().isdisjoint(signal.sigpending())

    leave_elsewhere(process)
    process.reporter().drain(1.0)
    try:
        become(target, stopped)
    except OSError as error:
        write_line(f"exec_into: {error.strerror}")
        return 126
    except SystemExit as stop:  # as PID 1, for a stop signal that no guard had taken
        return int(stop.code or 0)
    return 1
