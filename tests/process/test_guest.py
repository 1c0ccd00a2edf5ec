"""Who installs a handler over ours has his way, and nobody dies of the default action before the callbacks have run."""

from __future__ import annotations

import signal

import pytest
from support import child, run

WAYS = {
    "kill": "os.kill(os.getpid(), signal.SIGTERM)",
    "killpg": "os.killpg(os.getpgid(0), signal.SIGTERM)",
    "raise_signal": "signal.raise_signal(signal.SIGTERM)",
    "alias": "again(signal.SIGTERM)",
}

# A signal just before a wait does not end that, and only a guard that holds another signal can help.
SPIN = """
def spin():
    while True: time.sleep(0.01)
"""

DIES = """
from signal import signal as install, raise_signal as again
def theirs(signum, frame):
    print("theirs", signal.getsignal(signum) is theirs, flush=True)
    install(signum, signal.SIG_DFL)
    {way}
def main():
    on_exit(print, "callback", flush=True)
    install(signal.SIGTERM, theirs)
    try:
        ready()
        spin()
    finally: print("unwound", flush=True)
"""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("guarded", ["guard(main)()", "main()"], ids=["guard", "on_exit"])
def test_a_handler_over_ours_that_dies_at_once(way: str, guarded: str) -> None:
    """It puts the default back and signals itself before anybody else has heard of it: main unwinds, nothing is lost."""
    ended = run(SPIN + DIES.format(way=WAYS[way]) + guarded, signal.SIGTERM, start_new_session=True)
    assert ended.out == ["theirs True", "unwound", "callback"], ended.err
    assert ended.status == 143


def test_a_default_that_was_left_for_the_second_signal() -> None:
    """The first is the handler's and cuts nothing; the second ends main, and the callbacks run."""
    code = """
def theirs(signum, frame):
    signal.signal(signum, signal.SIG_DFL)
    print("first", flush=True)
with guard() as g:
    g.callback(print, "callback", flush=True)
    signal.signal(signal.SIGTERM, theirs)
    ready()
    time.sleep(60)
"""
    with child(code) as started:
        started.signal(signal.SIGTERM)
        started.wait_for_line("first")
        started.signal(signal.SIGTERM)
        ended = started.end()
    assert ended.out == ["first", "callback"], ended.err
    assert ended.status == 143


def test_a_default_that_was_put_over_ours_and_never_used() -> None:
    """As `loop.remove_signal_handler` leaves it: a signal from outside runs the callbacks all the same."""
    code = """
with guard() as g:
    g.callback(print, "callback", flush=True)
    ready()
    found = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, callable(found), flush=True)
    time.sleep(60)
"""
    with child(code) as started:
        started.wait_for_line("True True")
        started.signal(signal.SIGTERM)
        ended = started.end()
    assert (ended.out, ended.status) == (["True True", "callback"], 143), ended.err


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_handler_of_a_loop_that_was_closed(loop: str) -> None:
    """Asyncio puts the default over ours, uvloop leaves its own there: the stop is ours again."""
    code = f"""
import asyncio, uvloop
async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, print, "theirs")
with guard() as g:
    g.callback(print, "callback", flush=True)
    {loop}.run(main())
    ready()
    time.sleep(60)
"""
    ended = run(code, signal.SIGTERM)
    assert (ended.out, ended.status) == (["callback"], 143), ended.err


def test_a_last_callback_may_die_of_the_signal() -> None:
    """It puts the default back when nothing is left to lose: that is its will, and no callback is lost."""
    ended = run(
        """
def die():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
with guard() as g:
    g.callback(die)
    g.callback(print, "callback", flush=True)
    ready()
"""
    )
    assert (ended.out, ended.status) == (["callback"], -signal.SIGTERM), ended.err


