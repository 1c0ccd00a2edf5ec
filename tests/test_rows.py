"""Each row of the table of events, on a real process with real signals."""

from __future__ import annotations

import os
import shutil
import signal

import pytest
from support import GUESSED, child, run, swallowing, wait_until

TERM, INT = signal.SIGTERM, signal.SIGINT

THREE = """
@guard
def main():
    for name in "ABC":
        on_exit(print, name, flush=True)
    {body}
main()
"""


def three(body: str) -> str:
    return THREE.format(body=body)


WAITING = three("ready(); time.sleep(60)")


def pid1() -> list[str]:
    """The command that makes the child PID 1 of its own namespace, or a skip with the reason."""
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("needs root and util-linux's unshare to be PID 1 of a new namespace")
    return ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


# -- main ends by itself --


def test_return_runs_the_callbacks_last_registered_first() -> None:
    """When main returns the callbacks run in LIFO order, and the status is 0."""
    ended = run(three("ready()"))
    assert (ended.status, ended.out, ended.err) == (0, ["C", "B", "A"], "")


def test_an_exception_runs_the_callbacks_and_is_shown() -> None:
    """When main raises the callbacks run, the traceback is shown, and the status is 1."""
    ended = run(three("ready(); raise LookupError('lost')"))
    assert (ended.status, ended.out) == (1, ["C", "B", "A"])
    assert ended.err.count("LookupError: lost") == 1


@pytest.mark.parametrize("status", [0, 3, 255])
def test_sys_exit_keeps_its_status(status: int) -> None:
    """`sys.exit(n)` runs the callbacks and the status is n."""
    ended = run(three(f"ready(); sys.exit({status})"))
    assert (ended.status, ended.out) == (status, ["C", "B", "A"])


def test_the_return_value_comes_through() -> None:
    """A guarded function returns what it returns."""
    ended = run("@guard\ndef f(a, *, b): return a + b\nready(); print(f(1, b=2))")
    assert ended.out == ["3"]


# -- signals --


def test_sigterm() -> None:
    """SIGTERM: `finally` unwinds, then the callbacks run, then atexit; the parent sees 143."""
    body = "atexit.register(print, 'atexit')\n    try:\n        ready(); time.sleep(60)\n    finally: print('finally')"
    ended = run(three(body), TERM)
    assert (ended.status, ended.out) == (143, ["finally", "C", "B", "A", "atexit"])
    assert ended.err.startswith("cleanup_guard: SIGTERM received")
    assert ended.err.splitlines()[0].endswith(f", {GUESSED}")
    assert ended.err.splitlines()[-1].startswith("cleanup_guard: done after SIGTERM: 3 callbacks")
    assert "Traceback" not in ended.err


def test_sigint_dies_of_sigint_without_a_traceback() -> None:
    """Ctrl-C: the callbacks run, no traceback is shown, and the process dies of SIGINT, so that shells stop their loops."""
    ended = run(WAITING, INT)
    assert (ended.status, ended.out) == (-INT, ["C", "B", "A"])
    assert "Traceback" not in ended.err
    assert "KeyboardInterrupt" not in ended.err


@pytest.mark.parametrize(("signum", "status"), [(TERM, 143), (INT, 130)])
def test_as_pid_1_the_exit_code_says_it(signum: int, status: int) -> None:
    """PID 1 cannot die of its own signal: the exit code is 128 + n instead."""
    code = three("ready(); time.sleep(60)")
    with child(code, wrapper=pid1()) as started:
        inner = only_child(started.pid)
        os.kill(inner, signum)
        ended = started.end()
    assert (ended.status, ended.out) == (status, ["C", "B", "A"])


def only_child(pid: int) -> int:
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return int(children.read().split()[0])


