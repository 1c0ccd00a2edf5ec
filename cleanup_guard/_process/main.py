"""Having main do something, from another thread."""

from __future__ import annotations

import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_KEPT: list[Any] = []
"""C calls them later: they must not be collected before."""


def can_be_taken() -> bool:
    """Whether SIGTERM is nobody's yet."""
    return signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def call_in_main(function: Callable[[], object]) -> None:
    """Have main call a function when it next runs a line of Python. What it raises is printed. Does nothing without ctypes."""
    try:
        import ctypes
    except ImportError:
        return

    def call(_: object) -> int:
        function()
        return 0

    pending = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object)(call)
    _KEPT.append(pending)
    ctypes.pythonapi.Py_AddPendingCall(pending, ctypes.py_object(None))
