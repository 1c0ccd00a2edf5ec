"""The few calls of ptrace(2), unshare(2) and mount(2) that a rehearsal needs, through ctypes.

Looking at /proc from time to time does not tell how a grandchild ended: its zombie is gone before anybody looks. A tracer is
told of each fork, exec, signal and end, of every descendant, in order, without privileges; and with PTRACE_O_EXITKILL nobody
outlives it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys

if sys.platform != "linux":
    raise NotImplementedError("rehearsing a stop needs Linux")

_libc = ctypes.CDLL(None, use_errno=True)
_ptrace = _libc.ptrace
_ptrace.restype = ctypes.c_long
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

CONT, GETSIGINFO, GETEVENTMSG, SEIZE, LISTEN = 7, 0x4202, 0x4201, 0x4206, 0x4208

EVENT_FORK, EVENT_VFORK, EVENT_CLONE, EVENT_EXEC, EVENT_EXIT, EVENT_STOP = 1, 2, 3, 4, 6, 128
FOLLOW = 1 << EVENT_FORK | 1 << EVENT_VFORK | 1 << EVENT_CLONE | 1 << EVENT_EXEC | 1 << EVENT_EXIT
EXITKILL = 1 << 20

WALL = 0x40000000
"""For waitpid: threads, too, whatever signal they were cloned with (__WALL)."""

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x10000000, 0x20000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 1 << 12, 1 << 14, 1 << 18


class Siginfo(ctypes.Structure):
    """The beginning of siginfo_t: enough to see who sent a signal (sigaction(2))."""

    _fields_ = (
        ("signo", ctypes.c_int),
        ("errno", ctypes.c_int),
        ("code", ctypes.c_int),
        ("_align", ctypes.c_void_p * 0),
        ("pid", ctypes.c_int),
        ("rest", ctypes.c_byte * 128),
    )


SI_USER, SI_QUEUE, SI_TKILL = 0, -1, -6


def _call(request: int, tid: int, data: int = 0) -> None:
    if _ptrace(request, tid, None, data) == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def seize(tid: int, *, kill_with_us: bool) -> None:
    """Begin to trace a thread and all that it will start. It does not stop for it.

    Raises:
        OSError: it may not be traced (EPERM), or is gone (ESRCH).
    """
    _call(SEIZE, tid, FOLLOW | (EXITKILL if kill_with_us else 0))


def resume(tid: int, signum: int = 0) -> None:
    """Let a stopped thread go on, with a signal if it has one coming. One that was killed meanwhile is let be."""
    _ignoring_the_dead(CONT, tid, signum)


def listen(tid: int) -> None:
    """Leave a thread stopped as SIGSTOP and the like stop it, until SIGCONT."""
    _ignoring_the_dead(LISTEN, tid, 0)


def _ignoring_the_dead(request: int, tid: int, data: int) -> None:
    try:
        _call(request, tid, data)
    except OSError as error:
        if error.errno != errno.ESRCH:
            raise


def siginfo(tid: int) -> Siginfo | None:
    """About the signal that a thread is stopped by; None if it was killed meanwhile."""
    info = Siginfo()
    try:
        _call(GETSIGINFO, tid, ctypes.addressof(info))
    except OSError:
        return None
    return info


def message(tid: int) -> int:
    """What came with the event that a thread is stopped by: a pid, or the status that it exits with."""
    value = ctypes.c_ulong()
    try:
        _call(GETEVENTMSG, tid, ctypes.addressof(value))
    except OSError:
        return 0
    return value.value


def unshare(flags: int) -> None:
    """unshare(2); os.unshare is there from Python 3.12 on.

    Raises:
        OSError: it is not allowed here.
    """
    if _libc.unshare(ctypes.c_int(flags)) == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def mount_proc() -> None:
    """A /proc of this PID namespace, seen by this mount namespace only.

    Raises:
        OSError: it is not allowed here: in a container that hides parts of /proc, for example.
    """
    _mount(b"none", b"/", None, MS_REC | MS_PRIVATE)
    _mount(b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def cover(path: str, copy: str) -> None:
    """In this mount namespace, one file stands where another one did.

    Raises:
        OSError: it is not allowed here, or there is no such file.
    """
    _mount(os.fsencode(copy), os.fsencode(path), None, MS_BIND)


def _mount(source: bytes, target: bytes, kind: bytes | None, flags: int) -> None:
    if _libc.mount(source, target, kind, ctypes.c_ulong(flags), None) == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def setns(fd: int) -> None:
    """setns(2); os.setns is there from Python 3.12 on.

    Raises:
        OSError: it is not allowed here.
    """
    if _libc.setns(ctypes.c_int(fd), 0) == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
