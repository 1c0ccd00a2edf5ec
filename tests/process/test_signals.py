"""The only place that touches dispositions: what it takes it puts back, and nothing that is somebody else's."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from cleanup_guard._process import native
from cleanup_guard._process.signals import DEFAULT_SIGNALS, Signals, WakeupPipe
from cleanup_guard._stop.owner import Owner, owner_of

INT, TERM, HUP, USR1 = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1
USED = (INT, TERM, HUP, USR1)
DEFAULT, IGNORE = int(signal.SIG_DFL), int(signal.SIG_IGN)
C_MODULE: Any = sys.modules["_signal"]


def handler(signum: int, frame: FrameType | None) -> None:
    """A program's own."""


def other(signum: int, frame: FrameType | None) -> None:
    """Another one."""


class Stage:
    """Signals, and the numbers of those that our handler has heard."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.ours = self._on_signal
        self.signals = Signals(self.ours)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self.heard.append(signum)

    def take(self, *signums: int, named: bool = False) -> tuple[int, ...]:
        """Take these."""
        return self.signals.take(signums, named=named)


@pytest.fixture
def stage() -> Iterator[Stage]:
    """Python's own handlers, nothing blocked; afterwards all is what it was before."""
    before = {each: signal.getsignal(each) for each in USED}
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, USED)
    for each in USED:
        signal.signal(each, signal.default_int_handler if each == INT else signal.SIG_DFL)
    yield Stage()
    for each, was in before.items():
        signal.signal(each, was)
        signal.siginterrupt(each, True)  # noqa: FBT003
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


# -- take and give back --------------------------------------------------------------------------------------------------


def test_what_is_taken_is_heard_and_put_back(stage: Stage) -> None:
    """The handler that was there is there again, the very object."""
    signal.signal(USR1, handler)
    assert stage.take(TERM, INT, USR1) == (TERM, INT, USR1)
    signal.raise_signal(TERM)
    signal.raise_signal(USR1)
    assert stage.heard == [TERM, USR1]
    assert stage.signals.ours() == [TERM, INT, USR1]
    assert stage.signals.give_back([TERM, INT, USR1]) == []
    assert [signal.getsignal(each) for each in (TERM, INT, USR1)] == [
        signal.SIG_DFL,
        signal.default_int_handler,
        handler,
    ]
    assert stage.signals.previous == {}


def test_what_is_ours_is_not_taken_again(stage: Stage) -> None:
    """A guard inside another one has the signals, too, and what was there before is not forgotten."""
    assert stage.take(TERM) == stage.take(TERM, INT)[:1] == (TERM,)
    assert stage.signals.previous[TERM] == signal.SIG_DFL
    stage.signals.give_back([TERM])
    assert stage.signals.ours() == [INT]
    stage.signals.give_back([TERM, INT])
    assert signal.getsignal(TERM) == signal.SIG_DFL


@pytest.mark.parametrize("signum", [INT, HUP])
def test_an_inherited_ignore_is_respected(signum: int, stage: Stage) -> None:
    """Of `nohup`, and of `&` in a script, unless the program has named the signal."""
    signal.signal(signum, signal.SIG_IGN)
    assert stage.take(signum) == ()
    assert signal.getsignal(signum) == signal.SIG_IGN
    assert stage.take(signum, named=True) == (signum,)
    stage.signals.give_back([signum])
    assert signal.getsignal(signum) == signal.SIG_IGN


def test_an_ignored_sigterm_is_taken(stage: Stage) -> None:
    """Nobody wishes that by starting a program in the background."""
    signal.signal(TERM, signal.SIG_IGN)
    assert stage.take(TERM) == (TERM,)
    stage.signals.give_back([TERM])
    assert signal.getsignal(TERM) == signal.SIG_IGN


