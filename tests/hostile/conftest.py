"""Hostile programs leave nothing behind in the process that tests them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def no_leftovers() -> Iterator[None]:
    """Handlers, descriptors, threads and children are the same after a test as before it."""
    before = _belongings()
    yield
    assert _belongings() == before


def _belongings() -> dict[str, object]:
    handlers = {int(each): signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    fds = (
        sorted(path.name for path in Path("/proc/self/fd").iterdir())
        if os.path.isdir("/proc/self/fd")
        else []
    )
    threads = sorted(each.name for each in threading.enumerate())
    return {"handlers": handlers, "fds": fds, "threads": threads, "children": _children()}


def _children() -> list[str]:
    path = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    return path.read_text().split() if path.exists() else []
