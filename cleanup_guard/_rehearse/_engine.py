"""Start the program, wait until it is ready, send the stop to its first process only, and watch /proc until all is over.

PID 1 of a new PID namespace is made with util-linux (`unshare`, `setpriv`) rather than with ctypes: os.unshare exists from
3.12 on only, and `--kill-child` and `--pdeathsig` are what makes the whole namespace die with us, even by SIGKILL.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field

if sys.platform != "linux":
    raise NotImplementedError("rehearsing a stop needs Linux")

from cleanup_guard._supervise import _tree
from cleanup_guard._supervise._spawn import become_subreaper

POLL = 0.005
"""Seconds between two looks at /proc: who lives shorter may not be seen, and a status is read while there is a zombie."""


class CannotRehearseError(Exception):
    """The program could not be started or did not become ready; the message says why."""


@dataclass
class Seen:
    """One process of the program.

    Attributes:
        handling: what it did with the signal when it was sent: catches, ignores, blocks, default.
        ended: seconds after the signal, or None while it lives.
        how: exited, signal, killed (by us), kernel (because PID 1 left), gone (nobody saw how).
        status: the exit status or the signal's number, where known.
    """

    pid: int
    parent: int
    command: str
    first: bool = False
    handling: str = "default"
    ended: float | None = None
    how: str = ""
    status: int | None = None
    key: tuple[int, int] = (0, 0)


@dataclass
class Rehearsed:
    """What was seen.

    Attributes:
        namespace: whether the program was PID 1 of a namespace of its own.
        output: what was printed after the signal.
    """

    signum: int
    grace: float
    namespace: bool
    seconds: float = 0.0
    processes: list[Seen] = field(default_factory=list[Seen])
    output: str = ""


def prefix() -> tuple[list[str], bool]:
    """What to put before the program, and whether that makes it PID 1 of a namespace of its own."""
    if shutil.which("setpriv") is None:
        raise CannotRehearseError("setpriv is not here: install util-linux")
    tie = ["setpriv", "--pdeathsig", "KILL"]
    spread = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    for extra in ([], ["--user", "--map-current-user"]):
        command = [*tie, *spread, *extra, "--"]
        try:
            done = subprocess.run([*command, "true"], capture_output=True, check=False, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            break
        if done.returncode == 0:
            return command, True
    return [*tie, "--"], False


class Rehearsal:
    """One rehearsal of one program."""

    def __init__(self, program: list[str], signum: int, grace: float) -> None:
        if shutil.which(program[0]) is None:
            raise CannotRehearseError(f"{program[0]!r} is not found, or not executable")
        command, namespace = prefix()
        self.result = Rehearsed(signum, grace, namespace)
        self._heard = bytearray()
        self._processes: dict[tuple[int, int], Seen] = {}
        become_subreaper()
        self._child = subprocess.Popen(
            [*command, *program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert self._child.stdout is not None
        self._pipe = self._child.stdout.fileno()
        os.set_blocking(self._pipe, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._pipe, selectors.EVENT_READ)
        self._sent: float | None = None
        self._killed = False
        self._ended_first = False

    def run(self, ready: str | None, after: float, timeout: float) -> Rehearsed:
        """Do it all. Whatever happens, nobody of the program is left afterwards."""
        try:
            self._wait_until_ready(ready, after, timeout)
            self._stop()
        finally:
            self._end_everybody()
        self.result.processes = [each for each in self._processes.values() if each.ended != -1.0]
        return self.result

    def _turn(self) -> None:
        if self._selector.get_map():
            for _ in self._selector.select(POLL):
                data = os.read(self._pipe, 65536)
                self._heard += data
                if not data:
                    self._selector.unregister(self._pipe)
        else:
            time.sleep(POLL)
        self._look()

    def _look(self) -> None:
        status = self._child.poll()
        alive: dict[tuple[int, int], _tree.Process] = {}
        everybody = {each.pid: each for each in _tree.everybody()}
        wanted = {os.getpid()}
        for each in sorted(everybody.values(), key=lambda process: process.started):
            if each.parent in wanted or each.key in self._processes:
                wanted.add(each.pid)
                hidden = self.result.namespace and each.pid == self._child.pid
                if not hidden:
                    alive[each.key] = each
        for key, process in alive.items():
            self._note(key, process)
        for key, seen in self._processes.items():
            if seen.ended is None and key not in alive:
                self._gone(seen, status)
        self._reap()

    def _note(self, key: tuple[int, int], process: _tree.Process) -> None:
        seen = self._processes.get(key)
        if seen is None:
            seen = self._processes[key] = Seen(process.pid, process.parent, process.name, key=key)
            seen.first = len(self._processes) == 1
        if process.alive:
            seen.command = _command(process.pid) or seen.command
            if self._sent is None:
                seen.handling = _handling(process.pid, self.result.signum)
        elif seen.ended is None and not seen.first:
            self._end(seen, _exit_code(process.pid))

    def _gone(self, seen: Seen, status: int | None) -> None:
        if seen.first:
            if status is None:
                status = self._child.wait()
            code = -status if status < 0 else status << 8
            self._ended_first = True
            self._end(seen, code)
        elif self.result.namespace and self._ended_first and not self._killed:
            seen.ended, seen.how, seen.status = self._clock(), "kernel", signal.SIGKILL
        else:
            self._end(seen, None)

    def _end(self, seen: Seen, code: int | None) -> None:
        seen.ended = self._clock()
        if self._killed and (code is None or code & 127 == signal.SIGKILL):
            seen.how, seen.status = "killed", int(signal.SIGKILL)
        elif code is None:
            seen.how = "gone"
        elif code & 127:
            seen.how, seen.status = "signal", code & 127
            if seen.status == signal.SIGKILL and self.result.namespace and not seen.first:
                seen.how = "kernel"
        else:
            seen.how, seen.status = "exited", code >> 8

    def _clock(self) -> float:
        return -1.0 if self._sent is None else time.monotonic() - self._sent

    def _reap(self) -> None:
        for seen in self._processes.values():
            if seen.pid != self._child.pid and seen.ended is not None:
                try:
                    os.waitpid(seen.pid, os.WNOHANG)
                except ChildProcessError:
                    pass  # another's child, who reaps it

    def _first(self) -> Seen | None:
        return next(iter(self._processes.values()), None)

    def _wait_until_ready(self, ready: str | None, after: float, timeout: float) -> None:
        began = time.monotonic()
        while True:
            self._turn()
            seconds = time.monotonic() - began
            first = self._first()
            started = first is not None and first.command.split(" ")[0] not in ("setpriv", "unshare")
            if self._child.poll() is not None or (first is not None and first.ended is not None):
                raise CannotRehearseError("the program ended before it could be stopped:\n" + self._text())
            if started and (ready.encode() in self._heard if ready else seconds >= after):
                return
            if seconds > timeout:
                waited = f"did not print {ready!r}" if ready else "did not start"
                raise CannotRehearseError(f"the program {waited} within {timeout:g} s (--timeout)")

    def _text(self) -> str:
        return self._heard.decode("utf-8", "replace")

    def _stop(self) -> None:
        self._look()
        first = self._first()
        assert first is not None
        self._heard.clear()
        self._sent = time.monotonic()
        os.kill(first.pid, self.result.signum)
        while self._living() and self._clock() < self.result.grace:
            self._turn()
        if self._living():
            self._kill()
        self.result.seconds = self._clock()
        self._turn()
        self.result.output = self._text()

    def _living(self) -> list[Seen]:
        return [seen for seen in self._processes.values() if seen.ended is None]

    def _kill(self) -> None:
        self._killed = True
        while self._living():
            for seen in self._living():
                found = _tree.look(seen.pid)
                if found is not None and found.key == seen.key:
                    os.kill(seen.pid, signal.SIGKILL)
            self._turn()

    def _end_everybody(self) -> None:
        self._kill()
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait()
        if self._child.stdout is not None:
            self._child.stdout.close()
        self._selector.close()


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _command(pid: int) -> str:
    return _read(f"/proc/{pid}/cmdline").rstrip("\0").replace("\0", " ").replace("\n", " ")


def _handling(pid: int, signum: int) -> str:
    fields = dict(line.partition(":")[::2] for line in _read(f"/proc/{pid}/status").splitlines())
    for name, word in (("SigBlk", "blocks"), ("SigIgn", "ignores"), ("SigCgt", "catches")):
        if int(fields.get(name, "0"), 16) >> (signum - 1) & 1:
            return word
    return "default"


def _exit_code(pid: int) -> int | None:
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[49]) if len(fields) > 49 else None
