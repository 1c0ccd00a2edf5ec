"""`os.fork` at any moment: no warning because of us, and a child never runs its parent's callbacks."""

from __future__ import annotations

import signal
import sys

import pytest
from support import run

COUNT = """
import warnings
count = 0
def show(*args, **kwargs):
    global count
    count += 1
warnings.showwarning = show
def forks(times=1):
    for _ in range(times):
        pid = os.fork()
        if pid == 0: os._exit(0)
        os.waitpid(pid, 0)
"""

PLACES = {
    "main": "with guard(): forks(150)",
    "nested": "with guard(), guard(hooks=()): forks(150)",
    "on_exit": "on_exit(int)\nforks(150)",
    "callbacks with limits": "for _ in range(40):\n    with guard(hooks=(), exit_timeout=9) as g: g.callback(forks)",
    "generators": "@guard(hooks=())\ndef generate():\n    for _ in range(80): yield forks()\nlist(generate())",
    "tasks": """
import asyncio
async def main():
    async with guard(hooks=()):
        forks(100)
        async with guard(hooks=()) as g: g.callback(forks)
asyncio.run(main())
""",
    "subprocess": "import subprocess\nwith guard():\n    for _ in range(25): subprocess.run(['true'], preexec_fn=int)",
    "pool": "from multiprocessing import get_context\nwith guard():\n    for _ in range(10):\n"
    "        p = get_context('fork').Process(target=int); p.start(); p.join()",
}


@pytest.mark.parametrize("code", PLACES.values(), ids=PLACES)
def test_a_fork_in_a_guarded_process_warns_of_no_thread_of_ours(code: str) -> None:
    """Python 3.12 and later warn of forks beside threads: never because of ours. Counted under -W always."""
    ended = run(f"{COUNT}\nready()\n{code}\nprint(count)\n", flags=["-W", "always"])
    assert (ended.out, ended.status) == (["0"], 0), ended.err


def test_a_fork_after_a_stop_warns_of_no_thread_of_ours() -> None:
    """In a `finally` and in callbacks, while the watcher looks after the stop."""
    ended = run(
        COUNT
        + """
atexit.register(lambda: print(count, flush=True))
with guard(hooks=()) as g:
    for _ in range(20): g.callback(forks)
    g.on_stop(int)
    try:
        ready()
        time.sleep(60)
    finally: forks(20)
""",
        signal.SIGTERM,
        flags=["-W", "always"],
    )
    assert (ended.out, ended.status) == (["0"], 143), ended.err


RETURNS = """
me = os.getpid()
def who(): return "parent" if os.getpid() == me else "CHILD"
def tell(word): os.write(1, f"{word} in {who()}\\n".encode())
def fork():
    pid = os.fork()
    if pid: tell(f"status {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}")
"""

CHILDREN = {
    "a callback": """
with guard(hooks=()) as g:
    g.callback(tell, "first")
    g.callback(fork)
    g.callback(tell, "last")
""",
    "a callback of a nested guard": """
with guard(hooks=()) as g:
    g.callback(tell, "first")
    with guard(hooks=()) as inner:
        inner.callback(fork)
        inner.callback(tell, "last")
""",
    "an exit": """
with guard(hooks=()) as g:
    g.callback(tell, "first")
    g.push(lambda *_: fork())
    g.callback(tell, "last")
""",
    "a decorated function": """
@guard(hooks=())
def main():
    on_exit(tell, "first")
    on_exit(fork)
    on_exit(tell, "last")
main()
""",
    "the exit net": """
on_exit(tell, "first")
on_exit(fork)
on_exit(tell, "last")
""",
    "a task's callback": """
import asyncio
async def first(): tell("first")
async def main():
    async with guard(hooks=()) as g:
        g.callback(first)
        g.callback(fork)
        g.callback(tell, "last")
asyncio.run(main())
""",
    "a thread's callback": """
def work():
    with guard(signals=(), hooks=()) as g:
        g.callback(tell, "first")
        g.callback(fork)
        g.callback(tell, "last")
thread = threading.Thread(target=work)
thread.start()
thread.join()
""",
    "main, inside": """
with guard(hooks=()) as g:
    g.callback(tell, "first")
    g.callback(tell, "last")
    fork()
""",
    "a generator": """
@guard(hooks=())
def generate():
    on_exit(tell, "first")
    on_exit(tell, "last")
    yield fork()
list(generate())
""",
}


