"""The branches for macOS: no pidfd, no /proc, no prctl, no sigtimedwait, in children that believe to be there."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from pythons.pretend import preamble
from support import run

MACOS = preamble("darwin")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux pretends to be macOS")


def test_nothing_that_macos_has_not_is_left_to_the_child() -> None:
    """The pretence holds: pidfds, /proc, ctypes and sigtimedwait are gone."""
    ended = run(
        """
ready()
print([name for name in ("pidfd_open", "eventfd", "pipe2") if hasattr(os, name)], flush=True)
print([name for name in ("sigtimedwait", "pidfd_send_signal", "sigwaitinfo") if hasattr(signal, name)], flush=True)
import importlib
looks = [(open, "/proc/self/stat"), (os.listdir, "/proc"), (os.stat, "/proc/self"), (importlib.import_module, "ctypes")]
for look, at in looks:
    try: look(at)
    except (OSError, ImportError): pass
    else: print("it is there", flush=True)
""",
        preamble=MACOS,
    )
    assert (ended.status, ended.out) == (0, ["[]", "[]"]), ended.err


MAIN = """
import asyncio
@guard(grace={grace})
def main():
    me = os.getpid()
    on_exit(lambda: print("first", os.getpid() == me, flush=True))
    on_exit(print, "second", flush=True)
    {before}
    ready()
    {body}
main()
print("after", flush=True)
"""

SWALLOW = """
    while True:
        try: time.sleep(60)
        except BaseException: pass
"""

WAYS = {
    "return": ("pass", [], 0),
    "exception": ("raise ValueError('mine')", [], 1),
    "sys.exit": ("sys.exit(5)", [], 5),
    "SIGTERM": ("time.sleep(60)", [signal.SIGTERM], 143),
    "SIGINT": ("time.sleep(60)", [signal.SIGINT], -signal.SIGINT),
    "SIGTERM, SIGTERM": ("time.sleep(60)", [signal.SIGTERM, signal.SIGTERM], 143),
    "SIGTERM, waiting for a lock": (
        "lock = threading.Lock(); lock.acquire(); lock.acquire()",
        [signal.SIGTERM],
        143,
    ),
    "SIGTERM, waiting in a queue": ("import queue; queue.Queue().get()", [signal.SIGTERM], 143),
    "SIGTERM, swallowed": (SWALLOW, [signal.SIGTERM], 143),
    "request_stop": ("current_guard().request_stop('lease lost', status=7); time.sleep(60)", [], 7),
}


@pytest.mark.parametrize(("body", "signals", "status"), WAYS.values(), ids=WAYS)
def test_callbacks_run_however_main_ends(body: str, signals: list[int], status: int) -> None:
    """As everywhere: once, last registered first, with the table's status."""
    ended = run(MAIN.format(grace=5, before="", body=body), *signals, preamble=MACOS)
    assert (ended.out[:2], ended.status) == (["second", "first True"], status), ended.err
    assert ended.out[2:] == (["after"] if status == 0 else [])
    assert "FileNotFoundError" not in ended.err
    assert "ctypes" not in ended.err


def test_main_that_is_stuck_in_c_is_taken_over_from() -> None:
    """The watcher needs nothing that only Linux has."""
    ended = run(
        MAIN.format(grace=3, before="import hashlib", body="os.system('sleep 60 & echo $! >&2; wait')"),
        signal.SIGTERM,
        preamble=MACOS,
    )
    assert (ended.out, ended.status) == (["second", "first True"], 143), ended.err
    for word in ended.err.split("\n"):
        if word.isdecimal():
            os.kill(int(word), signal.SIGKILL)


def test_a_callback_that_hangs_is_interrupted_and_told() -> None:
    """An endless callback is interrupted before the grace period ends; the other runs."""
    ended = run(
        """
@guard(grace=3)
def main():
    on_exit(print, "last", flush=True)
    @on_exit
    def hang():
        while True: time.sleep(60)
    ready()
    time.sleep(60)
main()
""",
        signal.SIGTERM,
        preamble=MACOS,
    )
    assert (ended.out, ended.status) == (["last"], 143), ended.err
    assert "hang" in ended.err


def test_one_that_never_yields_ends_with_a_report() -> None:
    """A callback that swallows everything is named, the stacks are told, and the process ends in time."""
    ended = run(
        """
@guard(grace=3)
def main():
    on_exit(print, "never", flush=True)
    @on_exit
    def stubborn():
        while True:
            try: time.sleep(60)
            except BaseException: pass
    ready()
    time.sleep(60)
main()
""",
        signal.SIGTERM,
        preamble=MACOS,
    )
    assert ended.status == 143, ended.err
    assert "stubborn" in ended.err


