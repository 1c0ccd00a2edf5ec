"""One child under `cleanup-guard run`: status, signals, descendants, the budget, callbacks."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest
from run.supervised import (
    CLEANS_UP,
    COMMAND,
    LATE,
    STUBBORN,
    TELLS,
    blocks_term,
    cleans_up,
    is_alive,
    python,
    running,
)
from support import wait_until

from cleanup_guard._supervise._spawn import CannotStart, fork_spawn

# -- status ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 7, 126, 127, 137, 255])
def test_the_childs_status_is_ours(status: int) -> None:
    """Every exit status from 0 to 255 comes through."""
    with running("--", "sh", "-c", f"exit {status}") as run:
        assert run.end() == status


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGINT])
def test_a_death_by_signal_is_128_and_its_number(signum: int) -> None:
    """A child that a signal kills is told as a shell tells it."""
    with running("--", "sh", "-c", f"kill -{signum:d} $$") as run:
        assert run.end() == 128 + signum


def test_what_is_not_there_is_127_and_what_cannot_run_is_126(tmp_path: Path) -> None:
    """Not found and not executable have a shell's statuses, one sentence each, and no traceback."""
    for name, text, mode in (
        ("plain", "x", 0o644),
        ("broken", "#!/no/such", 0o755),
        ("headless", "x", 0o755),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    for program, status, word in (
        ("no-such-program", 127, "not found"),
        (f"{tmp_path}/none", 127, "not found"),
        (f"{tmp_path}/broken", 127, "interpreter"),
        ("", 127, "empty"),
        (f"{tmp_path}/plain", 126, "not executable"),
        (f"{tmp_path}/headless", 126, "#!"),
        (str(tmp_path), 126, "directory"),
    ):
        with running("--", program) as run:
            assert run.end() == status, program
            assert word in run.err
            assert run.err.count("\n") == 1


def test_nothing_is_started_when_one_of_several_is_not_there() -> None:
    """Programs are looked up before the first is started."""
    with running("sh", "-c", "echo started", ":::", "no-such-program") as run:
        assert run.end() == 127
        assert run.out == []


def test_exit_statuses_can_be_mapped_but_a_killing_is_no_success() -> None:
    """--map-exit 143:0 makes a stop a success; whoever was killed is never reported as 0."""
    for option, signum, expected in (("143:0", 15, 0), ("137:0", 9, 137), ("137:5", 9, 5)):
        with running("--map-exit", option, "--", "sh", "-c", f"kill -{signum} $$") as run:
            assert run.end() == expected


# -- signals --------------------------------------------------------------------------------------------------

FORWARDED = [
    getattr(signal, "SIG" + name)
    for name in (
        *("HUP", "QUIT", "USR1", "USR2", "ALRM", "WINCH", "CONT", "TSTP", "URG", "IO", "PWR", "VTALRM"),
        *("PROF", "RTMIN", "RTMAX"),
    )
]


@pytest.mark.parametrize("scope", ["group", "main", "main-then-group"])
def test_signals_are_forwarded(scope: str) -> None:
    """Whatever is no stop is passed on, once, and the child goes on."""
    with running("--signal-to", scope, "--", *python(TELLS)) as run:
        run.wait_for("ready")
        for signum in FORWARDED:
            run.signal(signum)
            run.wait_for(f"got {signum:d}")
        assert run.out[1:] == [f"got {signum:d}" for signum in FORWARDED]
        assert run.process.poll() is None


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_arrives_as_it_was_sent(signum: int) -> None:
    """The child gets the very signal that we got, and decides the status."""
    with running("--", *cleans_up(status=3)) as run:
        run.wait_for("ready")
        assert run.stop(signum) == 3
        assert run.out[1:] == [f"stopped by {signal.Signals(signum).name}", "cleaned up"]


def test_a_signal_can_be_rewritten_or_dropped() -> None:
    """--rewrite TERM:QUIT sends another one; USR1:0 sends none; real-time signals have names."""
    rewrites = ["--rewrite", "TERM:QUIT", "--rewrite", "USR1:0", "--rewrite", "RTMIN+3:SIGUSR2"]
    with running(*rewrites, "--", *python(TELLS)) as run:
        run.wait_for("ready")
        run.signal(signal.SIGUSR1)
        run.signal(signal.SIGRTMIN + 3)
        run.wait_for(f"got {signal.SIGUSR2:d}")
        run.signal(signal.SIGTERM)
        run.wait_for(f"got {signal.SIGQUIT:d}")
        assert f"got {signal.SIGUSR1:d}" not in run.out
        assert f"got {signal.SIGTERM:d}" not in run.out


def test_a_stop_can_be_dropped() -> None:
    """--rewrite TERM:0: not forwarded, and no stop begins."""
    with running("--rewrite", "TERM:0", "--grace", "0.3", "--", *python(TELLS)) as run:
        run.wait_for("ready")
        run.signal(signal.SIGTERM)
        run.signal(signal.SIGUSR1)
        run.wait_for(f"got {signal.SIGUSR1:d}")
        assert run.process.poll() is None


def test_another_signal_can_mean_stop() -> None:
    """--stop-on QUIT: an image whose STOPSIGNAL it is gets the whole treatment."""
    with running("--stop-on", "QUIT", "--grace", "1", "--", *python(STUBBORN.replace("TERM", "QUIT"))) as run:
        run.wait_for("ready")
        assert run.stop(signal.SIGQUIT) == 137


FAMILY = """\
"$@" &
trap 'echo main; sleep 0.3; echo main done; exit 0' TERM
wait
"""


def family(*rest: str) -> list[str]:
    """A shell that handles SIGTERM, and a program in its group."""
    return ["sh", "-c", FAMILY, "x", *rest]


def test_the_whole_group_is_told() -> None:
    """With --signal-to group everybody in it gets the signal at once, whatever main does with it."""
    with running("--signal-to", "group", "--", *family(*cleans_up())) as run:
        run.wait_for("ready")
        assert run.stop() == 0
        assert sorted(run.out[1:]) == ["cleaned up", "main", "main done", "stopped by SIGTERM"]
        assert run.out.index("stopped by SIGTERM") < run.out.index("main done")


@pytest.mark.parametrize("scope", ["tree", "main", "main-then-group"])
def test_main_first_and_the_rest_when_it_has_gone(scope: str) -> None:
    """The program alone is asked, as Celery and gunicorn want; what it leaves behind is told afterwards."""
    with running("--signal-to", scope, "--", *family(*cleans_up())) as run:
        run.wait_for("ready")
        assert run.stop() == 0
        assert run.out[1:] == ["main", "main done", "stopped by SIGTERM", "cleaned up"]


@pytest.mark.parametrize(("scope", "told"), [("main", False), ("main-then-group", True)])
def test_a_main_that_stays_keeps_the_signal_or_loses_its_group(scope: str, told: bool) -> None:
    """Main does not end: with `main` nobody else is asked; with `main-then-group` they are, at half time."""
    stubborn = ["sh", "-c", 'trap "" INT; "$@" & trap : TERM; while :; do wait; done', "x", *cleans_up()]
    with running("--signal-to", scope, "--grace", "2", "--", *stubborn) as run:
        run.wait_for("ready")
        assert run.stop() == 137
        assert ("cleaned up" in run.out) == told


# -- descendants ----------------------------------------------------------------------------------------------


def test_an_unfixed_shell_script_cleans_up() -> None:
    """The shell dies of the stop at once; the program behind it still gets all the time it needs."""
    with running("--", "sh", "-c", '"$@"; true', "entry.sh", *cleans_up(1)) as run:
        run.wait_for("ready")
        assert run.stop() == 143
        assert run.out[1:] == ["stopped by SIGTERM", "cleaned up"]
        assert run.seconds >= 1


def test_a_new_session_is_told_and_waited_for() -> None:
    """Who has left for another session is told when its parent has gone, and waited for."""
    with running("--", "sh", "-c", 'setsid "$@" & wait', "x", *cleans_up(0.5)) as run:
        run.wait_for("ready")
        assert run.stop() == 143
        assert run.out[1:] == ["stopped by SIGTERM", "cleaned up"]


DAEMON = """\
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        exec(os.environ["PROGRAM"])
    os._exit(0)
os.wait()
while not os.path.exists("go"):
    time.sleep(0.01)
os._exit(4)
"""


def test_a_daemon_is_told_and_waited_for_when_the_child_ends(tmp_path: Path) -> None:
    """The child has ended by itself; its double-forked daemon is told to stop, and its cleanup waited for."""
    program = CLEANS_UP.replace("SECONDS", "0.5").replace("STATUS", "0")
    with running("--", *python(DAEMON), env={"PROGRAM": program}, cwd=tmp_path) as run:
        run.wait_for("ready")
        (tmp_path / "go").touch()
        assert run.end() == 4
        assert run.out[1:] == ["stopped by SIGTERM", "cleaned up"]


def test_no_wait_all_leaves_with_the_child(tmp_path: Path) -> None:
    """--no-wait-all is what dumb-init does: the daemon stays behind."""
    program = CLEANS_UP.replace("SECONDS", "0").replace("STATUS", "0")
    with running("--no-wait-all", "--", *python(DAEMON), env={"PROGRAM": program}, cwd=tmp_path) as run:
        run.wait_for("ready")
        (tmp_path / "go").touch()
        assert run.end() == 4
        assert is_alive(run.pids()[0])
        assert len(run.out) == 1


ORPHANS = """\
import os, signal
for _ in range(COUNT):
    pid = os.fork()
    if pid == 0:
        os.fork()
        os._exit(0)
    os.waitpid(pid, 0)
print(f"ready {os.getpid()}", flush=True)
signal.pause()
"""


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.nightly)])
def test_orphans_are_reaped_at_once(count: int) -> None:
    """However many double-forked orphans there are, none stays a zombie while the child lives."""
    with running("--", *python(ORPHANS.replace("COUNT", str(count)))) as run:
        run.wait_for("ready")
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
        wait_until(lambda: children.read_text().split() == [str(run.pids()[0])], "all orphans to be reaped")
        assert run.stop() == 143


