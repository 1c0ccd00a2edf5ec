"""The only place that touches the signal dispositions of a guarded process: take, put back, unblock, and the wakeup pipe.

Rules:
1. Signals belong to the process, not to the guard that took them: they are ours as long as any guard wants them.
2. What was there before is put back only if ours is still in place (trio, hazard H70).
3. An inherited SIG_IGN for SIGINT and SIGHUP (`nohup`, `&` in a script) is respected unless the caller insists (H3).
4. A stop signal that is blocked is unblocked, because `signal.signal` does not do that (H4), and blocked again at the end.
5. The wakeup fd of somebody else keeps getting its bytes (H23), whether it was there before ours or has come since.
"""

from __future__ import annotations

import _thread
import os
import select
import signal
import sys

from cleanup_guard._ground.names import SIGINT, SIGTERM
from cleanup_guard._ground.once import Once
from cleanup_guard._ground.unpatched import make_poll, read, write
from cleanup_guard._process import installed, native
from cleanup_guard._stop.owner import Owner, is_loops, owner_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    import threading
    from collections.abc import Callable, Iterable, Mapping
    from types import FrameType
    from typing import Any

    from cleanup_guard._process.native import Handler
else:
    # The C functions: whoever traces the program (a debugger's own handler for Ctrl-C begins to) is not led into signal.py.
    import _signal

DEFAULT_SIGNALS: tuple[int, ...] = (SIGTERM, SIGINT)
if sys.platform == "win32":
    DEFAULT_SIGNALS = (*DEFAULT_SIGNALS, int(signal.SIGBREAK))

PENDING = 100
"""How often a signal that keeps coming is taken before its handler is put back."""

ALL: frozenset[int] = frozenset(_signal.valid_signals())
"""Every signal, as numbers: `signal.valid_signals` makes enum members of them, which takes longer than to start a thread."""

HUSHED = frozenset(int(getattr(signal, name)) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name))
"""Signals whose inherited SIG_IGN is somebody's wish."""

HOSTS_IN_C = ("uwsgi", "mod_wsgi")
"""Servers that embed Python and handle signals in C, which Python does not see."""

OTHERS_IN_C = (*HOSTS_IN_C, "gevent")
"""With what may."""


