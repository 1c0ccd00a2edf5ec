"""Children of a guarded process: none runs the parent's callbacks, and each dies of SIGTERM as if there were no guard."""

from __future__ import annotations

import signal

import pytest
from support import run

WATCH = """
import multiprocessing as mp
def check(what, value):
    if not value: print("WRONG:", what, flush=True)
"""

FORKS = {
    "os.fork, _exit": """
pid = os.fork()
if pid == 0: os._exit(5)
check("status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5)
""",
    "os.fork, sys.exit": """
pid = os.fork()
if pid == 0: sys.exit(5)
check("status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5)
""",
    "os.fork, exception": """
pid = os.fork()
if pid == 0:
    sys.stderr = open(os.devnull, "w")
    raise ValueError
check("status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1)
""",
    "os.fork, SIGTERM": """
pid = os.fork()
if pid == 0:
    while True: time.sleep(1)
os.kill(pid, signal.SIGTERM)
check("status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -15)
""",
    "os.fork, SIGINT": """
reader, writer = os.pipe()
pid = os.fork()
if pid == 0:
    try:
        os.write(writer, b"x")
        while True: time.sleep(1)
    except KeyboardInterrupt: os._exit(7)
os.read(reader, 1)
os.kill(pid, signal.SIGINT)
check("status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7)
""",
    "os.fork in a thread": """
def work():
    pid = os.fork()
    if pid == 0: os._exit(5)
    check("status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5)
thread = threading.Thread(target=work)
thread.start()
thread.join()
""",
    **{
        f"multiprocessing {method}": f"""
context = mp.get_context("{method}")
done = context.Process(target=abs, args=[1]); done.start(); done.join()
check("exit", done.exitcode == 0)
child = context.Process(target=time.sleep, args=[60]); child.start()
child.terminate(); child.join(30)
check("terminate", child.exitcode == -15)
with context.Pool(2) as pool: check("pool", pool.map(abs, [-1, -2]) == [1, 2])
"""
        for method in ("fork", "forkserver", "spawn")
    },
    "ProcessPoolExecutor": """
from concurrent.futures import ProcessPoolExecutor
with ProcessPoolExecutor(2) as pool: check("pool", list(pool.map(abs, [-1, -2])) == [1, 2])
""",
    "preexec_fn": """
import subprocess
done = subprocess.run(["echo", "hello"], preexec_fn=lambda: None, capture_output=True)
check("echo", done.stdout == b"hello\\n")
""",
}


def indent(code: str, by: int = 4) -> str:
    return "".join(f"{' ' * by}{line}\n" for line in code.strip().splitlines())


@pytest.mark.parametrize("code", FORKS.values(), ids=FORKS)
@pytest.mark.parametrize("stopped", [False, True], ids=["return", "stop"])
def test_no_child_runs_its_parents_callbacks(code: str, stopped: bool) -> None:
    """However a child is forked and however it ends, the parent's callback runs once, in the parent."""
    ended = run(
        f"""{WATCH}
@guard(grace=20)
def main():
    me = os.getpid()
    on_exit(lambda: print("callback", os.getpid() == me, flush=True))
{indent(code)}
    ready()
    if {stopped}: time.sleep(60)
if __name__ == "__main__":
    main()
""",
        *([signal.SIGTERM] if stopped else []),
    )
    assert ended.out == ["callback True"]
    assert ended.status == (143 if stopped else 0)


@pytest.mark.parametrize("code", FORKS.values(), ids=FORKS)
def test_no_child_runs_the_callbacks_of_a_with_block(code: str) -> None:
    """As above, for `with guard()`, whose `__exit__` a fork child inherits with the stack."""
    ended = run(
        f"""{WATCH}
def main():
    me = os.getpid()
    with guard() as g:
        g.callback(lambda: print("callback", os.getpid() == me, flush=True))
{indent(code, 8)}
        ready()
if __name__ == "__main__":
    main()
"""
    )
    assert (ended.out, ended.status) == (["callback True"], 0)


def test_a_sigterm_right_after_fork_is_never_lost() -> None:
    """200 children that are signalled as soon as fork returns all die of SIGTERM."""
    ended = run(
        """
from collections import Counter
@guard
def main():
    statuses = Counter()
    for _ in range(200):
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        os.kill(pid, signal.SIGTERM)
        statuses[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])] += 1
    ready()
    print(dict(statuses))
main()
"""
    )
    assert (ended.out, ended.status) == (["{-15: 200}"], 0)


