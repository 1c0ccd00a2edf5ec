"""What `exec_into` does on POSIX: look up the program, have main leave its guards, and become it.

Guards are not imported for that: where their module is not loaded there are none.
"""

from __future__ import annotations

import _thread
import os
import sys

from cleanup_guard._exec import target as targets

assert sys.platform != "win32"

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Iterable, Mapping, Sequence
    from typing import NoReturn

    from cleanup_guard._exec.target import Environment, Target, Word
    from cleanup_guard._process.process import Process
else:
    import _signal


def hand_over(
    program: Word,
    args: Sequence[Word],
    *,
    env: Environment | None,
    cwd: Word | None,
    argv0: Word | None,
    user: str | int | None,
    group: str | int | None,
    umask: int | None,
    pass_fds: Iterable[int],
    signals: str,
    no_new_privs: bool,
    drop_caps: Iterable[str],
    keep_terminal: bool,
    despite_failures: bool,
) -> NoReturn:
    """See `exec_into`."""
    _refuse_here(program)
    who = None
    if user is not None or group is not None:
        from cleanup_guard._exec.identity import identity

        who = identity(user, group, keep_terminal=keep_terminal)
    world = targets.world(
        cwd=cwd,
        who=who,
        privileges=targets.privileges(no_new_privs=no_new_privs, drop_caps=drop_caps),
        umask=umask,
        pass_fds=pass_fds,
        signals=signals,
    )
    changes = {} if who is None else _unless_given(who.variables, env or {})
    target = targets.describe(program, args, world, env=env, changes=changes, argv0=argv0)
    process = _active_process()
    if process is not None:
        _leave_guards(process, target, despite_failures=despite_failures)
    targets.become(target, lambda: False)
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


def _unless_given(variables: Mapping[bytes, bytes | None], env: Environment) -> dict[bytes, bytes | None]:
    given = {os.fsencode(name) for name in env}
    return {name: value for name, value in variables.items() if name not in given}


def _active_process() -> Process | None:
    """The guards of this process, if there are any. Guards are not imported for that: without the module there are none."""
    module = sys.modules.get("cleanup_guard._process.process")
    return None if module is None else module.REGISTRY.process


def _leave_guards(process: Process, target: Target, *, despite_failures: bool) -> None:
    """End main, if it is inside a guard; returns if it is inside none."""
    from cleanup_guard._process.last_act import LastAct
    from cleanup_guard._process.nets import leave_elsewhere

    if any(turn.ident == _thread.get_ident() for turn in list(process.roster.turns)):
        raise RuntimeError(
            f"exec_into({os.fsdecode(target.argv[0])!r}) was called in a cleanup callback, after main: "
            "call it as the last thing that main does"
        )
    if process.roster.main:
        raise LastAct(process, lambda: _become(process, target), despite_failures=despite_failures)
    if process.stop is not None:
        raise process.make_exception()  # it has been cleaned up after, and is on its way out
    leave_elsewhere(process)


def _become(process: Process, target: Target) -> int:
    """The last act. Returns the exit status if it failed, or if a stop came first."""
    from cleanup_guard._ground.stderr import write_line
    from cleanup_guard._process.nets import leave_elsewhere
    from cleanup_guard._process.report import OUTBOX

    def stopped() -> bool:
        return process.stop is not None or not process.signals.previous.keys().isdisjoint(
            _signal.sigpending()
        )

    leave_elsewhere(process)
    OUTBOX.drain(1.0)
    try:
        targets.become(target, stopped)
    except OSError as error:
        write_line(f"exec_into: {error.strerror}")
        return 126
    except SystemExit as stop:  # as PID 1, for a stop signal that no guard had taken
        return int(stop.code or 0)
    return 1
