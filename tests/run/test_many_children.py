"""Several children: who stops whom, in which order, with which signal, and what is reported."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path

import pytest
from run.supervised import CLEANS_UP, LATE, STUBBORN, cleans_up, python, running
from support import wait_until


def named(name: str, seconds: float = 0, status: int = 0) -> list[str]:
    """A program that cleans up and says its name with everything."""
    code = CLEANS_UP.replace("SECONDS", str(seconds)).replace("STATUS", str(status))
    for word in ("stopped by", "cleaned up", "ready"):
        code = code.replace(word, f"{name} {word}")
    return python(code)


def test_everybody_cleans_up_once_and_the_callback_comes_last() -> None:
    """Three programs, one stop: each cleans up once, in parallel, and then --on-exit runs."""
    programs = [*named("a", 1), ":::", *named("b", 1), ":::", *named("c", 1)]
    with running("--on-exit", "echo bye", "--", *programs) as run:
        for name in "abc":
            run.wait_for(f"{name} ready")
        assert run.stop() == 0
        told = [line for line in run.out if "ready" not in line]
        assert sorted(told[:3]) == [f"{n} stopped by SIGTERM" for n in "abc"]
        assert sorted(told[3:6]) == [f"{n} cleaned up" for n in "abc"]
        assert run.out[-1] == "bye"


def test_stubborn_children_cost_one_budget_not_three() -> None:
    """Three who ignore the stop are killed together, and the one who does not is unharmed."""
    programs = [*python(STUBBORN), ":::", *python(STUBBORN), ":::", *python(STUBBORN), ":::", *cleans_up(0.5)]
    with running("--grace", "2", "--on-exit", "echo bye", "--", *programs) as run:
        run.wait_for("ready", times=4)
        assert run.stop() == 137
        assert run.seconds < 2 + LATE
        assert run.out[-2:] == ["cleaned up", "bye"]
        assert run.err.count("(pid ") == 3


@pytest.mark.parametrize(("status", "reported"), [(0, 0), (3, 3)])
def test_when_one_ends_the_others_are_stopped(status: int, reported: int) -> None:
    """By default the end of one is a stop for all; its status is the one that counts."""
    with running("--name", "a", "--", "sh", "-c", f"sleep 0.3; exit {status}", ":::", "sleep", "99") as run:
        assert run.end() == reported
        assert f"a ended with {status}" in run.err


def test_when_one_exits_wait_goes_on() -> None:
    """--when-one-exits wait: everybody may finish; the first failure is the status."""
    programs = ["sh", "-c", "exit 3", ":::", "sh", "-c", "sleep 0.5; echo finished; exit 4"]
    with running("--when-one-exits", "wait", "--", *programs) as run:
        assert run.end() == 3
        assert run.out == ["finished"]


def test_after_is_the_order_of_the_stop() -> None:
    """--after web=db: db is started first, and asked only when web is gone."""
    words = ["--name", "web", "--name", "db", "--after", "web=db"]
    with running(*words, "--", *named("web", 0.5), ":::", *named("db")) as run:
        run.wait_for("web ready")
        run.wait_for("db ready")
        assert run.stop() == 0
        told = [line for line in run.out if "ready" not in line]
        assert told == ["web stopped by SIGTERM", "web cleaned up", "db stopped by SIGTERM", "db cleaned up"]


def test_a_stubborn_one_does_not_keep_others_from_being_asked() -> None:
    """Db comes after web, which does not end: db is asked at half time, and cleans up."""
    words = ["--grace", "2", "--name", "web", "--name", "db", "--after", "web=db"]
    with running(*words, "--", *python(STUBBORN), ":::", *named("db")) as run:
        run.wait_for("ready")
        run.wait_for("db ready")
        assert run.stop() == 137
        assert run.out[-1] == "db cleaned up"
        assert run.seconds < 2 + LATE


def test_each_may_have_its_own_signal_and_grace() -> None:
    """--stop-signal a=QUIT and --grace b=0.3 are about one child each."""
    words = ["--name", "a", "--name", "b", "--stop-signal", "a=QUIT", "--grace", "b=0.3"]
    with running(*words, "--", *named("a"), ":::", *python(STUBBORN)) as run:
        run.wait_for("a ready")
        run.wait_for("ready")
        assert run.stop() == 137
        assert "a stopped by SIGQUIT" in run.out
        assert run.seconds < 7
        assert "b: " in run.err


def test_a_procfile_names_the_programs(tmp_path: Path) -> None:
    """--procfile: names and commands from its lines; a shell only where one is needed."""
    procfile = tmp_path / "Procfile"
    procfile.write_text("# a comment\nweb: echo from web\n\nworker: echo from $NAME worker; exit 5\n")
    words = ["--when-one-exits", "wait", "--prefix", "--procfile", str(procfile)]
    with running(*words, env={"NAME": "the"}) as run:
        assert run.end() == 5
        assert sorted(run.out) == ["web    | from web", "worker | from the worker"]


def test_a_procfile_that_is_none_is_refused(tmp_path: Path) -> None:
    """A line that is no `name: command` is named."""
    procfile = tmp_path / "Procfile"
    procfile.write_text("web: true\nnonsense\n")
    with running("--procfile", str(procfile)) as run:
        assert run.end() == 2
        assert "line 2" in run.err
        assert "nonsense" in run.err


def test_labelled_lines_are_whole() -> None:
    """--prefix: many lines of two programs at once, each labelled and whole, the unfinished last one too."""
    script = 'i=0; while [ $i -lt 500 ]; do echo "$0 $i end"; i=$((i+1)); done; printf "$0 last"; echo "$0 err" >&2'
    words = ["--prefix", "--when-one-exits", "wait", "--name", "a", "--name", "bb"]
    with running(*words, "--", "sh", "-c", script, "A", ":::", "sh", "-c", script, "B") as run:
        assert run.end() == 0
        assert [line for line in run.out if line.startswith("a  | ")] == [
            *(f"a  | A {i} end" for i in range(500)),
            "a  | A last",
        ]
        assert len(run.out) == 1002
        assert sorted(run.err.splitlines()) == ["a  | A err", "bb | B err"]


def test_labelled_lines_wait_for_room() -> None:
    """--prefix into a pipe that somebody has made non-blocking, and reads late: not a line is lost."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with open(reader, "rb") as pipe, running("--prefix", "--", "seq", "50000", stdout=writer) as run:
        full = select.poll()
        full.register(writer, select.POLLOUT)
        wait_until(lambda: not full.poll(0), "the pipe to be full")
        os.close(writer)
        assert pipe.read().splitlines() == [b"seq | %d" % number for number in range(1, 50001)]
        assert run.end() == 0


def test_a_stop_while_children_are_started_is_not_lost() -> None:
    """Stops at random moments of the start: everybody who was started is told, and nobody is killed."""
    programs = ["sleep", "60", *(":::", "sleep", "60") * 7]
    for delay in range(0, 100, 5):
        with running("--grace", "10", "--", *programs, preexec_fn=_term_is_blocked) as run:
            time.sleep(delay / 1000)  # a random moment, not a wait
            run.signal(signal.SIGTERM)
            assert run.end() == 143
            assert run.seconds < 8
            assert "killed" not in run.err


def _term_is_blocked() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
