"""When a program is stopped, what is told of it, and that nothing of it is left, whatever becomes of the rehearsal."""

from __future__ import annotations

import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest
from check.gallery import app
from check.rehearsed import COMMAND, SIMULATED, Told, check, checking
from support import PATIENCE, wait_until

from cleanup_guard._rehearse._seen import Rehearsal

T = TypeVar("T")

RUNS = ("--", "python", "-I", "-S", "app.py")
MODES = pytest.mark.parametrize("wrapper", [[], SIMULATED], ids=["pid-namespace", "simulated"])


def rehearsing(body: str, *options: str, cleanup: str = "", **more: object) -> Told:
    """Rehearse a program that does this at its start, and cleans up; it says "ready" when it is."""
    return check(*options, *RUNS, files={"app.py": app(body, cleanup=cleanup)}, **more)


def side_by_side(rehearsed: Callable[[T], Told], some: Iterable[T]) -> list[Told]:
    """What becomes of each, a few at a time: most of what they do is wait."""
    with ThreadPoolExecutor(6) as pool:
        return list(pool.map(rehearsed, some))


# -- readiness -------------------------------------------------------------------------------------------------------


def test_a_ready_text_may_come_in_pieces() -> None:
    """The text is looked for in all of the output, however it was written."""
    told = rehearsing(
        "os.write(1, b'up and'); time.sleep(0.2); os.write(2, b' running')", "--ready", "up and running"
    )
    assert told.rehearsal.clean


def test_a_listening_port_is_ready() -> None:
    """--ready-tcp waits until somebody in the program's network listens; nobody is connected to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    body = f"""\
import socket
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
time.sleep(0.3)
server.bind(("127.0.0.1", {port}))
server.listen()
server.setblocking(False)
"""
    cleanup = """\
try:
        server.accept(); os.write(1, b"connected\\n")
    except BlockingIOError:
        os.write(1, b"undisturbed\\n")
"""
    files = {"app.py": app(body, cleanup=cleanup)}
    found = check("--ready-tcp", str(port), "--", "python", "-I", "app.py", files=files).rehearsal
    assert found.readied >= 0.3
    assert found.output == "undisturbed\n"


def test_a_port_that_somebody_else_listens_on_is_no_sign() -> None:
    """It would be ready before it began."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = rehearsing("", "--ready-tcp", str(port))
    assert (told.status, told.out) == (3, "")
    assert told.err == f"cleanup-guard check: somebody else listens on port {port} already\n"


@pytest.mark.parametrize("before", [False, True])
def test_a_file_is_ready_when_it_is_written(before: bool) -> None:
    """One that was there before counts only when it is written anew."""
    files = {"app.py": app("time.sleep(0.3); open('up', 'w').write('new')")}
    if before:
        files["up"] = "old"
    assert check("--ready-file", "up", *RUNS, files=files).rehearsal.readied >= 0.3


def test_all_that_is_asked_for_must_be_true() -> None:
    """Text, file and time together: the last one decides."""
    found = rehearsing(
        "open('up', 'w').close()", "--ready", "ready", "--ready-file", "up", "--after", "0.7"
    ).rehearsal
    assert found.readied >= 0.7


def test_by_default_it_is_stopped_when_nobody_works() -> None:
    """A program that is busy for a while is given that while."""
    assert (
        rehearsing("end = time.monotonic() + 0.7\nwhile time.monotonic() < end: pass").rehearsal.readied
        >= 1.0
    )


@pytest.mark.nightly
def test_who_never_rests_is_stopped_all_the_same() -> None:
    """The settle has an end, long before --timeout."""
    found = check("--grace", "1", "--", "sh", "-c", "trap 'exit 0' TERM; while :; do :; done").rehearsal
    assert found.clean
    assert found.readied >= 5.0


NEVER = [
    (["--ready", "never"], "the program did not print 'never' within 0.5 s"),
    (["--ready-tcp", "1"], "the program did not listen on port 1 within 0.5 s"),
    (["--ready-file", "never"], "the program did not write never within 0.5 s"),
    (["--after", "100"], "the program ran less than 100 s within 0.5 s"),
]