def test_a_child_shares_no_wakeup_fd_and_no_pipe_with_its_parent() -> None:
    """A signal that a fork child catches is not seen by the parent's guard, and the child inherits no descriptor of ours."""
    ended = run(
        """
@guard
def main():
    before = set(os.listdir("/proc/self/fd"))
    g = current_guard()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
        wakeup = signal.set_wakeup_fd(-1)
        fewer = len(os.listdir("/proc/self/fd")) < len(before)
        os._exit(1) if wakeup != -1 or not fewer else None
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), g.wait(0.5), g.stopping)
    ready()
main()
"""
    )
    assert "9 False False" in ended.out or ended.out == []
    assert ended.status == 0


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_multiprocessing_child_may_have_a_guard_of_its_own(method: str) -> None:
    """In a multiprocessing child `@guard` and `on_exit` work, on return and when `terminate()` ends it."""
    ended = run(
        f"""
import multiprocessing as mp
@guard
def guarded(queue, wait):
    on_exit(queue.put, "guard")
    queue.put("here")
    if wait: time.sleep(60)
def bare(queue, wait):
    on_exit(queue.put, "on_exit")
    queue.put("here")
    if wait: time.sleep(60)
@guard
def main():
    on_exit(print, "parent", flush=True)
    context = mp.get_context("{method}")
    for target in (guarded, bare):
        for wait in (False, True):
            queue = context.SimpleQueue()
            child = context.Process(target=target, args=[queue, wait])
            child.start()
            assert queue.get() == "here"
            if wait: child.terminate()
            child.join(60)
            print(queue.get() if not queue.empty() else "nothing", child.exitcode, flush=True)
    print("end", flush=True)
if __name__ == "__main__":
    main()
""",
        ready="end",
    )
    lines = ended.out
    assert lines == ["guard 0", "guard 143", "on_exit 0", "on_exit 143", "end", "parent"], ended.err


def test_children_started_in_a_callback_inherit_clean_signals() -> None:
    """What a callback starts has neither SIGTERM nor SIGINT ignored or blocked, whichever way it is started."""
    ended = run(
        """
import multiprocessing as mp, subprocess
script = "grep -E 'SigBlk|SigIgn' /proc/self/status"
def clean(text):
    masks = [int(line.split()[1], 16) for line in text.splitlines()]
    return len(masks) == 2 and not any(mask >> (each - 1) & 1 for mask in masks for each in (2, 15))
def callback():
    print(clean(subprocess.run(["sh", "-c", script], capture_output=True, text=True).stdout))
    print(clean(subprocess.run(["sh", "-c", script], capture_output=True, text=True, preexec_fn=lambda: None).stdout))
    print(clean(os.popen(script).read()))
    pid = os.fork()
    if pid == 0:
        lines = [line for line in open("/proc/self/status") if line.startswith(("SigBlk", "SigIgn"))]
        os._exit(0 if clean("".join(lines)) else 1)
    print(os.waitpid(pid, 0)[1] == 0)
    child = mp.get_context("fork").Process(target=time.sleep, args=[60])
    child.start()
    child.terminate()
    child.join(30)
    print(child.exitcode == -15)
@guard
def main():
    on_exit(callback)
    ready()
    time.sleep(60)
main()
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["True"] * 5, 143), ended.err


def test_a_group_that_is_stopped_together_cleans_up_once() -> None:
    """SIGTERM to the whole process group, children included, runs the parent's callbacks once and ends every child."""
    ended = run(
        """
import multiprocessing as mp
@guard
def main():
    children = [mp.get_context("fork").Process(target=time.sleep, args=[60]) for _ in range(3)]
    for child in children: child.start()
    def callback():
        for child in children: child.join(30)
        print("callback", [child.exitcode for child in children], flush=True)
    on_exit(callback)
    ready()
    os.killpg(0, signal.SIGTERM)
    time.sleep(60)
main()
"""
    )
    assert (ended.out, ended.status) == (["callback [-15, -15, -15]"], 143), ended.err


def test_a_child_leaves_no_context_manager_of_its_parents() -> None:
    """Not even by letting go of it, which closes the generator that it is."""
    ended = run(
        """
from contextlib import contextmanager
@contextmanager
def manager():
    try: yield
    finally: print("left", os.getpid() == parent, flush=True)

parent = os.getpid()
with guard() as g:
    g.enter_context(manager())
    pid = os.fork()
    if pid == 0: os._exit(0)
    os.waitpid(pid, 0)
    pid = os.fork()
    if pid == 0:
        on_exit(print, "the child's own")
        os._exit(0)
    os.waitpid(pid, 0)
    ready()
"""
    )
    assert (ended.out, ended.status) == (["left True"], 0)
