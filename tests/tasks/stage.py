"""Programs whose main is a task, on each kind of loop; `run_main` runs one, `sleep` sleeps."""

from __future__ import annotations

from typing import Any

import pytest
from support import PREAMBLE, Child, Ended, child

STAGE = (
    PREAMBLE
    + """
from contextlib import asynccontextmanager

def say(*words):  # one write, because several tasks and threads speak
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

async def bye(name="bye"):
    await sleep(0.01)
    say(name)

@asynccontextmanager
async def resource(name):
    try:
        yield name
    finally:
        await sleep(0.01)
        say("left", name)
"""
)

ASYNCIO = """
import asyncio
from asyncio import sleep
def run_main(main): return asyncio.run(main())
"""
UVLOOP = """
import asyncio, uvloop
from asyncio import sleep
def run_main(main): return uvloop.run(main())
"""
TRIO = """
import trio
from trio import sleep
def run_main(main): return trio.run(main)
"""

ASYNCIOS = {"asyncio": ASYNCIO, "uvloop": UVLOOP}
LOOPS = {**ASYNCIOS, "trio": TRIO}

every_loop = pytest.mark.parametrize("loop", LOOPS)
every_asyncio = pytest.mark.parametrize("loop", ASYNCIOS)

STRICT = ("-W", "error")
"""Flags for the interpreter: what is never awaited, retrieved or closed is told on stderr."""


def stage(loop: str, code: str, **options: Any) -> Any:
    """A child that runs this code on this loop, as `support.child` gives it."""
    return child(code, preamble=STAGE + LOOPS[loop], flags=STRICT, **options)


def perform(loop: str, code: str, *signums: int, **options: Any) -> Ended:
    """Run a child, send it signals once it is ready, and wait for its end."""
    started: Child
    with stage(loop, code, **options) as started:
        started.signal(*signums)
        return started.end()


def strange_lines(ended: Ended) -> list[str]:
    """What stderr says beside the guard's own lines: no traceback, nothing never awaited, retrieved or destroyed."""
    return [line for line in ended.err.splitlines() if not line.startswith("cleanup_guard: ")]
