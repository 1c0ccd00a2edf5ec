"""Asking systemd what it gives the service that this process is the main process of: by `systemctl show`, and not for long."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import time

from cleanup_guard._ground.platforms import Unit

PATIENCE = 5.0
"""Seconds for an answer."""

UNITS = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
    "month": 2629800.0,
    "y": 31557600.0,
}

SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|d|w|month|y)(?:\s+|$)")


def span(text: str) -> float | None:
    """Seconds of a time span as systemd prints it, such as "1min 30s"; None for "infinity".

    Raises:
        ValueError: it is none.
    """
    text = text.strip()
    if text == "infinity":
        return None
    if not text or SPAN.sub("", text):
        raise ValueError(f"{text!r} is no time span of systemd")
    return sum(float(number) * UNITS[unit] for number, unit in SPAN.findall(text))


def unit_of(cgroups: str) -> tuple[str, bool] | None:
    """The service in the text of a `/proc/PID/cgroup`, and whether it is one of a user's own manager; None if there is none."""
    for line in cgroups.splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers not in ("", "name=systemd"):
            continue
        services = [each for each in path.split("/") if each.endswith(".service")]
        if services:
            return services[-1], len(services) > 1 and services[0].startswith("user@")
    return None


def ask(pid: int | str = "self") -> Unit | None:
    """Ask what a stop of the service is. May take seconds; no handler.

    Args:
        pid: the service's main process.

    Returns:
        What it says; None without an answer.
    """
    if sys.platform != "linux":
        return None
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
            unit = unit_of(file.read())
        if unit is None:
            return None
        name, users = unit
        properties = ["--property=TimeoutStopUSec", "--property=KillMode"]
        said = _output(["systemctl", *(["--user"] if users else []), "show", *properties, "--", name])
        found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        seconds = span(found.get("TimeoutStopUSec", ""))
    except (OSError, ValueError):
        return None
    return Unit(name, seconds, whole_group=found.get("KillMode", "control-group") == "control-group")


def _output(words: list[str]) -> str:
    """What a command prints. No `subprocess`, whose import costs more than the answer.

    Raises:
        OSError: it cannot be started.
    """
    if sys.platform == "win32":
        raise OSError("there is no systemd")
    ours, its = os.pipe()
    try:
        try:
            pid = os.posix_spawnp(
                words[0],
                words,
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, its, 1),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                ],
                setsigmask=[],
                setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
            )
        finally:
            os.close(its)
        try:
            return _read(ours)
        finally:
            _end(pid)
    finally:
        os.close(ours)


def _read(fd: int) -> str:
    data, limit = b"", time.monotonic() + PATIENCE
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while poll.poll(max(0.0, limit - time.monotonic()) * 1000):
        part = os.read(fd, 4096)
        if not part:
            break
        data += part
    return data.decode(errors="replace")


def _end(pid: int) -> None:
    """It is not to be there afterwards; unless a program that waits for all children was quicker, it is reaped here."""
    try:
        done, _ = os.waitpid(pid, os.WNOHANG)
        if not done:
            time.sleep(0.01)
            done, _ = os.waitpid(pid, os.WNOHANG)
        if not done:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    except (ChildProcessError, ProcessLookupError):
        pass
