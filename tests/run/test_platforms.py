"""`run` on platforms: both numbers, no second telling where the platform tells everybody, no end for a person's Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run.supervised import COMMAND, STUBBORN, cleans_up, python, running
from support import child, wait_until
from terminals import screen

SHOW = "import os; print(os.environ.get('CLEANUP_GUARD_GRACE'))"

TELLS = r"""\
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"told\n"))
os.write(1, f"ready {os.getpid()}\n".encode())
end = time.monotonic() + 60
while time.monotonic() < end and not os.path.exists(os.environ["GO"]):
    time.sleep(0.05)
"""


@pytest.mark.parametrize(
    ("environ", "options", "share"),
    [
        ({}, [], "8.1"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, [], "8.1..25.2"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, ["--on-exit", "true"], "6.3"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, ["--grace", "20"], "16.2"),
        (
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "CLEANUP_GUARD_GRACE": "10..20"},
            ["--grace", "9"],
            "8.1..16.2",
        ),
        ({"DYNO": "web.1"}, [], "25.2"),
        ({"FLY_APP_NAME": "web"}, [], "4.05"),
        ({"AWS_LAMBDA_FUNCTION_NAME": "f"}, [], "0.225"),
    ],
)
def test_a_child_has_its_share_of_both_numbers(
    environ: dict[str, str], options: list[str], share: str
) -> None:
    """Nine tenths of what can be used; with callbacks to follow seven tenths of what is sure, because they wait."""
    with running(*options, "--", *python(SHOW), env=environ) as run:
        assert run.end() == 0
        assert run.out == [share]


def test_work_goes_on_while_there_is_hope() -> None:
    """A child that needs more than is sure is not killed: nobody waits for it."""
    with running("--", *cleans_up(3), env={"CLEANUP_GUARD_GRACE": "1..60"}) as run:
        run.wait_for("ready")
        assert run.stop() == 0
        assert run.out[-1] == "cleaned up"
    with running(
        "--on-exit", "echo bye", "--", *python(STUBBORN), env={"CLEANUP_GUARD_GRACE": "2..600"}
    ) as run:
        run.wait_for("ready")
        assert run.stop() == 137
        assert run.out[-1] == "bye"
        assert run.seconds < 60


@pytest.mark.parametrize(
    ("environ", "platform"),
    [
        ({"DYNO": "web.1"}, True),
        ({"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0"}, True),
        ({"LSB_JOBID": "1"}, True),
        ({}, False),
    ],
)
def test_where_the_platform_tells_everybody_nobody_is_told_twice(
    environ: dict[str, str], platform: bool, tmp_path: Path
) -> None:
    """On Heroku, in a Slurm step and an LSF job a child hears one SIGTERM; without such a platform it would be two."""
    go = tmp_path / "go"
    environ = {**environ, "GO": str(go), "CLEANUP_GUARD_GRACE": "60"}
    with running("--verbose", "--", *python(TELLS), env=environ) as run:
        run.wait_for("ready")
        child = int(run.out[0].split()[1])
        os.kill(child, signal.SIGTERM)
        run.wait_for("told")
        run.signal(signal.SIGTERM)
        wait_until(lambda: "SIGTERM from" in run.err, "the signal")
        if not platform:
            run.wait_for("told", times=2)
        go.touch()
        assert run.end() == 0
        assert run.out.count("told") == (1 if platform else 2)


SUPERVISES = f"""
PROGRAM = {TELLS.replace("ready {os.getpid()}", "{os.getpid()}{chr(10)}ready")!r}
from cleanup_guard import Supervisor, run
with guard() as g:
    g.callback(print, "callback")
    START
"""


@pytest.mark.parametrize(
    "start",
    [
        "with Supervisor() as s:\n        s.start(sys.executable, '-c', PROGRAM); s.wait()",
        "run([sys.executable, '-c', PROGRAM])",
    ],
    ids=["Supervisor", "run"],
)
@pytest.mark.parametrize(("grace", "times"), [("120", 1), ("10", 2)])
def test_python_does_not_tell_twice_either_before_half_time(
    start: str, grace: str, times: int, tmp_path: Path
) -> None:
    """Who sends is not told to Python: a child that should have heard it from Heroku is told when half of the time is over."""
    go = tmp_path / "go"
    environ = {"DYNO": "web.1", "GO": str(go), "CLEANUP_GUARD_GRACE": grace}
    with child(SUPERVISES.replace("START", start), env=environ) as started:
        os.kill(int(started.out[0]), signal.SIGTERM)
        started.wait_for_line("told")
        started.signal(signal.SIGTERM)
        wait_until(lambda: "SIGTERM received" in started.err, "the stop")
        wait_until(lambda: started.out.count("told") == times, "the second telling")
        go.touch()
        ended = started.end()
    assert ended.out[-1] == "callback"
    assert ended.out.count("told") == times
    assert ended.status == 143


def test_a_person_who_stops_run_alone_is_passed_on_everywhere(tmp_path: Path) -> None:
    """A shell on Heroku that sends SIGTERM to `run` has told nobody else."""
    go = tmp_path / "go"
    with running("--", *python(TELLS), env={"DYNO": "web.1", "GO": str(go)}) as run:
        run.wait_for("ready")
        subprocess.run(["sh", "-c", f"kill -TERM {run.process.pid}; true"], check=True)
        run.wait_for("told")
        go.touch()
        assert run.end() == 0


@pytest.mark.one_python
def test_ctrl_c_in_a_terminal_has_no_end(tmp_path: Path) -> None:
    """Two programs that take longer than any grace period to clean up are waited for; a SIGTERM starts the clock."""
    go = tmp_path / "go"
    program = TELLS.replace("SIGTERM", "SIGINT").replace("told", "interrupted")
    words = [*COMMAND, "--grace", "2", "--", *python(program), ":::", *python(program)]
    with screen("env", f"GO={go}", *words) as shown:
        shown.wait_for("ready", times=2)
        shown.type("\x03")
        shown.wait_for("interrupted", times=2)
        time.sleep(4)  # twice as long as the grace period: nothing happens, which nothing tells
        assert "killed" not in shown.text
        os.kill(shown.pid, signal.SIGTERM)
        shown.wait_for("killed, because still running")
        assert shown.end() == 137


GUARDED = """\
import os, time
from cleanup_guard import guard
def slow():
    time.sleep(4); os.write(1, b"slow is done\\n")
with guard() as g:
    g.callback(slow); os.write(1, b"ready\\n"); time.sleep(60)
"""


@pytest.mark.one_python
@pytest.mark.parametrize("others", [[], [":::", *cleans_up()]], ids=["alone", "with another"])
def test_a_guard_below_run_knows_that_it_was_a_person(others: list[str], tmp_path: Path) -> None:
    """Be the terminal lent to it, or Ctrl-C passed on by `run`: a callback may take twice as long as the grace period."""
    file = tmp_path / "program.py"
    file.write_text(GUARDED)
    words = [*COMMAND, "--grace", "2", "--", sys.executable, str(file), *others]
    with screen(*words) as shown:
        shown.wait_for("ready", times=2 if others else 1)
        shown.type("\x03")
        shown.wait_for("SIGINT received in the foreground of a terminal, no time limit")
        shown.wait_for("slow is done")
        shown.end()