def test_who_is_not_ready_in_time_is_not_waited_for() -> None:
    """Status 3, what was waited for, and the last that it said."""

    def rehearsed(options: list[str]) -> Told:
        return rehearsing("print('starting', flush=True)", *options, "--timeout", "0.5")

    for (_, sentence), told in zip(
        NEVER, side_by_side(rehearsed, [words for words, _ in NEVER]), strict=True
    ):
        assert (told.status, told.out) == (3, "")
        assert told.err == f"cleanup-guard check: {sentence}\n  starting\n  ready\n"


def test_only_the_last_lines_are_shown() -> None:
    """A program that prints without end does neither hide the sentence, nor keep us from saying it."""
    told = check("--ready", "never", "--timeout", "1", "--", "sh", "-c", "while :; do echo noise; done")
    first, *others = told.err.splitlines()
    assert (told.status, first) == (3, "cleanup-guard check: the program did not print 'never' within 1 s")
    assert 2 < len(others) <= 21


# -- programs that do not live to be stopped ---------------------------------------------------------------------------

ENDS: list[tuple[list[str], str]] = [
    (
        ["sh", "-c", "echo no config; exit 5"],
        "the program ended, with status 5, before it could be stopped\n  no config",
    ),
    (["sh", "-c", "kill -KILL $$; exit 4"], "the program ended, with status 4, before it could be stopped"),
    (["nowhere"], "'nowhere' was not found on PATH"),
    (["./nowhere"], "'./nowhere' was not found"),
    (["./plain"], "'./plain' is not executable"),
    (["./orphan"], "'./orphan' could not be executed: No such file or directory"),
    (["./garbage"], "'./garbage' could not be executed: Exec format error"),
]


def test_there_must_be_something_to_stop() -> None:
    """Status 3, and why."""
    files = {"plain": "", "orphan": "#!/nowhere/sh\n", "garbage": "no program\n"}
    command = ["sh", "-c", 'chmod -x plain; exec "$@"', "sh", *COMMAND]

    def rehearsed(program: list[str]) -> Told:
        return check("--", *program, files=files, command=command)

    for (_, sentence), told in zip(ENDS, side_by_side(rehearsed, [words for words, _ in ENDS]), strict=True):
        assert (told.status, told.out, told.err) == (3, "", f"cleanup-guard check: {sentence}\n")


# -- output ----------------------------------------------------------------------------------------------------------


def test_output_is_what_was_printed_after_the_stop() -> None:
    """What was printed before is not told; both streams are, in the order of their writing."""
    cleanup = "os.write(1, b'one '); os.write(2, b'two '); time.sleep(0.1); os.write(1, 'drei ä'.encode())"
    found = rehearsing("os.write(1, b'before\\n')", "--ready", "ready", cleanup=cleanup).rehearsal
    assert found.output == "one two drei ä"


def test_output_may_be_split_anywhere_and_be_no_text() -> None:
    """A character in two writes is one; bytes that are none are replaced."""
    cleanup = "os.write(1, b'\\xc3'); time.sleep(0.1); os.write(1, b'\\xa4\\xff\\0')"
    assert rehearsing("", "--ready", "ready", cleanup=cleanup).rehearsal.output == "ä\ufffd\0"


def test_output_without_end_is_kept_in_part() -> None:
    """The last mebibyte of it; and the program never waits for us."""
    cleanup = "[os.write(1, b'x' * 65535 + b'\\n') for _ in range(64)]; os.write(1, b'end')"
    output = rehearsing("", "--ready", "ready", cleanup=cleanup).rehearsal.output
    assert len(output) == 1 << 20
    assert output.endswith("x\nend")


def test_a_pipe_held_from_outside_is_not_waited_for() -> None:
    """Somebody who is not of the program may have its stdout: a server that it passed it to."""
    body = """\
import socket
with socket.socket(socket.AF_UNIX) as keeper:
    keeper.connect("\\0" + os.environ["KEEPER"])
    socket.send_fds(keeper, [b"x"], [1])
"""
    words = ["--ready", "ready", "--", "python", "-I", "app.py"]
    with socket.socket(socket.AF_UNIX) as keeper:
        name = f"cleanup-guard-{os.getpid()}-{time.monotonic_ns()}"
        keeper.bind("\0" + name)
        keeper.listen()
        keeper.settimeout(PATIENCE)
        with checking(*words, files={"app.py": app(body)}, env={"KEEPER": name}) as process:
            connection, _ = keeper.accept()
            with connection:
                _, fds, _, _ = socket.recv_fds(connection, 1, 1)
                assert process.wait(PATIENCE) == 0
                os.close(fds[0])


