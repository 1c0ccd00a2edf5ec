"""`exec_into` on real processes: what the target finds, and what a guard does before."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import child, run

STATUS = "exec_into('cat', '/proc/self/status')"
NEVER = ["CALLBACK", "TARGET"]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def status_of(lines: list[str]) -> dict[str, str]:
    """What /proc/self/status of the target said."""
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def ignored(lines: list[str]) -> set[int]:
    """The signals that the target ignores; 32 and 33 are the C library's own, which no program can set."""
    bits = int(status_of(lines)["SigIgn"], 16)
    return {number for number in range(1, 65) if bits >> (number - 1) & 1} - {32, 33}


# -- the target's world -----------------------------------------------------------------------------------------------------


@needs_linux
@pytest.mark.parametrize("guarded", [False, True])
def test_the_target_starts_with_nothing_ignored_and_nothing_blocked(guarded: bool) -> None:
    """SIGPIPE, which Python ignores, SIGHUP, which the parent did, and a mask: all gone."""
    code = f"""
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
ready()
{"with guard(): " if guarded else ""}{STATUS}
"""
    ended = run(code)
    assert ended.status == 0
    assert ignored(ended.out) == set()
    assert int(status_of(ended.out)["SigBlk"], 16) == 0


@needs_linux
def test_inherit_keeps_what_the_parent_ignored_but_not_what_python_did() -> None:
    """signals="inherit" is for `nohup`; SIGPIPE and SIGXFSZ are Python's own affair."""
    hangup = "signal.signal(signal.SIGHUP, signal.SIG_IGN); ready(); "
    ended = run(hangup + "exec_into('cat', '/proc/self/status', signals='inherit')")
    assert ignored(ended.out) == {signal.SIGHUP}


@needs_linux
def test_the_target_gets_only_the_descriptors_it_was_meant_to() -> None:
    """Inheritable ones of the parent are closed, the one in pass_fds is not."""
    code = """
lost, kept = os.open("/dev/null", os.O_RDONLY), os.open("/dev/zero", os.O_RDONLY)
os.set_inheritable(lost, True)
ready()
exec_into("sh", "-c", 'for fd in /proc/$$/fd/*; do readlink $fd; done', pass_fds=[kept])
"""
    with child(code) as started:
        ended = started.end()
    assert [line for line in ended.out if line in ("/dev/zero", "/dev/null")].count("/dev/zero") == 1
    assert len(ended.out) == 4  # stdin is /dev/null


def test_no_timer_goes_on() -> None:
    """An itimer would survive the exec, and its SIGALRM kill the target."""
    target = "import signal; print([signal.getitimer(n) for n in (0, 1, 2)])"
    ended = run(
        "ready()\nfor n in (0, 1, 2): signal.setitimer(n, 100, 7)\n"
        f"exec_into(sys.executable, '-c', {target!r})"
    )
    assert ended.out == ["[(0.0, 0.0), (0.0, 0.0), (0.0, 0.0)]"]


def test_pid_cwd_umask_and_environment_are_as_asked(tmp_path: Path) -> None:
    """The same process goes on, in the folder, with the mask and with only the variables it was given."""
    code = f"""
print(os.getpid()); ready()
env = {{"PATH": os.environ["PATH"], "A": "1"}}
exec_into("sh", "-c", "echo $$; pwd -P; umask; env | sort | grep -E '^(A|HOME)='",
          cwd={str(tmp_path)!r}, umask=0o027, env=env)
"""
    with child(code) as started:
        ended = started.end()
    assert ended.out == [str(started.pid), os.path.realpath(tmp_path), "0027", "A=1"]


def test_arguments_arrive_byte_for_byte() -> None:
    """Empty strings, leading dashes, newlines, and bytes that are no UTF-8."""
    target = "import os, sys; print([os.fsencode(word) for word in sys.argv[1:]])"
    ended = run(
        f"ready(); exec_into(sys.executable, '-c', {target!r}, '', '-x', '--', 'a\\nb', b'\\xff', os.fsdecode(b'\\xfe'))"
    )
    assert ended.out == [str([b"", b"-x", b"--", b"a\nb", b"\xff", b"\xfe"])]


