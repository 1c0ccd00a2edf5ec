"""Threads, locks and waits of the operating system, also in a program in which gevent or eventlet has replaced Python's.

There `threading.Thread` makes greenlets, and `time.sleep` and locks switch to other greenlets: a watcher made of these would
wait for the very loop that it is to watch. What is used here is as it was before anybody patched it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from functools import partial

from cleanup_guard._ground.unpatched import BUILTIN, original

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping
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
    def call(function: partial[Any], /) -> Any: ...
else:
    import _signal

    call = partial.__call__  # C code

    get_handler, set_handler = _signal.getsignal, _signal.signal  # see `guest.py`
    sleep = original("time", "sleep")
    make_lock = original("_thread", "allocate_lock")
    make_rlock = original("_thread", "RLock")
    get_ident = original("_thread", "get_ident")
    get_native_id = original("_thread", "get_native_id")
    start_new_thread = original("_thread", "start_new_thread")


START = "_start_joinable_thread" if hasattr(threading, "_start_joinable_thread") else "_start_new_thread"
"""With what `threading` starts threads."""


def is_patched() -> bool:
    """Whether somebody has replaced Python's threads."""
    return type(_THREADING[START]) is not BUILTIN


_THREADING: Mapping[str, Any] = vars(threading)


_MAIN: dict[int, int] = {}
"""By process: the identifier of its main thread, where `threading` says something else."""


def main_ident() -> int | None:
    """The identifier of the main thread."""
    return _MAIN.get(os.getpid()) if is_patched() else threading.main_thread().ident


def in_main() -> bool:
    """Whether this is the main thread, whichever greenlet runs in it."""
    if type(_THREADING[START]) is BUILTIN:  # not patched
        # As `threading.main_thread().ident`: asked so often that two calls more would be seen.
        return bool(get_ident() == _THREADING["_main_thread"]._ident)
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
        brief: whether it ends soon and by itself: a fork waits for it.
    """

    def __init__(
        self, target: Callable[[], object], name: str, *, bare: bool = False, brief: bool = False
    ) -> None:
        self._target = target
        self._name = name
        self._bare = bare
        self._brief = brief
        self._thread: threading.Thread | None = None
        self._ended: threading.Lock | None = None  # released at the end

    def start(self) -> bool:
        """Start it. Returns False if there is no thread to be had: a limit is reached, or the interpreter is shutting down."""
        try:
            if self._brief:
                _BRIEF[self] = None
            if not (self._bare or is_patched()):
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
                return True
            self._ended = make_lock()
            self._ended.acquire()
            start_new_thread(self._run, ())
        except (RuntimeError, MemoryError):
            self._thread = self._ended = None
            _BRIEF.pop(self, None)
            return False
        return True

    def _run(self) -> None:
        try:
            self._target()
        finally:
            leaves()
            if self._brief:
                _BRIEF.pop(self, None)
            if self._ended is not None:
                self._ended.release()

    def join(self, timeout: float = -1) -> None:
        """Wait for its end, at most this many seconds; -1 for ever. Does not wait for itself, nor if it was not started."""
        thread = self._thread
        if thread is not None:
            if thread is not threading.current_thread():
                thread.join(None if timeout < 0 else timeout)
        elif self._ended is not None and self._ended.acquire(timeout=timeout):
            self._ended.release()


_LEAVING: deque[int] = deque(maxlen=16)
"""Threads of ours that have nothing left to do in Python, as the kernel numbers them."""

_BRIEF: dict[Thread, None] = {}
"""Threads of ours that end soon."""

LAG = 1.0
"""Seconds for which the kernel may still show a thread that has ended: as long as it lets it wait for a processor."""


def leaves() -> None:
    """This thread is about to end."""
    _LEAVING.append(get_native_id())


def wait_for_brief(timeout: float) -> None:
    """Wait for the threads of ours that end soon, at most this many seconds."""
    limit = time.monotonic() + timeout
    while _BRIEF and time.monotonic() < limit:
        sleep(0.0002)


def forget_brief() -> None:
    """In a fork child, which has none of them."""
    _BRIEF.clear()


def tasks() -> set[str]:
    """The threads that the kernel sees, those of C code too; none where it does not say."""
    try:
        return set(os.listdir("/proc/self/task"))
    except OSError:
        return set()


def wait_for_kernel(before: set[str], others: int) -> None:
    """Wait until the kernel has seen the end of ours, too, a little later. It counts where CPython warns of forks.

    Args:
        before: the threads that there were.
        others: how many of them have ended besides those that have said so.
    """
    limit = time.monotonic() + LAG
    while before and time.monotonic() < limit:
        said, now = set(map(str, _LEAVING)), tasks()
        if not said & now and len(before - now - said) >= others:
            break
        sleep(0.0002)
    _LEAVING.clear()
