"""Guards of other threads: entered, left, closed and abandoned beside main's, at any moment, in any thread."""

from __future__ import annotations

import signal

import pytest
from belongings import BELONGINGS
from support import child, run

RACE = """
errors = []
def note(who, error): errors.append(who + ": " + repr(error))
over = False
def work():
    while not over:
        try:
            with guard(signals=(), exit_timeout=5, hooks=()) as g: g.callback(int)
        except BaseException as error: note("thread", error)
if {switch}: sys.setswitchinterval({switch})
"""


@pytest.mark.parametrize("switch", [0, 1e-5], ids=["as it is", "many switches"])
def test_a_thread_leaves_its_guard_while_main_enters_one(switch: float) -> None:
    """Thousands of times: neither hears an error, and nothing is left behind."""
    ended = run(
        BELONGINGS
        + RACE.format(switch=switch)
        + """
ready()
thread = threading.Thread(target=work)
thread.start()
end, rounds = time.monotonic() + 2, 0
while time.monotonic() < end or rounds < 200:
    rounds += 1
    try:
        with guard(hooks=()): time.sleep(0)
    except BaseException as error: note("main", error)
over = True
thread.join()
print(len(errors), errors[:2])
print(is_back(BEFORE))
"""
    )
    assert (ended.out, ended.status) == (["0 []", "True"], 0), ended.err


def test_main_has_its_watcher_although_a_thread_leaves_guards_all_the_time() -> None:
    """Callbacks with time limits in main's guards are interrupted, each of 20, while a thread enters and leaves guards."""
    ended = run(
        RACE.format(switch=1e-5)
        + """
ready()
thread = threading.Thread(target=work)
thread.start()
limit = time.monotonic() + 120
def spin():
    while time.monotonic() < limit: pass
for _ in range(20):
    try:
        with guard(hooks=()) as g: g.options(timeout=0.02).callback(spin)
        note("main", ValueError("not interrupted"))
    except CleanupError: pass
    except BaseException as error: note("main", error)
over = True
thread.join()
print(errors[:2])
"""
    )
    assert (ended.out, ended.status) == (["[]"], 0), ended.err


