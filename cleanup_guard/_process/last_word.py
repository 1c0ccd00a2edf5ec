"""The last word on how the process ends, where no exception can say it; and no traceback for a Ctrl-C that was dealt with."""

from __future__ import annotations

import os
import signal
import sys

from cleanup_guard._process.native import set_handler
from cleanup_guard._stop.token import is_all_ours

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cleanup_guard._stop.ending import Ending


CTRL_C_EXIT = -1073741510
"""STATUS_CONTROL_C_EXIT: how Windows says that a program was ended by Ctrl-C."""


class LastWord:
    """Ends the process after the interpreter has flushed its streams: `__del__` of a name in `sys`, which is cleared last.

    There is no other place to do it: `atexit` comes before the flush, and its callbacks cannot change the exit status.
    """

    NAME = "_cleanup_guard_last_word"

    def __init__(self, ending: Ending) -> None:
        self.pid = os.getpid()
        self.signum = ending.signum
        self.status = ending.status
        if sys.platform == "win32" and ending.signum is not None:
            # There nobody dies of a signal: `os.kill` ends with its number, and Ctrl-C has a status of its own.
            self.signum, self.status = None, CTRL_C_EXIT if ending.signum == signal.SIGINT else ending.status
        # Globals may be gone by then.
        self.getpid, self.kill, self.signal, self.default, self.exit = (
            os.getpid,
            os.kill,
            set_handler,  # the C function: the Python one needs its globals
            int(signal.SIG_DFL),
            os._exit,
        )

    def say(self) -> None:
        """Put it in place of any that was said before."""
        self.take_back()
        setattr(sys, self.NAME, self)

    @classmethod
    def take_back(cls) -> None:
        """Leave the exit status to Python."""
        last = sys.__dict__.pop(cls.NAME, None)
        if last is not None:
            last.pid = -1

    def __del__(self) -> None:
        if self.getpid() != self.pid:
            return
        if self.signum is not None and self.pid != 1:  # PID 1 survives its own signals (H2)
            self.signal(self.signum, self.default)
            self.kill(self.pid, self.signum)
        self.exit(self.status)


class QuietHook:
    """`sys.excepthook` that shows no traceback for the Ctrl-C that a guard has dealt with; all else goes to the previous hook.

    The exception itself stays uncaught, because that is what makes Python die of SIGINT after a complete shutdown.
    """

    def __init__(self) -> None:
        self.previous = sys.excepthook

    def __call__(self, kind: type[BaseException], value: BaseException, trace: object) -> None:
        if not is_all_ours(value):
            self.previous(kind, value, trace)  # type: ignore[arg-type]


def hush_traceback() -> None:
    """Install the quiet hook, once."""
    if not isinstance(sys.excepthook, QuietHook):
        sys.excepthook = QuietHook()


def unhush_traceback() -> None:
    """Put the previous hook back, if ours is still in place."""
    if isinstance(sys.excepthook, QuietHook):
        sys.excepthook = sys.excepthook.previous
