"""A guarded generator that a stop meets while it is suspended: it cleans up, and nothing is shown as ignored."""

from __future__ import annotations

import signal

import pytest
from support import run

GENERATOR = """
@guard
def generate():
    on_exit(print, "callback", flush=True)
    try: yield 1
    finally: print("finally", flush=True)
"""

USES = {
    "for in a function": """
def main():
    for _ in generate():
        ready()
        time.sleep(60)
main()
""",
    "for in the module": """
for _ in generate():
    ready()
    time.sleep(60)
""",
    "yield from": """
def outer(): yield from generate()
def main():
    for _ in outer():
        ready()
        time.sleep(60)
main()
""",
    "inside a guard": """
@guard
def main():
    for _ in generate():
        ready()
        time.sleep(60)
main()
""",
    "a name that main holds": """
def main():
    generator = generate()
    next(generator)
    ready()
    time.sleep(60)
main()
""",
    "a name that the module holds": """
generator = generate()
next(generator)
ready()
time.sleep(60)
""",
    "closing": """
import contextlib
with contextlib.closing(generate()) as generator:
    next(generator)
    ready()
    time.sleep(60)
""",
    "in its own body": """
@guard
def waits():
    on_exit(print, "callback", flush=True)
    try:
        ready()
        time.sleep(60)
        yield
    finally: print("finally", flush=True)
list(waits())
""",
    "a list comprehension": """
def item(_):
    ready()
    time.sleep(60)
[item(each) for each in generate()]
""",
    "a method": """
class Thing:
    @guard
    def generate(self):
        on_exit(print, "callback", flush=True)
        try: yield 1
        finally: print("finally", flush=True)
def main():
    for _ in Thing().generate():
        ready()
        time.sleep(60)
main()
""",
}


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_stop_while_a_guarded_generator_is_suspended(use: str, signum: int) -> None:
    """Its `finally` and its callbacks run once, the status is the stop's, and stderr shows no traceback."""
    ended = run(GENERATOR + use, signum)
    assert sorted(ended.out) == ["callback", "finally"], ended.err
    assert ended.status == (143 if signum == signal.SIGTERM else -signal.SIGINT)
    assert "ignored" not in ended.err
    assert "Traceback" not in ended.err


def test_two_generators_and_a_stop() -> None:
    """Two of them, one inside the other: each cleans up once."""
    ended = run(
        """
@guard
def generate(name):
    on_exit(print, name, flush=True)
    yield 1
def main():
    for _ in generate("outer"):
        for _ in generate("inner"):
            ready()
            time.sleep(60)
main()
""",
        signal.SIGTERM,
    )
    assert (sorted(ended.out), ended.status) == (["inner", "outer"], 143), ended.err
    assert "ignored" not in ended.err


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_an_async_generator(signum: int) -> None:
    """The same for an async generator in a task."""
    ended = run(
        """
import asyncio
@guard
async def generate():
    on_exit(print, "callback", flush=True)
    try: yield 1
    finally: print("finally", flush=True)
async def main():
    async for _ in generate():
        ready()
        await asyncio.sleep(60)
asyncio.run(main())
""",
        signum,
    )
    assert sorted(ended.out) == ["callback", "finally"], ended.err
    assert ended.status == (143 if signum == signal.SIGTERM else -signal.SIGINT)
    assert "ignored" not in ended.err


def test_a_stop_that_is_asked_for() -> None:
    """The same for `request_stop`."""
    ended = run(
        GENERATOR
        + """
def main():
    for _ in generate():
        current_guard().request_stop("enough", status=3)
        time.sleep(60)
ready()
main()
"""
    )
    assert (sorted(ended.out), ended.status) == (["callback", "finally"], 3), ended.err
    assert "ignored" not in ended.err
    assert "Traceback" not in ended.err
