"""The README says only what is true."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from support import run

import cleanup_guard
from cleanup_guard._stop.state import diagram

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_diagram_is_drawn_from_the_table() -> None:
    """The picture of the states is what the transition table gives today."""
    assert f"```mermaid\n{diagram()}\n```" in README


def test_the_first_program_does_what_it_says() -> None:
    """The program on the first screen closes its database on SIGTERM, with status 143."""
    blocks: list[str] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    stage = """
class connect:
    def close(self): print("closed", flush=True)
def work_forever(db): ready(); time.sleep(60)
"""
    ended = run(stage + blocks[0], signal.SIGTERM)
    assert (ended.status, ended.out) == (143, ["closed"])


def test_the_async_program_does_what_it_says() -> None:
    """The first program under "async" closes its database in the loop, with status 143."""
    blocks: list[str] = re.findall(r"```python\n(.*?)```", README[README.index("## async") :], re.DOTALL)
    stage = """
class Connection:
    async def aclose(self): print("closed", flush=True)
async def connect(): return Connection()
async def work_forever(db): ready(); await asyncio.sleep(60)
"""
    ended = run(stage + blocks[0], signal.SIGTERM)
    assert (ended.status, ended.out) == (143, ["closed"])


def test_every_name_that_it_mentions_exists() -> None:
    """Methods and names in the README are there."""
    for name in re.findall(r"`g\.(\w+)", README):
        assert hasattr(cleanup_guard.Guard, name), name
    for name in ("StopReceived", "CallbackFailed", "Finished", "log_event", "CleanupError", "SignalExit"):
        assert name in README
        assert hasattr(cleanup_guard, name)