def test_a_stop_comes_through_while_a_thread_enters_and_leaves_guards() -> None:
    """SIGTERM in main's guard beside such a thread runs main's callbacks, with status 143."""
    ended = run(
        RACE.format(switch=1e-5)
        + """
thread = threading.Thread(target=work)
thread.start()
def finish():
    global over
    over = True
    print("callback", errors[:2], flush=True)
end = time.monotonic() + 1
while time.monotonic() < end:
    with guard(hooks=()): pass
with guard(hooks=()) as g:
    g.callback(finish)
    ready()
    time.sleep(60)
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["callback []"], 143), ended.err


@pytest.mark.parametrize("main", ["with guard():", "with guard() as g, guard():", "if True:"])
def test_a_threads_time_limit_outlives_mains_guard(main: str) -> None:
    """Main leaves its last guard while a thread's callback runs: the callback is interrupted when its time is over."""
    ended = run(
        f"""
began, entered = threading.Event(), threading.Event()
def spin():
    began.set()
    end = time.monotonic() + 30
    while time.monotonic() < end: pass
    print("ran to its end")
def work():
    try:
        with guard(signals=(), hooks=()) as g: g.options(timeout=0.5).callback(spin)
    except CleanupError: print("interrupted")
ready()
thread = threading.Thread(target=work)
{main}
    thread.start()
    began.wait()
thread.join()
"""
    )
    assert (ended.out, ended.status) == (["interrupted"], 0), ended.err


def test_a_threads_time_limit_for_its_exit_outlives_mains_guard() -> None:
    """The same for `exit_timeout`."""
    ended = run(
        """
began = threading.Event()
def spin():
    began.set()
    end = time.monotonic() + 30
    while time.monotonic() < end: pass
    print("ran to its end")
def work():
    try:
        with guard(signals=(), hooks=(), exit_timeout=0.5) as g: g.callback(spin)
    except CleanupError: print("interrupted")
ready()
thread = threading.Thread(target=work)
with guard():
    thread.start()
    began.wait()
thread.join()
"""
    )
    assert (ended.out, ended.status) == (["interrupted"], 0), ended.err


DAEMON = """
inside = threading.Event()
def block():
    inside.set()
    {block}
def work():
    with guard(signals=(), hooks=()) as g:
        g.callback(print, "the other callback", flush=True)
        g.callback(block)
threading.Thread(target=work, daemon=True).start()
inside.wait()
"""

BLOCKS = {
    "event": "threading.Event().wait()",
    "sleep": "time.sleep(1000)",
    "lock": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "queue": "import queue; queue.SimpleQueue().get()",
    "read": "os.read(os.pipe()[0], 1)",
}


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_a_daemon_thread_in_a_callback_that_blocks_does_not_keep_the_process(block: str) -> None:
    """As without a guard, main's end is the end: nobody waits for ever for the callback of a daemon thread."""
    ended = run(DAEMON.format(block=block) + "ready()")
    assert ended.status == 0, ended.err
    assert ended.out.count("the other callback") <= 1


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded main", "on_exit"])
def test_such_a_daemon_thread_does_not_cost_main_its_callbacks(guarded: bool) -> None:
    """Main's own callbacks run, and the process ends."""
    register = (
        'with guard(hooks=()) as g: g.callback(print, "main\'s", flush=True)'
        if guarded
        else 'on_exit(print, "main\'s", flush=True)'
    )
    ended = run(DAEMON.format(block=BLOCKS["event"]) + f"ready()\n{register}\n")
    assert ended.status == 0, ended.err
    assert ended.out.count("main's") == 1


def test_such_a_daemon_thread_does_not_keep_a_process_that_was_stopped() -> None:
    """SIGTERM, and a daemon thread's callback that blocks: main's callbacks run, status 143, inside the grace period."""
    ended = run(
        DAEMON.format(block=BLOCKS["event"])
        + """
with guard(grace=4) as g:
    g.callback(print, "main's", flush=True)
    ready()
    time.sleep(60)
""",
        signal.SIGTERM,
    )
    assert ended.status == 143, ended.err
    assert ended.out.count("main's") == 1


def test_a_daemon_threads_callback_that_is_nearly_done_is_waited_for() -> None:
    """A callback of a daemon thread that is in progress when main ends is not cut off after an instant."""
    ended = run(DAEMON.format(block='time.sleep(0.3); print("done", flush=True)') + "ready()")
    assert (ended.out, ended.status) == (["done", "the other callback"], 0), ended.err


SURVIVED = """
inside, leave = threading.Event(), threading.Event()
def work():
    with guard(signals=(), hooks=()) as g:
        g.callback(print, "thread's callback", flush=True)
        inside.set()
        leave.wait()
thread = threading.Thread(target=work, daemon={daemon})
thread.start()
inside.wait()
try:
    with guard(hooks=()) as g:
        g.callback(print, "main's callback", flush=True)
        signal.raise_signal(signal.SIGTERM)
        time.sleep(60)
except SystemExit: print("survived", flush=True)
"""

FORGOTTEN = """
# The stop is history when a new guard does not know of it.
limit = time.monotonic() + 30
while time.monotonic() < limit:
    time.sleep(0.05)
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL: break
"""

GOES_ON = {
    "return": "ready()",
    "next guard": "with guard(hooks=()): ready()",
    "next guard at once": "with guard(hooks=()): ready(); time.sleep(0.1)",
    "on_exit at once": "on_exit(int); ready()",
    "next stop": """
with guard(hooks=()) as g:
    ready()
    signal.raise_signal(signal.SIGTERM)
    time.sleep(60)
""",
    "thread leaves": "ready(); leave.set(); thread.join()",
}


@pytest.mark.parametrize("daemon", [True, False], ids=["daemon", "not daemon"])
@pytest.mark.parametrize("end", GOES_ON)
def test_threads_keep_their_callbacks_when_main_survives_a_stop(end: str, daemon: bool) -> None:
    """The program goes on after its stop: a thread that was guarded before it still has its callback run, once, in the end."""
    # A thread that is no daemon is waited for by the interpreter: it leaves when its callback has run, or main says so.
    let_go = "" if daemon or end == "thread leaves" else "on_exit(leave.set)\n"
    forgotten = "" if end.endswith("at once") else FORGOTTEN
    ended = run(SURVIVED.format(daemon=daemon) + forgotten + let_go + GOES_ON[end])
    assert ended.status == (143 if end == "next stop" else 0), ended.err
    assert ended.out.count("thread's callback") == 1, ended.err


POOL = """
import gc
from concurrent.futures import ThreadPoolExecutor
first, second = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
def guards(): return sum(isinstance(each, Guard) for each in gc.get_objects())
"""


def test_a_guard_may_be_entered_in_one_thread_and_left_in_another() -> None:
    """As a web framework's pool does with sync dependencies: the callback runs, and the first thread is rid of the guard."""
    ended = run(
        POOL
        + """
ready()
def enters():
    g = guard(signals=(), hooks=())
    g.__enter__()
    g.callback(print, "callback", flush=True)
    return g
g = first.submit(enters).result()
second.submit(g.__exit__, None, None, None).result()
print(first.submit(current_guard).result())
with guard(hooks=()) as outer:
    print(first.submit(current_guard).result() is outer)
    first.submit(on_exit, print, "main's").result()
"""
    )
    assert (ended.out, ended.status) == (["callback", "None", "True", "main's"], 0), ended.err


def test_guards_that_are_left_in_another_thread_are_forgotten() -> None:
    """A thousand of them leave no object behind, in whatever order they are left."""
    ended = run(
        POOL
        + """
ready()
def enters():
    g = guard(signals=(), hooks=())
    g.__enter__()
    return g
for _ in range(200):
    entered = [first.submit(enters).result() for _ in range(5)]
    for g in entered: second.submit(g.close).result()
del entered, g
limit = time.monotonic() + 20
while guards() and time.monotonic() < limit: gc.collect(); time.sleep(0.01)
print(guards())
"""
    )
    assert (ended.out, ended.status) == (["0"], 0), ended.err


FOREIGN_CLOSE = {
    "popped": """
with guard(hooks=()) as g:
    g.callback(print, "callback", flush=True)
    close = g.pop_all().close
""",
    "generator": """
@guard(hooks=())
def generate():
    on_exit(print, "callback", flush=True)
    yield
generator = generate()
next(generator)
close = generator.close
""",
    "entered": """
g = guard(hooks=())
g.__enter__()
g.callback(print, "callback", flush=True)
close = g.close
""",
    "entered, exit": """
g = guard(hooks=())
g.__enter__()
g.callback(print, "callback", flush=True)
close = lambda: g.__exit__(None, None, None)
""",
}


@pytest.mark.parametrize("code", FOREIGN_CLOSE.values(), ids=FOREIGN_CLOSE)
def test_what_main_entered_may_be_closed_in_another_thread(code: str) -> None:
    """Callbacks run there, once and without an error; main gives the signals back, and nothing is left behind."""
    ended = run(
        BELONGINGS
        + "ready()\n"
        + code
        + """
def closes():
    try: close()
    except BaseException as error: print(type(error).__name__, error, flush=True)
thread = threading.Thread(target=closes)
thread.start()
thread.join()
close()  # again: nothing
with guard(hooks=()): pass
print(is_back(BEFORE), flush=True)
"""
    )
    assert (ended.out, ended.status) == (["callback", "True"], 0), ended.err


@pytest.mark.parametrize("code", FOREIGN_CLOSE.values(), ids=FOREIGN_CLOSE)
def test_a_stop_is_not_lost_after_a_guard_was_closed_in_another_thread(code: str) -> None:
    """SIGTERM afterwards ends the process as ever: what is not guarded dies of it, or is unwound; a guard hears it."""
    ended = run(
        code
        + """
thread = threading.Thread(target=close)
thread.start()
thread.join()
with guard(hooks=()) as g:
    g.callback(print, "the next guard", flush=True)
    ready()
    time.sleep(60)
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["the next guard"], 143), ended.err


def test_a_stop_reaches_main_while_a_thread_closes_mains_guard() -> None:
    """The callbacks run in the thread when SIGTERM comes: they run to their end, the others too, and the status is 143."""
    code = """
g = guard(hooks=())
g.__enter__()
g.callback(print, "first", flush=True)
def slow():
    ready()
    time.sleep(0.5)
    print("slow", flush=True)
g.callback(slow)
thread = threading.Thread(target=g.close)
thread.start()
thread.join()
time.sleep(60)
"""
    with child(code) as started:
        started.signal(signal.SIGTERM)
        ended = started.end()
    assert (ended.out, ended.status) == (["slow", "first"], 143), ended.err


def test_a_debugger_works_after_a_callback_was_interrupted_in_a_thread() -> None:
    """What interrupts it leaves nothing set for which Python 3.11 hangs in the next function that is traced (hazard H75)."""
    ended = run(
        """
def long():
    while True: time.sleep(0.001)
def work():
    try:
        with guard(signals=(), hooks=()) as g: g.options(timeout=0.05).callback(long)
    except CleanupError: print("interrupted")
def traced(): print("traced")
ready()
thread = threading.Thread(target=work)
thread.start()
thread.join()
sys.settrace(lambda *_: None)
traced()
sys.settrace(None)
"""
    )
    assert (ended.out, ended.status) == (["interrupted", "traced"], 0), ended.err
