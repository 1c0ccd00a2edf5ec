"""The README's table of events, row by row, on real processes: who adds a row or changes one has a test to write."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import child, swallowing

README = (Path(__file__).parent.parent.parent / "README.md").read_text()
TERM, INT = signal.SIGTERM, signal.SIGINT


def rows() -> dict[str, tuple[str, str]]:
    """The table: what the callbacks do and what the parent sees, by event."""
    table = README[README.index("## What happens") :]
    lines = re.findall(r"^\| (.*) \|$", table[: table.index("\n## ", 1)], re.MULTILINE)
    cells = [[cell.strip() for cell in f"{line} ".split(" | ")] for line in lines]
    return {event: (callbacks, parent) for event, callbacks, parent in cells[1:]}


@dataclass(frozen=True)
class Scene:
    """What is played for a row.

    Attributes:
        event: how the row's first cell begins.
        body: what main does, after three callbacks were registered: A, B and C.
        status: how it ends.
        parent: what the row's last cell says of that.
        signums: what it is sent once it is ready.
        ran: what it prints: the callbacks that run, in order.
        says: what stderr says.
        silent: what stderr does not say.
        then: signals that follow, each after a line of its output.
        options: of the guard.
        pid1: whether it is PID 1 of a namespace.
        whole: whether the body is the whole program.
    """

    event: str
    body: str
    status: int
    parent: str
    signums: Sequence[int] = ()
    ran: Sequence[str] = ("C", "B", "A")
    says: Sequence[str] = ()
    silent: Sequence[str] = ()
    then: Sequence[tuple[str, Sequence[int]]] = ()
    options: str = ""
    pid1: bool = False
    whole: bool = False


SLOW = """
    def slow():
        print("slow", flush=True)
        {body}
        print("slow ends", flush=True)
    on_exit(slow)
    ready(); time.sleep(60)