@pytest.mark.parametrize("first", [TERM, INT])
def test_repeats_change_nothing(first: int) -> None:
    """SIGTERM again, any number of times during the cleanup, cuts nothing short and runs nothing twice."""
    code = """
@guard
def main():
    on_exit(print, "A", flush=True)
    def slow():
        print("slow begins", flush=True)
        for _ in range(40): time.sleep(0.01)
        print("slow ends", flush=True)
    on_exit(slow)
    ready(); time.sleep(60)
main()
"""
    with child(code) as started:
        started.signal(first)
        started.wait_for_line("slow begins")
        started.signal(*[TERM] * 50)
        ended = started.end()
    assert ended.status == (143 if first == TERM else -INT)
    assert ended.out == ["slow begins", "slow ends", "A"]


def test_sigint_after_sigterm_changes_nothing() -> None:
    """A first SIGINT after a SIGTERM does not interrupt a callback."""
    code = """
@guard
def main():
    def slow():
        print("slow begins", flush=True); time.sleep(0.5); print("slow ends", flush=True)
    on_exit(slow); ready(); time.sleep(60)
main()
"""
    with child(code) as started:
        started.signal(TERM)
        started.wait_for_line("slow begins")
        started.signal(INT)
        ended = started.end()
    assert (ended.status, ended.out) == (143, ["slow begins", "slow ends"])


INSIST = """
@guard(grace=60)
def main():
    on_exit(print, "A", flush=True)
    def slow():
        print("slow begins", flush=True)
        {body}
    on_exit(slow); ready(); time.sleep(60)
main()
"""


def test_a_guard_inside_a_callback_leaves_the_stop_to_the_guard_around() -> None:
    """A callback may call functions that are guarded themselves: they are not stopped, nor is the callback after them."""
    code = """
@guard
def helper():
    on_exit(print, "helper's callback")
    time.sleep(0.01)
def callback():
    helper()
    print("the callback goes on")
@guard
def main():
    on_exit(callback)
    ready()
    time.sleep(60)
main()
"""
    ended = run(code, TERM)
    assert (ended.out, ended.status) == (["helper's callback", "the callback goes on"], 143)
    assert "failed" not in ended.err


def test_a_guard_inside_a_finally_does_not_cut_it_short() -> None:
    """The stop is on its way through main already: a guarded function that `finally` calls does not raise it again."""
    code = """
@guard
def helper():
    on_exit(print, "helper's callback")
@guard
def main():
    on_exit(print, "main's callback")
    try:
        ready()
        time.sleep(60)
    finally:
        helper()
        print("the rest of finally")
main()
"""
    ended = run(code, TERM)
    assert (ended.out, ended.status) == (
        ["helper's callback", "the rest of finally", "main's callback"],
        143,
    )


def test_a_second_ctrl_c_interrupts_the_callback_in_progress() -> None:
    """A person insists: the callback in progress is interrupted, the others still run."""
    with child(INSIST.format(body="time.sleep(60)")) as started:
        started.signal(INT)
        started.wait_for_line("slow begins")
        press_until(started, lambda: "A" in started.out or started.process.poll() is not None, presses=2)
        ended = started.end()
    assert (ended.status, ended.out) == (-INT, ["slow begins", "A"])
    assert "Ctrl-C was pressed again" in ended.err


def test_a_third_ctrl_c_ends_the_process_at_once() -> None:
    """A third press exits at once, names what did not run, and the status is SIGINT's."""
    with child(INSIST.format(body=swallowing(8))) as started:
        started.signal(INT)
        started.wait_for_line("slow begins")
        press_until(started, lambda: started.process.poll() is not None, presses=3)
        ended = started.end()
    assert (ended.status, ended.out) == (-INT, ["slow begins"])
    assert "did not run: print" in ended.err


def test_duplicates_of_one_press_are_one() -> None:
    """Several SIGINTs within half a second, as a terminal and a wrapper both send them, are one press."""
    with child(INSIST.format(body='time.sleep(1); print("slow ends", flush=True)')) as started:
        started.signal(*[INT] * 5)
        ended = started.end()
    assert (ended.status, ended.out) == (-INT, ["slow begins", "slow ends", "A"])


