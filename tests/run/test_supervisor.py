"""`Supervisor` and `run` inside programs: alone, in a guard, beside other children, in threads, around forks."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
from run.supervised import LATE, STUBBORN, cleans_up, is_alive, python
from support import PATIENCE, child, run, wait_until

import cleanup_guard
from cleanup_guard import Supervisor


def fds() -> set[str]:
    """What is open here."""
    return {fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")}


def test_children_are_observable_and_leave_nothing() -> None:
    """Pid, status, start and end are there to look at; afterwards no thread, descriptor or process is left."""
    threads, before = threading.active_count(), fds()
    with Supervisor() as s:
        one = s.start("sh", "-c", "exit 3", name="one")
        assert one.name == "one"
        assert s.wait() == 3
        assert (one.running, one.status, one.killed) == (False, 3, False)
        assert one.ended is not None
        assert one.ended >= one.started
        assert s.status == 3
    assert threading.active_count() == threads
    wait_until(
        lambda: fds() <= before, "the end of the watcher's pipe"
    )  # it stays a moment for the next guard
    assert not Path(f"/proc/{one.pid}").exists()


def test_leaving_stops_the_children_and_waits(tmp_path: Path) -> None:
    """Leaving the block asks the children and waits for their cleanup; `after` is the order."""
    log = tmp_path / "log"
    with log.open("wb") as file, Supervisor() as s:
        db = s.start(*cleans_up(), name="db", stdout=file)
        s.start(*cleans_up(0.3), name="web", after=[db], stdout=file)
        wait_until(lambda: log.read_text().count("ready") == 2, "both")
        with pytest.raises(TimeoutError):
            s.wait(0.01)
        assert s.status is None
    assert log.read_text().splitlines()[2:] == ["stopped by SIGTERM", "cleaned up"] * 2
    assert s.wait() == 0
    with pytest.raises(RuntimeError, match="stopp"):
        s.start("true")


def test_a_stubborn_child_is_killed_in_its_grace(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Who ignores the stop is killed, told, and never reported as 0; others in its group are, too."""
    log = tmp_path / "log"
    with log.open("wb") as file, Supervisor(grace=0.5) as s:
        one = s.start(
            "sh", "-c", '"$@" & trap "exit 0" TERM; wait', "x", *python(STUBBORN), name="one", stdout=file
        )
        wait_until(lambda: "ready" in log.read_text(), "it")
        s.stop()
        assert s.wait() == 137
    assert one.killed
    assert not is_alive(int(log.read_text().split()[1]))
    assert "one" in capfd.readouterr().err


def test_programs_that_cannot_start_raise_what_subprocess_raises(tmp_path: Path) -> None:
    """FileNotFoundError and PermissionError, and the supervisor goes on."""
    (tmp_path / "plain").touch()
    with Supervisor() as s:
        with pytest.raises(FileNotFoundError, match="no-such"):
            s.start("no-such-program")
        with pytest.raises(PermissionError, match="plain"):
            s.start(str(tmp_path / "plain"))
        assert s.start("true").name == "true"
        assert s.wait() == 0


def test_nobody_elses_child_is_reaped() -> None:
    """Children of subprocess and asyncio beside a supervisor keep their exit statuses."""

    async def other() -> int:
        process = await asyncio.create_subprocess_exec("sh", "-c", "exit 6")
        return await process.wait()

    with Supervisor(when_one_exits="wait") as s:
        for _ in range(10):
            s.start("sh", "-c", "exit 5")
            assert subprocess.run(["sh", "-c", "exit 7"], check=False).returncode == 7
        assert asyncio.run(other()) == 6
        pid = os.posix_spawn("/bin/true", ["true"], os.environ)
        assert s.wait() == 5
        assert os.waitpid(pid, 0) == (pid, 0)
    assert [each.status for each in s.children] == [5] * 10


def test_it_works_from_a_thread() -> None:
    """Started, waited for and left in a thread that is not main."""
    statuses: list[int] = []

    def work() -> None:
        with Supervisor() as s:
            s.start("sh", "-c", "exit 4")
            statuses.append(s.wait())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert statuses == [4]


