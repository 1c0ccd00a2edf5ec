"""Means of looking inside keep working while a stop is under way, and a stop while somebody looks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import Child, child, run, wait_until

MAIN = """
import queue
from cleanup_guard import current_guard
def busy():
    while True: sum(range(100))
@guard(grace=20)
def main():
    on_exit(os.write, 1, b"callback\\n")
    ready()
    {body}
main()
"""

BODIES = {"waits": "queue.Queue().get()", "works": "busy()"}

new_in_12 = pytest.mark.skipif(sys.version_info < (3, 12), reason="new in 3.12")
new_in_14 = pytest.mark.skipif(sys.version_info < (3, 14), reason="new in 3.14")
new_in_15 = pytest.mark.skipif(sys.version_info < (3, 15), reason="new in 3.15")
bodies = pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)


@new_in_12
@bodies
@pytest.mark.parametrize("event", ["LINE", "INSTRUCTION", "PY_UNWIND | sys.monitoring.events.RAISE"])
def test_sys_monitoring(event: str, body: str) -> None:
    """A tool of `sys.monitoring` sees main's events, and the stop comes through."""
    ended = run(
        f"""
seen = [0]
def look(*_): seen[0] += 1
def monitor():
    tool, events = sys.monitoring.DEBUGGER_ID, sys.monitoring.events
    sys.monitoring.use_tool_id(tool, "test")
    for each in (events.LINE, events.INSTRUCTION, events.PY_UNWIND, events.RAISE):
        sys.monitoring.register_callback(tool, each, look)
    sys.monitoring.set_events(tool, events.{event})
monitor()
import atexit
atexit.register(lambda: os.write(1, b"seen\\n" if seen[0] else b"blind\\n"))
{MAIN.format(body=body)}""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["callback", "seen"], 143), ended.err


def remote_exec(started: Child, code: str, folder: Path) -> None:
    script = folder / "injected.py"
    script.write_text(code)
    try:
        # Not in the type stubs of every Python that the checkers know.
        getattr(sys, "remote_exec")(started.pid, str(script))  # noqa: B009
    except PermissionError:
        pytest.skip("this machine does not let us look into another process")


@new_in_14
@bodies
def test_remote_exec(body: str, tmp_path: Path) -> None:
    """Injected code runs when main runs next, and the stop behind it is as ever."""
    with child(MAIN.format(body=body)) as started:
        remote_exec(started, "import os; os.write(1, b'injected\\n')", tmp_path)
        if body == BODIES["works"]:
            started.wait_for_line("injected")
        started.signal(signal.SIGTERM)
        ended = started.end()
    # Who waits runs it because of the signal, whose exception may come in the middle of it: CPython says so, and goes on.
    cut = body == BODIES["waits"] and "Error executing debugger script" in ended.err
    assert sorted({*ended.out, *(["injected"] if cut else [])}) == ["callback", "injected"], ended.err
    assert (ended.out.count("callback"), ended.status) == (1, 143)


@new_in_14
def test_remote_exec_that_asks_for_the_stop(tmp_path: Path) -> None:
    """Injected code may stop the program: `current_guard().request_stop(...)`, though CPython swallows what it raises."""
    code = "from cleanup_guard import current_guard; current_guard().request_stop('from outside', status=7)"
    with child(MAIN.format(body=BODIES["works"])) as started:
        remote_exec(started, code, tmp_path)
        ended = started.end()
    assert (ended.out, ended.status) == (["callback"], 7), ended.err


@new_in_14
def test_remote_exec_while_a_callback_runs(tmp_path: Path) -> None:
    """Code that is injected during the cleanup runs there, and takes no callback its turn."""
    with child(
        """
@guard(grace=20)
def main():
    on_exit(os.write, 1, b"last\\n")
    @on_exit
    def slow():
        os.write(1, b"cleaning\\n")
        while not os.path.exists(sys.argv[0] + ".done"): time.sleep(0.01)
    ready()
    time.sleep(60)
main()
"""
    ) as started:
        started.signal(signal.SIGTERM)
        started.wait_for_line("cleaning")
        remote_exec(
            started, "import os, sys; os.write(1, b'injected\\n'); open(sys.argv[0] + '.done', 'w')", tmp_path
        )
        ended = started.end()
    assert (ended.out, ended.status) == (["cleaning", "injected", "last"], 143), ended.err


@new_in_15
def test_the_sampling_profiler() -> None:
    """`python -m profiling.sampling attach` on a guarded program, before and while it is stopped."""
    with child(MAIN.format(body=BODIES["works"])) as started:
        profiler = subprocess.Popen(
            [sys.executable, "-m", "profiling.sampling", "attach", "-d", "30", str(started.pid)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        try:
            # It has attached when it has read the other's memory, which no file tells: a second of its own CPU time does.
            wait_until(lambda: profiler.poll() is not None or cpu_seconds(profiler.pid) > 1, "the profiler")
            started.signal(signal.SIGTERM)
            ended = started.end()
        finally:
            profiler.kill()
            profiler.communicate()
    assert (ended.out, ended.status) == (["callback"], 143), ended.err


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@bodies
@pytest.mark.parametrize(
    "core",
    [pytest.param("sysmon", marks=new_in_12), "ctrace", "pytrace"],
    ids=["sysmon", "ctrace", "pytrace"],
)
def test_coverage(core: str, body: str, tmp_path: Path) -> None:
    """Under each core of coverage.py the stop comes through, callbacks are measured, and the data is written."""
    program = tmp_path / "measured.py"
    program.write_text(
        "import os, queue, sys, time\n"
        "from cleanup_guard import guard, on_exit\n"
        "def busy():\n    while True: sum(range(100))\n"
        "def callback():\n    os.write(1, b'callback\\n')\n"
        "@guard(grace=20)\ndef main():\n"
        "    on_exit(callback)\n    os.write(1, b'ready\\n')\n"
        f"    {body}\nmain()\n"
    )
    with child(
        f"""
import runpy
sys.argv = ["coverage", "run", "--data-file", {str(tmp_path / "data")!r}, "--rcfile", os.devnull, {str(program)!r}]
runpy.run_module("coverage", run_name="__main__")
""",
        preamble="import os, sys\n",
        env={"COVERAGE_CORE": core},
        cwd=tmp_path,
    ) as started:
        started.signal(signal.SIGTERM)
        ended = started.end()
    assert (ended.out, ended.status) == (["callback"], 143), ended.err
    report = subprocess.run(
        [
            sys.executable,
            "-m",
            "coverage",
            "annotate",
            "--data-file",
            tmp_path / "data",
            "-d",
            tmp_path,
            "--include",
            program,
        ],
        check=True,
        capture_output=True,
        cwd=tmp_path,
    )
    annotated = next(tmp_path.glob("*measured.py,cover")).read_text()
    assert "> @guard" in annotated, report
    assert ">     os.write(1, b'callback" in annotated


@bodies
def test_pdb(body: str) -> None:
    """A debugger that traces main does not keep the stop away; stepped through line by line, callbacks run."""
    with child(
        f"""
import pdb
class Steps(pdb.Pdb):
    def interaction(self, *_): self.set_step()
steps = Steps(stdout=open(os.devnull, "w"), readrc=False)
steps.set_trace()
{MAIN.format(body=body)}""",
    ) as started:
        started.signal(signal.SIGTERM)
        ended = started.end()
    assert (ended.out, ended.status) == (["callback"], 143), ended.err
