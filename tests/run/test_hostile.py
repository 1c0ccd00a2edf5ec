"""Programs that mean us ill, or do much of what is harmless in small numbers: pids that come again, floods, hostile words."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run.supervised import COMMAND, LATE, cleans_up, python, running
from support import wait_until

UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def _may_unshare() -> bool:
    return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0


needs_namespaces = pytest.mark.skipif(not _may_unshare(), reason="no namespaces may be made here")

# -- a pid is nobody's for long -------------------------------------------------------------------------------

AS_MAIN = """\
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
main = os.getpid()
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
time.sleep(0.5)
with open("/proc/sys/kernel/ns_last_pid", "w") as file:
    file.write(str(main - 1))
pid = os.fork()
if pid:
    print("again" if pid == main else "another", flush=True)
    os._exit(0)
time.sleep(0.3)
os._exit(7)
"""


@needs_namespaces
def test_who_gets_mains_pid_does_not_get_its_status() -> None:
    """The main program has ended with 0; an orphan that comes to have its pid, and fails, changes nothing."""
    for _ in range(5):
        with running("--", *python(AS_MAIN), wrapper=UNSHARE) as run:
            assert run.end() == 0
            if run.out == ["again"]:
                return
    pytest.skip("another process came between, each time")


AS_CALLBACK = """\
import os
with open("/proc/sys/kernel/ns_last_pid") as file:
    before = int(file.read())
if os.fork() == 0:  # an orphan, which is reaped by us
    if os.fork() == 0:
        os._exit(0)
    os._exit(0)
os.wait()
import time
time.sleep(0.3)
with open("/proc/sys/kernel/ns_last_pid", "w") as file:
    file.write(str(before + 1))
"""


@needs_namespaces
def test_a_callback_with_the_pid_of_an_orphan_is_waited_for() -> None:
    """The statuses of orphans are not kept: none of them is taken for the callback's."""
    callback = "sh -c 'sleep 0.5; echo finished; exit 3'"
    with running("--on-exit", callback, "--", *python(AS_CALLBACK), wrapper=UNSHARE) as run:
        assert run.end() == 1
        assert run.out == ["finished"]
        assert "failed with status 3" in run.err


@needs_namespaces
@pytest.mark.nightly
def test_callbacks_are_waited_for_after_all_pids_have_been_used() -> None:
    """Forty thousand orphans where there are 32768 pids; memory does not grow with them."""
    code = """\
import os
for _ in range(40_000):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.wait()
"""
    callback = "sh -c 'sleep 1; echo finished; exit 3'"
    script = 'echo 32768 > /proc/sys/kernel/pid_max; exec "$@"'
    with running(
        "--on-exit", callback, "--", *python(code), wrapper=[*UNSHARE, "sh", "-c", script, "x"]
    ) as run:
        assert run.end() == 1
        assert run.out == ["finished"]


# -- floods ---------------------------------------------------------------------------------------------------

FORKS = """\
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.fork()
os.write(1, b"ready\\n")
while True:
    try:
        if os.fork() == 0:
            if os.fork() == 0:
                os._exit(0)
            os._exit(0)
    except OSError:
        pass
"""

SIGNALS = """\
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
os.write(1, b"ready\\n")
while True:
    os.kill(os.getppid(), signal.SIGUSR1)
"""

THREADS = """\
import os, signal, threading, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(300):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
if os.fork() == 0:
    os.setsid()
os.write(1, b"ready\\n")
time.sleep(600)
"""


@pytest.mark.parametrize("program", [FORKS, SIGNALS, THREADS], ids=["forks", "signals", "threads"])
@pytest.mark.parametrize("before", [[], ["sh", "-c", '"$@"; true', "x"]], ids=["main", "below a shell"])
def test_a_flood_holds_up_nothing(program: str, before: list[str]) -> None:
    """Who forks, signals or has threads without end, and ignores the stop, is gone when the grace period is over."""
    with running("--grace", "3", "--", *before, sys.executable, "-I", "-c", program) as run:
        run.wait_for("ready")
        assert run.stop() in (137, 138, 143)  # the shell may die of a signal of the flood
        assert run.seconds < 3 + LATE + LATE
        assert "killed" in run.err