def press_until(started: object, fact: object, presses: int) -> None:
    """Press Ctrl-C as a person does, more than half a second apart."""
    import time
    from collections.abc import Callable
    from typing import cast

    from support import Child

    pressed, keyboard = cast("Callable[[], bool]", fact), cast("Child", started)
    for _ in range(presses - 1):
        # Not a guess at how long something takes: two presses are two because more than 0.5 s lie between them.
        time.sleep(0.7)
        keyboard.process.send_signal(INT)
    wait_until(pressed, "the effect of Ctrl-C")


# -- failing callbacks --


def test_a_failing_callback_does_not_stop_the_others() -> None:
    """On a normal exit a callback's exception becomes a CleanupError, status 1; the others run."""
    ended = run(three("on_exit(int, 'x'); on_exit(print, 'D', flush=True); ready()"))
    assert (ended.status, ended.out) == (1, ["D", "C", "B", "A"])
    assert "cleanup_guard.CleanupError: 1 cleanup callback failed" in ended.err
    assert "cleanup_guard: callback int failed: ValueError: invalid literal" in ended.err


def test_cleanup_error_is_an_exception_group() -> None:
    """`except*` finds what callbacks raised, first failure first."""
    code = """
try:
    with guard(hooks=()) as g:
        g.callback(int, "x"); g.callback({}.pop, "k")
        ready()
except* KeyError as group: print("keys", len(group.exceptions))
except* ValueError as group: print("values", len(group.exceptions))
"""
    assert run(code).out == ["keys 1", "values 1"]


def test_after_a_signal_a_failing_callback_keeps_the_signals_status() -> None:
    """After SIGTERM a failing callback is logged with its traceback, and the status is still 143."""
    ended = run(three("on_exit(int, 'x'); ready(); time.sleep(60)"), TERM)
    assert (ended.status, ended.out) == (143, ["C", "B", "A"])
    assert "callback int failed: ValueError: invalid literal" in ended.err


@pytest.mark.parametrize("raised", ["sys.exit(7)", "raise KeyboardInterrupt"])
def test_a_callback_that_exits_does_not_stop_the_others(raised: str) -> None:
    """A callback's own `sys.exit` or KeyboardInterrupt goes on after all the others have run."""
    ended = run(three(f"\n    def leave(): {raised}\n    on_exit(leave); ready()"))
    assert ended.out == ["C", "B", "A"]
    assert ended.status == (7 if "exit" in raised else -INT)


# -- the deadline --

STUBBORN = f"""
def stuck():
    {swallowing(4)}
@guard(grace=2)
def main():
    on_exit(print, "A", flush=True)
    on_exit({{callback}})
    print("buffered")
    ready(); time.sleep(60)
main()
"""


@pytest.mark.parametrize("as_pid_1", [False, True])
def test_a_hanging_callback_is_interrupted_and_the_others_run(as_pid_1: bool) -> None:
    """When the grace period is nearly over the callback in progress is interrupted; the others have their turn."""
    with child(STUBBORN.format(callback="time.sleep, 60"), wrapper=pid1() if as_pid_1 else ()) as started:
        os.kill(only_child(started.pid) if as_pid_1 else started.pid, TERM)
        ended = started.end()
    assert (ended.status, ended.out) == (143, ["A"])
    assert "callback time.sleep interrupted" in ended.err


@pytest.mark.parametrize("as_pid_1", [False, True])
def test_a_callback_that_does_not_yield_is_reported_and_the_process_ends_itself(as_pid_1: bool) -> None:
    """Then the stacks of all threads and the callbacks that did not run go to stderr, before SIGKILL would come."""
    with child(STUBBORN.format(callback="stuck"), wrapper=pid1() if as_pid_1 else ()) as started:
        os.kill(only_child(started.pid) if as_pid_1 else started.pid, TERM)
        ended = started.end()
    assert (ended.status, ended.out) == (143, [])
    assert "giving up after" in ended.err
    assert "callback stuck is still running; did not run: print" in ended.err
    assert " in stuck" in ended.err
    assert "thread" in ended.err.lower()


