"""The environment as the caller gave it.

In the C locale Python sets LC_CTYPE in its own environment (PEP 538), and with that in the environment of every program that
it starts. What the variable was before is only known to the kernel, which keeps what a process was started with.
"""

from __future__ import annotations

import os
import sys

NAME = b"LC_CTYPE"

COERCED_TO = (b"C.UTF-8", b"C.utf8", b"UTF-8")
"""What Python sets it to: the first that the C library knows."""


def coercion() -> dict[bytes, bytes | None]:
    """What to change in this process's environment to have the caller's again.

    Returns:
        Values by name, None for a variable that was not there. Empty if nothing was added, and where that cannot be known:
        without /proc, or if the process has painted over what it was started with, to change its name in `ps`.
    """
    if os.environb.get(NAME) not in COERCED_TO or sys.platform != "linux":
        return {}
    try:
        with open("/proc/self/environ", "rb") as file:
            given = file.read()
    except OSError:
        return {}
    entries = given.split(b"\0")
    known = {name + b"=" + value for name, value in os.environb.items()}
    if entries.pop() or (b"" in entries and known.isdisjoint(entries)):
        return {}  # painted over: a title, and then nothing
    before = next((entry for entry in entries if entry.startswith(NAME + b"=")), None)
    value = None if before is None else before.partition(b"=")[2]
    return {} if value == os.environb[NAME] else {NAME: value}


def undo_coercion() -> None:
    """Give this process its caller's environment back, for itself and for all that it starts. Not in a library."""
    for name, value in coercion().items():
        if value is None:
            del os.environb[name]
        else:
            os.environb[name] = value
