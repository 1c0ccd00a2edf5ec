"""System calls that Python has no function for, through the C library.

Through `_ctypes`, because `ctypes` itself costs another 250 KB and 2 ms, for processes that should cost next to nothing.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PR_SET_PDEATHSIG, PR_GET_PDEATHSIG = 1, 2
PR_CAPBSET_READ, PR_CAPBSET_DROP = 23, 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER = 47, 3


def call(name: str, *args: int | bytes) -> int:
    """Call a function of the C library.

    Args:
        name: the function's.
        args: C ints, or the content that a pointer points to. The kernel may write there, so pass bytes that are
            nobody else's.

    Returns:
        What it returned; -1, as if it had failed, where it cannot be called.
    """
    try:
        import _ctypes

        dlopen: Any = _ctypes.dlopen  # None is this very program, which no stub knows
        function = _ctypes.dlsym(dlopen(None, os.RTLD_NOW), name)
        result: int = _ctypes.call_function(function, args)
    except (ImportError, AttributeError, OSError):
        return -1
    return result


def prctl(option: int, value: int | bytes, argument: int = 0) -> bool:
    """Call prctl(2). Returns whether it could be."""
    return call("prctl", option, value, argument, 0, 0) >= 0
