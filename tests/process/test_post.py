"""When the last guard is left the watcher's thread stays for a moment: the next guard takes it over, and nobody notices it."""

from __future__ import annotations

import signal
import sys

import pytest
from support import run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

PARKED = """
from cleanup_guard._process.post import LASTS
def threads(): return {int(each) for each in os.listdir("/proc/self/task")} - {os.getpid()}
def pipes(): return [each for each in os.listdir("/proc/self/fd") if "pipe" in link(each)]
def link(fd):
    try: return os.readlink(f"/proc/self/fd/{fd}")
    except OSError: return ""
def guarded():
    with guard(hooks=()): return threads()
def park():
    # In a loaded machine the thread may not wait yet when the guard is left, and then ends with it.
    for _ in range(1000):
        guarded()
        if parked(): return threads()
    raise SystemExit("never parked")
def parked():
    from cleanup_guard._process.process import REGISTRY
    return bool(REGISTRY.process.watch.post and REGISTRY.process.watch.post._berth.free)
def gone():
    limit = time.monotonic() + 20
    while threads() or pipes() != before:
        if time.monotonic() > limit: return f"{threads()} {pipes()} {before}"
        time.sleep(0.001)
    return "gone"
before = pipes()
"""


def parks(body: str, *signums: int, **options: object) -> list[str]:
    """Run a program that may say what is parked; it must end well."""
    ended = run(PARKED + body, *signums, **options)
    assert (ended.status, ended.err) == (0, ""), ended.out
    return ended.out


def test_the_next_guard_takes_the_thread_over() -> None:
    """One thread serves one guard after the other, as long as nothing happens."""
    assert parks(
        """
ready()
for _ in range(20):
    if park() == guarded() != set(): break
else: print("never taken over")
print("done")
"""
    ) == ["done"]


def test_it_ends_by_itself() -> None:
    """If no guard comes the thread ends, and the pipe is closed."""
    assert parks("ready()\npark()\nprint(gone())\nguarded()\nprint(gone())") == ["gone", "gone"]


def test_it_ends_by_itself_after_a_long_guard() -> None:
    """Whose watcher waits without an end."""
    assert parks(
        """
ready()
with guard(): time.sleep(0.3)
print(gone())
"""
    ) == ["gone"]


def test_nothing_stays_where_there_is_no_thread() -> None:
    """Nobody would close the pipe."""
    no_thread = "from cleanup_guard._process import native\nnative.Thread.start = lambda thread: False\n"
    assert parks(f"{no_thread}ready()\nguarded()\nprint(pipes() == before)") == ["True"]


def test_a_guard_that_comes_as_it_ends() -> None:
    """Whoever claims it first has it: each guard hears its stop."""
    assert parks(
        """
ready()
for number in range(60):
    park()
    time.sleep(LASTS + (number % 20 - 10) / 5000)
    try:
        with guard(hooks=()): os.kill(os.getpid(), 15); time.sleep(60)
    except SystemExit: pass
    try:
        with guard(hooks=()): time.sleep(0.001)
    except SystemExit: print("stopped by nothing")
print(gone())
"""
    ) == ["gone"]