def test_a_hanging_thread_after_the_cleanup_does_not_outlive_the_grace_period() -> None:
    """A non-daemon thread that never ends holds the interpreter; the process still ends itself, with the signal's status."""
    code = """
threading.Thread(target=time.sleep, args=(60,)).start()
@guard(grace=2)
def main():
    on_exit(print, "A", flush=True); ready(); time.sleep(60)
main()
"""
    ended = run(code, TERM)
    assert (ended.status, ended.out) == (143, ["A"])
    assert "no callback is left to run" in ended.err


def test_a_normal_exit_has_no_deadline() -> None:
    """Without a stop a callback may take longer than the grace period."""
    ended = run(
        "with guard(grace=0.2) as g:\n    g.callback(print, 'A'); g.callback(time.sleep, 0.6)\n    ready()"
    )
    assert (ended.status, ended.out) == (0, ["A"])


def test_a_normal_exit_has_a_deadline_if_asked() -> None:
    """`exit_timeout` interrupts what takes too long on a normal exit; the others run."""
    ended = run(
        "with guard(exit_timeout=0.3) as g:\n    g.callback(print, 'A'); g.callback(time.sleep, 60)\n    ready()"
    )
    assert (ended.status, ended.out) == (1, ["A"])
    assert "time limit for a normal exit" in ended.err


def test_a_callbacks_own_timeout() -> None:
    """`options(timeout=, name=)` interrupts that callback alone and reports it by its name."""
    ended = run(
        "with guard() as g:\n    g.callback(print, 'A')\n"
        "    g.options(timeout=0.2, name='flush').callback(time.sleep, 60)\n    ready()"
    )
    assert (ended.status, ended.out) == (1, ["A"])
    assert "callback flush interrupted" in ended.err
    assert "its timeout of 0.2 s is over" in ended.err


def test_the_environment_sets_the_grace_period() -> None:
    """CLEANUP_GUARD_GRACE wins over what the code says."""
    code = "with guard(grace=1) as g:\n    g.callback(lambda: print(30 < g.remaining() < 60))\n    ready(); time.sleep(60)"
    assert run(code, TERM, env={"CLEANUP_GUARD_GRACE": "60"}).out == ["True"]


# -- where main is --


@pytest.mark.parametrize(
    "waiting",
    [
        "time.sleep(60)",
        "threading.Event().wait()",
        "threading.Lock().acquire() and l.acquire()",
        "input()",
        "sys.stdin.read()",
        "os.read(os.pipe()[0], 1)",
        "signal.pause()",
        "import select; select.select([], [], [], 60)",
        "import queue; queue.Queue().get()",
        "import subprocess; subprocess.Popen(['sleep', '60']).wait()",
        "t = threading.Thread(target=time.sleep, args=(60,), daemon=True); t.start(); t.join()",
        "while True: pass",
        "while True: int('1')",
    ],
)
def test_the_stop_reaches_main_where_it_is(waiting: str) -> None:
    """A blocking call, a lock wait, `input()` or a busy loop ends at once when the stop arrives."""
    body = f"l = threading.Lock(); l.acquire()\n    ready()\n    {waiting.replace('threading.Lock().acquire() and ', '')}"
    reader, writer = os.pipe()
    try:
        ended = run(three(body), TERM, stdin=reader)
    finally:
        os.close(reader)
        os.close(writer)
    assert (ended.status, ended.out) == (143, ["C", "B", "A"])
    assert ended.seconds < 5  # of 10: the watcher's take-over did not have to help


