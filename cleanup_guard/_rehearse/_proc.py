"""What /proc tells of the processes that are watched.

They choose what stands there, and how much of it: each look reads a bounded part, and opens nothing that it could be kept
waiting at.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

if sys.platform != "linux":
    raise NotImplementedError("rehearsing a stop needs Linux")

from cleanup_guard._rehearse._seen import Handling, Possession, Seen

MOST_ARGV = 8192
"""Bytes of a command line that are read."""

MOST_ENVIRON = 1 << 17
"""Bytes of an environment that are read."""

MOST_SCRIPT = 1 << 18
"""Bytes of a script; a longer one is not looked at."""

MOST_LISTED = 4096
"""Threads or descriptors of one process that are looked at."""

CUT = "..."
"""The last word of a command line that was longer than what is read of it."""


def read(path: str, most: int = 1 << 16) -> bytes:
    """The beginning of a file of /proc; nothing if it is not there."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(most) or b""
    except OSError:
        return b""


def argv(pid: int) -> list[str]:
    """The command line of a process, or its beginning."""
    data = read(f"/proc/{pid}/cmdline", MOST_ARGV)
    words = data.rstrip(b"\0").decode("utf-8", "replace").split("\0") if data.strip(b"\0") else []
    return [*words, CUT] if len(data) == MOST_ARGV else words


def is_whole(words: list[str]) -> bool:
    """Whether this is a command line and not only its beginning."""
    return bool(words) and words[-1] != CUT