@pytest.mark.parametrize("stuck", ["time.sleep(60)", "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"])
def test_a_stop_is_heard_by_what_was_taken_over(stuck: str) -> None:
    """From asleep, and from C code that looks for no signals."""
    ended = run(
        PARKED
        + f"""
import hashlib
park()
with guard(grace=2) as g:
    g.callback(print, "callback", flush=True)
    ready()
    {stuck}
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["callback"], 143), ended.err


def test_a_signal_between_two_guards_is_nobodys_stop() -> None:
    """It is its own handler's, and does not stop the guard that is entered next."""
    assert parks(
        """
signal.signal(signal.SIGUSR1, lambda *_: None)
ready()
for number in range(200):
    park() if number % 10 == 0 else guarded()
    try: os.kill(os.getpid(), 2 if number % 2 else 10)
    except KeyboardInterrupt: pass
    with guard(signals=[2, 10, 15]): time.sleep(0.0005)
print("done")
"""
    ) == ["done"]


def test_signals_as_it_is_left() -> None:
    """From a thread, at any moment: each is heard once, as Ctrl-C or as a stop, and none twice."""
    assert parks(
        """
ready()
pid, heard = os.getpid(), 0
def send():
    for _ in range(100):
        go.acquire()
        time.sleep(0.00002)
        os.kill(pid, 2)
go = threading.Lock(); go.acquire()
sender = threading.Thread(target=send, daemon=True); sender.start()
for _ in range(100):
    try:
        go.release()
        while True:
            with guard(hooks=()): pass
    except KeyboardInterrupt: heard += 1
    try:
        for _ in range(20): guarded()
    except KeyboardInterrupt: heard += 1000
sender.join()
print(heard)
"""
    ) == ["100"]


def test_a_stop_that_the_program_outlives() -> None:
    """What has served at a stop serves at no other."""
    assert parks(
        """
ready()
for _ in range(20):
    park()
    try:
        with guard(hooks=()): os.kill(os.getpid(), 15); time.sleep(60)
    except SystemExit: pass
    with guard(): time.sleep(0.001)
print(gone())
"""
    ) == ["gone"]


@pytest.mark.parametrize("kind", ["fork", "forkpty"])
def test_a_fork_warns_nobody(kind: str) -> None:
    """The thread steps aside: the child has none, nor the pipe, and may be guarded itself."""
    assert parks(
        f"""
import warnings
warned = []
warnings.showwarning = lambda message, *_: warned.append(str(message))
warnings.simplefilter("always")
ready()
for _ in range(30):
    park()
    pid, *fd = (os.{kind}(),) if "{kind}" == "fork" else os.forkpty()
    if not pid:
        try:
            assert not threads() and pipes() == before
            guarded()
            with guard(hooks=()): os.kill(os.getpid(), 15); time.sleep(60)
        finally: os._exit(5 if isinstance(sys.exc_info()[1], SystemExit) else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    for each in fd: os.close(each)
    if status != 5: print(status)
print(warned, gone())
"""
    ) == ["[] gone"]


def test_a_fork_in_another_thread() -> None:
    """While main enters and leaves guards."""
    assert parks(
        """
import warnings
warnings.simplefilter("ignore")
ready()
def fork():
    for _ in range(100):
        pid = os.fork()
        if not pid:
            try: guarded()
            finally: os._exit(0)
        os.waitpid(pid, 0)
guarded()  # what the first one imports: a child that is forked in the middle of that waits for ever
forking = threading.Thread(target=fork); forking.start()
while forking.is_alive(): guarded()
forking.join()
try:
    with guard(hooks=()): os.kill(os.getpid(), 15); time.sleep(60)
except SystemExit: print("heard")
"""
    ) == ["heard"]


def test_c_code_that_forks() -> None:
    """It calls no hook: the child believes in no thread of its parent's, and leaves the pipe alone.

    A thread that wants the GIL in that moment would leave CPython's lock of the GIL held in the child, without us as well.
    """
    assert parks(
        """
import ctypes
fork = ctypes.PyDLL(None).fork
def polls(thread):
    try: number = open(f"/proc/self/task/{thread}/syscall").read().split()[0]
    except OSError: return False  # it has ended
    return number in ("7", "73", "271")  # poll, and ppoll on two processors
ready()
while not [each for each in park() if polls(each)]: time.sleep(0.001)
pid = fork()
if not pid:
    try:
        with guard(hooks=()): os.kill(os.getpid(), 15); time.sleep(60)
    finally: os._exit(5 if isinstance(sys.exc_info()[1], SystemExit) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), gone())
"""
    ) == ["5 gone"]


@pytest.mark.parametrize("end", ["pass", "sys.exit()", "os._exit(0)", "os.execvp('true', ['true'])"])
def test_the_end_of_a_program(end: str) -> None:
    """It waits for nobody, and nothing is said."""
    assert parks(f"ready()\npark()\n{end}") == []


@pytest.mark.parametrize("when", ["atexit.register(guarded)", "threading._register_atexit(guarded)"])
def test_a_guard_at_the_end_of_a_program(when: str) -> None:
    """It leaves no thread to the end of the interpreter."""
    assert parks(f"import atexit\n{when}\nready()\npark()\n{when}") == []


def test_no_descriptor_at_the_end() -> None:
    """CPython before 3.14 would abort."""
    assert (
        parks(
            """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
ready()
park()
try:
    while True: os.dup(0)
except OSError: pass
"""
        )
        == []
    )


def test_time_limits_in_a_thread_that_takes_it_over() -> None:
    """A thread's guard with a time limit needs the watcher, too, which hears no signals for it."""
    assert parks(
        """
ready()
def work():
    try:
        with guard(signals=(), hooks=()) as g: g.options(timeout=0.05).callback(time.sleep, 0.5)
    except BaseException as error: print(repr(error.exceptions[0])[:12])
for _ in range(3):
    park()
    thread = threading.Thread(target=work); thread.start(); thread.join()
print(gone())
"""
    ) == ["TimeoutError", "TimeoutError", "TimeoutError", "gone"]
