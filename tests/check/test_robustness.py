"""What a program may do, and what its output may hold, without this command hanging, growing, or saying what is not so."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from check.gallery import app, deaf, script
from check.rehearsed import COMMAND, SIMULATED, check, checking, folder_of
from support import CLEAN, PATIENCE, wait_until

from cleanup_guard.testing import rehearse

MODES = pytest.mark.parametrize("wrapper", [[], SIMULATED], ids=["pid-namespace", "simulated"])
PROGRAM = ["--", "python", "-I", "-S", "app.py"]
READY = ["--ready", "ready", *PROGRAM]

FORKS = """\
import os, signal, sys
signal.signal(15, signal.SIG_IGN); signal.signal(17, signal.SIG_IGN); os.write(1, b"ready\\n")
for each in range(int(sys.argv[1]) - 1):
    if os.fork() == 0: break
while 1:
    try:
        if os.fork() == 0: os._exit(0)
    except OSError: pass
"""


@MODES
def test_who_forks_in_a_loop_hangs_nobody(wrapper: list[str]) -> None:
    """The grace period ends, all are killed, and what is told has an end, too."""
    words = ("--no-try", "--grace", "1", "--ready", "ready", "--", "python", "-I", "-S", "forks.py", "3")
    told = check(*words, files={"forks.py": FORKS}, wrapper=wrapper)
    assert (told.status, told.rehearsal.status) == (1, 137)
    assert "ignored" in [each.code for each in told.rehearsal.advice]
    assert len(told.rehearsal.processes) <= 2000


@MODES
def test_who_forks_in_a_loop_does_not_keep_a_stop_from_us(wrapper: list[str]) -> None:
    """SIGTERM to the check ends it, and all that it has started."""
    words = ("--grace", "600", "--ready", "ready", "--", "python", "-I", "-S", "forks.py", "3")
    with checking(
        *words, files={"forks.py": FORKS}, wrapper=["env", "--default-signal=TERM", *wrapper]
    ) as process:
        folder = Path(f"/proc/{process.pid}/cwd").readlink()
        wait_until(lambda: forks_in(folder) > 1, "the forks")
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE)
        assert "nobody is left" in err
        wait_until(lambda: forks_in(folder) == 0, "nobody to be left")


def forks_in(folder: Path) -> int:
    """How many processes of the program there are."""
    found = 0
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
                found += (
                    b"forks.py" in words
                    and b"check" not in words
                    and Path(f"/proc/{name}/cwd").readlink() == folder
                )
            except OSError:
                continue
    return found


def test_long_command_lines_of_many_processes_are_not_kept() -> None:
    """Two hundred processes with a megabyte of arguments each: a few megabytes of ours."""
    body = """\
import resource
resource.setrlimit(resource.RLIMIT_STACK, (1 << 26, resource.getrlimit(resource.RLIMIT_STACK)[1]))
for each in range(200):
    if not os.fork():
        os.execvp("sleep", ["sleep", "1000", *["0" + "x" * 100_000] * 10])
"""
    files = {"app.py": app(body), "measure.py": MEASURE}
    told = check(
        *READY, "--no-try", files=files, command=["python", "measure.py", *COMMAND, "--no-try", "--json"]
    )
    used, _, rest = told.out.partition("\n")
    assert int(used) < 150_000, f"{used} kB"
    longest = max(len(" ".join(each["argv"])) for each in json.loads(rest)["rehearsals"][0]["processes"])
    assert longest < 10_000


MEASURE = """\
import os, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.stdout.write(done.stdout.decode())
sys.exit(done.returncode)
"""


@MODES
def test_who_may_not_be_traced_is_seen_all_the_same(wrapper: list[str], tmp_path: Path) -> None:
    """CLONE_UNTRACED: it is there, and whether it was there when PID 1 left; in a simulation it is not left behind."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    (tmp_path / "untraced.c").write_text(UNTRACED)
    subprocess.run(["gcc", "-o", tmp_path / "untraced", tmp_path / "untraced.c"], check=True)
    words = ("--no-try", "--ready", "ready", "--", str(tmp_path / "untraced"))
    waits = check(*words, wrapper=wrapper)
    assert [seen.how for seen in waits.rehearsal.processes] == ["exited", "unknown"]
    assert [(each.code, each.fault) for each in waits.rehearsal.advice] == [("not-seen", False)]
    leaves = check(*words, "leave", wrapper=wrapper)
    assert [seen.how for seen in leaves.rehearsal.processes] == ["exited", "torn-down"]
    assert [each.code for each in leaves.rehearsal.advice] == ["children-killed"]
    assert not [
        name for name in os.listdir("/proc") if name.isdecimal() and is_running(name, tmp_path / "untraced")
    ]


