"""Every example is run, stopped, and does what its first lines say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import PATIENCE, child

EXAMPLES = Path(__file__).parent.parent / "examples"

STOPPED = {
    "01_smallest.py": ("ready: press Ctrl-C, or send SIGTERM", 143, ["goodbye"]),
    "02_main_process.py": ("!!!Set up!!!", 143, ["!!!Clean up!!!"]),
    "03_resources.py": ("ready", 143, None),
    "04_worker.py": ("ready", 0, ["taking no more jobs", "the job in hand is done", "connection closed"]),
    "05_threads.py": ("ready", 143, None),
    "06_without_main.py": ("ready", 143, ["saved"]),
    "10_parallel.py": ("ready", 143, ["closed pool a", "closed pool b", "closed pool c", "said goodbye"]),
    "08_async.py": ("ready: press Ctrl-C, or send SIGTERM", 143, ["goodbye"]),
}

ELSEWHERE = {"07_queue.py", "09_async_queue.py"}
"""Tested in a file of their own."""


@pytest.mark.parametrize("name", STOPPED)
def test_an_example_stops_as_it_says(name: str) -> None:
    """Stopped by SIGTERM, the example cleans up and prints what it owes."""
    ready, status, expected = STOPPED[name]
    with child((EXAMPLES / name).read_text(), preamble="", ready=ready) as started:
        started.signal(signal.SIGTERM)
        ended = started.end()
        lines = started.out[started.out.index(ready) + 1 :]
    assert ended.status == status, ended.err
    if expected is not None:
        # Threads print, too, and `print` writes the end of a line on its own.
        assert sorted("\n".join(lines).split()) == sorted(" ".join(expected).split())
        assert lines[-1] == expected[-1]


def test_the_example_with_resources_flushes_before_the_folder_goes() -> None:
    """Resources are given back in reverse order: flushed first, then the folder is removed without a complaint."""
    with child((EXAMPLES / "03_resources.py").read_text(), preamble="") as started:
        started.signal(signal.SIGTERM)
        ended = started.end()
    assert [line.split()[0] for line in ended.out] == ["flushed"]
    assert "failed" not in ended.err


def test_the_example_with_threads_lets_all_of_them_leave() -> None:
    """All worker threads leave when the stop arrives."""
    with child((EXAMPLES / "05_threads.py").read_text(), preamble="") as started:
        started.signal(signal.SIGTERM)
        ended = started.end()
    for number in range(3):
        assert "\n".join(ended.out).count(f"worker {number} is leaving") == 1


def test_the_demo_shows_the_main_job() -> None:
    """`make demo` shows a lost cleanup, one on SIGTERM, one on Ctrl-C, one that hangs; a bad entry script, and a good one."""
    demo = [sys.executable, str(EXAMPLES / "demo.py")]
    environ = {key: value for key, value in os.environ.items() if key != "CLEANUP_GUARD_GRACE"}
    shown = subprocess.run(
        demo, capture_output=True, text=True, timeout=3 * PATIENCE, check=True, env=environ
    )
    parts = shown.stdout.split("\n$ ")
    assert "!!!Clean up!!!" not in parts[1]
    assert "killed by SIGTERM" in parts[1]
    assert "!!!Clean up!!!" in parts[2]
    assert "exit status 143" in parts[2]
    assert "!!!Clean up!!!" in parts[3]
    assert "killed by SIGINT" in parts[3]
    # On a machine that is slow enough the last act comes first, and names it, too.
    named = ("callback clean_up interrupted", "callback clean_up is still running", "in clean_up")
    assert any(each in parts[4] for each in named), parts[4]
    assert "not clean" in parts[5]
    assert "in entry.sh" in parts[5]
    assert "clean: it ended" in parts[6]


def test_every_example_is_tested() -> None:
    """No example of the guard is left out here: the numbers below 20."""
    assert {path.name for path in EXAMPLES.glob("[01]*.py")} == STOPPED.keys() | ELSEWHERE


def test_the_example_with_pools_closes_the_database_last(tmp_path: Path) -> None:
    """What runs is finished, what has not begun is dropped, no process is left, and the database is closed last."""
    program = tmp_path / "pools.py"
    program.write_text((EXAMPLES / "threads" / "pools.py").read_text())
    # From a file of its own: a process pool may import main.
    code = f"import runpy, sys; sys.path.insert(0, {str(tmp_path)!r}); runpy.run_path({str(program)!r}, run_name='__main__')"
    with child(code, preamble="", env={"PYTHONPATH": str(tmp_path)}) as started:
        started.signal(signal.SIGTERM)
        ended = started.end()
    assert ended.status == 143, ended.err
    assert ended.out == ["processes are gone", "threads are gone", "database closed"]


def test_the_training_is_resumed(tmp_path: Path) -> None:
    """Stopped by SIGUSR1, then by SIGTERM, it saves once each time, and goes on from there to the end."""
    path, step = tmp_path / "checkpoint.json", 0
    program = EXAMPLES / "training" / "train.py"
    code = "import runpy, sys; sys.argv = [{0!r}, {1!r}, {2!r}]; runpy.run_path({0!r}, run_name='__main__')"
    for signum in (signal.SIGUSR1, signal.SIGTERM):
        with child(
            code.format(str(program), str(path), "100000"), preamble="", ready=f"ready at step {step}"
        ) as started:
            started.signal(signum)
            ended = started.end()
        assert ended.status == 128 + signum, ended.err
        reached = json.loads(path.read_text())["step"]
        assert ended.out[1:] == [f"saved at step {reached}"]
        assert reached >= step
        step = reached
    with child(
        code.format(str(program), str(path), str(step)), preamble="", ready=f"ready at step {step}"
    ) as last:
        assert last.end().status == 0
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.json"]