class Signals:
    """Signal dispositions that we took, and what was there before. Main thread only, but where it says otherwise.

    Args:
        handler: ours.
        pokes: how many were sent to main, by signal (see `Watch`).
    """

    def __init__(
        self, handler: Callable[[int, FrameType | None], None], pokes: Mapping[int, int] | None = None
    ) -> None:
        self._handler = handler
        self._pokes: Mapping[int, int] = {} if pokes is None else pokes
        self.previous: dict[int, Handler] = {}
        self._above: dict[int, Handler] = {}  # what somebody has installed over ours since: ours calls it
        self._given_back: dict[int, Handler] = {}  # what to find where somebody has put ours back later
        # Held while main is poked, and while what was there before is put back. Reentrant, for main's handler.
        self.fence: threading.RLock = native.make_rlock()
        self._blocked: set[int] = set()  # before we unblocked them
        self._restarting: set[int] = set()  # for which system calls are restarted

    # -- take --

    def take(self, signums: Iterable[int], *, named: bool) -> tuple[int, ...]:
        """Install the handler for those that are not ours yet. All or none.

        Args:
            signums: signals that can be caught.
            named: the program named them: SIGINT and SIGHUP are taken even if they were ignored when it started.

        Returns:
            Those that are ours now.
        """
        before = list(self.previous)
        ours: list[int] = []
        new: list[int] = []
        in_c = not sys.modules.keys().isdisjoint(OTHERS_IN_C)
        try:
            for signum in signums:
                if signum in self.previous:
                    ours.append(signum)
                elif self._take(signum, named=named, in_c=in_c):
                    ours.append(signum)
                    new.append(signum)
            if new and (blocked := unblock(new)):
                self._blocked.update(blocked.intersection(new))
        except BaseException:
            self.give_back(set(self.previous).difference(before))
            raise
        return tuple(ours)

    def _take(self, signum: int, *, named: bool, in_c: bool) -> bool:
        """Install the handler, if the signal is not somebody's who must have it. It may be blocked still.

        Args:
            signum: the signal.
            named: the program named it.
            in_c: somebody is loaded who may deal with signals in C.
        """
        before = native.get_handler(signum)
        if not is_default(before):
            if before == self._handler:
                self.put_right(signum)
                before = native.get_handler(signum)
            if before is None or (before == _signal.SIG_IGN and signum in HUSHED and not named):
                return False
            if _theirs(before) is not None and installed.restarts(signum):
                self._restarting.add(signum)
        if in_c and _is_in_c(signum):
            self._restarting.discard(signum)
            return False
        # First, so that a signal that comes at once finds what was there before.
        self.previous[signum] = before
        try:
            self.install(signum)
        except ValueError:  # only the main thread of the main interpreter may, and we are in a main thread
            del self.previous[signum]
            raise RuntimeError(
                "a guard in a subinterpreter hears no signals, only the main interpreter does: use guard(signals=())"
            ) from None
        return True

    def install(self, signum: int) -> None:
        """Put our handler in place, in front of what was there before."""
        native.set_handler(signum, self._handler)
        if sys.platform != "win32" and signum in self._restarting:
            _signal.siginterrupt(signum, False)  # noqa: FBT003  # as the function has it

    def uninstall(self, signum: int) -> None:
        """Put in place what is behind ours, for the time of a call of it."""
        behind = self._above.get(signum, self.previous.get(signum))
        if behind is None:
            return  # a signal came a moment ago, and its handler has given everything back
        if _theirs(behind) is not None and not self.lost(signum):
            self._restarting.discard(
                signum
            )  # whoever installs a handler over ours says afterwards what he wants
            if installed.restarts(signum):
                self._restarting.add(signum)
        native.set_handler(signum, behind)
        if sys.platform != "win32" and signum in self._restarting:
            _signal.siginterrupt(signum, False)  # noqa: FBT003  # as the function has it

    def leaves_sigint(self) -> bool:
        """Whether SIGINT was left to Python, which raises KeyboardInterrupt."""
        is_pythons = native.get_handler(SIGINT) is _signal.default_int_handler
        return is_pythons and SIGTERM in self.previous and SIGINT not in self.previous

    def take_more(self, *, by_hand: bool = False) -> None:
        """Take what would cut a cleanup short from now on: a SIGINT that was left to Python.

        Args:
            by_hand: and SIGHUP, if that would kill: a person's terminal may go before all is done.
        """
        if self.leaves_sigint():
            self.take([SIGINT], named=False)
        hangup = getattr(_signal, "SIGHUP", None) if by_hand else None
        if (
            hangup is not None
            and hangup not in self.previous
            and native.get_handler(hangup) is _signal.SIG_DFL
        ):
            self.take([hangup], named=False)

    # -- give back --

    def give_back(self, signums: Iterable[int]) -> list[int]:
        """Put back what was there before. Returns the signals that somebody else had taken from us, which are left alone."""
        lost: list[int] = []
        ours: list[int] = []
        for signum in signums:
            if self.lost(signum):
                if signum in self.previous:  # else a handler, which came in the middle, has given it back
                    lost.append(signum)
                self._let_go(signum, is_ours=False)
                continue
            if self._above and _theirs(self._above.get(signum)) is not None:
                lost.append(signum)
            ours.append(signum)
        if ours:
            self._put_back(ours)
        return lost

    def _let_go(self, signum: int, *, is_ours: bool = True) -> None:
        """Put back what was there before, if ours is still there, and note it: somebody may put ours back later."""
        before = self.previous.get(signum)  # a handler that comes here may give back all of it
        if not self._above and is_default(before):  # as nearly always, and without a call more
            self._given_back[signum] = before
            if is_ours:
                native.set_handler(signum, before)
        elif before is not None:
            if signum == SIGINT and is_of_ended_loop(before):  # which found ours, and left it there
                before = self.previous[signum] = _signal.default_int_handler
            self._given_back[signum] = before
            if is_ours:
                self.uninstall(signum)
        self.previous.pop(signum, None)
        if self._above or self._blocked or self._restarting:
            self._above.pop(signum, None)
            self._blocked.discard(signum)
            self._restarting.discard(signum)

    def _put_back(self, signums: list[int]) -> None:
        """Put back what was there before, with no poke on its way: it would kill, where that is the default."""
        with self.fence:
            if not (self._pokes or self._blocked):  # in a process that was never poked none is on its way
                for signum in signums:
                    self._let_go(signum)
                return
            blocked = block(signums)
            try:
                for _ in range(PENDING):
                    coming = pending().intersection(signums).difference(blocked)
                    if not coming:
                        break
                    unblock(coming)  # our handler takes it
                    block(coming)
                blocked.update(self._blocked)
                for signum in signums:
                    self._let_go(signum)
            finally:
                unblock([each for each in signums if each not in blocked])

    def ignore(self) -> None:
        """Ignore what is still ours. Unlike a Python handler SIG_IGN survives the end of the interpreter (H35)."""
        for signum in self.ours():
            native.set_handler(signum, int(signal.SIG_IGN))

    # -- look --

    def lost(self, signum: int) -> bool:
        """Whether a signal that we took now has somebody else's handler. Any thread."""
        return signum in self.previous and (
            native.get_handler(signum) != self._handler
            or ("gevent" in sys.modules and installed.is_greenlets(signum))
        )

    def ours(self) -> list[int]:
        """The signals that still have our handler. Any thread."""
        return [signum for signum in list(self.previous) if not self.lost(signum)]

    def behind(self, signum: int) -> Handler:
        """What would be in place without us: what was there before ours, or what somebody has installed since. Any thread."""
        return self._above.get(signum, self.previous.get(signum))

    def before(self, signum: int) -> Callable[..., Any] | None:
        """The handler in front of which we stand, if the signal is its. Any thread."""
        return _theirs(self.behind(signum))

    def beneath(self, signum: int) -> Callable[..., Any] | None:
        """The same for whoever has installed his over ours, and calls ours himself."""
        return _theirs(self.previous.get(signum))

    def theirs(self, signum: int) -> object:
        """The handler whose signal this is, if it is not ours: that one, or one that has replaced ours. Any thread."""
        found = native.get_handler(signum)
        return _theirs(found) if self.lost(signum) and found != self._handler else self.before(signum)

    def restarts(self, signum: int) -> bool:
        """Whether system calls are restarted after it, as somebody has asked for."""
        return signum in self._restarting

    # -- what others see --

    def seen(self, signum: int) -> Handler:
        """What somebody else finds installed: ours, until he has installed something himself."""
        found = native.get_handler(signum)
        return self._above.get(signum, found) if found == self._handler else found

    def replace(self, signum: int, handler: Handler, *, stays: bool) -> Handler:
        """Somebody installs a handler where ours is. Main thread only.

        Args:
            signum: one that we took.
            handler: what is to be there; ours, if he puts back what he had found.
            stays: ours stays in front of it.

        Returns:
            What he finds installed.
        """
        found = self.seen(signum)
        stays = stays and handler is not self._handler
        native.set_handler(signum, self._handler if stays else handler)  # refuses other threads
        self._restarting.discard(signum)
        if stays:
            self._above[signum] = handler
            installed.restarts(signum)  # loads what is asked in our handler, and after a fork
        else:
            self._above.pop(signum, None)
        return found

    def put_right(self, signum: int) -> None:
        """Somebody has put ours back after we had given it back: put back what was there before it."""
        is_left = signum not in self.previous and native.get_handler(signum) == self._handler
        if is_left and not installed.is_greenlets(signum):
            native.set_handler(signum, self._given_back.get(signum, int(signal.SIG_DFL)))


