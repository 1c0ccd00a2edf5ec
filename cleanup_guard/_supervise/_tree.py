"""Who lives below us: processes as /proc tells of them, and what each would do with a signal.

Read along the branches (`/proc/PID/task/TID/children`), so that it costs what our own descendants cost, however many processes
the machine has. A kernel without these files, and a process with very many threads, cost a look at everybody.

A look is not atomic: who forks or ends meanwhile may be missed. So it only ever says whom to signal; that nobody is left is
known from `waitpid`, which says so for sure.
"""

from __future__ import annotations

import os
import sys
import time

if sys.platform != "linux":
    raise NotImplementedError("supervising children needs Linux")

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Iterable, Iterator

    Key = tuple[int, int]
else:
    import _signal

PF_FORKNOEXEC = 0x40
"""A flag of /proc/PID/stat: forked, and no program executed since."""

MANY_THREADS = 64
"""Threads beyond which a look at everybody is cheaper than one at each thread's children."""

FETCHES, SUSPENDED = "do_sigtimedwait", "sigsuspend"
"""Where in the kernel one sleeps that fetches signals, and one that waits for any of them to be handled."""

SHELLS = frozenset({"sh", "bash", "dash", "ash", "busybox", "ksh", "mksh", "zsh"})

SIGTERM = 15

TICKS = os.sysconf("SC_CLK_TCK")
"""The unit of `Process.started`, per second."""


def ticks() -> int:
    """Now, on the clock of `Process.started`."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS)


class Process:
    """One process at one look: what of /proc/PID/stat and /proc/PID/status matters here.

    Attributes:
        started: when it was, in ticks since the machine was; with the pid it tells it from a later one with the same pid.
        executed: whether it has executed a program since it was forked.
        caught: the signals that it has a handler for, or blocks in order to fetch them, as a mask.
        ignored: those that it ignores.
        sleeps_in: the function of the kernel that it waits in, where that matters and can be known; else empty.
        switches: how often it gave up the processor, or lost it: unchanged, it has not run.
    """

    __slots__ = (
        "caught",
        "executed",
        "group",
        "ignored",
        "name",
        "parent",
        "pid",
        "sleeps_in",
        "started",
        "state",
        "switches",
        "threads",
    )

    def __init__(
        self, pid: int, name: str = "", *, parent: int = 0, group: int = 0, started: int = 0
    ) -> None:
        self.pid = pid
        self.name = name
        self.parent = parent
        self.group = group
        self.started = started
        self.state = "S"
        self.executed = True
        self.threads = 1
        self.caught = 0
        self.ignored = 0
        self.sleeps_in = ""
        self.switches = 0

    def __repr__(self) -> str:
        return f"<{self.name} {self.pid} {self.state}>"

    @property
    def key(self) -> Key:
        """What tells it from a later process with the same pid."""
        return (self.pid, self.started)

    @property
    def alive(self) -> bool:
        """Whether it runs, that is, is neither a zombie nor on its way to be one."""
        return self.state not in "ZX"

    @property
    def suspended(self) -> bool:
        """Whether it was stopped, and takes a signal only when it goes on."""
        return self.state == "T"

    def hears(self, signum: int) -> bool:
        """Whether it has something to do when this signal comes: it does not die of it, and does not ignore it.

        Who waits in sigtimedwait(2), as tini and we do, has nothing blocked for that time, so it is taken to hear everything.
        """
        return bool(self.caught & ~self.ignored & _bit(signum)) or (
            self.sleeps_in == FETCHES and not self.ignores(signum)
        )

    def ignores(self, signum: int) -> bool:
        """Whether this signal makes no difference to it."""
        return bool(self.ignored & _bit(signum))


def _bit(signum: int) -> int:
    return 1 << (signum - 1)


def _read(path: str) -> bytes:
    """A file of /proc; empty if there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        data = chunk = os.read(fd, 8192)
        while len(chunk) == 8192:  # noqa: PLR2004
            chunk = os.read(fd, 8192)
            data += chunk
    except OSError:
        return b""
    finally:
        os.close(fd)
    return data


