"""No fork warns because of us, counted under `-W always`: under `-W error` CPython up to 3.14 loses the warning."""

from __future__ import annotations

import signal
import sys

import pytest
from support import run

pytestmark = pytest.mark.skipif(sys.version_info < (3, 12), reason="older versions do not warn")

COUNT = """
import multiprocessing as mp, subprocess, warnings
warned = [0]
def show(message, category, *args, **kwargs):
    warned[0] += category is DeprecationWarning and "fork" in str(message)
warnings.showwarning = show
def fork():
    pid = os.fork()
    if pid == 0: os._exit(0)
    os.waitpid(pid, 0)
def forkpty():
    pid, fd = os.forkpty()
    if pid == 0: os._exit(0)
    os.waitpid(pid, 0)
    os.close(fd)
def mp_fork():
    process = mp.get_context("fork").Process(target=int)
    process.start()
    process.join()
def preexec_fn():
    subprocess.run(["true"], preexec_fn=lambda: None)
def count(kind):
    before = warned[0]
    for _ in range(10): kind()
    print(warned[0] - before, flush=True)
"""

KINDS = ["fork", "forkpty", "mp_fork", "preexec_fn"]

PLACES = {
    "main": ("ready()\n    count({kind})", "", [], 0),
    "callback": ("ready()\n    on_exit(count, {kind})", "", [], 0),
    "callback after a stop": (
        "on_exit(count, {kind})\n    ready()\n    time.sleep(60)",
        "",
        [signal.SIGTERM],
        143,
    ),
    "callback after Ctrl-C": (
        "on_exit(count, {kind})\n    ready()\n    time.sleep(60)",
        "",
        [signal.SIGINT],
        -2,
    ),
    "finally during a stop": (
        "try:\n        ready()\n        time.sleep(60)\n    finally: count({kind})",
        "",
        [signal.SIGTERM],
        143,
    ),
    "cooperative main after a stop": (
        "ready()\n    while not current_guard().wait(1): pass\n    count({kind})",
        "interrupt=False",
        [signal.SIGTERM],
        143,
    ),
    "a guard inside": ("ready()\n    with guard(): count({kind})", "", [], 0),
    "after a supervisor's child": (
        "ready()\n    from cleanup_guard import run\n    run(['true'])\n    count({kind})",
        "",
        [],
        0,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("body", "options", "signals", "status"), PLACES.values(), ids=PLACES)
def test_no_fork_warns_because_of_us(
    kind: str, body: str, options: str, signals: list[int], status: int
) -> None:
    """Ten forks of each kind, in main and in callbacks, before and after a stop: not one warning."""
    ended = run(
        f"""{COUNT}
@guard({", ".join(filter(None, ["grace=20", options]))})
def main():
    {body.format(kind=kind)}
main()
""",
        *signals,
        flags=["-W", "always"],
    )
    assert (ended.out, ended.status) == (["0"], status), ended.err


@pytest.mark.parametrize("kind", KINDS)
def test_nor_where_the_stop_is_somebody_elses(kind: str) -> None:
    """There no signal of ours is free to have main look afterwards; the watcher is back all the same."""
    ended = run(
        f"""{COUNT}
told = []
for each in (signal.SIGTERM, signal.SIGINT): signal.signal(each, lambda *_: told.append(1))
with guard(grace=20):
    ready()
    count({kind})
    print(threading.active_count(), flush=True)
    while not told: time.sleep(0.01)
""",
        signal.SIGTERM,
        flags=["-W", "always"],
    )
    assert (ended.out, ended.status) == (["0", "1"], 0), ended.err


def test_a_fork_beside_a_thread_of_the_program_does_warn() -> None:
    """What is counted is there to be counted: the program's own threads still warn."""
    ended = run(
        f"""{COUNT}
@guard
def main():
    threading.Thread(target=time.sleep, args=[60], daemon=True).start()
    ready()
    count(fork)
main()
""",
        flags=["-W", "always"],
    )
    assert ended.out == ["10"], ended.err


def test_the_watcher_is_back_after_each_fork() -> None:
    """Main goes from a fork straight into C code that never ends: the watcher takes over all the same."""
    ended = run(
        f"""{COUNT}
@guard(grace=3)
def main():
    on_exit(print, "callback", flush=True)
    for _ in range(5): fork()
    ready()
    fork()
    os.system("exec sleep 60")
main()
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["callback"], 143), ended.err


def test_a_fork_loses_no_signal_that_the_watcher_has_read() -> None:
    """It has read one, and is to end for a fork before it has looked at it: here each time, else one time in ten under load."""
    ended = run(
        f"""{COUNT}
from cleanup_guard._process.signals import WakeupPipe
def late(pipe, timeout, wait=WakeupPipe.wait):
    signums = wait(pipe, timeout)
    if signums: time.sleep(0.1)
    return signums
WakeupPipe.wait = late
@guard(grace=3)
def main():
    on_exit(print, "callback", flush=True)
    for _ in range(3): fork()
    ready()
    os.system("exec sleep 60")
main()
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["callback"], 143), ended.err