def _is_in_c(signum: int) -> bool:
    """Whether a signal is dealt with in C, where Python says what was there before."""
    return any(name in sys.modules for name in HOSTS_IN_C) or installed.is_greenlets(signum)


def is_default(handler: Handler) -> bool:
    """Whether it is what is there without anybody."""
    return handler is _signal.SIG_DFL or handler is _signal.default_int_handler


def _theirs(handler: Handler) -> Callable[..., Any] | None:
    return handler if callable(handler) and owner_of(handler) is Owner.THEIRS else None


def is_of_ended_loop(handler: object) -> bool:
    """Whether a handler is the way with Ctrl-C of an event loop that runs no more. Asked in the thread of the loop."""
    if not is_loops(handler):
        return False
    module = str(getattr(getattr(handler, "func", handler), "__module__", ""))
    if module.startswith("trio."):
        return not sys.modules["trio"].lowlevel.in_trio_run()
    return sys.modules["asyncio"]._get_running_loop() is None


MARK = 255
"""What is no signal's number."""


class WakeupPipe:
    """A pipe that the C-level handler writes each signal's number to, even while main is stuck in C.

    `wake` may be called from a handler and from any thread; `open` and `close` from the main thread, `wait` from one thread.

    Attributes:
        wired: it is the process's wakeup fd.
        waits: its reader has not begun, or waits, and has dealt with all that it has read.
    """

    POKE = b"\0"

    def __init__(self) -> None:
        self._reader, self._writer = self._open()
        self._closed = Once()
        self._theirs = -1
        self.wired: bool = False
        self.waits: bool = True

    def _open(self) -> tuple[int, int]:
        assert sys.platform != "win32"
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        self._poll, self._glance = make_poll(), make_poll()  # one for each thread
        self._poll.register(reader, select.POLLIN)
        self._glance.register(reader, select.POLLIN)
        return reader, writer

    def wire(self) -> None:
        """Become the process's wakeup fd, once; what was there before, and what comes later, gets its bytes from us.

        Twisted, and asyncio for `add_signal_handler`, bring a wakeup fd together with handlers of their own. If theirs simply
        replaced ours nobody would know of the stop that they deal with, and of the time that it takes.
        """
        if self.wired:
            return
        self._theirs = _signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self.wired = True
        self._setter = signal.set_wakeup_fd
        signal.set_wakeup_fd = self._set_wakeup_fd

    def _set_wakeup_fd(self, fd: int, /, *, warn_on_full_buffer: bool = True) -> int:
        """What `signal.set_wakeup_fd` is while ours is in place."""
        found = _signal.set_wakeup_fd(fd, warn_on_full_buffer=warn_on_full_buffer)  # it knows what to refuse
        if not self.wired or found != self._writer:
            return found
        _signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        before, self._theirs = self._theirs, fd
        return before

    def unwire(self) -> None:
        """Put theirs back, unless somebody has replaced ours. Main thread only."""
        if not self.wired:
            return
        self.wired = False
        if signal.set_wakeup_fd == self._set_wakeup_fd:
            signal.set_wakeup_fd = self._setter
        try:
            found = _signal.set_wakeup_fd(self._theirs, warn_on_full_buffer=False)
        except (OSError, ValueError):  # its owner has closed it, as an event loop does
            found = _signal.set_wakeup_fd(-1)
        if found not in (self._writer, self._theirs):
            _signal.set_wakeup_fd(found, warn_on_full_buffer=False)

    def wake(self) -> None:
        """End the reader's wait."""
        self._send(self.POKE)

    def mark(self) -> bool:
        """Tell the reader that what has come up to now is history. Returns whether there was room to."""
        return self._send(bytes((MARK,)))

    def _send(self, data: bytes) -> bool:
        try:
            write(self._writer, data)
        except OSError:
            return False  # full: the reader wakes anyway; closed: nobody is left to wake
        return True

    def wait(self, timeout: float | None) -> bytes:
        """Wait at most this many seconds (None: for ever) and return the numbers of the signals that arrived, and marks."""
        self.waits = True
        self._poll.poll(None if timeout is None else max(0.0, timeout * 1000))
        self.waits = False
        try:
            data = read(self._reader, 65536)
        except BlockingIOError:
            return b""
        return data.replace(self.POKE, b"")

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to read."""
        return not self._glance.poll(0)

    def forward(self, signum: int) -> None:
        """Give a signal to the wakeup fd of somebody else."""
        if self._theirs != -1:
            try:
                write(self._theirs, bytes((signum,)))
            except OSError:
                pass  # theirs is full or closed, as it would be without us

    def close(self) -> None:
        """Close both ends, once."""
        if self._closed.claim():
            self._close()

    def _close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


class WakeupSockets(WakeupPipe):
    """The same on Windows, where only sockets can be waited for."""

    def _open(self) -> tuple[int, int]:
        import socket

        self._ours, self._pythons = socket.socketpair()
        self._ours.settimeout(0)
        self._pythons.settimeout(0)
        return self._ours.fileno(), self._pythons.fileno()

    def _send(self, data: bytes) -> bool:
        try:
            self._pythons.send(data)
        except OSError:
            return False
        return True

    def wait(self, timeout: float | None) -> bytes:
        """See `WakeupPipe.wait`."""
        self.waits = True
        select.select([self._ours], [], [], None if timeout is None else max(0.0, timeout))
        self.waits = False
        try:
            return self._ours.recv(65536).replace(self.POKE, b"")
        except BlockingIOError:
            return b""

    @property
    def is_empty(self) -> bool:
        """See `WakeupPipe.is_empty`."""
        return not select.select([self._ours], [], [], 0)[0]

    def forward(self, signum: int) -> None:
        """Nobody there has a wakeup fd without sockets of his own, which only he can write to."""

    def _close(self) -> None:
        self._ours.close()
        self._pythons.close()


def make_wakeup() -> WakeupPipe:
    """What this platform can wait for."""
    return WakeupSockets() if sys.platform == "win32" else WakeupPipe()


def block(signums: Iterable[int]) -> set[int]:
    """Block signals in the calling thread. Returns those that were; on Windows, which has no mask, none."""
    if sys.platform == "win32":
        return set()
    before: set[int] = _signal.pthread_sigmask(_signal.SIG_BLOCK, signums)
    return before


def unblock(signums: Iterable[int]) -> set[int]:
    """Unblock signals in the calling thread. Returns those that were blocked."""
    if sys.platform == "win32":
        return set()
    before: set[int] = _signal.pthread_sigmask(_signal.SIG_UNBLOCK, signums)
    return before


def pending() -> set[int]:
    """The signals that have come and are blocked; on Windows none."""
    if sys.platform == "win32":
        return set()
    found: set[int] = _signal.sigpending()
    return found


def let_signals_in() -> None:
    """Have what was sent to the calling thread before be seen: the kernel delivers at the end of a system call."""
    unblock(())


def block_all() -> None:
    """Block all signals in the calling thread, so that the kernel gives them to main (H19)."""
    block(ALL)


def poke(thread: int, signum: int) -> None:
    """Interrupt the system call that a thread is in: only `pthread_kill` does (H20).

    On Windows nothing does. There main looks when it runs Python again, or is taken over from.
    """
    if sys.platform == "win32":
        _thread.interrupt_main(signum)
    else:
        _signal.pthread_kill(thread, signum)
