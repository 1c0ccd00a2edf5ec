"""Nobody is told to stop twice, and nobody's output is lost: wrappers, supervisors below us, pipelines, hand-overs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from run.supervised import COMMAND, STUBBORN, blocks_term, cleans_up, python, running
from support import wait_until

from cleanup_guard._supervise._tree import children, hears_alone, look_closely

COUNTS = r"""\
import os, signal, sys, time
for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(each, lambda signum, frame: os.write(1, f"told {signum}\n".encode()) and sys.exit(0))
try:
    os.write(1, f"ready {os.getpid()}\n".encode())
    while True:
        time.sleep(0.1)
finally:
    time.sleep(SECONDS)
    os.write(1, b"cleaned up\n")
"""


def counts(seconds: float = 1) -> list[str]:
    """A program whose cleanup ends with the next signal."""
    return python(COUNTS.replace("SECONDS", str(seconds)))


KNOWS_WHO = r"""\
import os, signal, time
stops = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
for each in stops:
    signal.signal(each, lambda signum, frame: None)
signal.pthread_sigmask(signal.SIG_BLOCK, stops)
os.write(1, f"ready {os.getpid()}\n".encode())
first = None
while first is None:
    first = signal.sigtimedwait(stops, 0.1)
os.write(1, f"told {first.si_signo}\n".encode())
end = time.monotonic() + SECONDS
while (left := end - time.monotonic()) > 0:
    again = signal.sigtimedwait(stops, min(0.1, left))
    if again is not None and not again.si_pid == first.si_pid == os.getppid():
        os.write(1, f"told {again.si_signo}, by {again.si_pid} after {first.si_pid}\n".encode())
        os._exit(0)
os.write(1, b"cleaned up\n")
"""


def knows_who(seconds: float) -> list[str]:
    """The same below `timeout`, which tells its child, and then its process group, in which the child is, too.

    Where the child runs between the two it is told twice, without us as well. So what its parent says again is not counted.
    """
    return python(KNOWS_WHO.replace("SECONDS", str(seconds)))


SHELL_TRAP = "trap 'kill -TERM $p; wait $p' TERM; \"$@\" & p=$!; wait $p"
WRAPPERS = {
    "timeout": ["timeout", "60"],
    "timeout in timeout": ["timeout", "60", "timeout", "60"],
    "tini": ["tini", "-s", "--"],
    "tini -g": ["tini", "-s", "-g", "--"],
    "dumb-init": ["dumb-init"],
    "bash": ["bash", "-c", SHELL_TRAP, "x"],
    "dash": ["dash", "-c", SHELL_TRAP, "x"],
    "a shell before it": ["sh", "-c", '"$@"; true', "x", "timeout", "60"],
    "run": [*COMMAND, "--"],
    "setsid": ["setsid", "-w"],
    "script": ["sh", "-c", 'setsid "$@"; true', "x"],
}


@pytest.mark.parametrize("wrapper", WRAPPERS.values(), ids=WRAPPERS.keys())
@pytest.mark.parametrize("scope", ["tree", "main"])
def test_a_wrapper_that_forwards_makes_no_second_stop(wrapper: list[str], scope: str) -> None:
    """The cleanup takes longer than half of the time, and is complete, as it is without us."""
    if shutil.which(wrapper[0]) is None:
        pytest.skip(f"{wrapper[0]} is not here")
    program = knows_who(2.5) if "timeout" in wrapper else counts(2.5)
    with running("--grace", "5", "--signal-to", scope, "--", *wrapper, *program) as run:
        run.wait_for("ready")
        run.stop()
        assert run.out[1:] == ["told 15", "cleaned up"], run.err


def test_a_forwarded_hangup_comes_once() -> None:
    """SIGHUP follows the same rule as the stop: below a wrapper it comes from the wrapper."""
    with running("--", *WRAPPERS["run"], *counts(0.2)) as run:
        run.wait_for("ready")
        run.signal(signal.SIGHUP)
        run.end()
        assert run.out[1:] == ["told 1", "cleaned up"]


SUPERVISES = """\
import os, signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", os.environ["PROGRAM"]], start_new_session=True)
signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGINT))
sys.exit(child.wait())
"""


@pytest.mark.parametrize("scope", ["tree", "main"])
def test_what_a_supervisor_below_us_has_started_is_its_own(scope: str) -> None:
    """As supervisord with `stopsignal=INT`: a session of its own, told in its way, given the time that it needs."""
    program = COUNTS.replace("SECONDS", "2.5")
    words = ["--grace", "5", "--signal-to", scope, "--", *python(SUPERVISES)]
    with running(*words, env={"PROGRAM": program}) as run:
        run.wait_for("ready")
        assert run.stop() == 0
        assert run.out[1:] == ["told 2", "cleaned up"]


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_a_trap_that_waits_for_its_foreground_program(shell: str) -> None:
    """`trap ... TERM; program`: the shell cannot pass the stop on; the program is told at once, and then the trap runs."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not here")
    with running("--", shell, "-c", "trap 'echo trapped; exit 5' TERM; \"$@\"", "x", *counts(0.5)) as run:
        run.wait_for("ready")
        assert run.stop() == 5
        assert run.out[1:] == ["told 15", "cleaned up", "trapped"]
        assert run.seconds < 4