def test_argv0_is_the_name_the_target_is_called_by() -> None:
    """As `exec -a` in a shell."""
    assert run("ready(); exec_into('sh', '-c', 'echo $0', argv0='-sh')").out == ["-sh"]


def test_what_was_printed_and_logged_is_not_lost() -> None:
    """Buffers of stdout, and of a log handler that keeps lines back, are written before the exec."""
    code = """
import logging, logging.handlers
log = logging.getLogger("x")
log.addHandler(logging.handlers.MemoryHandler(100, target=logging.StreamHandler(sys.stdout)))
ready(); log.warning("logged"); print("printed")
exec_into("echo", "target")
"""
    assert sorted(run(code).out) == ["logged", "printed", "target"]
    assert run(code).out[-1] == "target"


# -- the user ---------------------------------------------------------------------------------------------------------------


@needs_root
@needs_linux
def test_a_user_by_name_has_its_groups_and_home() -> None:
    """Groups, group, user, in this order, all three ids of each; HOME too."""
    nobody = pwd.getpwnam("nobody")
    ended = run("ready(); exec_into('sh', '-c', 'cat /proc/self/status; printenv HOME', user='nobody')")
    status = status_of(ended.out)
    assert status["Uid"].split() == [str(nobody.pw_uid)] * 4
    assert status["Gid"].split() == [str(nobody.pw_gid)] * 4
    assert status["Groups"].split() == [str(n) for n in os.getgrouplist("nobody", nobody.pw_gid)]
    assert ended.out[-1] == nobody.pw_dir


@needs_root
@needs_linux
def test_a_user_by_number_needs_no_entry() -> None:
    """As platforms that give each container a number of its own want it; HOME is then the root folder."""
    ended = run(
        "ready(); exec_into('sh', '-c', 'cat /proc/self/status; printenv HOME', user=54321, group=4321)"
    )
    status = status_of(ended.out)
    assert (status["Uid"].split()[0], status["Gid"].split()[0], ended.out[-1]) == ("54321", "4321", "/")
    assert status["Groups"].split() == ["4321"]


@needs_root
def test_a_user_that_is_not_root_cannot_become_another() -> None:
    """It is told before anything is torn down; becoming what one is already works."""
    code = """
import grp, pwd, cleanup_guard._exec.handover  # they may lie where only root may look
os.setgroups([]); os.setgid(54321); os.setuid(54321); ready()
try: exec_into("true", user=1)
except PermissionError as error: print(error.strerror)
exec_into("echo", "same", user=54321, group=54321)
"""
    refusal, same = run(code).out
    assert refusal.startswith("only root can become user 1 and group 1")
    assert refusal.endswith("this is user 54321 and group 54321")
    assert same == "same"


def test_an_unknown_user_or_group_is_refused() -> None:
    """By a sentence that names it."""
    code = """
ready()
for keywords in ({"user": "no-such"}, {"group": "no-such"}, {"user": 2**32}):
    try: exec_into("true", **keywords)
    except ValueError as error: print(error)
"""
    out = run(code).out
    assert out[:2] == ["there is no user 'no-such'", "there is no group 'no-such'"]
    assert out[2].startswith("that is the number of no user or group")


# -- inside a guard ---------------------------------------------------------------------------------------------------------


def test_inside_a_guard_all_is_unwound_and_cleaned_up_first() -> None:
    """`finally`, then the callbacks of the inner guard, then the outer's, then the exec."""
    code = """
with guard() as outer:
    outer.callback(print, "outer")
    with guard() as inner:
        inner.callback(print, "inner")
        try:
            ready()
            exec_into("sh", "-c", "echo target $$")
        finally:
            print("finally")
"""
    with child(code) as started:
        ended = started.end()
    assert (ended.status, ended.out, ended.err) == (
        0,
        ["finally", "inner", "outer", f"target {started.pid}"],
        "",
    )


