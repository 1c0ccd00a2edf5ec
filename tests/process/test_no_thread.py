"""No thread can be started (RLIMIT_NPROC, the pids limit of a container): the handler itself sees to the stop."""

from __future__ import annotations

import signal

import pytest
from support import child, sleeps, wait_until

pytestmark = pytest.mark.one_python

NO_THREADS = """
import resource
def without_threads():
    # Root has no such limit: a real user id that is not root's has, once two capabilities are dropped. Files stay readable.
    if os.geteuid() == 0:
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        os.setresuid(54321, 0, 0)
        header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        libc.capget(header, data)
        for capability in (21, 24):  # CAP_SYS_ADMIN, CAP_SYS_RESOURCE
            data[0] &= ~(1 << capability)
        libc.capset(header, data)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    try: threading.Thread(target=int).start()
    except RuntimeError: return
    print("threads can be started", flush=True)
    ready()
    os._exit(0)
import queue, select, socket, subprocess, asyncio, traceback, logging
without_threads()
"""

BUSY = {
    "busy": "[sum(range(100)) for _ in range(10**9)]",
    "busy in the library": "import queue as q; a = q.Queue()\n    while True: a.put(1); a.get()",
}
WAITS = {
    "sleep": "time.sleep(60)",
    "event": "threading.Event().wait(60)",
    "queue": "queue.Queue().get(timeout=60)",
    "condition": "c = threading.Condition(); c.acquire(); c.wait(60)",
    "lock": "lock = threading.Lock(); lock.acquire(); lock.acquire(timeout=60)",
    "select": "select.select([os.pipe()[0]], [], [], 60)",
    "accept": "s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); s.settimeout(60); s.accept()",
    "guard.wait": "g.wait(60)",
}


def no_thread(body: str, *signums: int, head: str = "", asleep: bool = True) -> tuple[list[str], int, str]:
    """Run a program that cannot start a thread. Its grace period is longer than anybody waits here: its end helps nobody.

    Its main is signalled when it is asleep, unless it never is: right before a system call CPython looks for signals no
    more, and where there is no watcher nobody interrupts that call.
    """
    with child(head + NO_THREADS + body, env={"CLEANUP_GUARD_GRACE": "600"}) as started:
        if signums and asleep:
            wait_until(lambda: started.process.poll() is not None or sleeps(started.pid), "main to be asleep")
        started.signal(*signums)
        ended = started.end()
    if "threads can be started" in ended.out:
        pytest.skip("this user may start threads, whatever the limit")
    return ended.out, ended.status, ended.err


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
@pytest.mark.parametrize("wait", [*WAITS.values(), *BUSY.values()], ids=[*WAITS, *BUSY])
def test_a_stop_reaches_main_wherever_it_waits(wait: str, signum: int) -> None:
    """The callbacks run at once, although there is no watcher to help."""
    out, status, err = no_thread(
        f"""
with guard() as g:
    g.callback(print, "callback", flush=True)
    ready()
    {wait}
""",
        signum,
        asleep=wait in WAITS.values(),
    )
    assert (out, status) == (["callback"], 143 if signum == signal.SIGTERM else -signal.SIGINT), err


@pytest.mark.parametrize("wait", ["g.wait()", "g.wait(60)", "while not g.stopping: time.sleep(0.1)"])
def test_a_cooperative_main_sees_it(wait: str) -> None:
    """A main that looks for the stop itself is woken, and ends in its own time."""
    out, status, err = no_thread(
        f"""
with guard(interrupt=False) as g:
    g.callback(print, "callback", flush=True)
    ready()
    {wait}
    print("main", flush=True)
""",
        signal.SIGTERM,
    )
    assert (out, status) == (["main", "callback"], 143), err


@pytest.mark.parametrize("wait", ["time.sleep(60)", "queue.Queue().get(timeout=60)", "g.wait(60)"])
def test_on_stop_does_not_hold_the_stop_back(wait: str) -> None:
    """With an `on_stop` callback, for which there is no thread either, the stop still comes; the callback runs."""
    out, status, err = no_thread(
        f"""
with guard() as g:
    g.on_stop(print, "on_stop", flush=True)
    g.callback(print, "callback", flush=True)
    ready()
    {wait}
""",
        signal.SIGTERM,
    )
    assert (sorted(out), status) == (["callback", "on_stop"], 143), err


def test_on_exit_without_a_guard() -> None:
    """`on_exit` works, and its callbacks run on SIGTERM."""
    out, status, err = no_thread(
        'on_exit(print, "callback", flush=True)\nready()\ntime.sleep(60)\n', signal.SIGTERM
    )
    assert (out, status) == (["callback"], 143), err


@pytest.mark.parametrize("options", ["", "exit_timeout=5", "signals=()", "hooks=[print]"])
def test_main_enters_and_leaves(options: str) -> None:
    """Entering needs no thread, nor does leaving, with whatever options."""
    out, status, err = no_thread(
        f"""
ready()
with guard({options}) as g:
    g.callback(print, "one", flush=True)
    g.options(timeout=5).callback(print, "two", flush=True)
"""
    )
    assert status == 0, err
    assert [line for line in out if line in ("one", "two")] == ["two", "one"], err


def test_main_swallows_and_is_told_again() -> None:
    """A second SIGTERM tells main again that has swallowed the first: nobody else can."""
    out, status, err = no_thread(
        """
with guard() as g:
    g.callback(print, "callback", flush=True)
    try:
        ready()
        time.sleep(60)
    except SystemExit: print("swallowed", flush=True)
    signal.raise_signal(signal.SIGTERM)
    time.sleep(60)
""",
        signal.SIGTERM,
    )
    assert (out, status) == (["swallowed", "callback"], 143), err


def test_request_stop() -> None:
    """`request_stop` in main stops main."""
    out, status, err = no_thread(
        """
ready()
with guard() as g:
    g.callback(print, "callback", flush=True)
    g.request_stop("enough", status=3)
    time.sleep(60)
"""
    )
    assert (out, status) == (["callback"], 3), err


LOOPS = {
    "asyncio": ("asyncio.run(main())", "asyncio"),
    "trio": ("trio.run(main)", "trio"),
}


@pytest.mark.parametrize(("go", "module"), LOOPS.values(), ids=LOOPS)
def test_a_task_is_cancelled(go: str, module: str) -> None:
    """On an event loop the task is cancelled, and its async callbacks are awaited."""
    out, status, err = no_thread(
        f"""
async def callback(): await {module}.sleep(0); print("callback", flush=True)
async def main():
    async with guard() as g:
        g.callback(callback)
        ready()
        await {module}.sleep(60)
{go}
""",
        signal.SIGTERM,
        head=f"import {module}\n",
    )
    assert (out, status) == (["callback"], 143), err