def test_who_is_left_by_a_catcher_is_told_then() -> None:
    """A main that cleans up for itself and goes: its worker, which slept all the time, is told right after."""
    script = "trap 'sleep 0.5; echo main; exit 0' TERM; \"$@\" & wait"
    with running("--grace", "20", "--", "sh", "-c", script, "x", *counts(0.5)) as run:
        run.wait_for("ready")
        assert run.stop() == 0
        assert run.out[1:] == ["main", "told 15", "cleaned up"]
        assert run.seconds < 8


SLEEPS = r"""\
import os, signal
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"told\n") and os._exit(0))
os.write(1, f"ready {os.getpid()}\n".encode())
reader, writer = os.pipe()
os.read(reader, 1)
"""


def test_who_has_not_run_since_the_stop_is_told_at_half_time() -> None:
    """Main catches the stop and stays; who has slept ever since has been told by nobody."""
    script = 'trap : TERM; "$@" & while :; do wait; done'
    with running("--grace", "3", "--", "sh", "-c", script, "x", *python(SLEEPS)) as run:
        run.wait_for("ready")
        run.signal(signal.SIGTERM)
        run.wait_for("told")
        assert run.end() == 137


# -- readers go last ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pipeline",
    [
        '"$@" | tee log',
        '"$@" | grep --line-buffered . | tee log',
        'mkfifo fifo; tee log < fifo & "$@" > fifo',
        'exec > log; "$@"; true',
        '"$@" | while read -r line; do sleep 0.1; echo "$line" >> log; done',
        'touch log; tail -n +1 -f log > seen & "$@" > log; wait',
        'touch log; tail ---disable-inotify -n +1 -f log > seen & "$@" > log; wait',
    ],
)
def test_the_output_of_a_cleanup_arrives(pipeline: str, tmp_path: Path) -> None:
    """Who reads what a catcher writes is told when that has gone, and has read to the end by then."""
    with running("--", "bash", "-c", pipeline, "x", *counts(1), cwd=tmp_path) as run:
        log = tmp_path / ("seen" if "seen" in pipeline else "log")
        wait_until(lambda: log.exists() and "ready" in log.read_text(), "it")
        assert run.stop() == 143
        assert log.read_text().splitlines()[1:] == ["told 15", "cleaned up"]
        assert run.seconds < 6