def test_with_on_exit_alone_the_exec_follows_the_last_callback() -> None:
    """There is no `with` to leave: the interpreter's own end is the sign."""
    code = """
on_exit(print, "callback")
try: ready(); exec_into("echo", "target")
finally: print("finally")
"""
    ended = run(code)
    assert (ended.status, ended.out, ended.err) == (0, ["finally", "callback", "target"], "")


@pytest.mark.parametrize("scope", ["with guard():", "if on_exit(bool):"])
@pytest.mark.parametrize("end", ["pass", "sys.exit(3)", "raise ValueError('other')"])
def test_a_main_that_ends_otherwise_does_not_become_the_target(scope: str, end: str) -> None:
    """The exec is bound to its exception, as an exit is: swallowed or replaced, it does not happen."""
    code = f"""
{scope}
    try: ready(); exec_into("echo", "target")
    except SystemExit: pass
    {end}
"""
    ended = run(code)
    assert ended.out == []
    assert ended.status == {"pass": 0, "sys.exit(3)": 3}.get(end, 1)


@pytest.mark.parametrize("scope", ["with guard():", "if on_exit(bool):"])
def test_a_failing_callback_stops_the_exec(scope: str) -> None:
    """The failure is told, and the status is 1."""
    ended = run(f"{scope}\n    on_exit(lambda: 1 / 0); ready(); exec_into('echo', 'target')")
    assert (ended.status, ended.out) == (1, [])
    assert "ZeroDivisionError" in ended.err


@pytest.mark.parametrize("scope", ["with guard(), guard():", "if on_exit(bool):"])
def test_unless_told_otherwise(scope: str) -> None:
    """despite_failures tells the failure and goes on."""
    code = f"{scope}\n    on_exit(lambda: 1 / 0); ready(); exec_into('echo', 'target', despite_failures=True)"
    ended = run(code)
    assert (ended.status, ended.out) == (0, ["target"])
    assert "ZeroDivisionError" in ended.err


@pytest.mark.parametrize("scope", ["with guard():", "if on_exit(bool):"])
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_stop_during_the_cleanup_wins(scope: str, signum: int, status: int) -> None:
    """The callbacks run to their end, the target does not start, the status is the signal's."""
    code = f"""
def slow():
    print("ready", flush=True)
    limit = time.monotonic() + 60
    while not current_guard().reason and time.monotonic() < limit: time.sleep(0.01)
    print("CALLBACK", flush=True)
{scope}
    on_exit(slow)
    exec_into("echo", "TARGET")
"""
    ended = run(code, signum)
    assert (ended.out, ended.status) == (["CALLBACK"], status)


def test_a_stop_that_is_under_way_wins() -> None:
    """`exec_into` in the `finally` of a main that is being stopped starts nothing."""
    code = """
with guard() as g:
    g.callback(print, "CALLBACK")
    try: ready(); time.sleep(60)
    finally: exec_into("echo", "TARGET")
"""
    ended = run(code, signal.SIGTERM)
    assert (ended.out, ended.status) == (["CALLBACK"], 143)


def test_after_a_stop_has_been_cleaned_up_nothing_starts() -> None:
    """`exec_into` outside the guard, while the stop is on its way out of main."""
    code = """
try:
    with guard() as g:
        g.callback(print, "CALLBACK"); ready(); time.sleep(60)
finally: exec_into("echo", "TARGET")
"""
    ended = run(code, signal.SIGTERM)
    assert (ended.out, ended.status) == (["CALLBACK"], 143)