# -- the budget -----------------------------------------------------------------------------------------------


def test_who_ignores_the_stop_is_killed_in_time_and_the_callback_still_runs() -> None:
    """SIGKILL comes early enough that --on-exit runs inside the grace period; the report names the killed."""
    with running("--grace", "2", "--on-exit", "echo good bye", "--", *python(STUBBORN)) as run:
        run.wait_for("ready")
        assert run.stop() == 137
        assert run.out[1:] == ["good bye"]
        assert run.seconds < 2 + LATE
        assert f"(pid {run.pids()[0]})" in run.err


@pytest.mark.parametrize("prefix", ["setsid", "env"])
def test_a_stubborn_descendant_is_killed_and_is_no_success(prefix: str) -> None:
    """The child exits 0, but somebody else, in its group or a new session, had to be killed: status 137."""
    script = f'{prefix} "$@" & trap "exit 0" TERM; wait'
    with running("--grace", "1", "--", "sh", "-c", script, "x", *python(STUBBORN)) as run:
        run.wait_for("ready")
        assert run.stop() == 137
        assert run.seconds < 1 + LATE
        assert not is_alive(run.pids()[0])


def test_repeated_stops_change_nothing() -> None:
    """A SIGTERM every few milliseconds reaches the child once."""
    with running("--", *cleans_up(1)) as run:
        run.wait_for("ready")
        for _ in range(50):
            run.signal(signal.SIGTERM)
            time.sleep(0.005)
        assert run.end() == 0
        assert run.out[1:] == ["stopped by SIGTERM", "cleaned up"]