@pytest.mark.parametrize("code", CHILDREN.values(), ids=CHILDREN)
def test_a_child_that_returns_runs_none_of_its_parents_callbacks(code: str) -> None:
    """The child of a fork in a callback goes on as Python does, to its own end with status 0, and cleans up for nobody."""
    ended = run(RETURNS + "ready()\n" + code)
    if sys.version_info[:2] == (3, 12) and code == CHILDREN["the exit net"]:
        # 3.12 alone forbids every fork once main has ended. The callback that tried has failed, as any other may.
        assert (ended.out, ended.status) == (["last in parent", "first in parent"], 1)
        assert "callback fork failed: RuntimeError: can't fork at interpreter shutdown" in ended.err
        return
    assert ended.status == 0, ended.err
    assert sorted(ended.out) == ["first in parent", "last in parent", "status 0 in parent"], ended.err


@pytest.mark.parametrize("hook", ["callback", "on_stop"])
def test_neither_does_one_that_was_forked_during_a_stop(hook: str) -> None:
    """The same in a callback after SIGTERM, and in `on_stop`."""
    ended = run(
        RETURNS
        + f"""
with guard(hooks=()) as g:
    g.callback(tell, "first")
    g.{hook}(fork)
    g.callback(tell, "last")
    ready()
    time.sleep(60)
""",
        signal.SIGTERM,
    )
    assert ended.status == 143, ended.err
    told = [line for line in ended.out if not line.startswith("status")]
    assert sorted(told) == ["first in parent", "last in parent"], ended.err


def test_somebody_elses_signal_is_not_lost_at_the_end_of_a_fork() -> None:
    """It comes together with what has main look after the fork: a hook that is C code sends it, so nothing is in between."""
    ended = run("""
from functools import partial
told = []
for each in (signal.SIGTERM, signal.SIGINT): signal.signal(each, lambda *_: told.append(1))
with guard(grace=20) as g:
    g.callback(print, "callback", flush=True)
    os.register_at_fork(after_in_parent=partial(os.kill, os.getpid(), signal.SIGTERM))
    ready()
    pid = os.fork()
    if pid == 0: os._exit(0)
    os.waitpid(pid, 0)
    print(told, flush=True)
""")
    assert (ended.out, ended.status) == (["[1]", "callback"], 0), ended.err


def test_what_has_main_look_after_a_fork_is_no_stop() -> None:
    """However late it is tripped, where SIGTERM alone is ours: the watcher waits for it, and takes it for nothing else."""
    ended = run("""
from cleanup_guard._process.process import REGISTRY
on_exit(print, "callback", flush=True)
ready()
watch = REGISTRY.process.watch
trip = watch.resume_later([signal.SIGTERM])
for _ in range(20):
    watch.wake()
    time.sleep(0.02)
trip()
time.sleep(0.2)
print("main goes on", flush=True)
""")
    assert (ended.out, ended.status) == (["main goes on", "callback"], 0), ended.err


@pytest.mark.parametrize("theirs", ["", "SIGTERM", "SIGTERM, SIGINT"], ids=["ours", "theirs", "all theirs"])
def test_an_exception_waits_for_the_hooks_that_come_after_ours(theirs: str) -> None:
    """A signal that came during the fork is let in by our hook. What it raises would be lost in theirs, and leave it undone."""
    ended = run(f"""
from signal import SIGINT, SIGTERM
def theirs(*_): sys.exit(7)
for each in [{theirs}]: signal.signal(each, theirs)
os.register_at_fork(before=lambda: os.kill(os.getpid(), SIGTERM))  # after ours, which blocks signals
def hook():
    for _ in range(1000): str()
    print("hook is over", flush=True)
with guard(signals=[SIGTERM, SIGINT], grace=20, hooks=()) as g:
    g.callback(print, "callback", flush=True)
    os.register_at_fork(after_in_parent=hook)
    ready()
    if os.fork() == 0: os._exit(0)
    time.sleep(30)
""")
    wanted = 7 if theirs else 143
    assert (ended.out, ended.err, ended.status) == (["hook is over", "callback"], "", wanted)
