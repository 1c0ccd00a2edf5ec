"""Who has sent a signal: the platform, or a person."""

from __future__ import annotations

import os

from cleanup_guard._supervise._tree import SHELLS


def is_platform(pid: int) -> bool:
    """Whether a signal is from outside, from the first process, or from one that we descend from, unless that is a shell.

    Args:
        pid: of who sent it; 0 for the kernel, and for who is in no PID namespace of ours.
    """
    if pid in (0, 1):
        return True
    each = os.getppid()
    while each > 1:
        name, parent = _stat(each)
        if each == pid:
            return name not in SHELLS
        each = parent
    return False


def _stat(pid: int) -> tuple[str, int]:
    """A process's name, and its parent; without one where it cannot be seen."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            left, _, right = file.read().rpartition(")")
        return left.partition("(")[2], int(right.split()[1])
    except (OSError, IndexError, ValueError):
        return "", 0