FORK = """
pid = os.fork()
if pid == 0:
    try: time.sleep(60)
    finally: os._exit(9)
os.kill(pid, signal.SIGTERM)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print("child", status, flush=True)
"""


@pytest.mark.parametrize("stopped", [False, True], ids=["return", "stop"])
def test_forks(stopped: bool) -> None:
    """A child runs none of its parent's callbacks and dies of SIGTERM; the watcher is back in the parent."""
    code = "\n".join(f"    {line}" for line in FORK.strip().splitlines())
    ended = run(
        f"""
@guard(grace=5)
def main():
    on_exit(print, "callback", flush=True)
{code}
    ready()
    if {stopped}: time.sleep(60)
main()
""",
        *([signal.SIGTERM] if stopped else []),
        preamble=MACOS,
    )
    assert ended.status == (143 if stopped else 0), ended.err
    assert ended.out == ["callback"]


@pytest.mark.parametrize("inside", [False, True], ids=["bare", "in a guard"])
def test_exec_into(inside: bool) -> None:
    """The program is found, callbacks run, descriptors are closed by /dev/fd, and the exec comes last."""
    ended = run(
        f"""
leaked = os.dup(1)
os.set_inheritable(leaked, True)
code = "import os, sys; print('became', os.getpid() == int(sys.argv[1]), flush=True); os.write(int(sys.argv[2]), b'leaked')"
def become(): exec_into(sys.executable, "-c", code, str(os.getpid()), str(leaked))
def main():
    on_exit(print, "callback", flush=True)
    ready()
    become()
if {inside}: guard(main)()
else:
    ready()
    become()
""",
        preamble=MACOS,
    )
    assert ended.out == [*(["callback"] if inside else []), "became True"], ended.err
    assert "Bad file descriptor" in ended.err
    assert "leaked" not in ended.out


@pytest.mark.parametrize("body", ["await asyncio.sleep(60)", "time.sleep(60)"], ids=["waits", "blocks"])
def test_a_guarded_coroutine(body: str) -> None:
    """An async main is cancelled, or interrupted where it blocks the loop; its callbacks are awaited."""
    ended = run(
        f"""
import asyncio
async def bye():
    await asyncio.sleep(0)
    print("bye", flush=True)
@guard(run="asyncio", grace=5)
async def main():
    on_exit(bye)
    ready()
    {body}
main()
""",
        signal.SIGTERM,
        preamble=MACOS,
    )
    assert (ended.out, ended.status) == (["bye"], 143), ended.err


MISSING = {
    "Supervisor": "Supervisor()",
    "run": "run(['true'])",
    "rehearse": "from cleanup_guard.testing import rehearse; rehearse(['true'])",
}


@pytest.mark.parametrize(("name", "call"), MISSING.items(), ids=MISSING)
def test_what_needs_linux_says_so_when_it_is_used(name: str, call: str) -> None:
    """The names are there; using them is an error of one sentence."""
    ended = run(
        f"""
from cleanup_guard import Child, Supervisor, run
ready()
try: {call}
except Exception as error: print(type(error).__name__, error, flush=True)
""",
        preamble=MACOS,
    )
    assert (ended.status, len(ended.out)) == (0, 1), ended.err
    assert name in ended.out[0]
    assert "Linux" in ended.out[0]
    assert "macOS" in ended.out[0]


COMMANDS = {"run": 126, "check": 3}


@pytest.mark.parametrize(("command", "status"), COMMANDS.items(), ids=COMMANDS)
def test_each_command_that_needs_linux_says_so_in_one_line(command: str, status: int) -> None:
    """No traceback, and the status of a program that was not started."""
    ended = run(
        f"""
ready()
from cleanup_guard._cli import main
sys.exit(main([{command!r}, "--", "true"]))
""",
        preamble=MACOS,
    )
    assert (ended.status, len(ended.err.splitlines())) == (status, 1)
    assert f"cleanup-guard {command}: needs Linux" in ended.err


def test_the_command_exec() -> None:
    """`cleanup-guard exec` works on macOS."""
    ended = run(
        """
from cleanup_guard._cli import main
ready()
sys.exit(main(["exec", "--env", "A=b", "--", "sh", "-c", "echo $A; exit 3"]))
""",
        preamble=MACOS,
    )
    assert (ended.status, ended.out) == (3, ["b"]), ended.err