def look(pid: int) -> Process | None:
    """One process without its signals, or None if there is none with this pid."""
    # The name is in parentheses and may hold any character, parentheses and spaces included.
    head, _, tail = _read(f"/proc/{pid}/stat").rpartition(b")")
    fields = tail.split()
    if not fields:
        return None
    process = Process(
        pid,
        head.partition(b"(")[2].decode("utf-8", "surrogateescape"),
        parent=int(fields[1]),
        group=int(fields[2]),
        started=int(fields[19]),
    )
    process.state = fields[0].decode()
    process.executed = not int(fields[6]) & PF_FORKNOEXEC
    process.threads = int(fields[17])
    return process


MASKS = {b"SigBlk": 0, b"SigCgt": 1, b"SigIgn": 2}


def look_closely(pid: int) -> Process | None:
    """One process with its signals."""
    process = look(pid)
    if process is None or not process.alive:
        return process
    blocked = _look_at_signals(process)
    if not process.caught & _bit(SIGTERM) or process.name in SHELLS:
        process.sleeps_in = _read(f"/proc/{pid}/wchan").partition(b".")[0].decode()
    if _may_fetch(process):
        if (
            process.sleeps_in != FETCHES
        ):  # it may have been there at the look before, when nothing was blocked for that
            blocked |= _look_at_signals(process)
        process.caught |= blocked
    if 1 < process.threads <= MANY_THREADS:
        process.switches = switches(pid)
    return process


def hears_alone(pid: int, signum: int) -> bool:
    """Whether a process has a handler for a signal, and no children. False may mean that this takes a closer look to tell."""
    status = _read(f"/proc/{pid}/status")
    # Written out: it has long left the processor's caches, and each call of a function of ours takes 5 µs more.
    caught, _, _ = status.partition(b"\nSigCgt:")[2].partition(b"\n")
    if not int(caught or b"0", 16) >> (signum - 1) & 1:
        return False
    if not has_children_files() or b"\nState:\tZ" in status:
        return False
    if b"\nThreads:\t1\n" in status:
        return not _read(f"/proc/{pid}/task/{pid}/children")
    threads = int(status.partition(b"\nThreads:")[2].partition(b"\n")[0] or b"0")
    return 0 < threads <= MANY_THREADS and not Branches().below(pid, threads)


def _look_at_signals(process: Process) -> int:
    """Fill in what /proc/PID/status says. Returns the signals that are blocked."""
    masks = [0, 0, 0]
    process.switches = 0
    for line in _read(f"/proc/{process.pid}/status").split(b"\n"):
        word, _, value = line.partition(b":")
        if word in MASKS:
            masks[MASKS[word]] = int(value, 16)
        elif word.endswith(b"_ctxt_switches"):
            process.switches += int(value)
    blocked, process.caught, process.ignored = masks
    return blocked


def _may_fetch(process: Process) -> bool:
    """Whether a process that blocks a signal may do so in order to fetch it.

    Shells do for the moment in which they start a program, and die of the signal right after. So does who has just been forked.
    """
    return process.executed and process.name not in SHELLS


def switches(pid: int) -> int:
    """How often any thread of a process gave up the processor, or lost it."""
    return sum(
        int(line.rpartition(b":")[2])
        for thread in _threads(pid)
        for line in _read(f"/proc/{pid}/task/{thread}/status").split(b"\n")
        if b"_ctxt_switches" in line
    )