def test_the_programs_own_shutdown_follows_the_guard() -> None:
    """Buffered output, atexit callbacks and `logging.shutdown` still happen, after the guard, in their usual order."""
    code = """
import logging, logging.handlers
target = logging.StreamHandler(sys.stdout)
buffer = logging.handlers.MemoryHandler(1000, flushLevel=100, target=target)
log = logging.getLogger("app"); log.addHandler(buffer); log.setLevel(logging.INFO)
atexit.register(print, "atexit")
@guard
def main():
    on_exit(log.info, "logged in a callback")
    ready(); sys.stdout.write("no newline at the end of this one\\n"); time.sleep(60)
main()
"""
    ended = run(code, TERM)
    assert ended.status == 143
    assert ended.out == ["no newline at the end of this one", "atexit", "logged in a callback"]


# -- options --


@pytest.mark.parametrize(
    ("signum", "exit_status", "expected"),
    [
        (TERM, "0", 0),
        (INT, "0", 0),
        (TERM, "9", 9),
        (TERM, "'signal'", -TERM),
        (INT, "'signal'", -INT),
        (signal.SIGHUP, "None", 129),
    ],
)
def test_exit_status(signum: int, exit_status: str, expected: int) -> None:
    """`exit_status` is 128 + n, a number of one's own, or death by the signal after atexit and flushing."""
    code = f"""
atexit.register(print, "atexit")
with guard(signals=(signal.SIGTERM, signal.SIGINT, signal.SIGHUP), exit_status={exit_status}) as g:
    g.callback(print, "A"); ready(); time.sleep(60)
"""
    ended = run(code, signum)
    assert (ended.status, ended.out) == (expected, ["A", "atexit"])


def test_a_cooperative_main_is_not_interrupted() -> None:
    """With `interrupt=False` main finishes its job, sees `stopping`, and returns; the status is the signal's."""
    code = """
with guard(interrupt=False) as g:
    g.callback(print, "A"); ready()
    while not g.stopping:
        for _ in range(20): time.sleep(0.005)
        print("job done")
    print(g.reason)
"""
    ended = run(code, TERM)
    assert ended.status == 143
    assert ended.out[-3:] == ["job done", "SIGTERM", "A"]


def test_a_cooperative_main_that_never_looks_is_interrupted_in_time() -> None:
    """Before the grace period is over a cooperative main is interrupted all the same."""
    ended = run(
        "with guard(interrupt=False, grace=3) as g:\n    g.callback(print, 'A'); ready(); time.sleep(60)",
        TERM,
    )
    assert (ended.status, ended.out) == (143, ["A"])


def test_a_shield_holds_the_stop_back() -> None:
    """A stop inside `with g.shield()` is delivered when the outermost shield ends."""
    code = """
with guard() as g:
    g.callback(print, "A")
    with g.shield():
        with g.shield():
            ready(); g.wait(); print("inner")
        print("outer")
    print("never")
"""
    ended = run(code, TERM)
    assert (ended.status, ended.out) == (143, ["inner", "outer", "A"])


def test_entering_a_context_leaves_no_gap() -> None:
    """A stop that arrives while `enter_context` enters waits until the exit is registered."""
    code = """
class Slow:
    def __enter__(self): ready(); current_guard().wait(); print("entered")
    def __exit__(self, *exc): print("left", exc[0].__name__)
with guard() as g:
    g.enter_context(Slow())
    print("never")
"""
    ended = run(code, TERM)
    assert (ended.status, ended.out) == (143, ["entered", "left SignalExit"])


def test_on_stop_comes_before_unwinding_in_the_order_of_registration() -> None:
    """on_stop callbacks run first, first registered first, while main still runs; on a normal exit they do not."""
    code = """
with guard() as g:
    g.callback(print, "callback", flush=True)
    g.on_stop(print, "first", flush=True); g.on_stop(print, "second", flush=True)
    try:
        ready()
        if {signalled}: time.sleep(60)
    finally: print("finally", flush=True)
"""
    assert run(code.format(signalled=True), TERM).out == ["first", "second", "finally", "callback"]
    assert run(code.format(signalled=False)).out == ["finally", "callback"]


