"""Whether an exception may be raised in this frame now, and tracing to the next place where it may.

1. Never in our own code, which delivers a stop itself on the way out.
2. In the standard library only where main stands still, or waits for a condition of which nobody has notified it, because
   `queue`, `threading`, `multiprocessing`, `subprocess` and `tempfile` are not made for an exception between two of their
   lines (hazard H12).
3. On CPython 3.14 not between an `__enter__` that is written in C and the block after it (CPython issue 148874): the exit would
   be skipped, and the lock held for ever.
4. Not in a trace function that is written in Python, of a debugger or a coverage tool, while it moves: whose trace function
   raises is not traced any more, and sees nothing of the cleanup.
"""

from __future__ import annotations

import os
import sys

from cleanup_guard._ground.clock import inf
from cleanup_guard._ground.unpatched import read
from cleanup_guard._process import native
from cleanup_guard._process.blocks import Way, is_in_first_block
from cleanup_guard._stop.stack import CALLERS
from cleanup_guard._stop.token import OURS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType
    from typing import Any

    TraceFunction = Callable[[FrameType, str, Any], Any]

STDLIB = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
SITE = tuple(STDLIB + name + os.sep for name in ("site-packages", "dist-packages"))

PURE = tuple(
    STDLIB + name for name in ("difflib.py", "fractions.py", f"json{os.sep}", f"re{os.sep}", "statistics.py")
)
"""Parts of the standard library that hold nothing. Their C code keeps the GIL for long and only looks for signals:
the watcher, who would tell that main stands still, cannot run meanwhile."""

HANDLERS: set[CodeType] = set()
"""The code of our handler, of what it does before it looks itself."""

STILL, STILL_WAITING = 0.008, 0.0005
"""Seconds for which main must stand at the same instruction, our handler not counted, before the exception is raised there;
and where the library does nothing but wait for another thread."""

WAITING = tuple(
    STDLIB + name for name in ("threading.py", "queue.py", f"concurrent{os.sep}futures{os.sep}_base.py")
)
"""Where it does nothing else."""

APART = 0.0002
"""Seconds between two looks that are not because of the same moment."""

PATIENCE = 0.5
"""Seconds for which an exception waits for main to come out of the standard library, or to stand still in it."""

LOOKS = 5
"""Looks that it waits at the least: between two of them main has run, if not for long on a machine that is loaded."""

TRACED_PATIENCE = 3.0
"""The same for who traces main: a program of short lines is hardly ever out of its trace function."""

GAP = sys.version_info[:2] == (3, 14)
CALL, LOAD_SPECIAL = 52, 95
"""The opcodes of 3.14: they are fixed for a minor release."""