# -- words ----------------------------------------------------------------------------------------------------

HOSTILE = "x\x1b[31m\nkilled"

NAMED = """\
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open("/proc/self/comm", "w") as file:
    file.write("x\\x1b[31m\\nkilled")
os.write(1, f"ready {os.getpid()}\\n".encode())
while True:
    time.sleep(0.1)
"""


def test_the_name_of_a_process_forges_no_line() -> None:
    """A newline and an escape sequence in it are written as such, in the report and in what --verbose says."""
    with running("--verbose", "--grace", "1", "--name", HOSTILE, "--", *python(NAMED)) as run:
        run.wait_for("ready")
        assert run.stop() == 137
        assert "\x1b" not in run.err
        assert all(line.startswith("cleanup_guard: ") for line in run.err.splitlines())
        assert "x\\x1b[31m\\nkilled" in run.err


@pytest.mark.parametrize("word", [HOSTILE, "caf\udce9", "größe"])
def test_any_name_may_be_said(word: str) -> None:
    """Names that are hostile, or no UTF-8, in mistakes and before lines of output: one line, no traceback."""
    for words in (["--name", word, "--name", word, "true", ":::", "true"], ["--grace", word, "true"], [word]):
        done = subprocess.run([*COMMAND, *words], capture_output=True, check=False)
        assert done.returncode in (2, 127)
        assert done.stderr.count(b"\n") == 1
        assert b"\x1b" not in done.stderr
    with running("--prefix", "--name", word, "--", "echo", "said") as run:
        assert run.end() == 0
        assert len(run.out) == 1
        assert run.out[0].endswith(" | said")


SECRETS = [
    ["--on-exit", "deploy --token s3cret 'open", "true"],
    ["--on-exit", "", "true"],
    ["--procfile", "env"],
]


@pytest.mark.parametrize("words", SECRETS)
def test_no_secret_is_said(words: list[str], tmp_path: Path) -> None:
    """A command of --on-exit, and a .env that was given for a Procfile: the place is named."""
    (tmp_path / "env").write_text("TOKEN=s3cret\nURL=http://me:s3cret@host\n")
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "s3cret" not in done.stderr
    with running(
        "--on-exit", "PASSWORD=s3cret false", "--on-exit", "sh -c 'exit 3' s3cret", "--", "true"
    ) as run:
        assert run.end() == 1
        assert "s3cret" not in run.err
        assert "number 1 failed with status 1" in run.err
        assert "number 2, 'sh' failed with status 3" in run.err


# -- numbers and limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "env"),
    [
        (["--grace", "1e12"], {}),
        (["--grace", "1e300"], {}),
        ([], {"CLEANUP_GUARD_GRACE": "1e300"}),
        (["--grace", "none"], {}),
    ],
)
def test_absurd_numbers_are_no_overflow(words: list[str], env: dict[str, str]) -> None:
    """A grace period of more seconds than the system can count is one without an end."""
    with running(*words, "--", *cleans_up(0.2), env=env) as run:
        run.wait_for("ready")
        assert run.stop() == 0
        assert run.out[1:] == ["stopped by SIGTERM", "cleaned up"]
        assert run.err == ""


@pytest.mark.parametrize("limit", [8, 7, 6, 5])
def test_without_descriptors_there_is_no_traceback(limit: int) -> None:
    """EMFILE: what cannot be looked up is done without, or a sentence says what cannot be done."""
    script = f'ulimit -n {limit}; exec "$@"'
    with running("--prefix", "--", *cleans_up(0.1), wrapper=["bash", "-c", script, "x"]) as run:
        wait_until(lambda: "ready" in "".join(run.out) or run.process.poll() is not None, "a start or an end")
        if run.process.poll() is None:
            assert run.stop() == 0
            assert any("cleaned up" in line for line in run.out)
        assert "Traceback" not in run.err


