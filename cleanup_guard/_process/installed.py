"""What the kernel has for a signal, where Python does not tell: read with ctypes, on Linux; elsewhere nothing is known."""

from __future__ import annotations

import sys

SA_RESTART = 0x10000000


def restarts(signum: int) -> bool:
    """Whether somebody has said `siginterrupt(signum, False)`, which `signal.signal` undoes."""
    return bool(_read(signum)[1] & SA_RESTART)


def is_greenlets(signum: int) -> bool:
    """Whether gevent's loop deals with the signal (`gevent.signal_handler`), in C: Python still says what was there before."""
    if "gevent" not in sys.modules:
        return False
    handler = _read(signum)[0]
    return handler > IGNORED and b"gevent" in _library_of(handler)


IGNORED = 1
"""What SIG_IGN is in C; SIG_DFL is 0."""


def _read(signum: int) -> tuple[int, int]:
    """The address of the handler, and the flags."""
    if sys.platform != "linux":
        return 0, 0
    try:
        import ctypes

        action = (ctypes.c_ulong * 32)()
        if ctypes.CDLL(None).sigaction(signum, None, action) != 0:
            return 0, 0
        flags = (ctypes.c_uint * 64).from_buffer(action)[(ctypes.sizeof(ctypes.c_void_p) + 128) // 4]
    except (ImportError, AttributeError, OSError):
        return 0, 0
    return action[0], flags


def _library_of(address: int) -> bytes:
    """The file from which the code at an address was loaded."""
    import ctypes

    info = (ctypes.c_void_p * 4)()
    try:
        found = ctypes.CDLL(None).dladdr(ctypes.c_void_p(address), info)
    except AttributeError:
        return b""
    return ctypes.string_at(info[0]) if found and info[0] else b""