def _threads(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def everybody() -> Iterator[Process]:
    """All processes that /proc shows, without their signals."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    for name in names:
        if name.isdecimal():
            found = look(int(name))
            if found is not None:
                yield found


def members(group: int) -> list[Process]:
    """Everybody alive in a process group, without their signals."""
    return [process for process in everybody() if process.group == group and process.alive]


class Branches:
    """Who is whose child, asked process by process."""

    def __init__(self) -> None:
        self._by_parent: dict[int, list[int]] | None = None

    def below(self, pid: int, threads: int) -> list[int]:
        """The pids of a process's children.

        Args:
            pid: the process.
            threads: how many threads it has, of which each may have children.
        """
        if self._by_parent is None and 0 < threads <= MANY_THREADS and has_children_files():
            tasks = [str(pid)] if threads == 1 else _threads(pid)
            return [
                int(word) for task in tasks for word in _read(f"/proc/{pid}/task/{task}/children").split()
            ]
        if self._by_parent is None:
            self._by_parent = {}
            for process in everybody():
                self._by_parent.setdefault(process.parent, []).append(process.pid)
        return self._by_parent.get(pid, [])


def has_children_files() -> bool:
    """Whether this kernel tells a thread's children (CONFIG_PROC_CHILDREN)."""
    if not HAS_CHILDREN_FILES:
        me = os.getpid()
        HAS_CHILDREN_FILES.append(os.path.exists(f"/proc/{me}/task/{me}/children"))
    return HAS_CHILDREN_FILES[0]


HAS_CHILDREN_FILES: list[bool] = []
"""The answer, once it has been asked for."""


def is_ours() -> bool:
    """Whether /proc is there, and tells of the pids that we see: not of those of another namespace."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def descendants(roots: Iterable[int], *, until: float | None = None) -> list[Process]:
    """Everybody alive at and below these processes, with their signals, parents before children.

    Args:
        roots: their pids.
        until: an instant on the monotonic clock at which to return what has been seen; None to see everybody.
    """
    branches = Branches()
    found: list[Process] = []
    queue = list(roots)
    seen = set(queue)
    for pid in queue:
        process = look_closely(pid)
        if process is None:
            continue
        if process.alive:
            found.append(process)
        if until is not None and time.monotonic() >= until:
            break
        below = [each for each in branches.below(pid, process.threads) if each not in seen]
        seen.update(below)
        queue += below
    return found


def children(pid: int) -> list[int]:
    """The pids of a process's children, zombies included. One file is read for each of its threads."""
    return Branches().below(pid, max(1, len(_threads(pid))))


def pipes(pid: int) -> tuple[set[str], set[str]]:
    """What a process reads from and writes to: the names of the pipes and files that it has open for one of the two only.

    Only links and descriptors' flags are looked at, never the files: a filesystem that hangs must not hang us.
    """
    reads: set[str] = set()
    writes: set[str] = set()
    folder = f"/proc/{pid}/fd/"
    try:
        names = os.listdir(folder)
    except OSError:
        return reads, writes
    for name in names:
        try:
            mode, target = os.lstat(folder + name).st_mode, os.readlink(folder + name)
        except OSError:
            continue
        if not target.startswith(("pipe:", "/")) or target.startswith(("/dev/", "/proc/")):
            continue
        if mode & 0o700 == 0o500:  # noqa: PLR2004 - as `ls -l` shows a descriptor: r-x for reading
            reads.add(target)
        elif mode & 0o700 == 0o300:  # noqa: PLR2004
            writes.add(target)
    return reads, writes


def in_order(processes: list[Process]) -> list[Process]:
    """The same processes, parents before children."""
    below: dict[int, list[Process]] = {}
    pids = {process.pid for process in processes}
    ordered: list[Process] = []
    for process in processes:
        if process.parent in pids:
            below.setdefault(process.parent, []).append(process)
        else:
            ordered.append(process)
    for process in ordered:
        ordered += below.pop(process.pid, [])
    return ordered


def signal_one(process: Process, signum: int) -> bool:
    """Signal one process, if it still is the one that was seen. Returns whether it was.

    Raises:
        PermissionError: it runs as another user.
    """
    pidfd = _open_pidfd(process.pid)
    try:
        now = look(process.pid)
        if now is None or now.key != process.key:
            return False
        if pidfd >= 0:
            _signal.pidfd_send_signal(pidfd, signum)
        else:
            os.kill(process.pid, signum)
    except ProcessLookupError:
        return False  # it has just ended, which is what was wanted
    finally:
        if pidfd >= 0:
            os.close(pidfd)
    return True


def _open_pidfd(pid: int) -> int:
    """A pidfd of a process; -1 if it has ended, or if there are none to be had and the look has to do."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1