class Moment:
    """The search for the right moment, in main's handler.

    Args:
        clock: what time it is.
        look: what is to be done at a line, or an opcode, at which an exception may be raised.

    Attributes:
        entered: when main entered the handler that looks.
    """

    def __init__(self, clock: Callable[[], float], look: Callable[[FrameType], object]) -> None:
        self._clock = clock
        self._look = look
        self.entered: float = 0.0
        self._seen_at: tuple[FrameType, int] | None = None
        self._stood = 0.0  # seconds there, outside of our handler
        self._times = 0  # that it was seen there
        self._looked = 0.0  # when it last looked
        self._search: float | None = None  # since when there has been what it waits with
        self._searched: tuple[float, int] = (0.0, 0)  # since when, and how often it has looked
        self._waits_for_opcode = False
        self._way: Way | None = None

    def is_right(self, frame: FrameType | None, waiting_since: float | None) -> bool:
        """Whether an exception may be raised in this frame now; if not, main looks again soon.

        Args:
            frame: where main is.
            waiting_since: since when there has been something to raise.
        """
        if frame is None:
            return True
        filename = _filename_below_pure(frame)
        if filename.startswith(OURS):
            # Our own lines are never interrupted, except where they have called a user's function that is written in C.
            return frame.f_code in CALLERS and self._stands_still(frame, inf, waiting_since)
        if _is_in_tracer(frame):
            return self._stands_still(frame, TRACED_PATIENCE, waiting_since)
        in_library = is_stdlib(filename)
        if in_library and _is_in_handler(frame):
            return False  # which looks itself before it returns
        if not in_library or self._waits(frame, waiting_since):
            return not (GAP and self._in_gap(frame))
        self._trace(frame, opcodes=False)
        return False

    @staticmethod
    def is_ours(frame: FrameType | None) -> bool:
        """Whether main is in our own code, or in what that has called of the library."""
        while frame is not None and is_stdlib(frame.f_code.co_filename):
            frame = frame.f_back
        return frame is not None and frame.f_code.co_filename.startswith(OURS)

    def found(self) -> None:
        """The exception has been raised."""
        self.stop_tracing()
        self.forget()

    def forget(self) -> None:
        """There is nothing to raise any more: the search is over, and no frame is kept. Any thread."""
        self._seen_at = self._search = None

    def _waits(self, frame: FrameType, waiting_since: float | None) -> bool:
        """Whether main waits in the library, and an exception there does no harm."""
        if _takes_lock_back(frame):
            return False
        return _waits_for_notice(frame) or self._stands_still(frame, PATIENCE, waiting_since)

    def _stands_still(self, frame: FrameType, patience: float, waiting_since: float | None) -> bool:
        """Whether main has been at this very instruction for a while, that is, waits in a C call; or patience is at an end.

        Two signals at one moment are two looks at one instruction, with a handler in between that may have taken long. And
        CPython 3.12 and later run the first instruction of a function twice if that begins to be traced, and may wait for the
        GIL in between. So main must have been there three times. Patience begins with the first look: when the stop came
        nobody may have run for a while.
        """
        now, place = self._clock(), (frame, frame.f_lasti)
        if self._search != waiting_since:
            self._search, self._searched = waiting_since, (now, 0)
        since, looks = self._searched
        self._searched = since, looks + 1
        if self._seen_at != place:
            self._seen_at, self._stood, self._times = place, 0.0, 1
        elif self.entered - self._looked >= APART:
            self._stood += self.entered - self._looked
            self._times += 1
        self._looked = now
        if self._times > 2 and self._stood >= (STILL_WAITING if _only_waits(frame) else STILL):  # noqa: PLR2004
            return True
        return waiting_since is not None and now - since >= patience and looks >= LOOKS

    @property
    def searching(self) -> bool:
        """Whether there is something to raise, and the moment for it was not right."""
        return self._search is not None

    # -- tracing --

    def _in_gap(self, frame: FrameType) -> bool:
        """Whether an `__enter__` in C has returned, or main waits in one, which looks the same and lasts longer."""
        code, at = frame.f_code.co_code, frame.f_lasti
        if at < 2 or code[at] != CALL or code[at - 2] != LOAD_SPECIAL:  # noqa: PLR2004  # one instruction back
            return False
        if self._waits_for_opcode and self._stands_still(frame, inf, None):
            return False
        if not self._waits_for_opcode:
            self._stands_still(frame, inf, None)
        self._waits_for_opcode = True
        self._trace(frame, opcodes=True)
        return True

    def _trace(self, frame: FrameType, *, opcodes: bool) -> None:
        """Have main look again at the first line of the program, or the next opcode, that it comes to.

        The handler alone cannot do that: in a loop over `queue.put` or `event.set` nearly every instruction at which
        Python looks for signals is the library's, with a lock half taken. If a debugger or a coverage tool traces, the
        watcher's pokes remain.
        """
        if sys.gettrace() is None:
            caller: FrameType | None = frame
            while caller is not None and not _is_programs(caller):
                caller = caller.f_back
            self._way = None
            if caller is not None:
                self._way = None if opcodes else Way(caller)
                caller.f_trace = self._on_trace
                caller.f_trace_opcodes = opcodes
            sys.settrace(self._on_trace)

    def _on_trace(self, frame: FrameType, event: str, arg: object) -> TraceFunction | None:  # noqa: ARG002
        if not _is_programs(frame):
            return None
        if self._is_place(frame, event) and self.stop_tracing():
            frame.f_trace_opcodes = False
            self._look(frame)
        return self._on_trace

    def _is_place(self, frame: FrameType, event: str) -> bool:
        if self._waits_for_opcode:
            return event == "opcode"
        if event != "line":
            return False
        way = self._way
        if way is None or way.frame is frame:
            return way is None or not way.owes()
        caller: FrameType | None = frame
        while caller is not None and caller is not way.frame:
            caller = caller.f_back
        return caller is None or not way.owes()

    def stop_tracing(self) -> bool:
        """Take the tracing back, if it is ours. Returns whether it was."""
        self._waits_for_opcode = False
        self._way = None
        if sys.gettrace() != self._on_trace:
            return False
        sys.settrace(None)
        return True


DEPTH = 6
"""Frames between `subprocess.run` and the call in which it waits, at the most."""


def waits_for_child(frame: FrameType | None, signum: int | None) -> bool:
    """Whether main waits in `subprocess.run` for a child that is, or may be, on its way out because of the same signal.

    It would kill that child in the middle of its cleanup (hazard H16). A child that does not catch the signal would be
    gone, had it been told.
    """
    subprocess = sys.modules.get("subprocess")
    if subprocess is None or signum is None:
        return False
    for _ in range(DEPTH):
        if frame is None:
            return False
        if frame.f_code is subprocess.run.__code__:
            child = frame.f_locals.get("process")
            return child is not None and child.returncode is None and _catches(child.pid, signum)
        frame = frame.f_back
    return False