NEWBORN = """\
import os, signal, time
def stop(signum, frame):
    os.write(1, f"told {os.getpid()}\\n".encode())
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
if os.fork() == 0:
    os.write(1, f"ready {os.getpid()}\\n".encode())
    while True:
        time.sleep(0.1)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
os.kill(os.getppid(), signal.SIGTERM)
signal.pause()
"""


def test_who_was_just_forked_hears_the_stop() -> None:
    """CPython forgets signals that reach a forked child before it runs: it is told when it is a little older, and once."""
    for _ in range(10):
        with running("--grace", "4", "--", *python(NEWBORN)) as run:
            assert run.end() == 143
            assert [line for line in run.out if line.startswith("told")] == [f"told {run.pids()[0]}"]


RAISED = """\
import signal, sys, time
def stop(signum, frame):
    sys.exit(3)
signal.signal(signal.SIGTERM, stop)
try:
    print("ready", flush=True)
    time.sleep(60)
finally:
    time.sleep(2.5)
    print("cleaned up", flush=True)
"""


def test_a_program_is_not_told_twice_however_young_it_is() -> None:
    """A second SIGTERM would be raised in its cleanup, and end it: none comes, at half time neither."""
    with running("--grace", "4", "--", "sh", "-c", '"$@"; true', "x", *python(RAISED)) as run:
        run.wait_for("ready")
        run.stop()
        assert run.out == ["ready", "cleaned up"]


