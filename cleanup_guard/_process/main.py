"""Having main do something, from another thread, where no signal of ours would: when it next runs a line of Python.

That is a pending call of CPython's, which main makes where it looks for signals, too. It ends no call that blocks (hazard H20).
"""

from __future__ import annotations

import signal
import sys
from functools import partial

from cleanup_guard._ground.once import Once
from cleanup_guard._process import native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any


def can_be_taken() -> bool:
    """Whether SIGTERM is nobody's yet."""
    return signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


class CallInMain:
    """A call that main makes, each time that it is asked for.

    What CPython is given is C's own `PyObject_IsTrue`, for this object: it calls `__bool__`, whose exceptions are then raised
    where main is. Those of a Python function that C calls would only be printed.

    Args:
        function: what is called, with the frame in which main is.
    """

    def __init__(self, function: Callable[[FrameType | None], object]) -> None:
        self._function = function
        self._asked = Once()
        self._refused: list[int] = []
        self._looks = False  # main is making it
        self._missed = False  # and was asked meanwhile

    def ask(self) -> None:
        """Have it made, if main has not been asked already. Does nothing without ctypes. Any thread."""
        asking = self.asking()
        if asking is not None:
            asking()

    def asking(self) -> partial[Any] | None:
        """What asks, for a place where no line of Python may run: it is C code. It has to be called.

        Returns:
            None without ctypes, and if main has been asked already. To another thread also while main makes the call: CPython
            3.11 would make the next one at once, with its sign still set, at which a main that is traced looks for ever.
        """
        if self._refused and self._refused.pop():
            self._came()
        if not self._asked.claim():
            return None
        if self._looks and not native.in_main():
            self._asked.give_back()
            self._missed = True
            return None
        try:
            import ctypes

            is_true = ctypes.cast(ctypes.pythonapi.PyObject_IsTrue, ctypes.c_void_p)
            add = partial(ctypes.pythonapi.Py_AddPendingCall, is_true, ctypes.py_object(self))
        except (ImportError, AttributeError):
            return None
        _ASKED[self] = None
        # What it returns is not 0 if too many calls wait: then the next one who asks asks again.
        return partial(next, map(self._refused.append, map(native.call, (add,))))

    def _came(self) -> None:
        self._refused.clear()
        _ASKED.pop(self, None)
        self._asked.give_back()

    def __bool__(self) -> bool:
        self._looks = True
        try:
            self._came()
            self._function(sys._getframe(1))  # pyright: ignore[reportPrivateUsage]
            if self._missed and sys.gettrace() is None:
                self._missed = False
                self.ask()
        finally:
            # Last: from here on no function of Python is entered before the next one is made.
            self._looks = False
        return False


_ASKED: dict[CallInMain, None] = {}
"""C holds no reference to these."""