def _catches(pid: int, signum: int) -> bool:
    try:
        fd = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = read(fd, 65536)
        finally:
            os.close(fd)
        caught = int(status.partition(b"\nSigCgt:")[2].split(maxsplit=1)[0], 16)
    except (OSError, IndexError, ValueError):
        return False
    return bool(caught >> (signum - 1) & 1)


def _current_frames() -> dict[int, FrameType]:
    return sys._current_frames()  # pyright: ignore[reportPrivateUsage]


def has_left_python() -> bool:
    """Whether main has no Python frame any more: the interpreter flushes its streams, and has yet to begin to shut down.

    At the prompt of an interactive session that is so, too, and means the opposite.
    """
    return native.main_ident() not in _current_frames() and not hasattr(sys, "ps1")


def where_is(thread: int | None) -> str:
    """Where a thread is, for a person to read: the line of the program, rather than the library's that it is waiting in."""
    innermost = frame = None if thread is None else _current_frames().get(thread)
    while frame is not None and not _is_programs(frame):
        frame = frame.f_back
    frame = frame or innermost
    if frame is None:
        return "somewhere"
    return f"in {frame.f_code.co_qualname} ({frame.f_code.co_filename}, line {frame.f_lineno})"


def _filename_below_pure(frame: FrameType) -> str:
    """The file of the frame that called the pure library code which this frame may be in."""
    outer: FrameType | None = frame
    while outer is not None and outer.f_code.co_filename.startswith(PURE):
        outer = outer.f_back
    return "" if outer is None else outer.f_code.co_filename


def _is_programs(frame: FrameType) -> bool:
    filename = frame.f_code.co_filename
    return not (filename.startswith(OURS) or is_stdlib(filename))


def _is_in_handler(frame: FrameType) -> bool:
    """Whether this is the library, called by our handler."""
    caller: FrameType | None = frame
    while caller is not None and not _is_programs(caller):
        if caller.f_code in HANDLERS:
            return True
        caller = caller.f_back
    return False


def _is_in_tracer(frame: FrameType) -> bool:
    """Whether this is the thread's trace function, or was called by it."""
    tracer: Any = sys.gettrace()
    code = getattr(getattr(tracer, "__func__", tracer), "__code__", None)
    caller: FrameType | None = None if code is None else frame
    while caller is not None and caller.f_code is not code:
        caller = caller.f_back
    return caller is not None


def _only_waits(frame: FrameType) -> bool:
    """Whether the program has called the library to wait for another thread, and for no more than that.

    A thread that has just been started is waited for, too, but whoever starts it has yet to write it down.
    """
    starts = sys.modules["threading"].Thread.start.__code__
    caller: FrameType | None = frame
    while caller is not None and not _is_programs(caller):
        if caller.f_code is starts or not caller.f_code.co_filename.startswith(WAITING):
            return False
        caller = caller.f_back
    return True


def _waits_for_notice(frame: FrameType) -> bool:
    """Whether main waits for an event, a queue's item or the like, and nobody has said that it is there. It takes no lock back.

    That can be told by the condition below all of these, at the first look. An exception does no harm wherever main is in that
    wait: `Condition.wait` takes back its lock, and strikes it off the list of those who wait. Only a notice would be lost, with
    somebody else waiting for the next one. Who gives one holds the condition's lock until main is off the list.
    """
    if frame.f_code is not _condition().wait.__code__ or not _only_waits(frame):
        return False
    here: Any = frame.f_locals
    if here.get("gotit") is not False or not _is_free(here["self"]._lock):
        return False
    waiter = here["waiter"]
    return waiter in here["self"]._waiters and waiter.locked()


LOCKS = type(native.make_lock()), type(native.make_rlock())
"""Python's own, which call no code of anybody's."""


def _is_free(lock: object) -> bool:
    """Whether nobody holds a lock; of an RLock only its name says so before 3.14."""
    return type(lock) in LOCKS and repr(lock).startswith("<unlocked ")


def _takes_lock_back(frame: FrameType) -> bool:
    """Whether a condition was met, or time is up, and main waits for the lock that it had given back for the time of its wait.

    Its `with` block would release it all the same: another thread's.
    """
    wait = _condition().wait.__code__
    caller: FrameType | None = frame
    while caller is not None and caller.f_code is not wait:
        caller = caller.f_back if caller.f_code.co_filename.startswith(WAITING) else None
    if caller is None:
        return False
    gotit = caller.f_locals.get("gotit")
    return bool(gotit) or (gotit is not None and not is_in_first_block(caller))


def _condition() -> Any:
    return sys.modules["threading"].Condition


def is_stdlib(filename: str) -> bool:
    """Whether this is a file of Python's own library."""
    if filename.startswith("<frozen "):
        return True
    return filename.startswith(STDLIB) and not filename.startswith(SITE)