def test_ctrl_c_again_ends_the_patience() -> None:
    """A second SIGINT, more than a second later, kills at once what the first only asked."""
    with running("--grace", "60", "--on-exit", "echo good bye", "--", *python(STUBBORN)) as run:
        run.wait_for("ready")
        run.signal(signal.SIGINT)
        run.signal(signal.SIGINT)  # a duplicate
        time.sleep(1.2)  # what the contract calls a duplicate is over
        assert run.process.poll() is None
        assert run.stop(signal.SIGINT) == 137
        assert run.seconds < 20
        assert run.out[1:] == ["good bye"]


def test_draining_comes_before_asking() -> None:
    """--drain waits before the child is asked, and takes that from the grace period."""
    with running("--drain", "0.7", "--grace", "5", "--", *cleans_up()) as run:
        run.wait_for("ready")
        run.signal(signal.SIGTERM)
        run.wait_for("stopped")
        assert time.monotonic() - run.began >= 0.7
        assert run.end() == 0


def test_a_suspended_child_takes_the_stop() -> None:
    """A child that was stopped with SIGSTOP is continued, so that it can clean up."""
    with running("--", *cleans_up()) as run:
        run.wait_for("ready")
        os.kill(run.pids()[0], signal.SIGSTOP)
        assert run.stop() == 0


def test_the_environment_sets_the_grace_period() -> None:
    """CLEANUP_GUARD_GRACE wins over --grace, and a guard in the child learns its share of it."""
    show = "import os; print('share', os.environ['CLEANUP_GUARD_GRACE'])\n" + STUBBORN
    with running("--grace", "60", "--", *python(show), env={"CLEANUP_GUARD_GRACE": "1"}) as run:
        run.wait_for("ready")
        assert run.stop() == 137
        assert run.seconds < 30
        assert run.out[0] == "share 0.81"


# -- callbacks ------------------------------------------------------------------------------------------------


def test_callbacks_run_in_order_after_the_last_descendant() -> None:
    """Each --on-exit runs once, in order, when nobody is left; words need no shell, pipes get one."""
    callbacks = ["--on-exit", "echo 'one  1'", "--on-exit", "echo two | cat"]
    with running(*callbacks, "--", "sh", "-c", '"$@"; true', "x", *cleans_up(0.5)) as run:
        run.wait_for("ready")
        assert run.stop() == 143
        assert run.out[1:] == ["stopped by SIGTERM", "cleaned up", "one  1", "two"]