@pytest.mark.nightly
def test_a_stop_at_any_moment_is_never_forgotten() -> None:
    """A stop ends either this program, all callbacks run, or the target; the target never outlives it."""
    code = """
with guard() as g:
    g.callback(print, "CALLBACK", flush=True)
    ready()
    exec_into("sleep", "60")
"""
    for step in range(200):
        with child(code) as started:
            for _ in range(step * 50):
                pass
            started.signal(signal.SIGTERM)
            ended = started.end()
        assert ended.out == ["CALLBACK"]
        assert ended.status in (143, -signal.SIGTERM)


@needs_root
@needs_linux
def test_as_pid_1_a_stop_that_waits_is_not_lost() -> None:
    """PID 1 survives its own signals, so a stop that came blocked must be looked for."""
    code = """
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
os.kill(1, signal.SIGTERM)
ready(); exec_into("echo", "TARGET")
"""
    ended = run(code, wrapper=("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"))
    assert (ended.out, ended.status) == ([], 143)


# -- before anything is torn down -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        ("exec_into('no-such-program')", "FileNotFoundError", "there is no program no-such-program"),
        ("exec_into('/')", "PermissionError", "/ is a directory, not a program"),
        ("exec_into('./plain')", "PermissionError", "./plain is not executable"),
        ("exec_into('./noshebang')", "OSError", "without a first line that names its interpreter"),
        ("exec_into('./lost')", "OSError", "names the interpreter /no/such, which does not exist"),
        ("exec_into('./windows')", "OSError", "its lines end as on Windows"),
        ("exec_into('./empty')", "OSError", "it is empty"),
        ("exec_into('ls', env={'PATH': '/no/such'})", "FileNotFoundError", "there is no program ls"),
        ("exec_into('ls', cwd='/no/such')", "FileNotFoundError", "the working directory /no/such"),
        ("exec_into('')", "ValueError", "the name of the program is empty"),
        ("exec_into('ls', 'a\\0b')", "ValueError", "NUL"),
        ("exec_into('ls', pass_fds=[999])", "ValueError", "file descriptor 999 is not open"),
        ("exec_into('ls', signals='all')", "ValueError", "'default' or 'inherit'"),
        ("exec_into('ls', umask=0o1000)", "ValueError", "umask"),
        ("exec_into('ls', env={'A=secret': 'secret'})", "ValueError", "begins with 'A' cannot be the name"),
        ("exec_into('ls', env={'A': 'sec\\0ret'})", "ValueError", "the value of the environment variable A"),
        ("exec_into(7)", "TypeError", ""),
    ],
)
def test_what_cannot_be_executed_is_told_first(call: str, error: str, sentence: str, tmp_path: Path) -> None:
    """Main is still there, its guard too, and the message holds no value of a variable."""
    scripts = {
        "plain": (b"#!/bin/sh\n", 0o644),
        "noshebang": (b"echo hello\n", 0o755),
        "lost": (b"#!/no/such -x\n", 0o755),
        "windows": (b"#!/bin/sh\r\necho\r\n", 0o755),
        "empty": (b"", 0o755),
    }
    for name, (content, mode) in scripts.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(mode)
    code = f"""
with guard() as g:
    ready()
    try: {call}
    except Exception as error: print(type(error).__name__, error)
    print("still here", g.state)
"""
    ended = run(code, cwd=tmp_path)
    kind, _, message = ended.out[0].partition(" ")
    assert kind == error
    assert sentence in message
    assert "sec" not in message
    assert ended.out[1:] == ["still here running"]


def test_what_only_the_exec_finds_out_is_explained(tmp_path: Path) -> None:
    """A binary for another machine: after the cleanup, with a sentence and 126; without a guard, an error."""
    machine = 40 if os.uname().machine != "armv7l" else 62
    head = bytearray(Path("/bin/cat").resolve().read_bytes()[:64])
    head[18:20] = machine.to_bytes(2, "little")
    (tmp_path / "foreign").write_bytes(head)
    (tmp_path / "foreign").chmod(0o755)
    ended = run(
        "with guard() as g: g.callback(print, 'cleaned'); ready(); exec_into('./foreign')", cwd=tmp_path
    )
    assert (ended.status, ended.out) == (126, ["cleaned"])
    assert "foreign cannot be executed: it was built for" in ended.err
    assert "Traceback" not in ended.err
    ended = run("ready(); on_exit(print, 'cleaned'); exec_into('./foreign')", cwd=tmp_path)
    assert (ended.status, ended.out) == (126, ["cleaned"])


