"""Other people's handlers, wakeup fds and dispositions: used, kept, put back, and survived."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import PREAMBLE, child, run, wait_until


def test_an_earlier_handler_is_called_each_time_and_owns_the_stop() -> None:
    """A Python handler that was there before has the stop: nothing is raised, the work is whole, the status is its."""
    with child(
        """
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(print("theirs", flush=True)))
@guard
def main():
    on_exit(print, "ours")
    ready()
    while len(told) < 3: time.sleep(0.01)
    print("the work is whole")
main()
"""
    ) as started:
        for count in range(1, 4):
            started.process.send_signal(signal.SIGTERM)
            wait_until(lambda: started.out.count("theirs") == count, "their handler")  # noqa: B023
        ended = started.end()
    assert (ended.out, ended.status) == (["theirs"] * 3 + ["the work is whole", "ours"], 0)
    assert "stops the program" in ended.err


def test_what_an_earlier_handler_raises_is_the_stop() -> None:
    """Its exception unwinds main, the callbacks run, and the status is that exception's."""
    code = """
def theirs(*_): raise ValueError("theirs")
signal.signal(signal.SIGTERM, theirs)
@guard
def main():
    on_exit(print, "ours")
    ready()
    time.sleep(60)
main()
"""
    ended = run(code, signal.SIGTERM)
    assert (ended.out, ended.status) == (["ours"], 1)
    assert "ValueError: theirs" in ended.err
    ended = run(code.replace('raise ValueError("theirs")', "sys.exit(7)"), signal.SIGTERM)
    assert (ended.out, ended.status) == (["ours"], 7)


def test_a_stop_that_is_asked_for_while_somebody_else_stops_the_program() -> None:
    """`request_stop` does not wait for the owner of a stop: main is told."""
    ended = run(
        """
signal.signal(signal.SIGTERM, lambda *_: None)
@guard
def main():
    g = current_guard()
    g.on_stop(lambda: print("asked", g.request_stop("enough"), flush=True))
    on_exit(print, "ours")
    ready()
    time.sleep(60)
main()
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["asked True", "ours"], 143)


def test_signals_that_are_sent_while_the_interpreter_ends_are_sent() -> None:
    """Where a stop is somebody else's: what looks at the signals that are sent is gone before Python clears its names."""
    ended = run(
        """
class Late:
    def __init__(self): self.kill, self.pid, self.write = os.kill, os.getpid(), os.write
    def __del__(self):
        self.kill(self.pid, 0)
        self.write(1, b"sent\\n")
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append("theirs"))
sys._late = Late()
@guard
def main():
    on_exit(print, "ours", flush=True)
    ready()
    while not told: time.sleep(0.01)
main()
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["ours", "sent"], 0)
    assert "Traceback" not in ended.err


def test_a_guard_that_insists_stops_main_after_the_earlier_handler() -> None:
    """`guard(insist=True)`: their handler is called, and then main is stopped."""
    ended = run(
        """
signal.signal(signal.SIGTERM, lambda *_: print("theirs", flush=True))
@guard(insist=True)
def main():
    on_exit(print, "ours")
    ready()
    time.sleep(60)
main()
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["theirs", "ours"], 143)


def test_earlier_handlers_are_restored() -> None:
    """After the guard SIGTERM and SIGINT are what they were: a handler, the default, or ignored."""
    ended = run(
        """
def theirs(*_): pass
for kind in (theirs, signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler):
    signal.signal(signal.SIGTERM, kind)
    signal.signal(signal.SIGINT, kind)
    with guard(): pass
    print(signal.getsignal(signal.SIGTERM) is kind or signal.getsignal(signal.SIGTERM) == kind,
          signal.getsignal(signal.SIGINT) == kind)
ready()
"""
    )
    assert ended.status == 0
    assert "False" not in " ".join(ended.out)


def test_a_replaced_handler_is_told_and_the_stop_works_all_the_same() -> None:
    """A library that takes SIGTERM after us is named in an event, stops the program its own way, and is helped when late."""
    ended = run(
        """
def theirs(*_): print("theirs", flush=True)
def hook(event): print(type(event).__name__, flush=True)
@guard(grace=2, hooks=[hook])
def main():
    on_exit(print, "callback", flush=True)
    signal.signal(signal.SIGTERM, theirs)
    ready()
    time.sleep(60)
main()
""",
        signal.SIGTERM,
    )
    assert ended.status == 143
    assert "theirs" in ended.out
    assert ended.out.count("StopReceived") == 1
    assert ended.out.count("SteppedIn") == 1
    assert ended.out.count("callback") == 1


def test_a_replacement_is_told_when_the_guard_is_left() -> None:
    """On a normal exit a HandlerReplaced event names the signal and the handler, which stays in place."""
    ended = run(
        """
def theirs(*_): pass
with guard():
    signal.signal(signal.SIGTERM, theirs)
    ready()
print(signal.getsignal(signal.SIGTERM) is theirs)
"""
    )
    assert (ended.out, ended.status) == (["True"], 0)
    assert "the SIGTERM handler was replaced by <function theirs" in ended.err


def test_a_replacement_that_does_nothing_still_stops_the_program_through_the_wakeup_fd() -> None:
    """A handler that replaced ours and only returns does not lose the stop: the watcher saw the signal's byte."""
    ended = run(
        """
@guard(grace=4)
def main():
    on_exit(print, "callback")
    signal.signal(signal.SIGTERM, lambda *_: None)
    ready()
    time.sleep(60)
main()
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["callback"], 143)


def test_a_handler_that_was_installed_from_c_is_survived() -> None:
    """`signal.getsignal()` returns None for a C handler: the guard works over it and leaves the default behind."""
    ended = run(
        """
import ctypes
libc = ctypes.CDLL(None)
libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.signal(signal.SIGUSR1, ctypes.cast(libc.abs, ctypes.c_void_p))
print(signal.getsignal(signal.SIGUSR1))
@guard(signals=[signal.SIGUSR1, signal.SIGTERM])
def main():
    on_exit(print, "callback")
    ready()
    time.sleep(60)
main()
""",
        signal.SIGUSR1,
    )
    assert (ended.out, ended.status) == (["callback"], 128 + signal.SIGUSR1)


def test_a_disposition_that_python_does_not_know_is_survived() -> None:
    """Where `getsignal` is None at the start (a C library that came before the interpreter) enter and exit both work."""
    ended = run(
        """
real = signal.getsignal
signal.getsignal = lambda signum: None if real(signum) == signal.SIG_DFL else real(signum)
with guard() as g:
    g.callback(print, "callback")
    ready()
print(real(signal.SIGTERM) == signal.SIG_DFL)
"""
    )
    assert (ended.out, ended.status) == (["callback", "True"], 0)


def test_an_earlier_wakeup_fd_still_gets_its_bytes_and_is_restored() -> None:
    """A wakeup fd that was set before the guard hears of every signal, and is back afterwards."""
    ended = run(
        """
import socket, select
mine, theirs = socket.socketpair()
for each in (mine, theirs): each.setblocking(False)
signal.set_wakeup_fd(theirs.fileno())
signal.signal(signal.SIGUSR1, lambda *_: None)
ready()
with guard() as g:
    os.kill(os.getpid(), signal.SIGUSR1)
    print(bool(select.select([mine], [], [], 30)[0]), mine.recv(10) == bytes([signal.SIGUSR1]))
print(signal.set_wakeup_fd(-1) == theirs.fileno())
"""
    )
    assert (ended.out, ended.status) == (["True True", "True"], 0)


def test_a_later_wakeup_fd_is_left_alone() -> None:
    """A wakeup fd that replaced ours stays; the stop works through the handler alone."""
    ended = run(
        """
import socket
mine, theirs = socket.socketpair()
for each in (mine, theirs): each.setblocking(False)
@guard
def main():
    signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    on_exit(print, "callback")
    ready()
    time.sleep(60)
try: main()
except SystemExit: print(signal.set_wakeup_fd(-1) == theirs.fileno()); raise
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["callback", "True"], 143)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGHUP], ids=["int", "hup"])
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(signum: signal.Signals) -> None:
    """SIGINT and SIGHUP that were ignored when the program started do nothing; SIGTERM stops it."""
    ended = run(
        """
@guard
def main():
    on_exit(print, "callback")
    ready()
    time.sleep(0.3)
    print("still here", flush=True)
    time.sleep(60)
main()
""",
        signum,
        signal.SIGTERM,
        preexec_fn=lambda: signal.signal(signum, signal.SIG_IGN),
    )
    assert ended.out[-1] == "callback"
    assert ended.status == 143


