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
    from collections.abc import Iterable
    from typing import Literal, NoReturn

    from cleanup_guard._exec.target import Environment, Word


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
    no_new_privs: bool = False,
    drop_caps: Iterable[str] = (),
    keep_terminal: bool = False,
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
        env: its whole environment; None for this one, byte for byte as the caller of this process gave it, but for what
            was changed since. (In the C locale Python itself adds LC_CTYPE to it: that is taken out again.)
        cwd: its working directory. A relative path to the program starts from there.
        argv0: the name it is called by; None for `program`.
        user: whom to become, a name or a number. HOME, USER and LOGNAME are his, unless `env` has them (of a number
            without an entry in the user database: "/", and none). Needs root, unless nothing changes.
        group: the group to have, as the only one; None for those of `user`.
        umask: its file mode creation mask; None for this one.
        pass_fds: file descriptors that it is to inherit besides 0, 1 and 2.
        signals: "inherit" keeps ignored what is ignored now, but for SIGPIPE and SIGXFSZ, which Python itself ignores.
        no_new_privs: it can never get more privileges by executing a file that has them, such as sudo.
        drop_caps: capabilities that neither it nor what it starts can ever have, by name such as "net_raw"; "all" for all.
        keep_terminal: when the user changes, the program is left the controlling terminal although it shares the session
            with the one who started it, and could type into his shell.
        despite_failures: exec even if cleanup callbacks failed; their failures are only told.

    Raises:
        FileNotFoundError: there is no such program or working directory (a shell's status 127).
        OSError: it cannot be executed, and `strerror` says why (126). Inside a guard what only the exec itself finds out
            ends the process with that sentence and 126 instead.
        PermissionError: only root can become that user, or drop capabilities.
        RuntimeError: not in the main thread, inside an event loop, or in a cleanup callback.
        TypeError, ValueError: an argument makes no sense, or the user or group does not exist.
        NotImplementedError: on Windows, where a process cannot become another program; capabilities elsewhere than on Linux.

    Example:
        >>> code = "from cleanup_guard import exec_into; exec_into('echo', 'the program')"
        >>> done = subprocess.run([sys.executable, "-c", code], check=True, text=True, capture_output=True)
        >>> done.stdout.strip()
        'the program'
    """
    if sys.platform != "win32":
        from cleanup_guard._exec.handover import hand_over

        hand_over(
            program,
            args,
            env=env,
            cwd=cwd,
            argv0=argv0,
            user=user,
            group=group,
            umask=umask,
            pass_fds=pass_fds,
            signals=signals,
            no_new_privs=no_new_privs,
            drop_caps=drop_caps,
            keep_terminal=keep_terminal,
            despite_failures=despite_failures,
        )
    from cleanup_guard._ground.elsewhere import needs

    sentence = needs("a POSIX system", "an exec that keeps the process")
    raise NotImplementedError(f"exec_into {sentence}: use subprocess.run, and exit with its status")