"""

STUBBORN = SLOW.format(body=swallowing(8))

FORK = """ready()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, b"x")
        while True: time.sleep(1)
    os.read(reader, 1)
    os.kill(pid, signal.SIGTERM)
    print("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)"""

SKIPPED = """
with guard() as g:
    for name in "ABC": g.callback(print, name, flush=True)
    ready()
    flag = False
    while not flag: pass
"""

SCENES = [
    Scene("main returns", "ready()", 0, "0", silent=["cleanup_guard"]),
    Scene("main raises", "ready(); raise LookupError('lost')", 1, "traceback, 1", says=["LookupError: lost"]),
    Scene("`sys.exit(n)`", "ready(); sys.exit(7)", 7, "n"),
    Scene(
        "SIGTERM",
        "ready(); time.sleep(60)",
        143,
        "143",
        [TERM],
        says=["SIGTERM received"],
        silent=["Traceback"],
    ),
    Scene(
        "Ctrl-C",
        "ready(); time.sleep(60)",
        -INT,
        "death by SIGINT",
        [INT],
        silent=["Traceback", "KeyboardInterrupt"],
    ),
    Scene("Ctrl-C", "ready(); time.sleep(60)", 130, "130 as PID 1", [INT], pid1=True),
    Scene("SIGTERM", "ready(); time.sleep(60)", 143, "143", [TERM], pid1=True),
    Scene(
        "SIGTERM again",
        SLOW.format(body="[time.sleep(0.01) for _ in range(40)]"),
        143,
        "as for the first",
        [TERM],
        ("slow", "slow ends", "C", "B", "A"),
        then=[("slow", [TERM] * 30)],
    ),
    Scene(
        "SIGTERM again",
        SLOW.format(body="[time.sleep(0.01) for _ in range(40)]"),
        -INT,
        "as for the first",
        [INT],
        ("slow", "slow ends", "C", "B", "A"),
        then=[("slow", [TERM] * 30)],
    ),
    Scene(
        "a second Ctrl-C",
        SLOW.format(body="time.sleep(60)"),
        -INT,
        "as for the first",
        [INT],
        ("slow", "C", "B", "A"),
        says=["pressed again"],
        then=[("slow", [INT])],
        options="grace=60",
    ),
    Scene(
        "a callback raises",
        "on_exit(int, 'x'); ready()",
        1,
        "`CleanupError` and 1",
        says=["CleanupError", "invalid literal"],
    ),
    Scene(
        "a callback raises",
        "on_exit(int, 'x'); ready(); time.sleep(60)",
        143,
        "after a signal the signal's status",
        [TERM],
        says=["invalid literal"],
    ),
    Scene(
        "the grace period is nearly over",
        SLOW.format(body="time.sleep(60)"),
        143,
        "as for the signal",
        [TERM],
        ("slow", "C", "B", "A"),
        options="grace=3",
    ),
    Scene(
        "the grace period is nearly over",
        STUBBORN,
        143,
        "as for the signal",
        [TERM],
        ("slow",),
        says=["did not run", "most recent call first"],
        options="grace=3",
    ),
    Scene(
        "main swallows the stop",
        "ready()\n    for _ in range(2):\n        try: time.sleep(60)\n        except: pass\n    time.sleep(60)",
        143,
        "as for the signal",
        [TERM],
    ),
    Scene(
        "main swallows the stop",
        "class Thing:\n        def __del__(self): ready(); time.sleep(60)\n    Thing(); time.sleep(60)",
        -INT,
        "as for the signal",
        [INT],
    ),
    Scene(
        "main is stuck in C",
        "ready(); os.system('exec sleep 20')",
        143,
        "as for the signal",
        [TERM],
        options="grace=3",
    ),
    Scene("CPython skips `__exit__`", SKIPPED, 143, "as for the signal", [TERM], whole=True),
    Scene("CPython skips `__exit__`", SKIPPED, -INT, "as for the signal", [INT], whole=True),
    Scene("`os.fork`", FORK, 0, "", ran=("child -15", "C", "B", "A")),
    Scene("SIGKILL", "ready(); time.sleep(60)", -signal.SIGKILL, "", [signal.SIGKILL], ()),
    Scene("SIGKILL", "ready(); os._exit(5)", 5, "", ran=()),
]


def program(scene: Scene) -> str:
    """The scene's program."""
    if scene.whole:
        return scene.body
    return f"""
@guard({scene.options})
def main():
    for name in "ABC": on_exit(print, name, flush=True)
    {scene.body.strip()}
main()
"""


@pytest.mark.parametrize(
    "scene", SCENES, ids=lambda scene: f"{scene.event} {scene.parent}".strip().replace("`", "")
)
def test_a_row(scene: Scene) -> None:
    """What the row says, happens: which callbacks run, in which order, and what the parent sees."""
    wrapper: list[str] = []
    if scene.pid1:
        if shutil.which("unshare") is None or os.geteuid() != 0:
            pytest.skip("needs root and util-linux's unshare to be PID 1 of a new namespace")
        wrapper = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    with child(program(scene), wrapper=wrapper) as started:
        pid = inner(started.pid) if scene.pid1 else started.pid
        for signum in scene.signums:
            os.kill(pid, signum)
        for line, signums in scene.then:
            started.wait_for_line(line)
            if INT in signums:  # two presses are two because more than half a second lies between them
                time.sleep(0.7)
            for signum in signums:
                os.kill(pid, signum)
        ended = started.end()
    assert tuple(ended.out) == tuple(scene.ran), ended.err
    assert ended.status == scene.status, ended.err
    for text in scene.says:
        assert text in ended.err
    for text in scene.silent:
        assert text not in ended.err


def inner(pid: int) -> int:
    """The process that is PID 1 inside."""
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return int(children.read().split()[0])


def row_of(scene: Scene, table: dict[str, tuple[str, str]]) -> str:
    """The event that begins with the scene's, in whole words."""
    if scene.event in table:
        return scene.event
    events = [
        event for event in table if event.startswith(scene.event) and not event[len(scene.event)].isalnum()
    ]
    assert len(events) == 1, f"{scene.event!r} is the beginning of {len(events)} rows"
    return events[0]


def test_every_row_has_a_scene_and_says_what_it_shows() -> None:
    """The table's rows are those that are played, and the last cell of each says what the parent saw."""
    table = rows()
    for scene in SCENES:
        assert scene.parent in table[row_of(scene, table)][1], scene.event
    assert set(table) == {row_of(scene, table) for scene in SCENES}