def test_a_failed_exec_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """Without a guard the program goes on: handlers, mask, timer, umask, folder and descriptors are put back."""
    (tmp_path / "foreign").write_bytes(b"\x7fELF" + bytes(60))
    (tmp_path / "foreign").chmod(0o755)
    code = f"""
def world():
    return ([signal.getsignal(n) for n in signal.valid_signals()], signal.pthread_sigmask(signal.SIG_BLOCK, []),
        signal.getitimer(signal.ITIMER_REAL)[1], os.umask(0o22), os.getcwd(),
        [(fd, os.get_inheritable(int(fd))) for fd in os.listdir("/dev/fd") if os.path.exists("/dev/fd/" + fd)])
fd = os.open("/dev/null", os.O_RDONLY); os.set_inheritable(fd, True)
signal.signal(signal.SIGTERM, lambda *_: None); signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
signal.setitimer(signal.ITIMER_REAL, 100, 7); os.umask(0o22)
before = world(); ready()
try: exec_into("./foreign", cwd={str(tmp_path)!r}, umask=0o77)
except OSError as error: print(error.strerror)
print(world() == before)
"""
    out = run(code).out
    assert out[0].startswith("./foreign cannot be executed: ")
    assert out[1:] == ["True"]


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (
            "t = threading.Thread(target=attempt, name='worker'); t.start(); t.join()",
            "was called in thread 'worker'",
        ),
        ("import asyncio\nasync def main(): attempt()\nasyncio.run(main())", "inside a running event loop"),
        ("with guard() as g: g.callback(attempt)", "in a cleanup callback"),
    ],
)
def test_where_it_cannot_end_main_it_refuses(code: str, sentence: str) -> None:
    """In another thread, inside an event loop, in a callback: RuntimeError, and nothing has happened."""
    attempt = """
def attempt():
    try: exec_into("echo", "target")
    except RuntimeError as error: print(error)
ready()
"""
    ended = run(attempt + code)
    assert ended.status == 0
    assert len(ended.out) == 1
    assert sentence in ended.out[0]


def test_guards_of_other_threads_are_cleaned_up_too() -> None:
    """Their threads end with the exec, so their callbacks run before it."""
    code = """
entered = threading.Event()
def work():
    with guard(signals=()) as g:
        g.callback(print, "thread's"); entered.set(); time.sleep(60)
threading.Thread(target=work, daemon=True).start(); entered.wait()
ready(); exec_into("echo", "target")
"""
    assert run(code).out == ["thread's", "target"]


def test_a_fork_child_execs_without_its_parents_callbacks() -> None:
    """The guard belongs to the parent: the child becomes the target at once."""
    code = """
with guard() as g:
    g.callback(print, "parent's"); ready()
    if os.fork() == 0: exec_into("echo", "target")
    os.wait()
"""
    assert run(code).out == ["target", "parent's"]


def test_exec_needs_none_of_the_heavy_modules() -> None:
    """Without a guard nothing is imported that a bare interpreter has not, but for the package itself."""
    code = (
        "import sys; before = set(sys.modules); from cleanup_guard import exec_into\n"
        "try: exec_into('/')\n"
        "except OSError: print(sorted(m for m in set(sys.modules) - before if m.partition('.')[0] != 'cleanup_guard'))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert set(eval(done.stdout)) <= {
        *("__future__", "_signal", "_thread", "errno"),
        *("importlib", "importlib._bootstrap", "importlib._bootstrap_external", "warnings"),
    }