# -- another user ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_callback_that_became_another_user_is_told_of(tmp_path: Path) -> None:
    """Without CAP_KILL it can be neither asked nor killed: said, and we end in time."""
    wrapper = ["setpriv", "--bounding-set", "-kill", "--inh-caps", "-kill"]
    if subprocess.run([*wrapper, "true"], check=False, capture_output=True).returncode:
        pytest.skip("setpriv cannot do this here")
    callback = "setpriv --reuid 12345 --clear-groups sleep 20"
    with running("--grace", "2", "--on-exit", callback, "--", *cleans_up(), wrapper=wrapper) as run:
        run.wait_for("ready")
        assert run.stop() == 0
        assert run.seconds < 2 + LATE
        assert "cannot be stopped" in run.err
        assert "Traceback" not in run.err


def test_callbacks_are_told_the_status_and_the_reason() -> None:
    """CLEANUP_GUARD_STATUS and CLEANUP_GUARD_REASON, for a stop and for an end."""
    callback = "echo $CLEANUP_GUARD_STATUS $CLEANUP_GUARD_REASON"
    with running("--on-exit", callback, "--name", "app", "--", "sh", "-c", "exit 4") as run:
        assert run.end() == 4
        assert run.out == ["4 app ended with 4"]
    with running("--on-exit", callback, "--", "sleep", "60") as run:
        time.sleep(0.1)  # a random moment, not a wait
        wait_until(lambda: "sleep" in _children_of(run.pid), "it")
        run.stop()
        assert run.out == ["143 SIGTERM"]


def _children_of(pid: int) -> str:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return " ".join(Path(f"/proc/{child}/cmdline").read_text() for child in children)
    except OSError:
        return ""


# -- readiness ------------------------------------------------------------------------------------------------

SIGNS = {
    "text": (
        "up and running",
        "print('up and ', end='', flush=True); time.sleep(0.1); print('running', flush=True)",
    ),
    "file": ("file:sign", "open('sign', 'w').close()"),
    "tcp": ("tcp:PORT", "import socket; s = socket.socket(); s.bind(('127.0.0.1', PORT)); s.listen()"),
}


@pytest.mark.parametrize("kind", SIGNS)
def test_after_waits_for_readiness(kind: str, tmp_path: Path) -> None:
    """--ready: web is started when db is ready, and not before."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    sign, code = (each.replace("PORT", port) for each in SIGNS[kind])
    db = f"import time; time.sleep(0.3); open('began', 'w').close(); {code}\nwhile True: time.sleep(0.1)"
    words = ["--name", "db", "--name", "web", "--after", "web=db", "--ready", f"db={sign}"]
    web = ["sh", "-c", "test -e began && echo in order"]
    with running(*words, "--", sys.executable, "-I", "-c", db, ":::", *web, cwd=tmp_path) as run:
        assert run.end() == 0
        assert "in order" in run.out


def test_a_stop_and_an_end_while_somebody_waits_for_readiness() -> None:
    """Nobody is started any more; who was is stopped as ever."""
    words = ["--name", "db", "--name", "web", "--after", "web=db", "--ready", "db=never"]
    with running(*words, "--", *cleans_up(), ":::", "echo", "started") as run:
        run.wait_for("ready")
        assert run.stop() == 0
        assert "started" not in run.out
        assert run.out[-1] == "cleaned up"
    with running(*words, "--", "sh", "-c", "exit 3", ":::", "echo", "started") as run:
        assert run.end() == 3
        assert run.out == []
        assert "db ended with 3" in run.err


def test_the_children_of_who_executes_us_are_waited_for() -> None:
    """Whoever had children and executes us keeps them: they are waited for."""
    script = "(trap 'sleep 0.5; echo cleaned; exit' TERM; echo up; sleep 60 & wait) & exec \"$@\" -- sh -c 'sleep 0.3'"
    with running(command=["sh", "-c", script, "x", *COMMAND]) as run:
        assert run.end() == 0
        assert run.out == ["up", "cleaned"]