# -- more than one ---------------------------------------------------------------------------------------------------

LATE = """\
#!/bin/sh
sleep 0.5
trap 'exit 0' TERM
echo ready
while :; do sleep 0.05; done
"""


def test_repeated_stops_find_a_race_at_the_start() -> None:
    """A handler that is installed late: some moments are clean, others are not, and a seed gives the same moments again.

    And a parent that is there before, as is advised, keeps the signal for it.
    """

    def rehearsed(program: list[str]) -> Told:
        words = ["--ready", "ready", "--grace", "1", "--repeat", "5", "--seed", "7", "--", *program]
        return check(*words, files={"late.sh": LATE})

    told = side_by_side(rehearsed, [["./late.sh"], ["./late.sh"]])
    for each in told:
        assert (each.status, len(each.rehearsals)) == (1, 5)
        assert {found.clean for found in each.rehearsals} == {True, False}
        assert each.rehearsals[0].clean
        for found in each.rehearsals:
            assert found.clean == (found.readied > 0.5), found
            faults = [advice.code for advice in found.advice if advice.fault]
            assert faults == ([] if found.clean else ["start-up-race"])
    lines = [advice.line for found in told[0].rehearsals for advice in found.advice if advice.fault]
    assert rehearsed(shlex.split(lines[0])).status == 0


def test_who_was_too_slow_is_measured_again() -> None:
    """`needed` is what it would have taken; the verdict is on the stop that was asked for."""
    files = {"app.py": app(seconds=0.8)}
    found = check("--ready", "ready", "--grace", "0.4", *RUNS, files=files).rehearsal
    assert not found.clean
    assert found.needed is not None
    assert found.needed >= 0.8
    assert found.tried == 60.0
    assert 0.4 <= found.seconds < found.needed


WRONG = [
    ([], "which program? It comes last: cleanup-guard check [options] -- PROGRAM [ARGUMENT ...]"),
    (["--grace", "0", "true"], "--grace: 0 seconds are none: a platform gives 10, or 30"),
    (["--grace", "soon", "true"], "--grace: 'soon' is no number of seconds such as 10 or 0.5"),
    (["--after", "nan", "true"], "--after: 'nan' is no number of seconds such as 10 or 0.5"),
    (
        ["--signal", "TREM", "true"],
        "--signal: there is no signal 'TREM': use a name such as TERM or RTMIN+3, or a number",
    ),
    (["--ready-tcp", "70000", "true"], "--ready-tcp: '70000' is no port: a number from 1 to 65535"),
    (["--repeat", "0", "true"], "--repeat: '0' is no number of stops"),
    (["--svg", "/nowhere/x.svg", "true"], "--svg: there is no directory '/nowhere'"),
]


def test_wrong_usage_is_told_in_one_sentence() -> None:
    """Status 2, and nothing was started."""
    told = side_by_side(lambda words: check(*words), [words for words, _ in WRONG])
    for (_, sentence), each in zip(WRONG, told, strict=True):
        assert (each.status, each.out) == (2, "")
        assert each.err == f"cleanup-guard check: {sentence}\n"


# -- nobody is left --------------------------------------------------------------------------------------------------

SPREADS = """\
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: None)
for turn in range(4):
    if not os.fork():
        os.setsid()
        if os.fork():
            os._exit(0)
        for fd in range(3): os.close(fd)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True: time.sleep(0.01)
    if not os.fork():
        if turn == 2: os.kill(os.getpid(), signal.SIGSTOP)
        os.execlp("sh", "sh", "-c", "trap '' TERM HUP INT; while :; do sleep 0.05; done")
open("up", "w").close()
os.write(1, b"ready\\n")
while True:
    time.sleep(0.1)
"""


def marked(folder: str) -> list[int]:
    """The processes that have inherited a rehearsal's environment."""
    found: list[int] = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                environ = Path(f"/proc/{name}/environ").read_bytes()
            except OSError:
                continue
            if f"FOLDER={folder}".encode() in environ.split(b"\0"):
                found.append(int(name))
    return found