@pytest.mark.parametrize(
    ("words", "rest"),
    [
        (['( setsid "$@" & ) | tee log'], []),
        (['{ ( setsid "$@" & ) | tee log; } ; true'], []),
        (['( setsid "$@" > log & ); exec tail -n +1 -f log > seen'], []),
        (['exec "$@" > log'], [":::", "sh", "-c", "exec tail -n +1 -f log > seen"]),
    ],
    ids=["pipe", "shell", "log", "another program"],
)
def test_the_output_of_a_daemon_and_of_another_program_arrives(
    words: list[str], rest: list[str], tmp_path: Path
) -> None:
    """Whoever the catcher belongs to, if anybody knows: who reads what it writes goes last, and nothing waits for half time."""
    (tmp_path / "log").touch()
    with running("--grace", "30", "--", "bash", "-c", *words, "x", *counts(1), *rest, cwd=tmp_path) as run:
        log = tmp_path / ("seen" if "seen" in f"{words}{rest}" else "log")
        wait_until(lambda: log.exists() and "ready" in log.read_text(), "it")
        run.stop()
        assert log.read_text().splitlines()[1:] == ["told 15", "cleaned up"]
        assert run.seconds < 10


BLOCKS = {
    "shell": (["sh", "-c", "read x; :"], False),
    "other": (python("input()"), True),
    "fork": (python("import os, time; os.fork() or time.sleep(600) or os._exit(0); os.wait()"), False),
}


@pytest.mark.parametrize(("words", "hears"), BLOCKS.values(), ids=BLOCKS)
def test_a_shell_that_blocks_the_stop_does_not_catch_it(words: list[str], hears: bool) -> None:
    """It does so for the moment in which it starts a program. Others may, to fetch it; but not in a fork before its exec."""
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]),
    )
    try:
        forks = "fork" in words[-1]
        wait_until(lambda: blocks_term(Path(f"/proc/{process.pid}/status")), "the program")
        wait_until(lambda: len(children(process.pid)) == forks, "the fork")
        pid = children(process.pid)[0] if forks else process.pid

        def is_taken_to_hear() -> bool:
            seen = look_closely(pid)
            assert seen is not None
            return seen.hears(signal.SIGTERM)

        wait_until(
            lambda: is_taken_to_hear() == hears, "the right answer"
        )  # who waits for a disk is not asked
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


GLANCES = {
    "catches": ("signal.signal(15, print)", True),
    "catches, with many threads": ("signal.signal(15, print); thread(time.sleep)", True),
    "does not catch": ("", False),
    "ignores": ("signal.signal(15, signal.SIG_IGN)", False),
    "has a child": ("signal.signal(15, print); start()", False),
    "has a child of another thread": (
        "signal.signal(15, print); thread(lambda _: (start(), time.sleep(600)))",
        False,
    ),
    "has ended": ("signal.signal(15, print); os.kill(os.getpid(), 9)", False),
}

GLANCED_AT = """\
import os, signal, subprocess, threading, time
def start():
    subprocess.Popen(["sleep", "600"])
def thread(does):
    threading.Thread(target=does, args=(600,), daemon=True).start()
{does}
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(("does", "alone"), GLANCES.values(), ids=GLANCES)
def test_a_glance_tells_who_can_be_told_at_once(does: str, alone: bool) -> None:
    """Whoever has a handler and nobody below; everybody else is looked at closely."""
    words = python(GLANCED_AT.replace("{does}", does))
    process = subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()  # nothing, if it has ended
        wait_until(lambda: hears_alone(process.pid, signal.SIGTERM) == alone, "the right answer")
        assert not hears_alone(process.pid, signal.SIGUSR1)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert not hears_alone(process.pid, signal.SIGTERM)


DEAF = r"""\
import os, signal, subprocess, sys, time
def stop(signum, frame):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    helper = subprocess.Popen(["sleep", "600"])
    os.write(1, b"told\n")
    time.sleep(1.2)
    helper.kill()
    os.write(1, b"cleaned up\n")
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
os.write(1, b"ready\n")
while True:
    time.sleep(0.1)