def test_a_failing_callback_is_told_and_fails_a_success() -> None:
    """A callback that fails is named, a normal exit becomes 1, and the next callback runs all the same."""
    failing = ["--on-exit", "false", "--on-exit", "no-such-program"]
    with running(*failing, "--on-exit", "echo last", "--", "true") as run:
        assert run.end() == 1
        assert run.out == ["last"]
        assert "'false' failed with status 1" in run.err
        assert "'no-such-program' was not found" in run.err


def test_an_endless_callback_is_stopped_inside_the_grace_period() -> None:
    """A callback that does not end is stopped, so that the next has its turn before SIGKILL would come."""
    endless = ["--on-exit", "sleep 60", "--on-exit", "echo last"]
    with running("--grace", "2", *endless, "--", *cleans_up()) as run:
        run.wait_for("ready")
        assert run.stop() == 0
        assert run.seconds < 2 + LATE
        assert run.out[-1] == "last"
        assert "--on-exit number 1, 'sleep' was stopped: the grace period was over" in run.err


def test_callbacks_run_where_we_were_started(tmp_path: Path) -> None:
    """A relative path in --on-exit means what it meant on the command line."""
    with running("--on-exit", "pwd", "--", "true", cwd=tmp_path) as run:
        assert run.end() == 0
        assert run.out == [str(tmp_path)]


# -- what a child starts with ---------------------------------------------------------------------------------

IGNORED = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1)
BLOCKED = (signal.SIGUSR2, signal.SIGALRM)


def _dirty() -> None:
    for signum in IGNORED:
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)


def _masks(lines: list[str]) -> dict[str, int]:
    return {
        line.split(":")[0]: int(line.split()[-1], 16) for line in lines if line[:6] in ("SigBlk", "SigIgn")
    }


def test_no_signal_state_and_no_descriptor_leaks_into_the_child() -> None:
    """Mask empty, nothing ignored, stdin the caller's, only fds 0 to 2."""
    reader, writer = os.pipe()
    script = "cat /proc/self/status; echo fds $(ls /proc/self/fd); cat"
    with running("--", "sh", "-c", script, stdin=reader, pass_fds=(writer,), preexec_fn=_dirty) as run:
        os.write(writer, b"from the caller\n")
        os.close(reader)
        run.wait_for("from the caller")
        masks = _masks(run.out)
        assert masks["SigBlk"] == 0
        assert masks["SigIgn"] & ~(0b11 << 31) == 0  # 32 and 33 are the C library's
        assert "fds 0 1 2 3" in run.out  # 3 is the folder that ls reads
        os.close(writer)
        assert run.stop() == 143


def test_signals_inherit_keeps_the_callers() -> None:
    """--signals inherit: what the caller blocked and ignored stays so."""
    with running("--signals", "inherit", "--", "cat", "/proc/self/status", preexec_fn=_dirty) as run:
        assert run.end() == 0
        masks = _masks(run.out)
        assert all(masks["SigIgn"] & 1 << signum - 1 for signum in IGNORED)
        assert masks["SigBlk"] == sum(1 << signum - 1 for signum in BLOCKED)


def _term_is_pending() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_stop_before_the_start_is_not_lost() -> None:
    """A stop that was kept pending while Python started counts: nobody is started, the callback runs."""
    with running("--on-exit", "echo good bye", "--", *cleans_up(), preexec_fn=_term_is_pending) as run:
        assert run.end() == 143
        assert run.out == ["good bye"]


def _hangup_is_pending_and_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    os.kill(os.getpid(), signal.SIGHUP)


@pytest.mark.parametrize(
    ("words", "pending"),
    [(["--rewrite", "TERM:0"], _term_is_pending), (["--stop-on", "HUP"], _hangup_is_pending_and_ignored)],
)
def test_a_stop_that_does_not_count_starts_everybody(words: list[str], pending: Callable[[], None]) -> None:
    """Pending when we start, but rewritten to nothing, or ignored by our caller: the child runs as if there were none."""
    with running(*words, "--", "echo", "ran", preexec_fn=pending) as run:
        assert run.end() == 0
        assert run.out == ["ran"]


