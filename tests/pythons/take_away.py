"""Runs in a child (pretend.py): makes it believe that it is on another platform."""

# These are imported first: their branches for a platform that does not exist could not be.
import asyncio
import concurrent.futures  # noqa: F401
import faulthandler  # noqa: F401
import importlib
import logging  # noqa: F401
import multiprocessing.context  # noqa: F401
import os
import queue  # noqa: F401
import select
import selectors
import signal
import socket
import stat
import subprocess  # noqa: F401
import sys
import tempfile  # noqa: F401
import threading  # noqa: F401
import traceback  # noqa: F401
from collections.abc import Callable
from typing import Any

UNIX = int(socket.AF_UNIX)

BUILT_IN = {"os": "posix", "signal": "_signal", "socket": "_socket"}
"""Where the names of a module come from, and where somebody else may get them."""


def pretend(platform: str, modules: list[str], names: dict[str, list[str]]) -> None:
    """Be on that platform.

    Args:
        platform: as in `sys.platform`.
        modules: those that are not there.
        names: by module, what it does not have there.
    """
    asyncio.new_event_loop().close()  # its policy, too, is imported by platform, and late
    # Loops use what every platform has: 3.12's epoll selector looks up `select.EPOLLIN` each time.
    setattr(selectors, "DefaultSelector", selectors.SelectSelector)  # noqa: B010 - to type checkers it is not to be set
    loaded: dict[str, Any] = sys.modules
    for module in modules:
        loaded[module] = None
    for module, missing in names.items():
        for each in {module, BUILT_IN.get(module, module)}:
            for name in missing:
                vars(importlib.import_module(each)).pop(name, None)
    sys.platform = platform
    {"win32": _windows, "darwin": _macos}[platform]()


def _windows() -> None:
    os.name = "nt"
    broken_off = signal.Signals(21)  # SIGBREAK's number; here it is SIGTTIN's, which a test can send as well
    known = {
        signal.SIGABRT,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGINT,
        signal.SIGSEGV,
        signal.SIGTERM,
        broken_off,
    }

    def only_known(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(signum: int, *args: Any) -> Any:
            if signum not in known:
                raise ValueError("invalid signal value")
            return original(signum, *args)

        return call

    for module in (importlib.import_module("signal"), importlib.import_module("_signal")):
        vars(module).update(
            SIGBREAK=broken_off,
            CTRL_C_EVENT=0,
            CTRL_BREAK_EVENT=1,
            signal=only_known(vars(module)["signal"]),
            valid_signals=lambda: set(known),
        )
    send, wait = os.kill, select.select

    def kill(pid: int, signum: int) -> None:
        send(pid, 9 if signum else 2)  # TerminateProcess, whatever the number; CTRL_C_EVENT is 0

    def only_sockets(*lists: Any) -> Any:
        for each in [each for several in lists[:3] for each in several]:
            if not stat.S_ISSOCK(os.fstat(each if isinstance(each, int) else each.fileno()).st_mode):
                raise OSError(10038, "An operation was attempted on something that is not a socket")
        return wait(*lists)

    pair = socket.socketpair
    setattr(socket, "socketpair", lambda: pair(UNIX))  # noqa: B010 - Windows connects two of the internet's
    setattr(os, "kill", kill)  # noqa: B010 - to type checkers it is not to be set
    setattr(select, "select", only_sockets)  # noqa: B010


def _macos() -> None:
    loaded: dict[str, Any] = sys.modules
    loaded["ctypes"] = loaded["_ctypes"] = (
        None  # without it nobody calls prctl, or anything else that is Linux's
    )

    def no_proc(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.listdir", "os.scandir") and _in_proc(arguments[0]):
            raise FileNotFoundError(2, "No such file or directory", arguments[0])

    sys.addaudithook(no_proc)

    def refuse(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            if _in_proc(path):
                raise FileNotFoundError(2, "No such file or directory", path)
            return original(path, *args, **kwargs)

        return call

    for name in ("stat", "lstat", "readlink", "access"):
        setattr(os, name, refuse(getattr(os, name)))


def _in_proc(path: object) -> bool:
    return isinstance(path, str) and (path == "/proc" or path.startswith("/proc/"))