"""


@pytest.mark.parametrize(
    "options", [(), ("--drain", "0.1"), ("--signal-to", "main"), ("--verbose",)], ids=" ".join
)
def test_who_gives_up_its_handler_when_it_is_told_is_not_told_again(options: tuple[str, ...]) -> None:
    """It has a child then, and would die of the next signal: it was told at once, and that is known to the end."""
    with running("--grace", "2", *options, "--", *python(DEAF)) as run:
        run.wait_for("ready")
        assert run.stop() == 0
        assert run.out == ["ready", "told", "cleaned up"]


READS = """\
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", os.environ["PROGRAM"]], stdout=subprocess.PIPE, text=True)
for line in child.stdout:
    print("read", line, end="", flush=True)
"""


def test_a_parent_that_reads_its_childs_output_goes_last() -> None:
    """A main that does not catch the stop logs what its child has to say until the child is gone."""
    with running("--", *python(READS), env={"PROGRAM": COUNTS.replace("SECONDS", "1")}) as run:
        run.wait_for("read ready")
        run.stop()
        assert run.out[1:] == ["read told 15", "read cleaned up"]


MANAGER = """\
import multiprocessing, os, signal, sys, time
def main():
    multiprocessing.set_start_method("fork" if os.fork.__doc__ else "spawn")
    manager = multiprocessing.Manager()
    shared = manager.dict()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        os.write(1, f"ready {os.getpid()}\\n".encode())
        while True:
            time.sleep(0.1)
    finally:
        time.sleep(1)
        shared["cleaned"] = "up"
        os.write(1, f"cleaned {shared['cleaned']}\\n".encode())
main()
"""


def test_a_manager_that_a_cleanup_needs_is_there() -> None:
    """A multiprocessing manager does not catch the stop; the main whose it is does, and uses it."""
    with running("--", "sh", "-c", '"$@"; true', "x", sys.executable, "-c", MANAGER) as run:
        run.wait_for("ready")
        run.stop()
        assert run.out[1:] == ["cleaned up"], run.err


# -- waiting for the kernel's word ----------------------------------------------------------------------------

RELAY = """\
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(300):
    if os.fork():
        os._exit(0)
os.write(1, b"arrived\\n")
"""


def test_quick_hand_overs_are_waited_for() -> None:
    """A cleanup that hands itself on from process to process is never seen, and waited for all the same."""
    for _ in range(5):
        with running("--", *python(RELAY)) as run:
            assert run.end() == 0
            assert run.out == ["arrived"]


WITHOUT_PROC = 'mount -t tmpfs none /proc && exec "$@"'
UNSHARE = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]


def _may_unshare() -> bool:
    done = subprocess.run([*UNSHARE, "sh", "-c", WITHOUT_PROC, "x", "true"], capture_output=True, check=False)
    return done.returncode == 0


needs_namespaces = pytest.mark.skipif(not _may_unshare(), reason="no namespaces may be made here")


@needs_namespaces
def test_without_proc_nobody_is_left_and_it_is_said() -> None:
    """/proc is missing: the group is told, everybody is waited for, and one sentence says what cannot be kept."""
    script = '( trap "sleep 1; echo cleaned; exit 0" TERM; echo ready; sleep 100 & wait ) & sleep 0.5; exit 0'
    with running("--", "sh", "-c", script, wrapper=[*UNSHARE, "sh", "-c", WITHOUT_PROC, "x"]) as run:
        assert run.end() == 0
        assert run.out == ["ready", "cleaned"]
        assert run.err.count("\n") == 1
        assert "/proc" in run.err


@needs_namespaces
def test_the_proc_of_another_namespace_is_none() -> None:
    """Its pids are other processes': nobody is looked up there, or signalled because of it."""
    with running("--", *cleans_up(0.2), wrapper=["unshare", "--pid", "--fork", "--kill-child"]) as run:
        run.wait_for("ready")
        wait_until(lambda: "/proc" in run.err, "the sentence")
        inner = int(Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text())
        os.kill(inner, signal.SIGTERM)
        assert run.end() == 0
        assert run.out[1:] == ["stopped by SIGTERM", "cleaned up"]