def status(tid: int) -> dict[str, str]:
    """/proc/TID/status; empty if it is gone."""
    text = read(f"/proc/{tid}/status").decode("utf-8", "replace")
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def listed(folder: str) -> list[str]:
    """The names in a folder of /proc; none if it is not there."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def tasks(pid: int) -> list[int]:
    """The threads of a process."""
    return [int(name) for name in listed(f"/proc/{pid}/task")]


def descendants(pid: int) -> list[int]:
    """The pids of all that descend from a process, parents before their children."""
    children: dict[int, list[int]] = {}
    for name in listed("/proc"):
        if name.isdecimal():
            children.setdefault(_parent(int(name)), []).append(int(name))
    found = [pid]
    for each in found:
        found += children.pop(each, [])
    return found[1:]


def _parent(pid: int) -> int:
    fields = read(f"/proc/{pid}/stat", 4096).rpartition(b")")[2].split()
    return int(fields[1]) if len(fields) > 1 else 0


def is_alive(pid: int) -> bool:
    """Whether it runs, that is, is neither gone nor a zombie."""
    fields = read(f"/proc/{pid}/stat", 4096).rpartition(b")")[2].split()
    return bool(fields) and fields[0] not in {b"Z", b"X"}


def is_traced_by_us(tid: int) -> bool:
    """Whether we trace it: as a child of one whom we trace it may not have been reported yet."""
    return status(tid).get("TracerPid") == str(os.getpid())


def send(pid: int, signum: int) -> None:
    """Send a signal to a process that may be gone."""
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        pass  # ended, and is reported, if it is anybody's to reap


def glimpse(pid: int, signum: int) -> Seen:
    """What can be seen of a process without tracing it."""
    found = status(pid)
    seen = Seen(int(found.get("NSpid", str(pid)).split()[-1]), int(found.get("PPid", 0)), argv(pid))
    seen.handling = handling(found, signum)
    # Whether it waits for a signal that it blocks, or does not catch, is for those to see who may trace it.
    if seen.handling not in {"catches", "ignores"}:
        seen.handling = "unknown"
    return seen


def inside(root: str, path: str) -> str:
    """Where a path of another root leads, seen from ours: its links are those of that root, /var/run -> /run for example.

    Raises:
        OSError: a part of it is not there, or its links lead in circles.
    """
    os.stat(root)
    found, parts = root, path.split("/")[::-1]
    links = 0
    while parts:
        part = parts.pop()
        if part in {"", "."}:
            continue
        if part == "..":
            found = os.path.dirname(found) if found != root else root
        elif os.path.islink(step := f"{found}/{part}"):
            links += 1
            if links > LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink(step)
            found = root if target.startswith("/") else found
            parts += target.split("/")[::-1]
        else:
            found = step
    return found


LINKS = 40
"""Symbolic links that the kernel follows in one path (path_resolution(7))."""


# -- signals ------------------------------------------------------------------------------------------------------


def handling(found: dict[str, str], signum: int) -> Handling:
    """What one thread, by its status, does with a signal."""
    words: tuple[tuple[str, Handling], ...] = (
        ("SigBlk", "blocks"),
        ("SigIgn", "ignores"),
        ("SigCgt", "catches"),
    )
    for name, word in words:
        if int(found.get(name, "0"), 16) >> (signum - 1) & 1:
            return word
    return "default"


def attitude(pid: int, signum: int) -> Handling | None:
    """What a process does with a signal: it goes to any thread that does not block it. None if it is gone."""
    found: list[Handling] = [_of_thread(pid, tid, signum) for tid in tasks(pid)[:MOST_LISTED]]
    found.sort(key=lambda each: each == "blocks")
    return found[0] if found else None


def _of_thread(pid: int, tid: int, signum: int) -> Handling:
    """One that takes the signal with sigwait(3) or by a signalfd(2) catches it."""
    found = handling(status(tid), signum)
    if found != "blocks" and read(f"/proc/{tid}/wchan").startswith(b"do_sigtimedwait"):
        return "catches"  # the kernel unblocks what is waited for meanwhile
    if found == "blocks":
        for fd in listed(f"/proc/{pid}/fdinfo")[:MOST_LISTED]:
            mask = read(f"/proc/{pid}/fdinfo/{fd}", 4096).partition(b"sigmask:")[2].split()
            if mask and int(mask[0], 16) >> (signum - 1) & 1:
                return "catches"
    return found


def waits(found: dict[str, str], signum: int) -> bool:
    """Whether a signal has reached a process, or one of its threads, that has not taken it."""
    waiting = int(found.get("SigPnd", "0"), 16) | int(found.get("ShdPnd", "0"), 16)
    return bool(waiting >> (signum - 1) & 1)


# -- what a process has -------------------------------------------------------------------------------------------


def possession(pid: int, script: str) -> Possession:
    """What a process has now.

    Args:
        pid: as we see it.
        script: the file that it runs as its command line names it; may be empty.
    """
    found = status(pid)
    fields = read(f"/proc/{pid}/stat", 4096).rpartition(b")")[2].split()
    folder = _link(f"/proc/{pid}/cwd")
    path = os.path.normpath(os.path.join(folder, script)) if script else ""
    # Who waits for signals with sigwait(3), or reads them from a descriptor, is not interrupted by a handler.
    waits = any(read(f"/proc/{tid}/wchan").startswith(b"do_sigtimedwait") for tid in tasks(pid)[:MOST_LISTED])
    caught = 0 if waits else int(found.get("SigCgt", "0"), 16) & ~int(found.get("SigBlk", "0"), 16)
    return Possession(
        user=tuple(" ".join(found.get(name, "").split()) for name in ("Uid", "Gid", "Groups")),
        nice=int(fields[16]) if len(fields) > 16 else 0,  # noqa: PLR2004 - proc_pid_stat(5), from the third field on
        environ=_environ(pid),
        file=_link(f"/proc/{pid}/exe"),
        path=path,
        text=_text(pid, path) if path else None,
        catches=frozenset(signum for signum in range(1, 65) if caught >> (signum - 1) & 1),
    )


def _environ(pid: int) -> dict[str, str]:
    data = read(f"/proc/{pid}/environ", MOST_ENVIRON).decode("utf-8", "surrogateescape")
    return {name: value for name, _, value in (each.partition("=") for each in data.split("\0")) if name}


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _text(pid: int, path: str) -> str | None:
    """What stands in a file as that process sees it: a plain one, and not long."""
    try:
        # It may be a FIFO, which would keep us waiting, or what it is may be changed by now.
        fd = os.open(inside(f"/proc/{pid}/root", path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return None
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        data = file.read(MOST_SCRIPT + 1)
    if len(data) > MOST_SCRIPT or b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