def interrupt(signum: int, moment: float | None, wrapper: Sequence[str]) -> tuple[int, str]:
    """Interrupt a rehearsal after so many seconds, or when all are there; its status and words, when nobody is left."""
    words = ["--ready", "ready", "--grace", "60", *RUNS]
    defaults = ["env", "--default-signal=INT,HUP,TERM"]
    with checking(*words, files={"app.py": SPREADS}, wrapper=[*defaults, *wrapper]) as process:
        folder = Path(f"/proc/{process.pid}/cwd").readlink()
        if moment is None:
            wait_until((folder / "up").exists, "the program to be up")
        else:
            time.sleep(moment)
        process.send_signal(signum)
        _, err = process.communicate(timeout=PATIENCE)
        wait_until(lambda: not marked(str(folder)), f"nobody to be left {moment} s after the start")
        return process.returncode, err


@MODES
def test_an_interrupted_rehearsal_leaves_nobody_behind(wrapper: list[str]) -> None:
    """At whatever moment, and whatever the program's processes do: sessions of their own, orphans, deaf, stopped."""
    chance = random.Random(str(wrapper))
    signums = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
    moments = [*(chance.uniform(0, 0.6) for _ in range(5)), None]
    attempts = [(signum, moment) for signum in signums for moment in moments]
    with ThreadPoolExecutor(6) as pool:
        ends = list(pool.map(lambda attempt: interrupt(attempt[0], attempt[1], wrapper), attempts))
    for (signum, moment), (status, err) in zip(attempts, ends, strict=True):
        if signum == signal.SIGKILL:
            assert status == -signum
        elif moment is None or "interrupted" in err:  # else Python itself was still starting
            told = f"cleanup-guard check: interrupted by {signum.name}; nobody is left\n"
            assert (status, err) == (128 + signum, told)


@MODES
def test_a_rehearsal_leaves_nobody_behind(wrapper: list[str]) -> None:
    """When all is over, all are gone: PID 1's end is the end of everybody, or the grace period's is."""
    files = {"app.py": SPREADS}
    with checking("--ready", "ready", "--grace", "0.5", *RUNS, files=files, wrapper=wrapper) as process:
        folder = Path(f"/proc/{process.pid}/cwd").readlink()
        _, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, marked(str(folder))) == (1, []), err


LEAKS = """\
import os, sys
from cleanup_guard._rehearse._engine import CannotRehearse, Waker, rehearse
from cleanup_guard._rehearse._plan import Plan
from cleanup_guard._rehearse._progress import Progress
from cleanup_guard._rehearse._ready import Wish
waker = Waker(Progress(shown=False))
found = []
for turn in range(4):
    for words in (["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.01; done"], ["false"], ["./nowhere"]):
        try:
            rehearse(waker, Plan(words, 1.0, Wish(after=0.05)))
        except CannotRehearse:
            pass
    found.append(sorted(os.listdir("/proc/self/fd")))
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        continue
    print("a child is left")
print("equal" if all(each == found[0] for each in found) else found)
"""


@MODES
def test_rehearsals_leave_no_descriptors_and_no_zombies(wrapper: list[str]) -> None:
    """In one process, one after the other, with and without success."""
    told = check(files={"leaks.py": LEAKS}, command=["python", "leaks.py"], wrapper=wrapper)
    assert (told.status, told.out, told.err) == (0, "equal\n", "")


# -- what a tracer could break ---------------------------------------------------------------------------------------

HAZARDS = {
    "a thousand children": "for _ in range(1000):\n    if not os.fork(): os._exit(0)\n    os.wait()",
    "a hundred at once": "for _ in range(100):\n    if not os.fork(): os._exit(0)\nfor _ in range(100): os.wait()",
    "posix_spawn": "for _ in range(100): os.waitpid(os.posix_spawnp('true', ['true'], os.environ), 0)",
    "subprocess": "import subprocess\nfor _ in range(50): subprocess.run(['true'], check=True)",
    "threads": """\
import threading
for _ in range(5):
    threads = [threading.Thread(target=time.sleep, args=(0.01,)) for _ in range(40)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
""",
    "threads that fork": """\
import threading, warnings
warnings.simplefilter("ignore")
def fork():
    for _ in range(20):
        pid = os.fork()
        if not pid: os._exit(0)
        os.waitpid(pid, 0)
threads = [threading.Thread(target=fork) for _ in range(5)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    "execs from a thread": """\
import threading
if "again" not in sys.argv:
    threading.Thread(target=time.sleep, args=(100,)).start()
    threading.Thread(target=os.execvp, args=("python", ["python", "-I", "app.py", "again"])).start()
    time.sleep(100)
""",
    "group stops": """\
child = os.fork()
if not child:
    os.setpgid(0, 0)
    os.kill(os.getpid(), signal.SIGTSTP)
    os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(7)
for _ in range(2):
    assert os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1])
    os.kill(child, signal.SIGCONT)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