def is_running(pid: str, program: Path) -> bool:
    """Whether a process executes a program."""
    try:
        return Path(f"/proc/{pid}/exe").readlink() == program
    except OSError:
        return False


UNTRACED = """\
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/wait.h>
#ifndef CLONE_UNTRACED
#define CLONE_UNTRACED 0x00800000
#endif
static volatile sig_atomic_t stop;
static void handler(int signum) { stop = 1; }
static sigset_t before, term;
static int child(void *nothing) { sigprocmask(SIG_SETMASK, &before, 0); for (;;) pause(); }
int main(int argc, char **argv) {
    char *stack = malloc(65536);
    struct sigaction action = {.sa_handler = handler};
    /* SIGTERM is blocked but for the moments in which it is waited for: none is lost between a look and a wait. */
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, &before);
    int pid = clone(child, stack + 65536, CLONE_UNTRACED | SIGCHLD, 0);
    sigaction(SIGTERM, &action, 0);
    if (write(1, "ready\\n", 6) != 6) return 1;
    while (!stop) sigsuspend(&before);
    if (argc < 2) { kill(pid, SIGTERM); waitpid(pid, 0, 0); }
    return 0;
}
"""


# -- foreign words ---------------------------------------------------------------------------------------------------

ESCAPES = app(cleanup=r"os.write(1, b'\x1b[31mred\x1b[m\x07 \xc2\x9b31m\r\ttab\n\xff')")


def test_what_a_program_prints_reaches_no_terminal_raw() -> None:
    """Its escape sequences are shown, not sent; also of one that is not ready in time, and in its name."""
    told = check("--show-output", *READY, files={"app.py": ESCAPES}, command=COMMAND)
    assert "Printed after the stop:\n  \\x1b[31mred\\x1b[m\\x07 \\x9b31m\n  \ttab\n  \ufffd" in told.out
    late = check(
        "--ready",
        "never",
        "--timeout",
        "0.5",
        *PROGRAM,
        files={"app.py": "print('\\x1b[31m\\x07red', flush=True); input()"},
    )
    assert late.err.endswith("\n  \\x1b[31m\\x07red\n") or "status 1" in late.err
    named = check(
        "--no-try", "--grace", "1", "--after", "0.2", "--", "sleep", "1000", "0\x1b[31m\n", command=COMMAND
    )
    for text in (told.out, late.err, named.out):
        assert "\x1b" not in text
        assert "\x07" not in text


# -- the terminal ----------------------------------------------------------------------------------------------------


def on_terminal(words: list[str], files: dict[str, str], tmp_path: Path, **variables: str) -> str:
    """What the command writes on a terminal of 120 columns."""
    folder = folder_of(str(tmp_path), files)
    parent, child = pty.openpty()
    environ = {**CLEAN, "PATH": f"{Path(sys.executable).parent}:{CLEAN['PATH']}", **variables}
    environ.pop("COLUMNS", None)
    try:
        subprocess.run(["stty", "cols", "120"], stdin=child, check=True)
        process = subprocess.Popen(
            [*COMMAND, *words], stdin=child, stdout=child, stderr=child, cwd=folder, env=environ
        )
    finally:
        os.close(child)
    text = b""
    try:
        while data := os.read(parent, 65536):
            text += data
    except OSError:
        pass  # the last one has closed it
    os.close(parent)
    process.wait(PATIENCE)
    return text.decode()


SLOW = {"app.py": deaf()}


def test_a_terminal_is_used_as_wide_as_it_is(tmp_path: Path) -> None:
    """In colour, and with a line of progress while something takes long, which is gone in the end."""
    words = ["--no-try", "--grace", "3", *READY]
    text = on_terminal(words, SLOW, tmp_path, TERM="xterm-256color")
    assert "\x1b[" in text
    assert "cleanup-guard check: stopped, waiting for its end" in text
    report = text[text.index("Stop of") :]
    plain = re.sub(r"\x1b\[[0-9;]*[mK]", "", report)
    assert "waiting" not in plain
    assert max(map(len, plain.splitlines())) > 100


def test_a_dumb_terminal_gets_words_only(tmp_path: Path) -> None:
    """TERM=dumb: no colour, and no line that is written over."""
    text = on_terminal(["--no-try", "--grace", "3", *READY], SLOW, tmp_path, TERM="dumb")
    assert "not clean" in text
    assert "\x1b" not in text
    assert "\r" not in text.replace("\r\n", "")


# -- our own trouble -------------------------------------------------------------------------------------------------

