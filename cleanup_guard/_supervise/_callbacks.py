"""The commands of `--on-exit`: run one after the other when everybody is gone, inside what is left of the grace period.

Messages name a command by its place and its program, never by its whole text, which may hold a password.
"""

from __future__ import annotations

import os
import time

from cleanup_guard._ground.clock import inf
from cleanup_guard._ground.foreign import quoted
from cleanup_guard._supervise._procfile import SH, words
from cleanup_guard._supervise._spawn import CannotStart, find, spawn
from cleanup_guard._supervise._terms import ABANDONED, INSISTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Mapping

    from cleanup_guard._ground.clock import Budget
    from cleanup_guard._supervise._terms import Stop
else:
    import _signal

TERMINAL_SIGNALS = frozenset({int(_signal.SIGTTIN), int(_signal.SIGTTOU)})
"""Ignored in a callback, which is in the background: `stty sane` works there, and who reads the terminal gets an error."""


class Callbacks:
    """The commands, and the one that runs.

    Args:
        commands: as they were given.
        environ: their environment, without the status.
        wait: waits until an instant, or until something happens, and deals with it.
        budget: what there is to spend, once somebody has begun to count.
        stopping: how often Ctrl-C was pressed.
        say: reports a sentence.
    """

    def __init__(
        self,
        commands: list[str],
        environ: Mapping[str, str],
        *,
        wait: Callable[[float], None],
        budget: Callable[[], Budget | None],
        stopping: Stop,
        say: Callable[[str], None],
    ) -> None:
        self.awaited: int | None = (
            None  # whose end the reaper is to tell; nobody's, as soon as it has been told
        )
        self._ended: int | None = None
        self._commands = commands
        self._environ = environ
        self._wait = wait
        self._budget = budget
        self._stopping = stopping
        self._say = say
        self._refused = False
        self._others_wait = False

    def run(self) -> bool:
        """Run them all. Returns whether one failed."""
        failed = False
        for signum in TERMINAL_SIGNALS:
            _signal.signal(signum, _signal.SIG_IGN)
        for number, command in enumerate(self._commands, 1):
            if self._stopping.presses >= ABANDONED:
                self._say(f"--on-exit number {number} was not run: Ctrl-C was pressed three times")
                failed = True
                continue
            argv = words(command)
            self._others_wait = number < len(self._commands)
            problem = self._run(argv)
            if problem:
                program = "" if argv[0] == SH else f", {quoted(argv[0])}"
                self._say(f"--on-exit number {number}{program} {problem}")
                failed = True
        return failed

    def ended(self, status: int) -> None:
        """The command that runs has ended, with this wait status."""
        self.awaited = None
        self._ended = status

    def _run(self, argv: list[str]) -> str:
        """Run one. Returns what is wrong with it, to go on a sentence with; empty if nothing is."""
        try:
            pid = spawn(
                find(argv[0], self._environ.get("PATH")), argv, self._environ, keep_ignored=TERMINAL_SIGNALS
            )
        except CannotStart as error:
            return f"could not be started: {error}"
        self.awaited, self._ended = pid, None
        why = self._see_through(pid)
        self.awaited = None
        if self._ended is None:
            return f"{why}, but it cannot be stopped"
        status = os.waitstatus_to_exitcode(self._ended)
        if why or status == 0:
            return why
        return f"failed with status {status if status >= 0 else 128 - status}"

    def _see_through(self, pid: int) -> str:
        """Wait for it, tell it to stop when its time is over, kill it when all is. Returns why it was stopped, if it was."""
        started = time.monotonic()
        presses = self._stopping.presses
        why = ""
        told = 0
        while self.awaited is not None:
            now = time.monotonic()
            limit, end, last = self._limits(started)
            pressed = self._stopping.presses if self._stopping.presses > presses else 0
            due = _due(now, limit, end, pressed)
            if due not in (0, told) and told != _signal.SIGKILL:
                why = why or _reason(pressed)
                told = due
                self._kill(pid, due)
            killed = told == _signal.SIGKILL
            if killed and (self._refused or now >= last):
                break
            self._wait(last if killed else end if why else limit)
        return why

    def _limits(self, started: float) -> tuple[float, float, float]:
        """When one that was started at this instant is asked to stop, killed, and waited for no longer."""
        budget = self._budget()
        if budget is None:
            return inf, inf, inf
        return (
            budget.callback_limit(started, None, others_wait=self._others_wait),
            budget.end,
            budget.last_resort,
        )

    def _kill(self, pid: int, signum: int) -> None:
        try:
            os.kill(-pid, signum)
        except ProcessLookupError:
            pass  # it has just ended
        except PermissionError:  # it has become another user, and we have no CAP_KILL
            self._refused = True


def _due(now: float, limit: float, end: float, pressed: int) -> int:
    """What it is time to tell a command that still runs; 0 for nothing."""
    if now >= end or pressed >= ABANDONED:
        return _signal.SIGKILL
    return _signal.SIGTERM if now >= limit or pressed >= INSISTED else 0


def _reason(pressed: int) -> str:
    return "was stopped: Ctrl-C was pressed again" if pressed else "was stopped: the grace period was over"
