"""Telling what happened without ever getting in the way of a cleanup.

Rules:
1. Our own lines go to stderr without blocking (`_ground/stderr.py`).
2. Hooks, and logging where the program has configured it, can block; they are called from a thread of their own, which
   nobody waits for longer than `Outbox.drain` says.
"""

from __future__ import annotations

import sys
import time
from collections import deque

from cleanup_guard._ground.errors import CallbackInterrupted
from cleanup_guard._ground.events import Event  # noqa: TC001  # the default hook is told one
from cleanup_guard._ground.once import Once
from cleanup_guard._ground.stderr import write_line
from cleanup_guard._process import native
from cleanup_guard._stop.stack import describe
from cleanup_guard._stop.token import OURS, came_by_signal, is_ours

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cleanup_guard._ground.events import Hook


def log_event(event: Event) -> None:
    """The default hook: the logger `cleanup_guard` where the program has configured logging, else stderr.

    Without a logging configuration only what an operator needs to see is shown: one line when a stop begins, one for each
    slow or failed callback, one at the end. Tracebacks are shown for failures that nothing else will show.

    Args:
        event: what happened.

    Example:
        >>> seen = []
        >>> with guard(hooks=[log_event, seen.append]) as g:  # besides a hook of your own
        ...     _ = g.callback(print, "saved")
        saved
    """
    if logging_is_configured():
        import logging

        error = event.failure()
        details = (type(error), error, error.__traceback__) if error is not None else None
        logging.getLogger("cleanup_guard").log(event.level, "%s", event, exc_info=details)
    elif event.notable:
        write_line(str(event) + _traceback(event))


def _traceback(event: Event) -> str:
    """The traceback of a failure that nothing else will show, without our own frames and without the stop itself."""
    error = event.failure()
    if error is None or not getattr(event, "during_stop", True):
        return ""
    import traceback

    formatted = traceback.TracebackException.from_exception(error)
    each: traceback.TracebackException | None = formatted
    while each is not None and error is not None:
        each.stack[:] = [frame for frame in each.stack if not frame.filename.startswith(OURS)]
        error = error.__cause__ or error.__context__
        if is_ours(error) and not isinstance(error, CallbackInterrupted):
            each.__cause__ = each.__context__ = None
        each = each.__cause__ or each.__context__
    return "\n" + "".join(formatted.format()).rstrip()


def logging_is_configured() -> bool:
    """Whether a record of ours would reach a handler. It only reads: whoever we interrupted may hold `logging`'s lock."""
    logging = sys.modules.get("logging")
    if logging is None:
        return False
    root = getattr(logging, "root", None)
    ours = getattr(getattr(logging, "Logger", None), "manager", None)
    logger = getattr(ours, "loggerDict", {}).get("cleanup_guard")
    return bool(getattr(root, "handlers", None) or getattr(logger, "handlers", None))


class Outbox:
    """Calls hooks in a thread of its own, in the order of `put`; one for the process.

    The thread lives only while there is something to tell, so that an idle program has none because of it.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[tuple[Hook, ...], Event]] = deque()
        self._busy = Once()

    def forget(self) -> None:
        """In a fork child: what its parent has to tell is not the child's."""
        self._waiting.clear()
        self._busy.give_back()

    def put(self, hooks: tuple[Hook, ...], event: Event) -> None:
        """Have the hooks called soon. Never blocks; any thread, though not a handler."""
        self._waiting.append((hooks, event))
        # Where no thread is to be had (a limit; CPython 3.12.0 to 3.12.3 at the end of the interpreter) it is done here.
        if self._busy.claim() and not native.Thread(self._work, "cleanup_guard reporter").start():
            self._work()

    def _work(self) -> None:
        while True:
            try:
                while self._waiting:
                    call_hooks(*self._waiting.popleft())
            finally:
                native.leaves()  # before it is said that nobody is busy: a fork then waits for the end of this thread
                self._busy.give_back()
            # Whoever has put something in between, and got the claim, has started another thread.
            if not self._waiting or not self._busy.claim():
                return

    def drain(self, timeout: float) -> bool:
        """Wait until all that was put has been told, at most this many seconds. Returns whether it has."""
        if not (self._waiting or self._busy.claimed):
            return True
        limit = time.monotonic() + timeout
        while self._waiting or self._busy.claimed:
            if time.monotonic() >= limit:
                return False
            native.sleep(0.001)
        return True


OUTBOX = Outbox()


def call_hooks(hooks: tuple[Hook, ...], event: Event) -> None:
    """Tell each hook; one that fails, in whatever way, is told of on stderr."""
    for hook in hooks:
        try:
            hook(event)
        except BaseException as error:
            if came_by_signal(error):
                raise
            write_line(f"hook {describe(hook)} failed on {type(event).__name__}: {say(error)}")


def say(error: BaseException) -> str:
    """What an exception says, whatever it does when it is asked."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def wants_details(hooks: tuple[Hook, ...]) -> bool:
    """Whether anybody hears of events that the plain stderr report leaves out. Without a generator: asked at every exit."""
    for hook in hooks:
        if hook is not log_event:
            return True
    return bool(hooks) and logging_is_configured()


class Reporter:
    """Hands events to the hooks of a guard, or of all. `emit` may be called from any thread, though not from a handler.

    The default hook without logging writes at once. Everything else goes through the outbox.
    """

    def __init__(self, hooks: Iterable[Hook]) -> None:
        self.hooks: tuple[Hook, ...] = tuple(hooks)

    @property
    def wants_details(self) -> bool:
        """Whether anybody hears of events that the plain stderr report leaves out."""
        return wants_details(self.hooks)

    def emit(self, event: Event) -> None:
        """Tell the hooks, now or soon."""
        if self.wants_details:
            OUTBOX.put(self.hooks, event)
        else:
            call_hooks(self.hooks, event)