@pytest.mark.parametrize("shell", ['"$@" & wait $!', 'nohup "$@"'], ids=["background", "nohup"])
def test_background_jobs_and_nohup_keep_what_they_ignore(shell: str, tmp_path: Path) -> None:
    """`prog &` in sh ignores SIGINT and `nohup` SIGHUP: the guard takes neither, and SIGTERM still cleans up."""
    program = tmp_path / "program.py"
    program.write_text(
        f"""{PREAMBLE}
@guard
def main():
    on_exit(print, "callback", flush=True)
    open("pid.tmp", "w").write(str(os.getpid()))
    os.rename("pid.tmp", "pid")
    time.sleep(60)
main()
"""
    )
    ignored = signal.SIGINT if "&" in shell else signal.SIGHUP
    command = ["sh", "-c", shell, "sh", sys.executable, str(program)]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        wait_until((tmp_path / "pid").exists, "the pid file")
        pid = int((tmp_path / "pid").read_text())
        os.kill(pid, ignored)
        os.kill(pid, signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert (out, process.returncode) == (b"callback\n", 143)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_a_signal_that_was_blocked_at_the_start_is_unblocked(signum: signal.Signals) -> None:
    """A stop signal that the program inherited blocked reaches it."""

    def block() -> None:
        signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signum])

    ended = run(
        """
@guard
def main():
    on_exit(print, "callback")
    ready()
    time.sleep(60)
main()
""",
        signum,
        preexec_fn=block,
    )
    assert (ended.out, ended.status) == (["callback"], 143 if signum == signal.SIGTERM else -signal.SIGINT)


def test_a_signal_that_came_while_it_was_blocked_is_not_lost() -> None:
    """A SIGTERM that was pending before the guard unblocked it stops the program as soon as the guard is entered."""
    ended = run(
        """
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
os.kill(os.getpid(), signal.SIGTERM)
ready()
with guard() as g:
    g.callback(print, "callback")
    time.sleep(60)
"""
    )
    assert ended.status == 143
    assert "SIGTERM received" in ended.err