def test_request_stop_from_a_thread() -> None:
    """`request_stop` interrupts main as a signal would; the status is the one it names."""
    code = """
with guard() as g:
    g.callback(print, "A")
    ready()
    threading.Thread(target=g.request_stop, args=("lease lost",), kwargs=dict(status=4)).start()
    time.sleep(60)
"""
    ended = run(code)
    assert (ended.status, ended.out) == (4, ["A"])
    assert "lease lost received" in ended.err


def test_nested_guards_unwind_from_the_inside() -> None:
    """Inner callbacks run at the inner exit; one stop unwinds all guards."""
    code = """
with guard() as outer:
    outer.callback(print, "outer")
    try:
        with guard() as inner:
            inner.callback(print, "inner"); ready(); time.sleep(60)
    finally: print("between")
"""
    ended = run(code, TERM)
    assert (ended.status, ended.out) == (143, ["inner", "between", "outer"])
    assert ended.err.count("received") == ended.err.count("done after") == 1


def test_on_exit_without_a_guard() -> None:
    """`on_exit` alone guards the process: on SIGTERM, on a normal exit, and before non-daemon threads are joined."""
    code = """
gate = threading.Event()
threading.Thread(target=gate.wait).start()
on_exit(print, "A", flush=True); on_exit(gate.set)
atexit.register(print, "atexit")
ready()
if {signalled}: time.sleep(60)
"""
    ended = run(code.format(signalled=True), TERM)
    assert (ended.status, ended.out) == (143, ["A", "atexit"])
    ended = run(code.format(signalled=False))
    assert (ended.status, ended.out) == (0, ["A", "atexit"])


def test_unregister_undoes_on_exit() -> None:
    """What was unregistered does not run; an unknown function is no error."""
    code = "on_exit(print, 'A'); on_exit(len, 'x'); print(unregister(print), unregister(max)); ready()"
    assert run(code).out == []
    assert (
        "1 0"
        in run(
            "print(unregister(max)); on_exit(print, 'A'); ready(); print(unregister(print), unregister(max))"
        ).out
    )


def test_the_last_resort_waits_for_an_end_under_way() -> None:
    """The C-level timer is put off once more when the process ends itself: a slow machine does not change the status."""
    code = f"""
import faulthandler
later = faulthandler.dump_traceback_later
def tell(left, **options):
    os.write(1, b"armed\\n")
    later(left, **options)
faulthandler.dump_traceback_later = tell
def stubborn():
    {swallowing(4)}
with guard(grace=4) as g:
    g.callback(stubborn); ready(); time.sleep(60)
"""
    ended = run(code, TERM)
    assert (ended.status, ended.out) == (143, ["armed", "armed"])


def test_the_last_resort_waits_for_the_end_of_the_interpreter() -> None:
    """That is an end under way, too: once the exit nets are behind it, the timer is put off."""
    code = """
import faulthandler
later, told = faulthandler.dump_traceback_later, []
def tell(left, **options):
    told.append(time.monotonic() + left)
    os.write(1, b"put off\\n" if told[-1] > told[0] + 0.5 else b"armed\\n")
    later(left, **options)
faulthandler.dump_traceback_later = tell
with guard(grace=60) as g:
    g.callback(print, "A", flush=True); ready(); time.sleep(60)
"""
    ended = run(code, TERM)
    assert (ended.status, sorted(ended.out), ended.out[-1]) == (143, ["A", "armed", "put off"], "put off")