def test_a_stop_while_python_starts_is_not_lost() -> None:
    """What the page advises: `env --block-signal=TERM` keeps a stop from the first instruction on until we can take it."""
    wrapper = ["env", "--block-signal=TERM"]
    if subprocess.run([*wrapper, "true"], check=False, capture_output=True).returncode:
        pytest.skip("env has no --block-signal here: GNU coreutils 8.31 or newer has")
    for _ in range(5):
        with running("--on-exit", "echo good bye", "--", "sleep", "60", wrapper=wrapper) as run:
            wait_until(partial(blocks_term, Path(f"/proc/{run.pid}/status")), "env to block it")
            assert run.stop() == 143
            assert run.out == ["good bye"]


def test_no_process_is_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system has no process or descriptor left: said as any other failed start, and nothing stays open."""

    def refuse() -> NoReturn:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    before = os.listdir("/proc/self/fd")
    for call in ("fork", "pipe"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, refuse)
            with pytest.raises(CannotStart, match="temporarily unavailable"):
                fork_spawn("/bin/true", ["true"], {}, prepare=lambda: None)
    assert os.listdir("/proc/self/fd") == before


def test_the_working_directory_is_not_pinned(tmp_path: Path) -> None:
    """We leave the folder that we were started in; the child stays there."""
    with running("--", *cleans_up(), cwd=tmp_path) as run:
        run.wait_for("ready")
        wait_until(lambda: os.readlink(f"/proc/{run.pid}/cwd") == "/", "the supervisor to leave")
        assert os.readlink(f"/proc/{run.pids()[0]}/cwd") == str(tmp_path)


def test_idle_costs_no_cpu() -> None:
    """Between signals no instruction is executed: one thread, and not one context switch in a second."""
    with running("--", *cleans_up()) as run:
        run.wait_for("ready")

        def switches() -> list[str]:
            lines = Path(f"/proc/{run.pid}/status").read_text().splitlines()
            return [line.split()[-1] for line in lines if "ctxt_switches" in line or "Threads" in line]

        def rests() -> bool:
            before = switches()
            time.sleep(0.2)
            return switches() == before

        wait_until(rests, "the supervisor to be at rest")
        before = switches()
        time.sleep(1)  # this second is what is measured
        assert switches() == before
        assert before[0] == "1"


def test_an_ignored_sigint_is_forwarded_all_the_same_when_it_is_sent_to_us() -> None:
    """In the background of a script SIGINT is ignored, which is about Ctrl-C: `kill -INT` is meant for us."""
    with running("--", *cleans_up(), preexec_fn=_dirty) as run:
        run.wait_for("ready")
        assert run.stop(signal.SIGINT) == 0
        assert "stopped by SIGINT" in run.out


def _sigchld_is_ignored() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def test_an_ignored_sigchld_costs_no_status() -> None:
    """A caller that ignores SIGCHLD would have the kernel throw statuses away: not for us."""
    with running("--", "sh", "-c", "exit 7", preexec_fn=_sigchld_is_ignored) as run:
        assert run.end() == 7


def test_pdeathsig_on_request() -> None:
    """--pdeathsig KILL: SIGKILL to the supervisor itself takes the child along."""
    with running("--pdeathsig", "KILL", "--", *python(STUBBORN)) as run:
        run.wait_for("ready")
        child = run.pids()[0]
        run.signal(signal.SIGKILL)
        wait_until(lambda: not is_alive(child), "the child's death")


FLOOD = """\
import os, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(5))
open("flooding", "w").close()
while True:
    os.write(1, b"x" * 4096)
