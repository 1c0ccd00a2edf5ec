"""`on_exit` in a child: it keeps its promise in the process that registered, where anything of Python's runs at the end."""

from __future__ import annotations

import os
import signal

import pytest
from run.supervised import is_alive
from support import Ended, child, run, wait_until

PROGRAM = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

def say(*words):  # one write: several processes speak
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def register():
    say("registered", os.getpid())
    on_exit(lambda pid=os.getpid(): say("callback", os.getpid()))

def task(number=0):
    return number

def main(method):
    context = multiprocessing.get_context(method)
"""

ENDS = {
    "process": """
    process = context.Process(target=register)
    process.start()
    process.join()
""",
    "raises": """
    def fail():
        register()
        sys.stderr = open(os.devnull, "w")
        raise ValueError
    process = context.Process(target=fail if method == "fork" else register)
    process.start()
    process.join()
""",
    "pool": """
    pool = context.Pool(2, initializer=register)
    pool.map(task, range(10))
    pool.close()
    pool.join()
""",
    "executor": """
    with ProcessPoolExecutor(2, mp_context=context, initializer=register) as executor:
        list(executor.map(task, range(10)))
""",
}

PARENTS = {
    "alone": "main(METHOD)",
    "on_exit": "register(); main(METHOD)",
    "guard": "guard(main)(METHOD)",
}


def last_lines(parent: str, method: str) -> str:
    """The last lines of a program."""
    return f"""
if __name__ == '__main__':
    ready()
    {PARENTS[parent].replace("METHOD", repr(method))}
"""


def check(ended: Ended) -> None:
    """Each process that registered has called back, as often as it registered."""
    registered = sorted(line.split()[1] for line in ended.out if line.startswith("registered"))
    called = sorted(line.split()[1] for line in ended.out if line.startswith("callback"))
    assert registered, ended
    assert called == registered, ended


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize("end", ENDS)
def test_a_child_that_ends_runs_its_own_callbacks(end: str, parent: str, method: str) -> None:
    """Multiprocessing's children skip atexit on 3.11 and 3.12: what does run there is used."""
    ended = run(f"{PROGRAM}{ENDS[end]}{last_lines(parent, method)}")
    assert ended.status == 0, ended
    check(ended)


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("parent", PARENTS)
def test_a_child_that_is_terminated_runs_its_own_callbacks(parent: str, method: str) -> None:
    """`Process.terminate` sends SIGTERM: in a child with `on_exit` that is a stop as any other."""
    code = f"""{PROGRAM}
    parent, child = context.Pipe()
    process = context.Process(target=wait, args=[child])
    process.start()
    parent.recv()
    process.terminate()
    process.join()
    say("status", process.exitcode)

def wait(pipe):
    register()
    pipe.send(1)
    time.sleep(60)

{last_lines(parent, method)}"""
    ended = run(code)
    assert ended.status == 0, ended
    check(ended)
    assert "status 143" in ended.out or "status -15" in ended.out, ended


@pytest.mark.parametrize("how", ["os._exit(0)", "return"])
def test_a_bare_fork_runs_what_it_registered_when_it_ends_as_python_does(how: str) -> None:
    """os._exit runs nothing, as the table of events says; a return does."""
    code = f"""
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def main():
    on_exit(say, "parent", os.getpid())
    pid = os.fork()
    if pid == 0:
        on_exit(say, "child", "callback")
        {how}
    else:
        os.waitpid(pid, 0)

ready()
main()
"""
    ended = run(code)
    assert ended.out.count("child callback") == (how == "return")
    assert sum(line.startswith("parent") for line in ended.out) == 1


@pytest.mark.parametrize("kind", ["pool", "executor", "process"])
def test_children_of_a_main_that_has_to_be_ended_are_told(kind: str) -> None:
    """A callback hangs until the grace period is over: the guard ends the process itself, and its children are no orphans."""
    code = f"""
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

def tell(_=None):
    os.write(1, f"pid {{os.getpid()}}\\n".encode())
    time.sleep(300)

@guard(grace=4)
def main():
    on_exit(time.sleep, 100)
    if {kind == "pool"}:
        pool = multiprocessing.Pool(2)
        pool.map_async(tell, range(20))
    elif {kind == "executor"}:
        executor = ProcessPoolExecutor(2)
        for _ in range(20): executor.submit(tell)
    else:
        for _ in range(2): multiprocessing.Process(target=tell).start()
    time.sleep(300)

if __name__ == "__main__":
    main()
"""
    with child("ready()\n" + code) as started:
        wait_until(lambda: sum(line.startswith("pid ") for line in started.out) == 2, "two children")
        started.signal(signal.SIGTERM)
        ended = started.end()
        pids = [int(line.split()[1]) for line in ended.out if line.startswith("pid ")]
        try:
            wait_until(lambda: not any(map(is_alive, pids)), "the end of the children")
        finally:
            for pid in filter(is_alive, pids):
                os.kill(pid, signal.SIGKILL)
        assert ended.status == 143, ended


@pytest.mark.parametrize("hook", ["before", "in_parent"])
def test_their_exception_is_not_lost_in_the_middle_of_a_fork(hook: str) -> None:
    """What a hook raises is printed and forgotten: their handler is called when `os.fork` has returned."""
    code = f"""
def stop(*_): sys.exit(7)
signal.signal(signal.SIGTERM, stop)

def trace(frame, event, arg):
    if frame.f_code.co_name == {hook!r} and frame.f_code.co_filename.endswith("forks.py"):
        sys.settrace(None)
        signal.raise_signal(signal.SIGTERM)

@guard
def main():
    on_exit(print, "callback", flush=True)
    ready()
    sys.settrace(trace)
    pid = os.fork()
    if pid == 0: os._exit(0)
    time.sleep(60)

main()
"""
    ended = run(code)
    assert ended.out == ["callback"]
    assert ended.status == 7
    assert "ignored" not in ended.err
