"""The exit nets: what is left is run when the interpreter ends, whatever way main took out.

Callbacks normally run in the guard's own exit. Three nets are below it, and all take their turn at the same stacks: the
take-over
by the watcher, the early net (before the interpreter joins non-daemon threads, where threads and executors still work) and the
late net (`atexit`, where some of that no longer does: hazards H29 to H31).
"""

from __future__ import annotations

import atexit
import os
import sys
import threading

from cleanup_guard._ground.stderr import write_line
from cleanup_guard._process.guest import GUEST
from cleanup_guard._process.last_word import LastWord
from cleanup_guard._process.native import in_main
from cleanup_guard._process.process import REGISTRY, Process
from cleanup_guard._stop.ending import ending_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cleanup_guard._process.roster import Member


class Nets:
    """The exit nets of this process, set up once, on the first guard: importing the package registers nothing."""

    def __init__(self) -> None:
        self._stretched_in: int | None = None  # the process
        self._in_child: int | None = None

    def stretch(self) -> None:
        """Register the nets; further calls do nothing."""
        if self._stretched_in == os.getpid():
            return
        self._stretched_in = (
            os.getpid()
        )  # multiprocessing forgets, in a fork child, what was registered in the parent
        _load_what_is_lazy()
        atexit.register(late_net)
        # Private, but what concurrent.futures uses for the same reason (gh-126168 asked for a public one): it runs before
        # the interpreter joins non-daemon threads, which may be waiting for one of our callbacks.
        # Later ones run first, and concurrent.futures, which joins its workers there, is often imported later.
        registered: object = getattr(threading, "_threading_atexits", None)
        if isinstance(registered, list) and not isinstance(registered, EarlyNetFirst):
            others: list[Callable[[], object]] = registered  # pyright: ignore[reportUnknownVariableType]
            setattr(threading, "_threading_atexits", EarlyNetFirst(others))  # noqa: B010  # typeshed does not know it

    def stretch_in_child(self) -> None:
        """A multiprocessing child leaves by `os._exit`, without atexit (H41): its own finalizers do run."""
        process = sys.modules.get("multiprocessing.process")
        if process is None or process.parent_process() is None or self._in_child == os.getpid():
            return
        self._in_child = os.getpid()
        from multiprocessing import util

        util.Finalize(None, late_net, exitpriority=0)


class EarlyNetFirst(list["Callable[[], object]"]):
    """What runs before the interpreter joins threads, in the order in which it runs: the early net, then the others."""

    def __reversed__(self) -> Iterator[Callable[[], object]]:
        yield early_net
        yield from super().__reversed__()


def _load_what_is_lazy() -> None:
    """Load what of ours is only named so far: under `-X lazy_imports=all` (3.15) that is all, until it is first used.

    That may be too late: no descriptor is left, or another version of the package has been installed meanwhile.
    """
    mode = getattr(sys, "get_lazy_imports", None)
    if mode is None or mode() != "all":
        return
    before = 0
    while before != len(sys.modules):
        before = len(sys.modules)
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] == __name__.partition(".")[0]:
                for each in list(vars(module)):
                    getattr(module, each)


NETS = Nets()


def early_net() -> None:
    """Run what is left in main's guards: skipped exits (hazard H9), `on_exit` without a guard, popped guards."""
    process = _process_here()
    if process is not None:
        _leave_main(process)
        if process.stop is not None:
            process.last_resort.arm(process.stop, process.clock())


def late_net() -> None:
    """As the early net, and for guards of other threads; then have repeats of the stop ignored to the very end."""
    process = _process_here()
    if process is None:
        return
    _leave_main(process)
    leave_elsewhere(process)
    GUEST.stand_down()  # before Python clears the names that it looks up
    stop = process.stop
    if stop is not None and in_main():
        process.signals.ignore()
        # From here on the watcher may not get to run again, and the end of the interpreter is work like any other.
        process.last_resort.postpone(stop, process.clock())
        _forget_broken_streams()
    if process.watch.parked or (process.watch.running and not _has_descriptor()):
        # CPython before 3.14 ends a daemon thread by pthread_exit, for which the C library opens libgcc_s, or aborts.
        process.watch.pause()


def _has_descriptor() -> bool:
    """Whether a descriptor is free."""
    try:
        reader, writer = os.pipe()
    except OSError:
        return False
    os.close(reader)
    os.close(writer)
    return True


def _process_here() -> Process | None:
    process = REGISTRY.process
    if process is None or process.pid != os.getpid():
        return None
    process.exiting = True
    return process


def _leave_main(process: Process) -> None:
    """Leave what is left; a stop that came meanwhile has no main to be raised in, and decides the exit status here."""
    roster = process.roster
    cut_short = any(each is not roster.program for each in list(roster.main))  # main has ended inside of them
    while left := [*list(roster.popped), *list(roster.main)]:
        _leave(process, left[-1])
    stop = process.stop
    if stop is None or stop.theirs is not None:
        return
    ending = ending_of(stop, process.exit_status())
    # Main that was told ends by the stop's exception, unless no exception brings about what is wanted: the guard that would
    # have seen to it was popped, or a generator's, which the exception did not come through.
    if process.delivery.times and not (cut_short or stop.owed or ending.needs_last_word):
        return
    process.announce()
    process.tell_finished()
    LastWord(ending).say()


def _leave(process: Process, member: Member) -> None:
    try:
        member.leave_at_exit()
    except BaseException as error:  # an exception here would skip the interpreter's joins
        write_line(f"leaving {member.label} at exit failed: {type(error).__name__}: {error}")
    finally:
        process.roster.remove(member)


def leave_elsewhere(process: Process) -> None:
    """Run what is left in the guards of other threads."""
    for member in reversed(list(process.roster.elsewhere)):
        _leave(process, member)


def _forget_broken_streams() -> None:
    """Python ends with status 120 if it cannot flush its streams: a reader who left does not change what a stop's status is."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except (AttributeError, OSError, ValueError, RuntimeError):
            setattr(sys, name, None)