def test_a_handler_in_c_is_left_alone(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python cannot call it, nor put it back."""
    monkeypatch.setattr(native, "get_handler", lambda signum: None)
    assert stage.take(TERM) == ()


@pytest.mark.parametrize("server", ["uwsgi", "mod_wsgi"])
def test_a_server_that_embeds_python_keeps_its_signals(
    server: str, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It handles them in C, which Python does not see."""
    monkeypatch.setitem(sys.modules, server, SimpleNamespace())
    assert stage.take(*DEFAULT_SIGNALS) == ()
    assert signal.getsignal(TERM) == signal.SIG_DFL


def test_all_are_taken_or_none(stage: Stage) -> None:
    """One that cannot be caught undoes the others, but not what was taken before."""
    stage.take(INT)
    with pytest.raises((OSError, ValueError)):
        stage.take(TERM, signal.SIGKILL, USR1)
    assert stage.signals.ours() == [INT]
    assert signal.getsignal(TERM) == signal.SIG_DFL
    stage.signals.give_back([INT])


def test_a_blocked_signal_is_unblocked_and_blocked_again(stage: Stage) -> None:
    """And what was pending is heard."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [TERM])
    os.kill(os.getpid(), TERM)
    stage.take(TERM, INT)
    assert stage.heard == [TERM]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {TERM, INT}
    stage.signals.give_back([TERM, INT])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) & {TERM, INT} == {TERM}


def test_a_signal_that_gives_everything_back_in_the_middle(stage: Stage) -> None:
    """Giving back may be interrupted by a signal whose handler does the same: nothing is given back twice, or forgotten."""
    signals = stage.signals
    stage.take(TERM, INT, USR1)
    uninstall, nested = signals.uninstall, [True]

    def interrupted(signum: int) -> None:
        if nested:
            nested.clear()
            signals.give_back(list(signals.previous))
        uninstall(signum)

    signals.uninstall = interrupted  # type: ignore[method-assign]
    assert signals.give_back([TERM, INT, USR1]) == []
    assert signal.getsignal(TERM) == signal.getsignal(USR1) == signal.SIG_DFL
    assert signal.getsignal(INT) is signal.default_int_handler
    assert signals.previous == {}


# -- lost ----------------------------------------------------------------------------------------------------------------


def test_what_somebody_has_taken_from_us_is_left_alone(stage: Stage) -> None:
    """It is told of, and his handler stays."""
    stage.take(TERM, INT)
    assert not stage.signals.lost(TERM)
    signal.signal(TERM, other)
    assert stage.signals.lost(TERM)
    assert not stage.signals.lost(USR1)  # never ours
    assert stage.signals.ours() == [INT]
    assert stage.signals.give_back([TERM, INT]) == [TERM]
    assert signal.getsignal(TERM) is other


@pytest.mark.parametrize(
    ("before", "now", "theirs"),
    [
        (signal.SIG_DFL, None, None),
        (handler, None, handler),
        (signal.SIG_IGN, None, None),
        (signal.SIG_DFL, other, other),
        (handler, other, other),
        (handler, signal.SIG_DFL, None),
        (handler, signal.default_int_handler, None),
    ],
)
def test_whose_signal_it_is(before: object, now: object, theirs: object, stage: Stage) -> None:
    """Of the handler in front of which we stand, or of one that has replaced ours."""
    signal.signal(TERM, before)  # type: ignore[arg-type]
    stage.take(TERM)
    assert stage.signals.before(TERM) is (before if owner_of(before) is Owner.THEIRS else None)
    if now is not None:
        signal.signal(TERM, now)  # type: ignore[arg-type]
    assert stage.signals.theirs(TERM) is theirs


def test_what_is_installed_over_ours_comes_behind_it(stage: Stage) -> None:
    """Ours stays; they find what they have installed, the signal is theirs, and it is there when ours is given back."""
    stage.take(TERM)
    assert stage.signals.replace(TERM, handler, stays=True) == stage.ours
    signal.raise_signal(TERM)
    assert stage.heard == [TERM]
    assert stage.signals.before(TERM) is stage.signals.seen(TERM) is handler
    assert stage.signals.beneath(TERM) is None
    assert stage.signals.give_back([TERM]) == [TERM]
    assert signal.getsignal(TERM) is handler


def test_a_default_that_is_put_over_ours_makes_the_signal_ours(stage: Stage) -> None:
    """They have dealt with it and are about to die of it: it comes to us. Who puts ours back again has changed nothing."""
    signal.signal(TERM, handler)
    stage.take(TERM)
    found = stage.signals.replace(TERM, DEFAULT, stays=True)
    signal.raise_signal(TERM)
    assert stage.heard == [TERM]
    assert stage.signals.before(TERM) is None
    assert stage.signals.replace(TERM, found, stays=True) == signal.SIG_DFL
    assert stage.signals.before(TERM) is handler
    stage.signals.replace(TERM, DEFAULT, stays=True)
    assert stage.signals.give_back([TERM]) == []
    assert signal.getsignal(TERM) == signal.SIG_DFL


def test_what_is_to_be_ignored_is_ignored(stage: Stage) -> None:
    """There ours does not stay, nor what was installed over it."""
    stage.take(TERM)
    stage.signals.replace(TERM, handler, stays=True)
    assert stage.signals.replace(TERM, IGNORE, stays=False) is handler
    signal.raise_signal(TERM)
    assert stage.heard == []
    assert stage.signals.replace(TERM, handler, stays=True) == signal.SIG_IGN
    signal.raise_signal(TERM)
    assert stage.heard == [TERM]
    stage.signals.give_back([TERM])


def test_ours_that_is_put_back_when_nobody_guards_any_more(stage: Stage) -> None:
    """Somebody had found it, and puts it back too late: it is no stranger's handler, and what was there before is found."""
    signal.signal(TERM, handler)
    stage.take(TERM)
    stage.signals.give_back([TERM])
    for _ in range(2):
        signal.signal(TERM, stage.ours)
        stage.take(TERM)
        assert stage.signals.before(TERM) is handler
        stage.signals.give_back([TERM])
    signal.signal(TERM, stage.ours)
    stage.signals.put_right(TERM)
    assert signal.getsignal(TERM) is handler


def test_theirs_is_in_place_for_the_time_of_a_call(stage: Stage) -> None:
    """Some look whether they are installed; afterwards ours is, and nothing was forgotten."""
    signal.signal(TERM, handler)
    stage.take(TERM)
    stage.signals.uninstall(TERM)
    assert signal.getsignal(TERM) is handler
    assert stage.signals.lost(TERM)
    stage.signals.install(TERM)
    assert signal.getsignal(TERM) == stage.ours
    stage.signals.give_back([TERM])


def test_at_the_very_end_repeats_are_ignored(stage: Stage) -> None:
    """What is still ours; what somebody has taken from us is his."""
    stage.take(TERM, USR1)
    signal.signal(USR1, other)
    stage.signals.ignore()
    assert signal.getsignal(TERM) == signal.SIG_IGN
    assert signal.getsignal(USR1) is other


# -- restarts ------------------------------------------------------------------------------------------------------------


def is_restarted(signum: int) -> bool:
    """What the kernel says: whether a read goes on after this signal."""
    action = (ctypes.c_ulong * 32)()
    assert ctypes.CDLL(None).sigaction(int(signum), None, action) == 0
    flags = (ctypes.c_uint * 64).from_buffer(action)[(ctypes.sizeof(ctypes.c_void_p) + 128) // 4]
    return bool(flags & 0x10000000)


@pytest.mark.skipif(sys.platform != "linux", reason="the layout of struct sigaction")
@pytest.mark.parametrize("restarts", [True, False])
def test_system_calls_are_restarted_where_somebody_has_asked_for_it(restarts: bool, stage: Stage) -> None:
    """`signal.signal` undoes what `siginterrupt` has said; it is said again for ours, for theirs, and for what is put back."""
    signal.signal(TERM, handler)
    signal.siginterrupt(TERM, not restarts)
    assert is_restarted(TERM) is restarts
    stage.take(TERM)
    assert stage.signals.restarts(TERM) is restarts
    assert is_restarted(TERM) is restarts
    stage.signals.uninstall(TERM)
    assert is_restarted(TERM) is restarts
    stage.signals.install(TERM)
    assert is_restarted(TERM) is restarts
    stage.signals.give_back([TERM])
    assert is_restarted(TERM) is restarts
    assert not stage.signals.restarts(TERM)


@pytest.mark.skipif(sys.platform != "linux", reason="the layout of struct sigaction")
def test_system_calls_are_restarted_for_a_handler_over_ours(stage: Stage) -> None:
    """As `loop.add_signal_handler` asks for, after it has installed its own; the default over ours asks for nothing."""
    stage.take(TERM)
    stage.signals.replace(TERM, handler, stays=True)
    assert not is_restarted(TERM)
    signal.siginterrupt(TERM, False)  # noqa: FBT003
    stage.signals.uninstall(TERM)
    assert signal.getsignal(TERM) is handler
    assert is_restarted(TERM)
    stage.signals.install(TERM)
    assert is_restarted(TERM)
    stage.signals.replace(TERM, DEFAULT, stays=True)
    assert not is_restarted(TERM)
    stage.signals.replace(TERM, handler, stays=True)
    signal.siginterrupt(TERM, False)  # noqa: FBT003
    stage.signals.give_back([TERM])
    assert signal.getsignal(TERM) is handler
    assert is_restarted(TERM)


@pytest.mark.skipif(sys.platform != "linux", reason="the layout of struct sigaction")
def test_where_the_stop_is_ours_system_calls_end(stage: Stage) -> None:
    """Nobody has asked for anything else."""
    signal.siginterrupt(TERM, False)  # noqa: FBT003
    stage.take(TERM)
    assert not stage.signals.restarts(TERM)
    stage.signals.give_back([TERM])


# -- the wakeup pipe -----------------------------------------------------------------------------------------------------


class Theirs:
    """A wakeup fd of somebody's, as an event loop has it."""

    def __init__(self) -> None:
        self.reader, self.writer = socket.socketpair()
        self.reader.setblocking(False)  # noqa: FBT003
        self.writer.setblocking(False)  # noqa: FBT003

    @property
    def fd(self) -> int:
        """What is given to `set_wakeup_fd`."""
        return self.writer.fileno()

    def read(self) -> bytes:
        """What has arrived."""
        readable, _, _ = select.select([self.reader], [], [], 0)
        return self.reader.recv(100) if readable else b""

    def close(self) -> None:
        """Close both ends."""
        self.reader.close()
        self.writer.close()


@pytest.fixture
def pipe() -> Iterator[WakeupPipe]:
    """One that is closed in the end, and the wakeup fd what it was before."""
    before = signal.set_wakeup_fd(-1)
    made, function = WakeupPipe(), signal.set_wakeup_fd
    yield made
    made.unwire()
    made.close()
    assert signal.set_wakeup_fd is function
    signal.set_wakeup_fd(before)


@pytest.fixture
def theirs() -> Iterator[Theirs]:
    """Somebody's."""
    made = Theirs()
    yield made
    made.close()


def test_the_pipe_gets_the_numbers_of_signals(pipe: WakeupPipe, stage: Stage) -> None:
    """Once it is wired; a wake brings none."""
    stage.take(TERM, USR1)
    signal.raise_signal(TERM)
    assert pipe.wait(0) == b""
    pipe.wire()
    signal.raise_signal(TERM)
    pipe.wake()
    signal.raise_signal(USR1)
    assert pipe.wait(0) == bytes([TERM, USR1])
    pipe.wake()
    assert pipe.wait(None) == b""  # it does not wait
    pipe.unwire()
    signal.raise_signal(TERM)
    assert pipe.wait(0) == b""
    stage.signals.give_back([TERM, USR1])


def test_a_wakeup_fd_that_was_there_gets_its_bytes_from_us(pipe: WakeupPipe, theirs: Theirs) -> None:
    """And is put back."""
    signal.set_wakeup_fd(theirs.fd, warn_on_full_buffer=False)
    pipe.wire()
    pipe.wire()  # again: nothing
    pipe.forward(TERM)
    assert theirs.read() == bytes([TERM])
    pipe.unwire()
    assert signal.set_wakeup_fd(-1) == theirs.fd
    pipe.unwire()  # again: nothing


def test_a_wakeup_fd_that_comes_later_gets_its_bytes_from_us(pipe: WakeupPipe, theirs: Theirs) -> None:
    """Ours stays in place, though whoever sets his is told that all went well; and his is there in the end."""
    pipe.wire()
    assert signal.set_wakeup_fd(theirs.fd, warn_on_full_buffer=False) == -1
    before = signal.getsignal(USR1)
    signal.signal(USR1, handler)
    signal.raise_signal(USR1)
    signal.signal(USR1, before)
    assert pipe.wait(0) == bytes([USR1])
    pipe.forward(USR1)
    assert theirs.read() == bytes([USR1])
    assert signal.set_wakeup_fd(-1) == theirs.fd  # as a loop does that ends
    pipe.forward(USR1)
    assert theirs.read() == b""
    assert signal.set_wakeup_fd(theirs.fd) == -1
    pipe.unwire()
    assert signal.set_wakeup_fd(-1) == theirs.fd


def test_what_python_refuses_is_refused(pipe: WakeupPipe, theirs: Theirs) -> None:
    """A descriptor that blocks, one that is closed, another thread; and ours is still in place."""
    pipe.wire()
    theirs.writer.setblocking(True)  # noqa: FBT003
    with pytest.raises(ValueError, match="non-blocking"):
        signal.set_wakeup_fd(theirs.fd)
    theirs.close()
    with pytest.raises((OSError, ValueError)):
        signal.set_wakeup_fd(10**6)
    refused: list[type[BaseException]] = []

    def in_thread() -> None:
        try:
            signal.set_wakeup_fd(-1)
        except ValueError as error:
            refused.append(type(error))

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert refused == [ValueError]
    pipe.unwire()
    assert signal.set_wakeup_fd(-1) == -1


def test_a_wakeup_fd_whose_owner_has_closed_it_is_not_put_back(pipe: WakeupPipe, theirs: Theirs) -> None:
    """As an event loop does that was closed inside the guard."""
    signal.set_wakeup_fd(theirs.fd)
    pipe.wire()
    theirs.close()
    pipe.forward(TERM)  # lost, as it would be without us
    pipe.unwire()
    assert signal.set_wakeup_fd(-1) == -1


def test_who_replaces_the_fd_behind_our_back_keeps_it(pipe: WakeupPipe, theirs: Theirs) -> None:
    """A C extension, or one who has kept the function from before: what we find is left in place."""
    pipe.wire()
    assert C_MODULE.set_wakeup_fd(theirs.fd, warn_on_full_buffer=False) == pipe._writer
    pipe.unwire()
    assert signal.set_wakeup_fd(-1) == theirs.fd


def test_a_full_pipe_blocks_nobody(pipe: WakeupPipe, theirs: Theirs) -> None:
    """Neither ours nor theirs."""
    signal.set_wakeup_fd(theirs.fd, warn_on_full_buffer=False)
    pipe.wire()
    for _ in range(300_000):
        pipe.wake()
    for _ in range(20_000):
        pipe.forward(TERM)
    assert pipe.wait(0) == b""
    pipe.unwire()
    signal.set_wakeup_fd(-1)


def test_a_pipe_is_closed_once(stage: Stage) -> None:
    """Whoever comes second closes no descriptor that somebody else has got meanwhile."""
    pipe = WakeupPipe()
    pipe.close()
    reader, writer = os.pipe()
    pipe.close()
    pipe.wake()
    os.close(reader)
    os.close(writer)