def test_a_handler_over_ours_that_calls_ours() -> None:
    """It has asked for what ours does: main unwinds, once."""
    ended = run(
        """
def theirs(signum, frame):
    print("theirs", flush=True)
    found(signum, frame)
with guard() as g:
    g.callback(print, "callback", flush=True)
    found = signal.signal(signal.SIGTERM, theirs)
    ready()
    time.sleep(60)
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["theirs", "callback"], 143), ended.err


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_ours_that_somebody_puts_back_after_the_guard(signum: signal.Signals) -> None:
    """As prompt_toolkit does: what was there before the guard does its work, and so does the next guard."""
    code = f"""
number = signal.{signum.name}
with guard():
    found = signal.signal(number, lambda *_: None)
for _ in range(2):
    signal.signal(number, found)
    with guard(hooks=()): pass
signal.signal(number, found)
ready()
time.sleep(60)
"""
    ended = run(code, signum)
    assert ended.status == -signum, ended.err


def test_a_guard_inside_a_program_with_on_exit_leaves_ctrl_c_to_the_program() -> None:
    """Ctrl-C ends the guard inside, and the program goes on, as with a guard alone; at its end `on_exit` keeps its promise."""
    code = """
on_exit(print, "on_exit", flush=True)
for number in range(2):
    try:
        with guard(grace=2) as g:
            g.callback(print, "callback", flush=True)
            if not number: ready()
            print("waits", number, flush=True)
            time.sleep(60)
    except KeyboardInterrupt: pass
time.sleep(3)
print("lives", flush=True)
"""
    with child(code) as started:
        for number in range(2):
            started.wait_for_line(f"waits {number}")
            started.signal(signal.SIGINT)
        ended = started.end()
    assert ended.out == ["waits 0", "callback", "waits 1", "callback", "lives", "on_exit"], ended.err
    assert ended.status == 0


RIGHT_BEFORE = """
import ctypes
from functools import partial
from operator import call
def before_a_long_call(signum):  # in C code alone: Python has no occasion to look for signals in between
    steps = [partial(ctypes.PyDLL(None).kill, os.getpid(), signum), partial(time.sleep, 60)]
    ready()
    list(map(call, steps))
"""


@pytest.mark.parametrize("guarded", [False, True], ids=["on_exit", "guard"])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGHUP], ids=["int", "hup"])
def test_theirs_is_heard_right_before_a_long_call(guarded: bool, signum: int) -> None:
    """Without us it comes when the call has ended. With us it must, because our thread makes the moment a longer one."""
    ended = run(
        f"""{RIGHT_BEFORE}
def theirs(*_): print("theirs", flush=True); sys.exit(3)
signal.signal({signum}, theirs)
if {guarded}:
    with guard(signals=[signal.SIGTERM]) as g:
        g.callback(print, "callback", flush=True)
        before_a_long_call({signum})
on_exit(print, "callback", flush=True)
before_a_long_call({signum})
"""
    )
    assert (ended.out, ended.status) == (["theirs", "callback"], 3), ended.err


def test_ctrl_c_is_heard_right_before_a_long_call() -> None:
    """The same for Python's own handler of Ctrl-C, which `on_exit` leaves in place."""
    ended = run(
        f"""{RIGHT_BEFORE}
on_exit(print, "callback", flush=True)
before_a_long_call(signal.SIGINT)
"""
    )
    assert (ended.out, ended.status) == (["callback"], -signal.SIGINT), ended.err


def test_a_ctrl_c_that_was_the_programs_is_no_stop_at_its_end() -> None:
    """`on_exit` leaves SIGINT to Python, and takes it for the cleanup: one that came before is not heard then."""
    code = """
def slow(): time.sleep(0.3)
on_exit(print, "callback", flush=True)
on_exit(slow)
try:
    ready()
    time.sleep(60)
except KeyboardInterrupt: print("went on", flush=True)
"""
    ended = run(code, signal.SIGINT)
    assert (ended.out, ended.err, ended.status) == (["went on", "callback"], "", 0)


def test_a_ctrl_c_that_was_the_programs_is_no_stop_of_a_later_guard() -> None:
    """It came when SIGINT was Python's: a guard that is entered afterwards, and wakes its watcher, takes it for nothing."""
    code = """
signal.signal(signal.SIGUSR1, lambda *_: None)
on_exit(print, "callback", flush=True)
try:
    ready()
    time.sleep(60)
except KeyboardInterrupt: print("went on", flush=True)
with guard():
    os.kill(os.getpid(), signal.SIGUSR1)  # the watcher sees all signals that have a handler
    time.sleep(0.3)
    print("worked", flush=True)
"""
    ended = run(code, signal.SIGINT)
    assert (ended.out, ended.err, ended.status) == (["went on", "worked", "callback"], "", 0)
