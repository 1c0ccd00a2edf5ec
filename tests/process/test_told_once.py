"""What is told of a stop is about that stop: how many callbacks it ran and how many failed."""

from __future__ import annotations

import signal

import pytest
from support import run

EARLIER = """
@guard(hooks=())
def job(fail=False):
    on_exit(int)
    if fail: on_exit(int, "x")
for _ in range(4): job()
try: job(True)
except CleanupError: pass
"""

STOPS = {
    "main": ("with guard() as g:\n    g.callback(int)\n    ready()\n    time.sleep(60)", 1, 0),
    "two guards": (
        (
            "with guard() as a, guard() as b:\n    a.callback(int)\n    b.callback(int)\n    b.callback(int, 'x')\n"
            "    ready()\n    time.sleep(60)"
        ),
        3,
        1,
    ),
    "none": ("with guard() as g:\n    ready()\n    time.sleep(60)", 0, 0),
    "inner guards that were left": (
        (
            "with guard() as g:\n    g.callback(int)\n    with guard(hooks=()) as inner: inner.callback(int)\n"
            "    ready()\n    time.sleep(60)"
        ),
        1,
        0,
    ),
    "a finally with a guard": (
        "with guard() as g:\n    g.callback(int)\n    try:\n        ready()\n        time.sleep(60)\n    finally: job()",
        2,
        0,
    ),
    "exit net": ("on_exit(int)\non_exit(int)\nready()\ntime.sleep(60)", 2, 0),
    "task": (
        (
            "import asyncio\nasync def main():\n    async with guard() as g:\n        g.callback(int)\n        ready()\n"
            "        await asyncio.sleep(60)\nasyncio.run(main())"
        ),
        1,
        0,
    ),
}


@pytest.mark.parametrize(("code", "count", "failed"), STOPS.values(), ids=STOPS)
@pytest.mark.parametrize(
    "earlier", ["def job(): guard(hooks=())(on_exit)(int)", EARLIER], ids=["first", "later"]
)
def test_the_last_line_counts_what_this_stop_ran(code: str, count: int, failed: int, earlier: str) -> None:
    """Callbacks of guards that were left before the stop do not count, and no failure of theirs is told again."""
    ended = run(earlier + "\n" + code, signal.SIGTERM)
    last = ended.err.splitlines()[-1]
    plural = "" if count == 1 else "s"
    assert last.startswith(f"cleanup_guard: done after SIGTERM: {count} callback{plural}"), ended.err
    assert ("failed" in last) == bool(failed), last
    assert ended.status == 143


def test_a_second_stop_counts_anew() -> None:
    """After a stop that was survived the next one counts its own."""
    ended = run(
        """
told = []
def note(event):
    if type(event).__name__ == "Finished" and event.reason: told.append((event.callbacks, event.failures))
def stop(number):
    try:
        with guard(hooks=[note]) as g:
            for _ in range(number): g.callback(int)
            signal.raise_signal(signal.SIGTERM)
            time.sleep(60)
    except SystemExit: pass
ready()
stop(3)
stop(1)
limit = time.monotonic() + 20
while len(told) < 2 and time.monotonic() < limit: time.sleep(0.01)
print(told)
"""
    )
    assert (ended.out, ended.status) == (["[(3, 0), (1, 0)]"], 0), ended.err