TROUBLES = [
    (
        "{check} --ready ready {program} >&-",
        3,
        "stdout is closed, and there is nowhere to tell what was seen",
    ),
    ("{check} --ready ready {program} >/dev/full", 3, "stdout cannot be written: No space left on device"),
    (
        "{check} --json --ready ready {program} >/dev/full",
        3,
        "stdout cannot be written: No space left on device",
    ),
    ("{check} --ready ready {program} <&- >/dev/null 2>&-", 0, ""),
    ("{check} --help >/dev/full", 2, "stdout cannot be written: No space left on device"),
    (
        "{check} --ready $(printf '\\377') --timeout 0.2 --no-try {program}",
        3,
        "the program did not print '\\xff' within 0.2 s",
    ),
    ("{check} --signal KILL true", 2, "no program can do anything about SIGKILL"),
    ("{check} --signal STOP true", 2, "no program can do anything about SIGSTOP"),
    ("{check} --image=--privileged", 2, "--image: '--privileged' is no name of an image"),
    ("{check} --image= x", 2, "--image: '' is no name of an image"),
    ("{check} --svg /proc/no/x.svg true", 2, "--svg: there is no directory '/proc/no'"),
    ("{check} --svg / true", 2, "--svg: '/' is a directory"),
    ("{check} --seed x true", 2, "--seed: 'x' is no number"),
    ("{check} --allow x true", 2, "--allow: there is no code 'x', but blocked, "),
    ("{check} --request ftp://x true", 2, "--request: this is no address such as"),
    ('{check} --pre-stop "\'" true', 2, "--pre-stop: this cannot be split into words"),
    ("{check} --compose compose.yml", 2, "--compose needs the name of a service behind the file"),
    ("{check} --compose none.yml web", 2, "--compose: 'none.yml' cannot be read: No such file or directory"),
    ("{check} --kubernetes none.yml --image x", 2, "--image and --kubernetes both say what is to be stopped"),
    ("{check} --run-options --init --image x --frobnicate", 2, "there is no option '--frobnicate'"),
]


@pytest.mark.parametrize(("line", "status", "sentence"), TROUBLES)
def test_our_own_trouble_is_never_a_verdict(line: str, status: int, sentence: str) -> None:
    """Neither status 1 nor a traceback, but a sentence."""
    line = line.format(check=shlex.join(COMMAND), program=shlex.join(PROGRAM))
    told = check(files={"app.py": app()}, command=["sh", "-c", line])
    assert told.status == status, told.err
    assert sentence in told.err
    assert "Traceback" not in told.err
    assert len(told.err.splitlines()) <= 3


def test_a_reader_that_goes_early() -> None:
    """`| head -1`: no traceback."""
    line = f"{shlex.join(COMMAND)} --no-try --ready ready {shlex.join(PROGRAM)} | head -1"
    told = check(files={"app.py": app()}, command=["sh", "-c", line])
    assert told.out == "Stop of python app.py\n" or told.out.startswith("Stop of python")
    assert "Traceback" not in told.err


# -- what lies beside the program ------------------------------------------------------------------------------------

PLANTED = "import os; open(os.environ['TRACE'], 'a').write(__name__ + ' '); from importlib import reload\n"


def test_nothing_beside_the_program_is_imported(tmp_path: Path) -> None:
    """Root may rehearse in a folder where others write: its json.py, and what PYTHONPATH names, is the program's own matter."""
    trace = tmp_path / "trace"
    planted = {
        f"{name}.py": PLANTED
        for name in ("json", "signal", "selectors", "subprocess", "cleanup_guard", "typing_extensions")
    }
    folder = folder_of(str(tmp_path), {**planted, "usercustomize.py": PLANTED, "app.py": app()})
    env = {**CLEAN, "PYTHONPATH": str(folder), "TRACE": str(trace), "HOME": str(tmp_path)}
    found = rehearse([sys.executable, "-I", "-S", "app.py"], ready="ready", cwd=folder, env=env)
    assert found.clean
    assert not trace.exists()


def test_it_ends_where_it_began() -> None:
    """The changed copies of files are gone, and the files as they were."""
    files = script("python -I -S app.py")
    before = {name for name in os.listdir("/tmp") if name.startswith("cleanup-guard-")}
    with checking("--grace", "1", "--ready", "ready", "--", "./entry.sh", files=files) as process:
        folder = Path(f"/proc/{process.pid}/cwd").readlink()
        out, _ = process.communicate(timeout=PATIENCE)
        assert json.loads(out)["rehearsals"][0]["advice"][0]["tried"] is not None
        assert (folder / "entry.sh").read_text() == files["entry.sh"]
    began = time.monotonic()
    while {name for name in os.listdir("/tmp") if name.startswith("cleanup-guard-")} - before:
        assert (
            time.monotonic() - began < PATIENCE
        )  # others run beside, and have copies of their own for a while
        time.sleep(0.05)
