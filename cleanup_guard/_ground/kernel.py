"""System calls that Python has no function for, through the C library.

Through `_ctypes`, because `ctypes` itself costs another 250 KB and 2 ms, for processes that should cost next to nothing.
"""

from __future__ import annotations

import os
import sys

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


CAP_HEADER = (0x20080522).to_bytes(4, sys.byteorder) + bytes(4)
"""The third version of the arguments of capget and capset, and our own process."""

CAP_SETGID, CAP_SETUID, CAP_SETPCAP = 6, 7, 8


def capabilities() -> list[int] | None:
    """Our effective, permitted and inheritable capabilities, as bits; None where they cannot be read."""
    data = bytes(24)  # the kernel writes into it
    if call("capget", CAP_HEADER, data) != 0:
        return None
    words = [int.from_bytes(data[at : at + 4], sys.byteorder) for at in range(0, len(data), 4)]
    return [words[each] + (words[each + 3] << 32) for each in range(3)]


def set_capabilities(sets: list[int]) -> bool:
    """Have these effective, permitted and inheritable ones, as bits. Returns whether we could."""
    words = [each >> shift & 0xFFFFFFFF for shift in (0, 32) for each in sets]
    return call("capset", CAP_HEADER, b"".join(word.to_bytes(4, sys.byteorder) for word in words)) == 0


def may(capability: int) -> bool:
    """Whether a capability is effective; where that is not known, whether we are root."""
    sets = capabilities()
    return os.geteuid() == 0 if sets is None else bool(sets[0] >> capability & 1)
