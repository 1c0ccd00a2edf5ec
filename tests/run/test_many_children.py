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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"web: true\nn0nsense-s3cret\n", "line 2"),
        (
            b"\nDATABASE_URL=postgres://me:s3cret@host/db\n",
            "line 2 is not of the form `name: command` (is this a .env",
        ),
        (b"web: echo s3cret\0\n", "line 1: there is a NUL"),
        (b"web: echo 's3cret\n", "line 1: a quotation"),
        (b"we\x1bb: echo s3cret\n", "line 1: the name"),
        ("web: true".encode("utf-16"), "line 1"),
        (b"# nothing\n", "names no program"),
    ],
)
def test_a_procfile_that_is_none_is_refused(tmp_path: Path, text: bytes, said: str) -> None:
    """A line that is no `name: command` is named and not shown: it may hold a password."""
    procfile = tmp_path / "Procfile"
    procfile.write_bytes(text)
    with running("--procfile", str(procfile)) as run:
        assert run.end() == 2
        assert said in run.err
        assert "s3cret" not in run.err
        assert run.err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("exec echo ran", "ran"),
        ("cd / && pwd", "/"),
        ("ulimit -n 64; ulimit -n", "64"),
        ("ulimit -c 0", ""),
        (". ./vars && echo $FROM_VARS", "from vars"),
        ("export A=1; echo $A", "1"),
        ("echo one | cat", "one"),
        ("FOO=bar sh -c 'echo $FOO'", "bar"),
        ("echo $PORT", "5000"),
        ("echo $FROM_ENV $QUOTED", "from the file two words"),
        ("printf '%s' \"$LITERAL\"", "$HOME # no comment"),
        ("printf '%s' \"$LINES_TOO\"", "a\nb"),
    ],
)
def test_a_line_of_a_procfile_is_a_shell_line(tmp_path: Path, line: str, printed: str) -> None:
    """As for foreman and honcho, with $PORT, and the .env that lies beside it."""
    (tmp_path / "Procfile").write_text(f"web: {line}\n")
    (tmp_path / "vars").write_text("FROM_VARS='from vars'\n")
    (tmp_path / ".env").write_text(
        '# comment\nFROM_ENV=from the file # comment\nexport QUOTED="two words"\nnonsense\n'
        "LITERAL='$HOME # no comment'\nLINES_TOO=\"a\\nb\"\n"
    )
    with running("--procfile", "Procfile", cwd=tmp_path, env={"FROM_ENV": "ours"}) as run:
        assert run.end() == 0, run.err
        assert "\n".join(run.out) == printed


def test_any_name_and_a_byte_order_mark(tmp_path: Path) -> None:
    """Names with dots, digits, spaces, and bytes that are not UTF-8; a BOM before the first; each has a port of its own."""
    names = [b"1", b"web.1", b"my web", "größe".encode(), b"caf\xe9"]
    text = b"\xef\xbb\xbf" + b"\r\n".join(name + b": echo $PORT" for name in names)
    (tmp_path / "Procfile").write_bytes(text)
    words = ["--when-one-exits", "wait", "--prefix", "--procfile", "Procfile"]
    with running(*words, cwd=tmp_path, env={"PORT": "7000"}) as run:
        assert run.end() == 0, run.err
        labelled = {label.strip(): port for label, _, port in (line.partition(" | ") for line in run.out)}
        expected = ["1", "web.1", "my web", "größe", "caf\\xe9"]
        assert labelled == {name: str(7000 + 100 * number) for number, name in enumerate(expected)}


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
