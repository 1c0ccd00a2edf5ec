"""Threads, locks and waits of the operating system, also in a program in which gevent or eventlet has replaced Python's.

There `threading.Thread` makes greenlets, and `time.sleep` and locks switch to other greenlets: a watcher made of these would
wait for the very loop that it is to watch. What is used here is as it was before anybody patched it.
"""

from __future__ import annotations

import os
import threading
import time

from cleanup_guard._ground.unpatched import BUILTIN, original

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None

    def get_handler(signum: int, /) -> Handler: ...
    def set_handler(signum: int, handler: Handler, /) -> Handler: ...
    def sleep(seconds: float, /) -> None: ...
    def make_lock() -> threading.Lock: ...
    def make_rlock() -> threading.RLock: ...
    def get_ident() -> int: ...
    def get_native_id() -> int: ...
    def start_new_thread(function: Callable[[], object], args: tuple[()], /) -> int: ...
else:
    import _signal

    get_handler, set_handler = _signal.getsignal, _signal.signal  # see `guest.py`
    sleep = original("time", "sleep")
    make_lock = original("_thread", "allocate_lock")
    make_rlock = original("_thread", "RLock")
    get_ident = original("_thread", "get_ident")
    get_native_id = original("_thread", "get_native_id")
    start_new_thread = original("_thread", "start_new_thread")


def is_patched() -> bool:
    """Whether somebody has replaced Python's threads."""
    start = getattr(threading, "_start_joinable_thread", None) or getattr(
        threading, "_start_new_thread", None
    )
    return not isinstance(start, BUILTIN)


_MAIN: dict[int, int] = {}
"""By process: the identifier of its main thread, where `threading` says something else."""


def main_ident() -> int | None:
    """The identifier of the main thread."""
    return _MAIN.get(os.getpid()) if is_patched() else threading.main_thread().ident


def in_main() -> bool:
    """Whether this is the main thread, whichever greenlet runs in it."""
    if not is_patched():
        return get_ident() == threading.main_thread().ident
    if get_native_id() != os.getpid():  # as Linux numbers threads
        return False
    _MAIN[os.getpid()] = get_ident()
    return True


class Thread:
    """A daemon thread.

    Args:
        target: what it does.
        name: what `threading` calls it.
        bare: without an object of `threading`. Where user code runs (hooks) it is one, if `threading` makes threads.
    """

    def __init__(self, target: Callable[[], object], name: str, *, bare: bool = False) -> None:
        self._target = target
        self._name = name
        self._bare = bare
        self._thread: threading.Thread | None = None
        self._ended: threading.Lock | None = None  # released at the end

    def start(self) -> bool:
        """Start it. Returns False if there is no thread to be had: a limit is reached, or the interpreter is shutting down."""
        try:
            if not (self._bare or is_patched()):
                self._thread = threading.Thread(target=self._target, name=self._name, daemon=True)
                self._thread.start()
                return True
            self._ended = make_lock()
            self._ended.acquire()
            start_new_thread(self._run, ())
        except (RuntimeError, MemoryError):
            self._thread = self._ended = None
            return False
        return True

    def _run(self) -> None:
        assert self._ended is not None
        try:
            self._target()
        finally:
            self._ended.release()

    def join(self, timeout: float = -1) -> None:
        """Wait for its end, at most this many seconds; -1 for ever. Does not wait for itself, nor if it was not started."""
        thread = self._thread
        if thread is not None:
            if thread is not threading.current_thread():
                thread.join(None if timeout < 0 else timeout)
        elif self._ended is not None and self._ended.acquire(timeout=timeout):
            self._ended.release()


def count() -> int:
    """How many threads the kernel sees, those of C code too; 0 where it does not say."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0


def wait_for_kernel(before: int, ended: int) -> None:
    """Wait until the kernel has seen the end of threads, too, a little later. It counts where CPython warns of forks.

    Args:
        before: how many threads there were.
        ended: how many of them have ended.
    """
    limit = time.monotonic() + LAG
    while before and count() > before - ended and time.monotonic() < limit:
        sleep(0.0002)


LAG = 0.05
"""Seconds for which a thread that has ended may still be seen."""