"""


@pytest.mark.parametrize("options", [[], ["--prefix"]])
def test_output_that_nobody_reads_holds_up_nothing(options: list[str], tmp_path: Path) -> None:
    """A flood into a full pipe, labelled or not: the stop is passed on, and we end."""
    reader, writer = os.pipe()
    with running(
        *options, "--grace", "5", "--", *python(FLOOD), stdout=writer, stderr=writer, cwd=tmp_path
    ) as run:
        wait_until((tmp_path / "flooding").exists, "the flood")
        assert run.stop() == 5
        assert run.seconds < 5 + LATE
    os.close(reader)
    os.close(writer)


# -- wrong usage ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "word"),
    [
        ([], "program"),
        (["--"], "program"),
        (["--frobnicate", "x"], "--frobnicate"),
        (["--grace", "soon", "true"], "soon"),
        (["--grace", "-1", "true"], "-1"),
        (["--grace", "0", "true"], "0"),
        (["--grace"], "--grace"),
        (["--stop-signal", "FOO", "true"], "FOO"),
        (["--stop-signal", "KILLER=TERM", "true"], "KILLER"),
        (["--rewrite", "TERM", "true"], "TERM"),
        (["--rewrite", "RTMIN+99:TERM", "true"], "RTMIN+99"),
        (["--map-exit", "143:x", "true"], "x"),
        (["--map-exit", "143:256", "true"], "256"),
        (["--signal-to", "all", "true"], "all"),
        (["--when-one-exits", "restart", "true"], "restart"),
        (["--after", "web", "true"], "web"),
        (["--after", "web=true", "true"], "web"),
        (["--after", "a=b", "--after", "b=a", "--name", "a", "--name", "b", "true", ":::", "true"], "a, b"),
        (["--name", "a", "--name", "b", "true"], "b"),
        (["--name", "a", "--name", "a", "true", ":::", "true"], "a"),
        (["true", ":::"], ":::"),
        (["--procfile", "/no/such/file"], "/no/such/file"),
        (["--procfile", "Procfile", "true"], "true"),
        (["--drain", "10", "true"], "10"),
        (["--on-exit", "", "true"], "--on-exit"),
        (["--on-exit", "echo 's3cret", "true"], "--on-exit number 1"),
        (["--stop-on", "KILL", "true"], "KILL"),
        (["--stop-on", "CHLD", "true"], "CHLD"),
        (["--no-stop-on", "PIPE", "true"], "PIPE"),
        (["--rewrite", "STOP:TERM", "true"], "STOP"),
        (["--rewrite", "TTIN:TERM", "true"], "TTIN"),
        (["--stay", "--no-wait-all", "true"], "--stay"),
        (["--ready", "true", "true"], "NAME=TEXT"),
        (["--ready", "true=", "true"], "text"),
        (["--ready", "true=tcp:x", "true"], "tcp"),
        (["--ready", "true=tcp:65536", "true"], "65535"),
        (["--ready", "true=file:", "true"], "file"),
        (["--ready", "db=up", "true"], "db"),
        (["--map-exit", "9" * 5000 + ":0", "true"], "255"),
        (["--grace", "1e400", "true"], "1e400"),
        (["--stop-signal", "9" * 5000, "true"], "--stop-signal"),
        (["--prefix=yes", "true"], "--prefix"),
        (["--signals", "none", "true"], "none"),
    ],
)
def test_wrong_usage_is_one_sentence_with_the_word_and_status_2(words: list[str], word: str) -> None:
    """What makes no sense is said in one line that names the offending word; nothing is started."""
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert word in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_is_help() -> None:
    """--help goes to stdout, with status 0."""
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: cleanup-guard run")


@pytest.mark.parametrize("env", [{}, {"LC_CTYPE": "C", "A": "1"}, {"LC_CTYPE": "C.UTF-8"}])
def test_the_environment_is_the_callers(env: dict[str, str]) -> None:
    """But for the grace period that is told: Python's locale coercion adds nothing."""
    command = [sys.executable, "-m", "cleanup_guard", "run", "--", "/usr/bin/env"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    told = [line for line in done.stdout.splitlines() if not line.startswith("CLEANUP_GUARD_GRACE=")]
    assert sorted(told) == sorted(f"{name}={value}" for name, value in env.items())
