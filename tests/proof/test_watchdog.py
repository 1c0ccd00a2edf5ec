"""The suite cannot hang: pytest, in a child of its own, on tests that wait for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import CLEAN, wait_until

TESTS = Path(__file__).parent.parent

HANGS = {
    "a FIFO": """
def test_it(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    open(tmp_path / "fifo").read()
""",
    "a child that never says ready": """
def test_it():
    with subprocess.Popen(["sleep", "1000"], stdout=subprocess.PIPE) as child: child.stdout.readline()
""",
    "a fixture": """
@pytest.fixture
def never(): time.sleep(1000)
def test_it(never): pass
""",
    "deaf": """
def test_it():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "1000"])
    with open("pid", "w") as file: file.write(str(child.pid))
    while True: time.sleep(1000)
""",
    "a thread that is left": """
def test_it(): threading.Thread(target=time.sleep, args=[1000], name="left behind").start()
""",
}


ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
"""Others' plugins, where they are installed, take signals and time."""


def pytest_in_child(folder: Path, code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on one file, with the watchdog."""
    (folder / "test_file.py").write_text(
        "import os, pytest, signal, subprocess, threading, time, warnings\n" + code
    )
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-pwatchdog", *options, "test_file.py"],
        cwd=folder,
        env={**CLEAN, "PYTHONPATH": str(TESTS), "PYTHONDONTWRITEBYTECODE": "1", **ALONE},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.mark.parametrize("code", HANGS.values(), ids=HANGS)
def test_a_test_that_waits_for_ever_is_ended_with_all_stacks(code: str, tmp_path: Path) -> None:
    """Its name and the stacks of all threads are shown, and the run fails: by Ctrl-C, or killed with all it started."""
    deaf = ["--last-words=2"] if "SIG_IGN" in code else []
    done = pytest_in_child(tmp_path, code, "--patience=2", *deaf)
    assert done.returncode != 0
    what = "the end of the run" if "left behind" in code else "test_file.py::test_it"
    assert f"watchdog: {what} takes too long" in done.stdout
    assert "most recent call first" in done.stdout
    if "left behind" not in code:
        assert 'test_file.py", line' in done.stdout
    pid = tmp_path / "pid"
    assert ("watchdog: killed" in done.stdout) == (pid.exists() or "left behind" in code), done.stdout
    if pid.exists():
        wait_until(
            lambda: not Path(f"/proc/{pid.read_text()}").exists(), "the end of what the test had started"
        )


PEACE = """
def test_children():
    with pytest.raises(ChildProcessError): os.waitpid(-1, os.WNOHANG)

def test_threads_and_forks():
    assert threading.active_count() == 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pid = os.fork()
        if pid == 0: os._exit(0)
        os.waitpid(pid, 0)
    assert not caught

def test_signals():
    rang = []
    for name in ("SIGALRM", "SIGTERM", "SIGUSR1", "SIGCHLD"):
        assert signal.getsignal(getattr(signal, name)) == signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    end = time.monotonic() + 20
    while not rang and time.monotonic() < end: time.sleep(0.01)
    assert rang == [1]
    assert signal.set_wakeup_fd(-1) == -1

@pytest.mark.parametrize("number", range(5))
def test_each_has_its_own_time(number): time.sleep(0.7)
"""


def test_it_disturbs_no_test(tmp_path: Path) -> None:
    """No child, no thread, no signal of the runner's is taken, but SIGUSR2; the limit is each test's, not the run's."""
    done = pytest_in_child(tmp_path, PEACE, "--patience=3")
    assert done.returncode == 0, done.stdout
    assert "8 passed" in done.stdout
    assert "watchdog" not in done.stdout.replace("-pwatchdog", "")


CUT = """
def once(name): return not os.path.exists(name) and not os.mkdir(name)
def test_passes(): assert once("passes")
@pytest.mark.skipif(True, reason="not here")
def test_is_skipped(): pass
@pytest.mark.parametrize("name", ["a\\nname"])
def test_fails_the_first_time(name): assert not once("fails")
@pytest.fixture
def bad():
    yield
    assert not once("bad")
def test_whose_end_fails_the_first_time(bad): pass
def test_ends_the_first_run():
    if once("ends"): os.kill(os.getpid(), signal.SIGKILL)
def test_that_it_had_not_come_to(): pass
"""


def test_a_second_run_does_what_the_first_has_not_done(tmp_path: Path) -> None:
    """What failed, at its end, too, and what a run that was killed had not come to; and a third has nothing to do."""
    first, second, third = (
        pytest_in_child(tmp_path, CUT, "-psecond_chance", "--done=done", "-v") for _ in range(3)
    )
    assert first.returncode == -signal.SIGKILL
    assert (second.returncode, third.returncode) == (0, 0), second.stdout + third.stdout
    assert "4 passed, 2 deselected" in second.stdout
    assert "6 deselected" in third.stdout


def test_this_run_is_watched(pytestconfig: pytest.Config) -> None:
    """The plugin is there, in this very run."""
    assert pytestconfig.pluginmanager.has_plugin("watched")
    assert os.path.exists(TESTS / "watchdog.py")