def test_generators() -> None:
    """A guarded generator cleans up when it is exhausted, closed, or stopped, not before."""
    code = """
@guard
def numbers():
    on_exit(print, "A")
    got = yield 1
    yield got
g = numbers(); print(next(g), g.send(5), list(g))
g = numbers(); next(g); g.close()
for _ in numbers(): ready(); time.sleep(60)
"""
    with child(code) as started:
        before = list(started.out)
        started.signal(TERM)
        ended = started.end()
    assert before == ["A", "1 5 []", "A", "ready"]
    assert (ended.status, ended.out) == (143, ["A"])


def test_hooks_hear_of_everything_once_and_in_order() -> None:
    """Hooks get frozen records: the stop, each callback's beginning and end, failures, the end."""
    code = """
seen = []
with guard(hooks=[lambda event: seen.append(event)]) as g:
    atexit.register(lambda: print(*(type(event).__name__ for event in seen)))
    g.callback(int, "x"); g.callback(len, "abc")
    ready(); time.sleep(60)
"""
    ended = run(code, TERM)
    names = "StopReceived CallbackStarted CallbackDone CallbackStarted CallbackFailed Finished StopRecord"
    assert (ended.out, ended.err) == ([names], "")


def test_with_logging_configured_the_logger_gets_the_lines() -> None:
    """Where the program has configured logging, the logger `cleanup_guard` is used instead of stderr."""
    code = """
import logging
logging.basicConfig(stream=sys.stdout, format="%(name)s %(levelname)s %(message)s", level=logging.INFO)
with guard() as g:
    g.callback(int, "x"); ready(); time.sleep(60)
"""
    ended = run(code, TERM)
    assert ended.err == ""
    assert ended.out[0].startswith("cleanup_guard INFO SIGTERM received")
    assert ended.out[0].endswith(GUESSED)
    assert ended.out[1].startswith("cleanup_guard ERROR callback int failed: ValueError")
    assert "Traceback" in "\n".join(ended.out)
    assert ended.out[-1].startswith("cleanup_guard INFO done after SIGTERM: 1 callback, 1 failed")


def test_main_that_fails_while_it_is_stopped_is_told_of() -> None:
    """An exception that main raises while it unwinds is shown; the status is still the signal's."""
    body = "try:\n        ready(); time.sleep(60)\n    finally: raise OSError('disk full')"
    ended = run(three(body), TERM)
    assert (ended.status, ended.out) == (143, ["C", "B", "A"])
    assert "main raised OSError while it was being stopped: disk full" in ended.err


def test_a_program_that_goes_on_after_its_stop_is_let_go() -> None:
    """Who catches SignalExit outside the guard and goes on gets everything back, and is not ended at the deadline."""
    code = """
before = signal.getsignal(signal.SIGTERM)
try:
    with guard(grace=1) as g:
        g.callback(print, "A"); ready(); time.sleep(60)
except SignalExit as stop:
    print(stop.signum, stop.code)
limit = time.monotonic() + 30
while signal.getsignal(signal.SIGTERM) is not before and time.monotonic() < limit: time.sleep(0.01)
time.sleep(1.5)
print("still here", threading.active_count())
with guard() as g: g.callback(print, "B")
"""
    ended = run(code, TERM)
    assert (ended.status, ended.out) == (0, ["A", "15 143", "still here 1", "B"])


def test_a_second_ctrl_c_respects_a_shield() -> None:
    """Ctrl-C again does not cut a critical section short: only the end of the grace period does."""
    code = """
with guard(grace=60) as g:
    g.callback(print, "A", flush=True)
    with g.shield():
        print("critical", flush=True); ready()
        while not os.path.exists(sys.argv[0] + ".go"): time.sleep(0.01)
        print("whole", flush=True)
"""
    with child(code) as started:
        started.signal(INT)
        press_until(started, lambda: True, presses=2)
        wait_until(lambda: "SIGINT received" in started.err, "the announcement")
        (started.folder / "program.py.go").touch()
        ended = started.end()
    assert (ended.status, ended.out) == (-INT, ["whole", "A"])