""",
    "waits for continued": """\
child = os.fork()
if not child:
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(100)
os.waitpid(child, os.WUNTRACED)
os.kill(child, signal.SIGCONT)
assert os.WIFCONTINUED(os.waitpid(child, os.WCONTINUED)[1])
os.kill(child, signal.SIGKILL)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
""",
    "faults that are caught": """\
import faulthandler
child = os.fork()
if not child:
    faulthandler.enable(open(os.devnull, "w"))
    faulthandler._sigsegv()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -11
""",
    "alarms and timers": """\
rang = []
signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
while len(rang) < 50: time.sleep(0.01)
signal.setitimer(signal.ITIMER_REAL, 0)
""",
    "who dies at birth": """\
for _ in range(50):
    child = os.fork()
    if not child: time.sleep(100)
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
""",
}


@MODES
def test_a_program_does_not_notice_that_it_is_watched(wrapper: list[str]) -> None:
    """Whatever it does with processes, threads and signals goes as it always goes."""

    def rehearsed(hazard: str) -> tuple[str, Rehearsal]:
        files = {"app.py": app(HAZARDS[hazard], cleanup="os.write(1, b'done\\n')")}
        words = ["--ready", "ready", "--grace", "30", "--", "python", "-I", "app.py"]
        return hazard, check(*words, files=files, wrapper=wrapper).rehearsal

    with ThreadPoolExecutor(6) as pool:
        for hazard, found in pool.map(rehearsed, HAZARDS):
            assert (found.clean, found.output, len(found.processes)) == (True, "done\n", 1), (hazard, found)


def test_who_traces_cannot_be_watched() -> None:
    """A process has one tracer: a debugger in the program is refused, and its program with it."""
    attach = """\
import ctypes, os
child = os.fork()
if not child:
    libc = ctypes.CDLL(None, use_errno=True)
    os._exit(0 if libc.ptrace(0, 0, 0, 0) == -1 else 1)
print("refused" if os.waitpid(child, 0)[1] == 0 else "allowed", flush=True)
"""
    files = {"app.py": app(attach)}
    assert check("--ready", "refused", "--", "python", "-I", "app.py", files=files).rehearsal.clean


def test_nothing_is_inherited_from_the_rehearsal() -> None:
    """No descriptors but three, no signals ignored or blocked, a session of its own, and stdin empty."""
    show = "ls /proc/self/fd | wc -l; grep -E 'Sig(Blk|Ign)' /proc/self/status; cat; false"
    told = check("--", "sh", "-c", show)
    sentence, *lines = told.err.splitlines()
    assert sentence.endswith("the program ended, with status 1, before it could be stopped")
    assert lines[0].strip() == "4"
    settable = sum(
        1 << (signum - 1) for signum in signal.valid_signals()
    )  # 32 and 33 are the C library's own
    assert [int(line.split()[1], 16) & settable for line in lines[1:3]] == [0, 0]


@pytest.mark.parametrize(
    "env",
    [
        {},
        {b"LC_CTYPE": b"C", b"A": b"1"},
        {b"LC_CTYPE": b"C.UTF-8"},
        {b"A": b"\xff\n=", b"LC_ALL": b"C", b"B": b""},
    ],
)
def test_the_environment_is_the_callers(env: dict[bytes, bytes]) -> None:
    """Byte for byte: Python's locale coercion, for one, adds nothing."""
    code = """
import os, signal
given = open("/proc/self/environ", "rb").read().hex().encode()
signal.signal(signal.SIGTERM, lambda *_: (os.write(1, given), os._exit(0)))
os.write(1, b"up")
while True:
    signal.pause()
"""
    words = ["--json", "--ready", "up", "--", sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(
        [*COMMAND, *words], env=env, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    found = Told(done.returncode, done.stdout, done.stderr).rehearsal
    assert bytes.fromhex(found.output) == b"".join(b"%b=%b\0" % each for each in env.items())


def test_a_program_that_closes_its_output_is_watched_on() -> None:
    """The end of its output is not its end."""
    body = "os.write(1, b'ready\\n'); null = os.open(os.devnull, 2); os.dup2(null, 1); os.dup2(null, 2)"
    assert rehearsing(body, "--ready", "ready").rehearsal.clean
