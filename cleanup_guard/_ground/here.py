"""What can be seen of where a process runs, read from this machine: its environment, two files, its terminal."""

from __future__ import annotations

import os

from cleanup_guard._ground.clock import GRACE_VARIABLE, grace_from_environment
from cleanup_guard._ground.platforms import UNIT_VARIABLE, Surroundings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cleanup_guard._ground.clock import Grace
    from cleanup_guard._ground.platforms import Unit


ASKED = (GRACE_VARIABLE, "NOTIFY_SOCKET", UNIT_VARIABLE)
"""The variables that every guard asks for."""

# Nobody's own mapping, put there by a test for example, has it.
_ENCODE: Any = getattr(os.environ, "encodekey", None)
_KEYS: dict[str, object] = {} if _ENCODE is None else {each: _ENCODE(each) for each in ASKED}
"""They, as Python keeps them."""

FOREGROUND_VARIABLE = "CLEANUP_GUARD_FOREGROUND"
"""How `run` tells its children, which have process groups of their own, that it passes on what is typed for its own group."""


def is_set(name: str) -> bool:
    """Whether a variable of `ASKED` is set: Python's mapping raises and catches two exceptions for one that is not."""
    data, key = getattr(os.environ, "_data", None), _KEYS.get(name)
    return name in os.environ if data is None or key is None else key in data


def is_any_set() -> bool:
    """Whether any of `ASKED` is set; nearly never."""
    data = getattr(os.environ, "_data", None)
    if data is None or not _KEYS:
        return any(each in os.environ for each in ASKED)
    return not data.keys().isdisjoint(_KEYS.values())


def grace_given() -> Grace | None:
    """What CLEANUP_GUARD_GRACE says; None if it is not set, as nearly always.

    Raises:
        ValueError: it makes no sense.
    """
    return grace_from_environment(os.environ) if is_set(GRACE_VARIABLE) else None


def own(unit: Unit | None = None) -> Surroundings:
    """The surroundings of this process. Any thread, any handler.

    Args:
        unit: what systemd has said, if it was asked.
    """
    return Surroundings(os.environ, os.getpid(), os.path.exists, unit)


def own_asked() -> Surroundings:
    """The same, and systemd is asked if it is systemd that decides. May take seconds; no handler."""
    here = own()
    if not here.is_unit:
        return here
    from cleanup_guard._ground import systemd

    return own(systemd.ask())


def of(pid: int) -> Surroundings:
    """The surroundings of another process, as it sees them itself; systemd is asked as in `own_asked`.

    Raises:
        OSError: it is not there, or somebody else's.
    """
    with open(f"/proc/{pid}/environ", "rb") as file:
        pairs = [os.fsdecode(each).partition("=") for each in file.read().split(b"\0") if each]
    here = Surroundings(
        {name: value for name, _, value in pairs},
        _own_number(pid),
        lambda path: os.path.exists(f"/proc/{pid}/root{path}"),
    )
    if here.is_unit:
        from cleanup_guard._ground import systemd

        here.unit = systemd.ask(pid)
    return here


def _own_number(pid: int) -> int:
    """Its number in the innermost PID namespace that it is in."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        lines = [line for line in file if line.startswith("NSpid:")]
    return int(lines[0].split()[-1]) if lines else pid


def in_foreground() -> bool:
    """Whether this is the foreground of a terminal, where Ctrl-C is a person's. It asks the kernel, and never waits."""
    group = foreground()
    return group is not None and (group == os.getpgrp() or str(group) == os.environ.get(FOREGROUND_VARIABLE))


def foreground() -> int | None:
    """The process group in the foreground of our terminal; None if there is no terminal."""
    flags = getattr(os, "O_NOCTTY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        fd = os.open("/dev/tty", os.O_RDONLY | flags)
        try:
            return os.tcgetpgrp(fd)
        finally:
            os.close(fd)
    except (AttributeError, OSError):  # no terminal, no descriptor, no such thing
        return None
