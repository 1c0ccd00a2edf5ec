"""On Windows the import does not fail, callbacks run, and what is missing says so, in children that believe to be there."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from pythons.pretend import preamble
from support import run

import cleanup_guard

WINDOWS = preamble("win32")

BREAK = signal.SIGTTIN
"""Here it has the number that SIGBREAK has on Windows."""

CTRL_C = (-signal.SIGINT, -1073741510 & 0xFF, 128 + signal.SIGINT)
"""Python's own death by Ctrl-C, the status that Windows has for it, as far as it fits here, or that of a take-over: nothing
but the signal itself ends a wait there, and if main may not be told at that moment it is taken over from."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux pretends to be Windows")


def test_nothing_that_windows_has_not_is_left_to_the_child() -> None:
    """The pretence holds: what every POSIX program uses is gone."""
    ended = run(
        """
import importlib
gone = [hasattr(os, name) for name in ("fork", "register_at_fork", "geteuid", "killpg", "O_NONBLOCK", "waitid")]
gone += [hasattr(signal, name) for name in ("SIGKILL", "SIGHUP", "pthread_kill", "pthread_sigmask", "sigtimedwait")]
for name in ("fcntl", "pwd", "grp", "resource", "termios", "pty"):
    try: importlib.import_module(name)
    except ImportError: gone.append(False)
    else: gone.append(True)
print(any(gone), signal.SIGBREAK, flush=True)
ready()
""",
        preamble=WINDOWS.replace("from cleanup_guard import *", ""),
    )
    assert ended.status == 0, ended.err
    assert "ready" in ended.out or not ended.out


def test_the_import_does_not_fail() -> None:
    """Every public name can be imported, and the pytest plugin, the command and `cleanup_guard.testing` as well."""
    ended = run(
        """
import cleanup_guard
for name in cleanup_guard.__all__: getattr(cleanup_guard, name)
for name in ("exec_into", "Supervisor", "Child", "run"): getattr(cleanup_guard, name)
from cleanup_guard import exec_into, Supervisor, Child, run
import cleanup_guard.testing, cleanup_guard._cli, cleanup_guard._pytest_plugin
ready()
""",
        preamble=f"import pytest  # whose own import there is not ours to test\n{WINDOWS}",
    )
    assert (ended.status, ended.err) == (0, "")