def test_a_fork_beside_a_supervisor_warns_of_nothing_and_owns_nothing() -> None:
    """The thread steps aside around os.fork; the forked child neither stops nor waits for our children."""
    with Supervisor() as s:
        one = s.start("sleep", "60")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pid = os.fork()
        if pid == 0:
            s.close()
            os._exit(0 if is_alive(one.pid) else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert one.running
        os.kill(one.pid, signal.SIGKILL)
        assert s.wait() == 137


GUARDED = """\
@guard(grace=10)
def main():
    on_exit(print, "callback", flush=True)
    with Supervisor() as s:
        one = s.start(sys.executable, "-I", "-S", "-c", PROGRAM)
        WORK
main()
"""


def guarded(program: str, work: str) -> str:
    """A guarded main with one child."""
    return f"PROGRAM = {program!r}\n" + GUARDED.replace("WORK", work)


CLEANS = cleans_up(0.5)[-1].replace('f"ready {os.getpid()}"', '"ready"')


@pytest.mark.parametrize("work", ["s.wait()", "time.sleep(60)", "while True: sum(range(1000))"])
def test_the_guards_stop_stops_the_children_first(work: str) -> None:
    """SIGTERM to the program: the child cleans up, and then the callbacks run."""
    ended = run(guarded(CLEANS, work), signal.SIGTERM)
    assert ended.out == ["stopped by SIGTERM", "cleaned up", "callback"]
    assert ended.status == 143


def test_without_a_with_block_the_guard_still_stops_them() -> None:
    """A supervisor that is never left is closed by the guard, before the callbacks that were there first."""
    code = guarded(CLEANS, "s.wait()").replace("with Supervisor() as s:", "s = Supervisor()\n    if True:")
    ended = run(code, signal.SIGTERM)
    assert ended.out == ["stopped by SIGTERM", "cleaned up", "callback"]


def test_a_child_that_fails_ends_main() -> None:
    """A failing child is a stop for main, wherever main is, and its status is the process's."""
    program = "import sys, time; print('ready', flush=True); time.sleep(0.3); sys.exit(5)"
    with child(guarded(program, "time.sleep(60)")) as started:
        ended = started.end()
    assert ended.out == ["callback"]
    assert ended.status == 5


def test_a_stubborn_child_leaves_time_for_the_callbacks() -> None:
    """The guard's budget is shared: the child is killed early enough that callbacks still run."""
    program = STUBBORN.replace('f"ready {os.getpid()}"', '"ready"')
    ended = run(guarded(program, "s.wait()").replace("grace=10", "grace=2"), signal.SIGTERM)
    assert ended.out == ["callback"]
    assert ended.status == 143
    assert ended.seconds < 2 + LATE


# -- run ------------------------------------------------------------------------------------------------------


def test_run_is_like_subprocess_run(tmp_path: Path) -> None:
    """Capture, input, text, check, cwd and env give what subprocess.run gives."""
    ask: list[tuple[list[str], dict[str, object]]] = [
        (["cat"], {"input": "text", "text": True, "capture_output": True}),
        (["cat"], {"input": b"x" * 1_000_000, "capture_output": True}),
        (["true"], {"input": b"x" * 1_000_000}),
        (["sh", "-c", "echo out; echo err >&2; exit 3"], {"capture_output": True}),
        (["sh", "-c", "echo out; echo err >&2"], {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}),
        (["pwd"], {"cwd": tmp_path, "capture_output": True}),
        (
            ["sh", "-c", "echo $ONLY"],
            {"env": {"ONLY": "this", "PATH": os.environ["PATH"]}, "capture_output": True},
        ),
        (["echo"], {"stdout": subprocess.DEVNULL}),
        (["sh", "-c", "kill -9 $$"], {}),
    ]
    before = fds()
    for args, options in ask:
        theirs = subprocess.run(args, check=False, **options)  # type: ignore[call-overload]
        ours = cleanup_guard.run(args, **options)  # type: ignore[arg-type]
        assert vars(ours) == vars(theirs), args
    with pytest.raises(subprocess.CalledProcessError, match="status 3"):
        cleanup_guard.run(["sh", "-c", "exit 3"], check=True)
    with pytest.raises(FileNotFoundError, match="no-such"):
        cleanup_guard.run(["no-such-program"])
    with pytest.raises(FileNotFoundError):
        cleanup_guard.run(["true"], cwd=tmp_path / "nowhere")
    with pytest.raises(NotADirectoryError):
        cleanup_guard.run(["true"], cwd="/dev/null")
    with pytest.raises(TypeError, match="list of words"):
        cleanup_guard.run("echo hello")
    assert fds() == before


def test_months_are_no_limit_to_wait_for() -> None:
    """poll(2) takes 24 days at the most: a longer grace period or timeout is waited for in pieces."""
    months = 10_000_000
    with Supervisor(grace=months) as s:
        s.start("sleep", "60")
        assert cleanup_guard.run(["echo"], timeout=months, capture_output=True).stdout == b"\n"
        s.stop()
        assert s.wait(PATIENCE) == 143


def test_a_timeout_asks_before_it_kills() -> None:
    """What takes too long is asked, cleans up, and TimeoutExpired holds what it wrote until its end."""
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        cleanup_guard.run(cleans_up(), timeout=0.5, capture_output=True)
    assert b"cleaned up" in caught.value.output
    with pytest.raises(subprocess.TimeoutExpired):
        cleanup_guard.run(python(STUBBORN), timeout=0.5, grace=0.2, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_asks_the_program_that_main_runs(signum: int) -> None:
    """Where subprocess.run kills or abandons its child, ours cleans up before the guard's callbacks run."""
    code = f"""\
from cleanup_guard import run
@guard(grace=10)
def main():
    on_exit(print, "callback", flush=True)
    run([sys.executable, "-I", "-S", "-c", {CLEANS!r}])
main()
"""
    ended = run(code, signum)
    assert ended.out == ["stopped by SIGTERM", "cleaned up", "callback"]
    assert ended.status == (143 if signum == signal.SIGTERM else -signal.SIGINT)


def test_nobody_of_the_group_is_left() -> None:
    """Everything that a one-off program has started in its group is gone when `run` has been cut short."""
    script = '"$@" & trap "exit 0" TERM; wait'
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        cleanup_guard.run(
            ["sh", "-c", script, "x", *python(STUBBORN)], timeout=1, grace=0.3, capture_output=True
        )
    left = int(caught.value.output.split()[1])
    wait_until(lambda: not is_alive(left), "the end of who was killed")


ALONE = """\
import sys
from cleanup_guard import Supervisor
with Supervisor(grace=10) as s:
    s.start(sys.executable, "-I", "-S", "-c", PROGRAM)
    WORK
print("not reached", flush=True)
"""


@pytest.mark.parametrize("work", ["s.wait()", "time.sleep(60)"])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_without_a_guard_it_holds_its_own(work: str, signum: int) -> None:
    """A plain `with Supervisor()`: SIGTERM asks the child, waits for its cleanup, and ends the program as a guard does."""
    ended = run(f"PROGRAM = {CLEANS!r}\n" + ALONE.replace("WORK", work), signum)
    assert ended.out == ["stopped by SIGTERM", "cleaned up"]
    assert ended.status == (143 if signum == signal.SIGTERM else -signal.SIGINT)
    assert "Traceback" not in ended.err


def test_its_own_guard_leaves_nothing() -> None:
    """Handlers are what they were; a child that fails is told by `wait`, and ends nothing."""
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with Supervisor() as s:
        s.start("sh", "-c", "exit 3")
        assert s.wait() == 3
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before


READY = {
    "text": "import time; time.sleep(0.3); print('is re', end='', flush=True); time.sleep(0.1); print('ady', flush=True)",
    "file": "import time; time.sleep(0.3); open('sign', 'w').close()",
    "tcp": "import socket, time; time.sleep(0.3); s = socket.socket(); s.bind(('127.0.0.1', PORT)); s.listen()",
}


@pytest.mark.parametrize("kind", READY)
def test_who_comes_after_waits_until_the_other_is_ready(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ready`: a text in the output, which is passed on; a file; a port."""
    monkeypatch.chdir(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sign = {"text": "is ready", "file": "file:sign", "tcp": f"tcp:{port}"}[kind]
    program = (
        READY[kind].replace("PORT", str(port)) + "\nimport time\nopen('was', 'w').close()\ntime.sleep(60)"
    )
    before = fds()
    with (tmp_path / "log").open("wb") as log, Supervisor() as s:
        db = s.start(sys.executable, "-I", "-c", program, name="db", ready=sign, stdout=log)
        began = time.monotonic()
        s.start("true", after=[db])
        assert time.monotonic() - began > 0.2
        assert s.wait() == 0 or db.status == -signal.SIGTERM
    assert fds() == before
    if kind == "text":
        assert "is ready" in (tmp_path / "log").read_text()


def test_who_ends_before_it_is_ready_keeps_the_others_from_starting() -> None:
    """That is said, instead of waiting for ever; a sign that makes no sense is refused."""
    with Supervisor(when_one_exits="wait") as s:
        db = s.start("sh", "-c", "exit 3", name="db", ready="never")
        with pytest.raises(RuntimeError, match="'db' ended with 3 before it was ready"):
            s.start("true", after=[db])
        with pytest.raises(ValueError, match="port"):
            s.start("true", ready="tcp:none")
        assert s.wait() == 3


def test_a_fork_beside_a_supervisor_that_reads_output_warns_of_nothing() -> None:
    """The thread that looks for a text steps aside, too, and goes on afterwards."""
    code = "import sys\nfor line in sys.stdin: print('got', line, flush=True)"
    reader, writer = os.pipe()
    with Supervisor() as s:
        echo = s.start(sys.executable, "-I", "-c", code, ready="got second", stdin=reader)
        os.close(reader)
        os.write(writer, b"first\n")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pid = os.fork()
        if pid == 0:
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        os.write(writer, b"second\n")
        s.start("true", after=[echo])
        os.close(writer)


def test_descriptors_that_are_missing_cost_no_child() -> None:
    """EMFILE: an OSError, and nobody was started, or who was is gone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Supervisor() as s:
        here = max(map(int, fds())) + 1
        try:
            for limit in range(3, here + 4):
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
                try:
                    s.start("sleep", "60")
                except OSError:
                    continue
                break
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        mine = Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/children").read_text().split()
        assert [child.pid for child in s.children] == [int(pid) for pid in mine]


def test_absurd_numbers_are_no_overflow() -> None:
    """Seconds beyond what the system can count."""
    with Supervisor(grace=1e300) as s:
        s.start("true")
        assert s.wait(1e300) == 0
    assert cleanup_guard.run(["true"], timeout=1e300, grace=1e300).returncode == 0
