"""The C-level timer that ends the process when Python cannot: it works while the GIL is held, and as PID 1 (hazard H22).

Main, its handler and the watcher all come here, and none of them may wait for another. So whoever has set the timer looks
afterwards whether its stop is still in force: main may have gone on after it in the meantime, and the timer would kill it.
"""

from __future__ import annotations

import os

from cleanup_guard._ground.stderr import Stderr
from cleanup_guard._process import native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from cleanup_guard._stop.stop import Stop

    _T = TypeVar("_T")


class LastResort:
    """`faulthandler.dump_traceback_later(exit=True)`, one for a process. Any thread, any handler.

    Args:
        in_force: says which stop there is now.
    """

    def __init__(self, in_force: Callable[[], Stop | None]) -> None:
        self._in_force = in_force
        # Lists, because one `pop` gives a thing to one thread.
        self._stderrs: list[Stderr] = []
        self._devnulls: list[int] = []
        self._paused: bool = False  # a fork is under way: its timer is set afterwards
        self._set_for: Stop | None = None  # the stop for which the timer has been set
        self._by = 0  # the thread that sets it

    @property
    def stderr(self) -> Stderr | None:
        """Where it would report."""
        return self._stderrs[0] if self._stderrs else None

    @staticmethod
    def prepare() -> None:
        """Load what the timer needs, while there is time."""
        import faulthandler  # noqa: F401  # pyright: ignore[reportUnusedImport]

    def arm(self, stop: Stop, now: float, *, instead: bool = False) -> None:
        """Arm it for a stop, once.

        Args:
            stop: the stop.
            now: what time it is.
            instead: another thread is at it, and may have lost the GIL for good.
        """
        if stop.budget.period.hope is None or not (stop.armed.claim() or instead):
            return
        self._by = native.get_ident()
        try:
            fd = self._open()
            if self._set_for is not stop:
                self._set(stop.budget.last_resort - now, fd)
        finally:
            self._set_for = stop
        if self._in_force() is not stop:
            self.disarm(now)

    def arms(self, stop: Stop) -> bool:
        """Whether somebody is about to set it. Main is told afterwards: with the GIL kept by a callback it never would be."""
        return stop.armed.claimed and self._set_for is not stop

    def is_set_elsewhere(self, stop: Stop) -> bool:
        """Whether another thread is about to. Whoever is at it himself, and was called in the middle by a handler, is not."""
        return self.arms(stop) and self._by != native.get_ident()

    def _open(self) -> int | None:
        try:
            stderr = Stderr()
            self._stderrs.append(stderr)
            fd = stderr.safe_fileno()
            if fd is None:
                fd = os.open(os.devnull, os.O_WRONLY)
                self._devnulls.append(fd)
        except OSError:
            return None  # no descriptor left: the watcher's deadline still stands
        return fd

    def _find(self) -> int | None:
        """Where it can report now, of what has been opened."""
        stderr, devnulls = self.stderr, list(self._devnulls)
        fd = None if stderr is None else stderr.safe_fileno()
        return devnulls[0] if fd is None and devnulls else fd

    def postpone(self, stop: Stop, now: float) -> None:
        """Python runs and is about to end the process itself, with the right status: let it, if that takes a moment longer."""
        self._paused = False
        if stop.armed.claimed:
            self._set(stop.budget.last_moment - now, self._find())

    def _set(self, left: float, fd: int | None) -> None:
        if self._paused or fd is None:
            return
        import faulthandler

        try:
            faulthandler.dump_traceback_later(max(0.001, left), exit=True, file=fd)
        except (OSError, RuntimeError, ValueError):
            pass  # no thread to be had: an earlier one, and the watcher's deadline, still stand

    def pause(self) -> bool:
        """Have no timer for a moment, not even of a stop that comes now: it is a thread, which makes forks warn.

        Says whether there was one. `resume` goes on.
        """
        self._paused = True
        return self._cancel()

    def _cancel(self) -> bool:
        if not self._stderrs and not self._devnulls:
            return False
        import faulthandler

        faulthandler.cancel_dump_traceback_later()
        return True

    def resume(self, stop: Stop | None, now: float) -> None:
        """Undo `pause`, once: a timer that replaces another leaves a thread more that is ending."""
        if not self._paused:
            return
        self._paused = False
        if stop is not None and stop.armed.claimed and stop.budget.grace is not None:
            self._set(stop.budget.last_resort - now, self._find())

    def disarm(self, now: float) -> None:
        """Take it back for a stop that is not in force any more. The timer of one that came after it is set again."""
        self._set_for = None
        if self._cancel():
            self._close()
        stop = self._in_force()
        if stop is not None and stop.armed.claimed:
            stop.armed.give_back()
            self.arm(stop, now)

    def disown(self) -> None:
        """In a fork child, which has no timer: close what was opened for it."""
        self._paused = False
        self._close()

    def _close(self) -> None:
        for each in _take(self._stderrs):
            each.close()
        for fd in _take(self._devnulls):
            os.close(fd)


def _take(things: list[_T]) -> list[_T]:
    """Empty a list, of which each thing goes to one thread."""
    taken: list[_T] = []
    try:
        while True:
            taken.append(things.pop())
    except IndexError:
        return taken