WITHOUT_CTYPES = (
    "import sys; sys.modules['_ctypes'] = None; from cleanup_guard._cli import main; sys.exit(main())"
)


def test_without_prctl_it_is_said() -> None:
    """No ctypes, so no prctl: orphans cannot be adopted, which one sentence says; --pdeathsig is refused."""
    command = [sys.executable, "-c", WITHOUT_CTYPES, "run"]
    with running("--", "echo", "ran", command=command) as run:
        assert run.end() == 0
        assert run.out == ["ran"]
        assert run.err.count("\n") == 1
        assert "prctl" in run.err
    with running("--pdeathsig", "TERM", "--", "echo", "ran", command=command) as run:
        assert run.end() == 2
        assert run.out == []


ORPHANS = """\
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(COUNT):
    if os.fork() == 0:
        if os.fork() == 0:
            signal.pause()
        os._exit(0)
    os.wait()
print(f"ready {os.getpid()}", flush=True)
signal.pause()
"""


@pytest.mark.parametrize("count", [300, pytest.param(20_000, marks=pytest.mark.nightly)])
def test_any_number_of_orphans_that_ignore_the_stop_is_gone_in_time(count: int) -> None:
    """They are killed inside the grace period, and the report stays readable."""
    if count > int(Path("/proc/sys/kernel/pid_max").read_text()) // 2:
        pytest.skip("there are not that many pids here")
    with running("--grace", "10", "--", *python(ORPHANS.replace("COUNT", str(count)))) as run:
        run.wait_for("ready")
        assert run.stop() == 137
        assert run.seconds < 10
        assert len(run.err) < 2000
        assert "more" in run.err


# -- daemons --------------------------------------------------------------------------------------------------

DAEMONIZES = """\
import os, time
if os.fork() == 0:
    os.setsid()
    exec(os.environ["PROGRAM"])
time.sleep(0.3)
os._exit(0)
"""


def test_a_program_that_daemonizes_is_told_of_and_may_be_stayed_for() -> None:
    """By default the daemon is stopped, and a sentence says so; with --stay it runs on, and gets the next stop."""
    program = COUNTS.replace("SECONDS", "0.5")
    with running("--", *python(DAEMONIZES), env={"PROGRAM": program}) as run:
        assert run.end() == 0
        assert run.out[1:] == ["told 15", "cleaned up"]
        assert "left others behind" in run.err
        assert "--stay" in run.err
    with running("--stay", "--", *python(DAEMONIZES), env={"PROGRAM": program}) as run:
        run.wait_for("ready")
        wait_until(lambda: "as long as they do" in run.err, "main to have gone")
        assert run.process.poll() is None
        run.signal(signal.SIGHUP)
        assert run.end() == 0
        assert run.out[1:] == ["told 1", "cleaned up"]


def test_a_stop_can_be_one_that_is_no_stop() -> None:
    """--no-stop-on INT: Ctrl-C in a REPL is only forwarded; --stop-on ABRT works, though ABRT is one of our own."""
    code = (
        "import signal\nsignal.signal(signal.SIGINT, lambda *_: print('interrupted', flush=True))\n"
        + STUBBORN.replace("signal.signal(signal.SIGINT, signal.SIG_IGN)", "")
    )
    with running("--no-stop-on", "INT", "--stop-on", "ABRT", "--grace", "1", "--", *python(code)) as run:
        run.wait_for("ready")
        run.signal(signal.SIGINT)
        run.wait_for("interrupted")
        assert run.process.poll() is None
        assert run.stop(signal.SIGABRT) == 134  # the child dies of it


def test_verbose_says_who_told_whom() -> None:
    """Each signal: from whom, to whom, and when."""
    with running("--verbose", "--name", "app", "--", *cleans_up()) as run:
        run.wait_for("ready")
        run.stop()
        assert f"SIGTERM from pid {os.getpid()}" in run.err
        assert f"SIGTERM to app (pid {run.pids()[0]})" in run.err