def modules() -> list[str]:
    folder = Path(cleanup_guard.__file__).parent
    return sorted(
        ".".join(("cleanup_guard", *path.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__")
        for path in folder.rglob("*.py")
        if path.name != "__main__.py"
    )


def test_a_module_that_cannot_be_imported_says_why() -> None:
    """Of the modules inside, each can be imported or says in one sentence what it needs; none fails for a missing name."""
    ended = run(
        f"""
import importlib
for name in {modules()!r}:
    try: importlib.import_module(name)
    except (NotImplementedError, AssertionError): pass
    except Exception as error: print(name, type(error).__name__, error, flush=True)
ready()
""",
        preamble=WINDOWS,
        ready="ready",
    )
    assert ended.status == 0
    assert ended.err == ""


MAIN = """
@guard
def main():
    on_exit(print, "first", flush=True)
    on_exit(print, "second", flush=True)
    ready()
    {body}
main()
print("after", flush=True)
"""

WAYS = {
    "return": ("pass", [], ["second", "first", "after"], 0),
    "exception": ("raise ValueError('mine')", [], ["second", "first"], 1),
    "sys.exit": ("sys.exit(5)", [], ["second", "first"], 5),
    "Ctrl-C": ("time.sleep(60)", [signal.SIGINT], ["second", "first"], -signal.SIGINT),
    "Ctrl-Break": ("time.sleep(60)", [BREAK], ["second", "first"], 128 + BREAK),
    "Ctrl-C, waiting for a lock": (
        "lock = threading.Lock(); lock.acquire(); lock.acquire()",
        [signal.SIGINT],
        ["second", "first"],
        -signal.SIGINT,
    ),
    # Sent at once, the kernel gives each to another thread, and the second may be there first.
    "Ctrl-C, Ctrl-Break": ("time.sleep(60)", [signal.SIGINT, BREAK], ["second", "first"], None),
    "raise_signal(SIGTERM)": (
        "signal.raise_signal(signal.SIGTERM); time.sleep(60)",
        [],
        ["second", "first"],
        143,
    ),
    "request_stop": (
        "from cleanup_guard import current_guard; current_guard().request_stop('lease lost', status=7); time.sleep(60)",
        [],
        ["second", "first"],
        7,
    ),
}


@pytest.mark.parametrize(("body", "signals", "out", "status"), WAYS.values(), ids=WAYS)
def test_callbacks_run_however_main_ends(
    body: str, signals: list[int], out: list[str], status: int | None
) -> None:
    """On return, exception, Ctrl-C and Ctrl-Break callbacks run once, last registered first."""
    ended = run(MAIN.format(body=body), *signals, preamble=WINDOWS)
    assert ended.out == out, ended.err
    allowed = {-signal.SIGINT: CTRL_C, None: (*CTRL_C, 128 + BREAK)}.get(status, (status,))
    assert ended.status in allowed, ended.err
    assert ("mine" in ended.err) == ("mine" in body)
    assert "AttributeError" not in ended.err
    assert "ImportError" not in ended.err


def test_a_stop_that_is_late_prepares_no_death_by_a_signal() -> None:
    """Shortly before the end of its time, what a death by the signal needs is loaded: there is none there."""
    body = "\n    with current_guard().shield(): time.sleep(60)"
    main = MAIN.replace("@guard", "@guard(grace=2)").format(body=body)
    ended = run(main, signal.SIGINT, preamble=WINDOWS)
    assert "SIGINT" in ended.err  # what the callbacks have time for is not the matter here
    assert "ImportError" not in ended.err


def test_ctrl_c_with_a_callback_that_hangs() -> None:
    """A second Ctrl-C interrupts the callback in progress; the others run."""
    ended = run(
        """
@guard
def main():
    on_exit(print, "last", flush=True)
    @on_exit
    def hang():
        threading.Timer(2.0, signal.raise_signal, [signal.SIGINT]).start()
        while True: time.sleep(0.01)
    ready()
    while True: time.sleep(0.05)  # there a Ctrl-C right before a long call ends it; here it would not
main()
""",
        signal.SIGINT,
        preamble=WINDOWS,
    )
    assert (ended.out, ended.status) == (["last"], ended.status), ended.err
    assert ended.status in CTRL_C


@pytest.mark.parametrize("loop", ["asyncio"])
def test_a_guarded_coroutine(loop: str) -> None:
    """Ctrl-C cancels an async main, whose async callbacks are awaited."""
    ended = run(
        f"""
import asyncio
async def bye():
    await asyncio.sleep(0)
    print("bye", flush=True)
@guard(run={loop!r})
async def main():
    on_exit(bye)
    ready()
    await asyncio.sleep(60)
main()
""",
        signal.SIGINT,
        preamble=WINDOWS,
    )
    assert (ended.out, ended.status) == (["bye"], ended.status), ended.err
    assert ended.status in CTRL_C


def test_multiprocessing_and_threads() -> None:
    """Threads that look at the guard leave, and nothing there needs a fork hook."""
    ended = run(
        """
@guard
def main():
    g = current_guard()
    def work():
        while not g.wait(1): pass
        print("worker left", flush=True)
    thread = threading.Thread(target=work); thread.start()
    on_exit(print, "callback", flush=True)
    on_exit(thread.join)
    ready()
    time.sleep(60)
main()
""",
        signal.SIGINT,
        preamble=WINDOWS,
    )
    assert (ended.out, ended.status) == (["worker left", "callback"], ended.status), ended.err
    assert ended.status in CTRL_C


MISSING = {
    "exec_into": "exec_into('true')",
    "Supervisor": "Supervisor()",
    "run": "run(['true'])",
    "rehearse": "from cleanup_guard.testing import rehearse; rehearse(['true'])",
}


@pytest.mark.parametrize(("name", "call"), MISSING.items(), ids=MISSING)
def test_what_is_missing_says_so_when_it_is_used(name: str, call: str) -> None:
    """`exec_into`, `Supervisor`, `run` and a rehearsal raise an error of one sentence that names the platform."""
    ended = run(
        f"""
from cleanup_guard import exec_into, Supervisor, run
ready()
try: {call}
except Exception as error: print(type(error).__name__, error, flush=True)
""",
        preamble=WINDOWS,
    )
    assert (ended.status, len(ended.out)) == (0, 1), ended.err
    assert ended.out[0].startswith("CannotRehearse" if name == "rehearse" else "NotImplementedError")
    assert name in ended.out[0]
    assert "Windows" in ended.out[0]


COMMANDS = {"exec": 126, "run": 126, "check": 3}


@pytest.mark.parametrize(("command", "status"), COMMANDS.items(), ids=COMMANDS)
def test_each_command_says_so_in_one_line(command: str, status: int) -> None:
    """The command ends with one sentence, without a traceback, and with its status for a program that was not started."""
    ended = run(
        f"""
ready()
from cleanup_guard._cli import main
sys.exit(main([{command!r}, "--", "true"]))
""",
        preamble=WINDOWS,
    )
    assert (ended.status, len(ended.err.splitlines())) == (status, 1)
    assert f"cleanup-guard {command}: " in ended.err
    assert "Windows" in ended.err
