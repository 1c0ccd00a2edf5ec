"""No file descriptor is free (EMFILE): callbacks run, stops are heard, and the process ends."""

from __future__ import annotations

import signal

import pytest
from support import run

FULL = """
import resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
taken = []
def take_all():
    try:
        while True: taken.append(os.dup(0))
    except OSError: pass
def give_back():
    for fd in taken: os.close(fd)
    taken.clear()
def say(word): os.write(1, word.encode() + b"\\n")
import asyncio, trio
"""

OPTIONS = ["", "exit_timeout=5", "hooks=[print]", "grace=5"]


@pytest.mark.parametrize("options", [each for each in OPTIONS if "grace" not in each])
@pytest.mark.parametrize("limit", ["g", "g.options(timeout=5)"])
def test_a_thread_leaves_its_guard(options: str, limit: str) -> None:
    """A thread's guard, with or without time limits: its callbacks run, and main can end."""
    ended = run(
        FULL
        + f"""
ready()
def work():
    try:
        with guard(signals=(), {options}) as g:
            g.callback(say, "first")
            take_all()
            {limit}.callback(say, "last")
    except OSError as error: say(repr(error))
    finally: give_back()
thread = threading.Thread(target=work)
thread.start()
thread.join()
say("main ends")
"""
    )
    assert ended.status == 0, ended.err
    assert [line for line in ended.out if line in ("first", "last", "main ends")] == [
        "last",
        "first",
        "main ends",
    ], ended.err


@pytest.mark.parametrize("options", OPTIONS)
def test_main_leaves_its_guard(options: str) -> None:
    """The same for main."""
    ended = run(
        FULL
        + f"""
ready()
with guard({options}) as g:
    g.callback(say, "first")
    take_all()
    g.options(timeout=5).callback(say, "last")
give_back()
"""
    )
    assert ended.status == 0, ended.err
    assert [line for line in ended.out if line in ("first", "last")] == ["last", "first"], ended.err


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_a_stop(options: str, signum: int) -> None:
    """A stop is heard, and the callbacks run at once."""
    ended = run(
        FULL
        + f"""
with guard({options}) as g:
    g.callback(say, "first")
    g.on_stop(int)
    take_all()
    g.callback(say, "last")
    ready()
    time.sleep(60)
""",
        signum,
    )
    assert ended.status == (143 if signum == signal.SIGTERM else -signal.SIGINT), ended.err
    assert [line for line in ended.out if line in ("first", "last")] == ["last", "first"], ended.err
    assert ended.seconds < 9


def test_a_stop_in_the_exit_net() -> None:
    """The same at the end of the program."""
    ended = run(
        FULL
        + """
def slow():
    take_all()
    ready()
    time.sleep(0.5)
    say("slow")
on_exit(say, "first")
on_exit(slow)
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["slow", "first"], 143), ended.err


@pytest.mark.parametrize("what", ["entered", "decorated", "on_exit"])
def test_a_guard_that_cannot_be_entered_says_so_or_works(what: str) -> None:
    """Entering fails with one clear OSError and leaves nothing behind, or it succeeds; later guards are not affected."""
    enter = {
        "entered": "with guard(hooks=()) as g: g.callback(say, 'inside')",
        "decorated": "guard(hooks=())(say)('inside')",
        "on_exit": "on_exit(say, 'inside')",
    }[what]
    ended = run(
        FULL
        + f"""
ready()
take_all()
try:
    {enter}
except OSError: say("inside")
give_back()
if current_guard() is None: say(str(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL))
else: say("True")
with guard(hooks=()) as g:
    g.callback(say, "later")
    signal.raise_signal(signal.SIGTERM)
    time.sleep(60)
"""
    )
    assert sorted(ended.out) == ["True", "inside", "later"], ended.err
    assert ended.status == 143, ended.err


@pytest.mark.parametrize("go", ["asyncio.run(main())", "trio.run(main)"], ids=["asyncio", "trio"])
@pytest.mark.parametrize("stopped", [False, True], ids=["return", "stop"])
def test_a_task(go: str, stopped: bool) -> None:
    """A guard in a task: async callbacks are awaited."""
    module = go.split(".", maxsplit=1)[0]
    ended = run(
        FULL
        + f"""
async def say_it(word):
    await {module}.sleep(0)
    say(word)
async def main():
    async with guard(exit_timeout=5) as g:
        g.callback(say_it, "first")
        take_all()
        g.options(timeout=5).callback(say_it, "last")
        ready()
        if {stopped}: await {module}.sleep(60)
    give_back()
{go}
""",
        *([signal.SIGTERM] if stopped else []),
    )
    assert ended.out == ["last", "first"], ended.err
    assert ended.status == (143 if stopped else 0), ended.err
