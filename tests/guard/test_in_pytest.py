"""The pytest plugin: each test has an end of its own, and a SIGTERM tears fixtures down."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import CLEAN

pytestmark = pytest.mark.one_python

PREAMBLE = """
import os, signal, sys, threading, time
import pytest
from cleanup_guard import current_guard, guard, on_exit
LOG = []
CTRL_C = signal.getsignal(signal.SIGINT)
def stop():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
def note(word): print(word, flush=True)
@pytest.fixture(scope="session")
def session():
    on_exit(note, "the session's")
    yield
    note("session down")
@pytest.fixture
def fixture():
    on_exit(LOG.append, "the fixture's")
    yield
    LOG.append("fixture down")
    note("fixture down")
@guard
def main():
    current_guard().callback(LOG.append, "the program's")
    stop()
def test_before(session): on_exit(LOG.append, "the test's before")
"""

PLUGIN = "cleanup_guard._pytest_plugin"

ALL = ["the test's", "fixture down", "the fixture's"]
"""In this order."""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in a folder of its own."""
    monkeypatch.chdir(tmp_path)


def pytest_in_child(code: str, *options: str) -> tuple[int, str]:
    """Run pytest on one file. Returns its status and what it prints."""
    Path("test_file.py").write_text(PREAMBLE + code)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-sq",
            "-pno:cacheprovider",
            "-pno:ddtrace",
            *options,
            "test_file.py",
        ],
        env={**CLEAN, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout


def test_nothing_outlives_its_test() -> None:
    """Neither a callback nor a guard; those of the run stay where they are until its end."""
    status, output = pytest_in_child(f"""
def test_one(session, fixture):
    assert LOG == ["the test's before"]
    LOG.clear()
    on_exit(LOG.append, "the test's")
def test_two(session):
    assert LOG == {ALL}
    assert current_guard() is None  # the session's is not the test's
    thread = threading.Thread(target=on_exit, args=[LOG.append, "a thread's"])
    thread.start()
    thread.join()
def test_three():
    assert LOG == [*{ALL}, "a thread's"]
    assert signal.getsignal(signal.SIGINT) is CTRL_C
    assert threading.active_count() == 1
""")
    assert status == 0, output
    assert output.count("the session's") == 1, output
    assert output.index("session down") < output.index("the session's"), output


def test_a_callback_that_fails_fails_its_test() -> None:
    """And what the test itself says is not lost."""
    status, output = pytest_in_child("""
def test_fine(): on_exit(lambda: 1 / 0)
def test_bad():
    on_exit(lambda: 1 / 0)
    assert LOG == "its own"
def test_after(): pass
""")
    assert status == 1, output
    assert "2 failed, 2 passed" in output
    assert "ZeroDivisionError" in output
    assert "its own" in output


def test_a_guard_under_test_has_its_own_stop() -> None:
    """As often as it likes, whatever else the run has registered."""
    status, output = pytest_in_child("""
def test_it(session, fixture):
    on_exit(LOG.append, "the test's")
    for _ in range(3):
        LOG.clear()
        with pytest.raises(SystemExit) as stopped: main()
        assert stopped.value.code == 143
        assert LOG == ["the program's"]
def test_after(): assert LOG == ["the program's", "the test's", "fixture down", "the fixture's"]
""")
    assert status == 0, output
    assert output.count("the session's") == 1, output


PLACES = {
    "a test": "def test_it(session, fixture): stop()",
    "a test with callbacks": "def test_it(session, fixture):\n    on_exit(note, 'the test')\n    stop()",
    "a guard in a test": "def test_it(session, fixture): main()",
    "a fixture": "@pytest.fixture\ndef last(session, fixture): stop()\ndef test_it(last): pass",
    "a fixture's end": "@pytest.fixture\ndef last(session, fixture):\n    yield\n    os.kill(os.getpid(), 15)\n"
    "def test_it(last): pass",
}


@pytest.mark.parametrize("code", PLACES.values(), ids=PLACES)
def test_sigterm_tears_fixtures_down(code: str) -> None:
    """Where it comes, with a guard and without; no other test begins."""
    status, output = pytest_in_child(f"{code}\ndef test_after(): note('another test')")
    assert status == 128 + signal.SIGTERM, output
    for word in ("fixture down", "session down", "the session's"):
        assert output.count(f"{word}\n") >= 1, output
    assert output.count("the test\n") == code.count("'the test'"), output
    assert "another test" not in output
    assert "Traceback" not in output


def test_a_second_sigterm_cuts_a_fixtures_end() -> None:
    """One that hangs is not waited for."""
    status, output = pytest_in_child("""
@pytest.fixture
def hangs(session):
    yield
    note("hangs")
    os.kill(os.getpid(), signal.SIGTERM)
    stop()
def test_it(hangs): pass
""")
    assert status == 128 + signal.SIGTERM, output
    assert "hangs" in output


def test_sigterm_while_tests_are_collected() -> None:
    """Nothing is set up yet, but for what a module has registered."""
    status, output = pytest_in_child("on_exit(note, 'the module')\nstop()")
    assert status == 128 + signal.SIGTERM, output
    assert output.count("the module\n") == 1, output


def test_the_recipe() -> None:
    """What the page shows, as a user runs it."""
    folder = Path(__file__).parent.parent.parent / "examples" / "testing"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"-p{PLUGIN}", "-pno:cacheprovider", "test_app.py"],
        cwd=folder,
        env={**CLEAN, "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout


def test_what_a_test_forks_dies_of_sigterm() -> None:
    """As it does without us: multiprocessing's `terminate` means it."""
    status, output = pytest_in_child("""
import multiprocessing
def test_it():
    for _ in range(30):
        process = multiprocessing.get_context("fork").Process(target=time.sleep, args=[60])
        process.start()
        process.terminate()
        process.join()
        assert process.exitcode == -signal.SIGTERM
""")
    assert status == 0, output


def test_it_can_be_switched_off() -> None:
    """Then a SIGTERM kills, as it does without us."""
    status, output = pytest_in_child(
        "def test_it(): stop()", "-ktest_it", "-o", "cleanup_guard_sigterm=false"
    )
    assert status == -signal.SIGTERM, output
    assert "the session's" not in output


def test_somebody_elses_handler_stays() -> None:
    """A handler that is there before is theirs."""
    Path("conftest.py").write_text(
        "import signal\nsignal.signal(signal.SIGTERM, lambda *_: print('theirs', flush=True))\n"
    )
    status, output = pytest_in_child(
        "def test_it(): os.kill(os.getpid(), signal.SIGTERM)\ndef test_after(): note('another test')"
    )
    assert status == 0, output
    assert "theirs" in output
    assert "another test" in output
