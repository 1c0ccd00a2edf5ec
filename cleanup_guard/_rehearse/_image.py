"""Rehearses the stop of a container image, through docker or podman, with the engine's own `stop`.

The engine is asked by its command line only, and starts and stops as it always does. From outside we trace the container's
PID 1 and all that descend from it, as we trace a program of our own. Where that is not possible, because the engine is on
another machine or we are not root, there is less to see, and the result says so.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from typing import TYPE_CHECKING, Any

if sys.platform != "linux":
    raise NotImplementedError("rehearsing a stop needs Linux")

from cleanup_guard._ground.clock import GRACE_VARIABLE
from cleanup_guard._ground.foreign import quoted, shown
from cleanup_guard._ground.names import name_of, number_of
from cleanup_guard._rehearse._engine import SPARE, TURN, CannotRehearse, Engine, Interrupted
from cleanup_guard._rehearse._hook import Beside
from cleanup_guard._rehearse._onlooker import Onlooker
from cleanup_guard._rehearse._proc import descendants, glimpse
from cleanup_guard._rehearse._seen import Rehearsal, Seen
from cleanup_guard._supervise._spawn import CannotStart, find, keep_fds_to_ourselves, spawn

if TYPE_CHECKING:
    from cleanup_guard._rehearse._engine import Waker
    from cleanup_guard._rehearse._plan import Image, Plan
    from cleanup_guard._rehearse._ready import Wish

ENGINES = ("docker", "podman")
VARIABLE = "CLEANUP_GUARD_ENGINE"
LABEL = "cleanup-guard-check"
"""Of the containers and the beginning of their names: `docker ps --all --filter label=cleanup-guard-check` should show none."""

EARLY = 0.25
"""Seconds by which the SIGKILL of an engine may seem to be early, for clocks are looked at one after the other."""

HINTS = ("Run '", "See '", "time=")
PREFIXES = ("docker: ", "Error: ", "Error response from daemon: ")
"""What engines print around their complaints."""

LINGER = 5.0
"""Seconds that a command of the engine, or who has outlived the container, is given to end by itself."""

LONG = 60.0
"""Seconds after which an engine that does not answer is given up."""


def find_engine() -> list[str]:
    """The command line of a container engine: of CLEANUP_GUARD_ENGINE, or else of the first of docker and podman that answers.

    Raises:
        CannotRehearse: there is none.
    """
    path = os.environ.get("PATH")
    found: list[list[str]] = []
    try:
        asked = shlex.split(os.environ.get(VARIABLE, ""))
    except ValueError as error:
        raise CannotRehearse(f"{VARIABLE} is no command line: {error}") from None
    for words in [asked] if asked else [[name] for name in ENGINES]:
        try:
            find(words[0], path)
        except CannotStart as error:
            if asked:
                raise CannotRehearse(f"{VARIABLE}: {error}") from None
        else:
            found.append(words)
    if not found:
        raise CannotRehearse(
            f"there is no container engine: install docker or podman, or name one in {VARIABLE}"
        )
    if len(found) > 1:  # docker's client is often there without its daemon
        found.sort(key=lambda words: not _answers(words))
    return found[0]


def has_python(image: Image) -> bool:
    """Whether there is a Python in an image that this package runs on."""
    test = "import sys; sys.exit(sys.version_info < (3, 11))"
    options = [*image.options, "--rm", "--label", LABEL, "--entrypoint", "python3"]
    words = [*image.engine, "run", *options, image.name, "-c", test]
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=LONG)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _answers(engine: list[str]) -> bool:
    try:
        done = subprocess.run([*engine, "version"], capture_output=True, check=False, timeout=LONG)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


class Refused(CannotRehearse):
    """The engine did not do it; the message is its own."""


class Command:
    """One run of the engine's command line. Whether it has ended is known to the Watch, who reaps all our children.

    Args:
        words: the command line.
        output: a descriptor for what it prints; without, that is kept.
    """

    def __init__(self, words: list[str], output: int | None = None) -> None:
        self._out, self._err = os.memfd_create("stdout"), os.memfd_create("stderr")
        with open(os.devnull, "rb") as nothing:
            out = self._out if output is None else output
            err = self._err if output is None else output
            dup = [(nothing.fileno(), 0), (out, 1), (err, 2)]
            # A process group of its own: a Ctrl-C is for us, and we tell the engine what to do then.
            self.pid = spawn(find(words[0], os.environ.get("PATH")), words, os.environ, dup=dup)

    @property
    def text(self) -> str:
        """What it has printed on stdout."""
        return _text(self._out)

    @property
    def complaint(self) -> str:
        """The last that it has printed on stderr, what is printed around every complaint aside."""
        lines = [line for line in _text(self._err).splitlines() if line and not line.startswith(HINTS)]
        said = lines[-1] if lines else "it did not say why"
        for prefix in PREFIXES:
            said = said.removeprefix(prefix)
        return said

    def close(self) -> None:
        """Forget what it has printed."""
        os.close(self._out)
        os.close(self._err)


def _text(fd: int) -> str:
    return os.pread(fd, os.fstat(fd).st_size, 0).decode("utf-8", "replace")


class Container(Engine):
    """One container of an image.

    Args:
        waker: of this process.
        image: what to start.
        plan: what is asked for; engines take whole seconds.
    """

    def __init__(self, waker: Waker, image: Image, plan: Plan) -> None:
        result = Rehearsal([], image.name, "", math.ceil(plan.grace), "container")
        super().__init__(waker, plan, Onlooker(signal.SIGTERM, simulate=False), result)
        self._image = image
        self._name = f"{LABEL}-{uuid.uuid4().hex[:12]}"
        self._commands: list[Command] = []
        self._logs: Command | None = None
        self._end: Command | None = None
        """Where the processes cannot be traced, this command tells how the first ended."""
        self._ended = 0.0

    # -- the engine -------------------------------------------------------------------------------------------

    def _begin(self, *words: str, output: int | None = None) -> Command:
        try:
            command = Command([*self._image.engine, *words], output)
        except CannotStart as error:
            raise CannotRehearse(str(error)) from None
        self._commands.append(command)
        return command

    def _finish_command(self, command: Command, limit: float) -> int:
        """Wait for its end, and end it if it takes too long. Returns its status."""
        began, signum = time.monotonic(), signal.SIGTERM
        while command.pid not in self._onlooker.others:
            self._turn(TURN)
            if time.monotonic() - began > limit:
                os.kill(command.pid, signum)
                began, signum = time.monotonic(), signal.SIGKILL
        return self._onlooker.others[command.pid]

    def _call(self, *words: str, limit: float = LONG) -> str:
        """Have the engine do something, and return what it says.

        Raises:
            Refused: it did not.
        """
        command = self._begin(*words)
        if self._finish_command(command, limit):
            raise Refused(command.complaint)
        return command.text

    def _inspect(self) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self._call("container", "inspect", self._name))
        return found[0]

    # -- start ------------------------------------------------------------------------------------------------

    def _start(self, wish: Wish) -> None:
        engine, name = shlex.join(self._image.engine), shown(self._image.name)
        try:
            self._create_and_start(wish)
            found = self._inspect()
        except Refused as error:
            raise CannotRehearse(f"{engine} could not start {name}: {error}") from None
        self._logs = self._begin("logs", "--follow", self._name, output=self._writer)
        self.result.program = command_of(found)
        # podman says a number, docker a name, or nothing if it is TERM.
        self._onlooker.target.signum = number_of(str(found["Config"].get("StopSignal") or "TERM"))
        self.result.signal = name_of(self._onlooker.target.signum)
        self._onlooker.phase.kills_after = self.result.grace - EARLY
        self._attach(int(found["State"]["Pid"]), found["Id"], wish)

    def _create_and_start(self, wish: Wish) -> None:
        """As `run` does, but with the files that are to be tried put into the container before it starts.

        Raises:
            Refused: the engine did not do it.
        """
        image, asked = self._image, self._plan.signum
        options = ["--name", self._name, "--label", LABEL]
        options += [] if asked is None else ["--stop-signal", str(asked)]
        options += image.options
        if self._plan.told is not None:
            options += ["--env", f"{GRACE_VARIABLE}={self._plan.told}"]
        arguments = self._plan.program
        if image.entrypoint is not None:
            options += ["--entrypoint", image.entrypoint[0] if image.entrypoint else ""]
            arguments = [*image.entrypoint[1:], *arguments]
        words = [*options, image.name, *arguments]
        if not self._plan.files:
            self._call("run", "--detach", *words, limit=wish.timeout)
            return
        self._call("create", *words, limit=wish.timeout)
        for path, text in self._plan.files.items():
            self._change(path, text)
        self._call("start", self._name, limit=wish.timeout)

    def _change(self, path: str, text: str) -> None:
        """Have another text in a file of the container, and all else about it as it was.

        Raises:
            Refused: the engine did not do it.
        """
        with tempfile.TemporaryDirectory(prefix="cleanup-guard-") as folder:
            copy = f"{folder}/copy"
            self._call("cp", f"{self._name}:{path}", copy)
            with open(copy, "r+", encoding="utf-8") as file:
                file.truncate()
                file.write(text)
            self._call("cp", copy, f"{self._name}:{path}")

    def _entrypoint(self, found: dict[str, Any]) -> list[str]:
        """Of the image, if it is what was started.

        Raises:
            Refused: the engine knows nothing about it.
        """
        if self._image.entrypoint is not None:
            return self._image.entrypoint
        described: list[dict[str, Any]] = json.loads(self._call("image", "inspect", str(found["Image"])))
        entrypoint: list[str] = described[0]["Config"].get("Entrypoint") or []
        return entrypoint if command_of(found)[: len(entrypoint)] == entrypoint else []

    def _attach(self, pid: int, container: str, wish: Wish) -> None:
        """Trace the container's processes, or be content with what is to be had."""
        if pid == 0:  # it has ended already
            self._onlooker.status = int(self._inspect()["State"]["ExitCode"])
            return
        visible = _belongs(pid, container)
        try:
            if not visible:
                raise PermissionError("they are not among those of this machine")
            self._onlooker.begin(pid, ours=False)
        except ProcessLookupError:
            self._attach(0, container, wish)
        except OSError as error:
            self._be_content(pid if visible else None, error.strerror or str(error), wish)
        else:
            self._onlooker.is_first(pid)
            foreign = self._onlooker.adopt()
            if foreign:
                self.result.remark = f"{len(foreign)} of its processes may not be watched, and are not shown"

    def _be_content(self, pid: int | None, why: str, wish: Wish) -> None:
        lacking = "--ready-file" if wish.file is not None else "--ready-tcp" if wish.tcp is not None else None
        if lacking is not None and (pid is None or lacking == "--ready-file"):
            raise CannotRehearse(
                f"{lacking} cannot be seen from here, for its processes may not be watched ({why})"
            )
        self._end = self._begin("wait", self._name)
        self.result.remark = (
            f"its processes may not be watched ({why}), so what became of all but the first is unknown: "
            "be root on the machine of the engine to see that"
        )
        if pid is not None:
            self._onlooker.is_first(pid)

    # -- what happens meanwhile -------------------------------------------------------------------------------

    def _turn(self, seconds: float | None) -> None:
        super()._turn(seconds)
        if self._end is not None and self._onlooker.status is None and self._end.pid in self._onlooker.others:
            self._ended = self._onlooker.clock
            self._onlooker.status = int(self._end.text or -1)

    def _living(self) -> list[int]:
        first = self._onlooker.target.first
        return self._onlooker.living if self._end is None or first is None else [first, *descendants(first)]

    def _check_that_it_lives(self) -> None:
        if self._onlooker.status is not None and self._logs is not None:
            self._finish_command(self._logs, LINGER)
        super()._check_that_it_lives()

    # -- stop -------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        if self._end is not None:
            self._onlooker.add(self._glimpsed())
        left = max(SPARE, self.result.grace - self._onlooker.clock) if self._plan.hook else self.result.grace
        self._onlooker.phase.awaits_stop = self._plan.hook is None
        if self._plan.hook is not None:
            self._onlooker.phase.kills_after = self._onlooker.clock + left - EARLY
        stopping = self._begin("stop", "-t", str(math.ceil(left)), self._name)
        if self._finish_command(stopping, left + LONG):
            raise CannotRehearse(f"{shlex.join(self._image.engine)} could not stop it: {stopping.complaint}")
        for command in filter(None, (self._end, self._logs)):
            self._finish_command(command, LINGER)
        self._await_end(self._onlooker.clock + LINGER)
        if not self._onlooker.over:  # they are in no PID namespace of their own, and nobody else ends them
            self._onlooker.kill()
            self._await_end(None)

    def _start_beside(self, command: list[str]) -> Beside:
        beside = Beside(self._begin("exec", self._name, *command).pid)
        self._beside.append(beside)
        return beside

    def _finish(self) -> Rehearsal:
        found = self._inspect()
        state = found["State"]
        self.result.entrypoint = self._entrypoint(found)
        self._onlooker.status = int(state["ExitCode"])
        self.result.out_of_memory = bool(state.get("OOMKilled"))
        if self._end is not None:
            self._surmise(self._onlooker.status)
        return super()._finish()

    def _glimpsed(self) -> list[Seen]:
        """Who is there, where nobody may be traced."""
        first = self._onlooker.target.first
        if first is not None:
            found = {pid: glimpse(pid, self._onlooker.target.signum) for pid in [first, *descendants(first)]}
            for seen in found.values():
                seen.parent = found[seen.parent].pid if seen.parent in found else 0
            return list(found.values())
        try:
            return listed(self._call("top", self._name))
        except (Refused, ValueError):
            return [Seen(1, 0, self.result.program, "unknown")]

    def _surmise(self, status: int) -> None:
        """What the status of the first process tells about the end of all."""
        for seen in self._onlooker.processes:
            seen.born, seen.ended, seen.how = -self.result.readied, self._ended, "unknown"
        first = self._onlooker.processes[0]
        first.how, first.status = "exited", status
        if status == 128 + signal.SIGKILL:
            late = (
                self._onlooker.phase.kills_after is not None
                and self._ended >= self._onlooker.phase.kills_after
            )
            first.how, first.status = "killed" if late else "signal", int(signal.SIGKILL)

    # -- the end ----------------------------------------------------------------------------------------------

    def _clear_away(self) -> None:
        """Remove the container, whatever happened: an interrupted `run` may have made it or not."""
        for command in self._commands[:1]:  # `run`; there is none if nothing could be started
            self._patiently(command, LINGER)
        self._patiently(
            self._begin("kill", "--signal", "KILL", self._name), LONG
        )  # `rm` of podman would be a stop
        removing = self._begin("rm", "--force", "--volumes", self._name)
        self._patiently(removing, LONG)
        if self._onlooker.others[removing.pid]:
            looking = self._begin("container", "inspect", self._name)
            self._patiently(looking, LONG)
            if self._onlooker.others[looking.pid] == 0:
                raise CannotRehearse(f"the container {self._name} could not be removed: {removing.complaint}")
        for command in self._commands:
            self._patiently(command, LINGER)
            command.close()
        super()._clear_away()

    def _patiently(self, command: Command, limit: float) -> None:
        while command.pid not in self._onlooker.others:
            try:
                self._finish_command(command, limit)
            except Interrupted:
                pass  # we are at it


def command_of(found: dict[str, Any]) -> list[str]:
    """What the container executes, from what `inspect` says."""
    path, arguments, config = found["Path"], found["Args"], found["Config"]
    # podman 4 has the entrypoint as one text, and repeats a command that is a single word.
    told = "".join(["".join(config.get("Entrypoint") or ""), *(config.get("Cmd") or [])])
    return [path] if arguments == [path] and told == path else [path, *arguments]


def _belongs(pid: int, container: str) -> bool:
    """Whether this process is of that container: the pid may be one of another machine, or of a virtual one."""
    for name in ("cgroup", "mountinfo"):
        try:
            with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:
                if container in file.read():
                    return True
        except OSError:
            pass
    return False


def listed(text: str) -> list[Seen]:
    """What `top` of an engine shows: columns that differ from engine to engine, PID and PPID among them, the command last.

    Raises:
        ValueError: it does not.
    """
    head, *lines = text.splitlines() or [""]
    columns = head.split()
    pid, parent = columns.index("PID"), columns.index("PPID")
    rows = [line.split(None, len(columns) - 1) for line in lines if len(line.split()) >= len(columns)]
    pids = {row[pid] for row in rows}
    first = next((row[pid] for row in rows if row[parent] not in pids), None)
    if first is None:
        raise ValueError(f"nobody is listed: {text!r}")
    inner = {each: 1 if each == first else int(each) for each in pids}
    found = [Seen(inner[row[pid]], inner.get(row[parent], 0), row[-1].split(), "unknown") for row in rows]
    return sorted(found, key=lambda seen: seen.pid != 1)


def rehearse(waker: Waker, plan: Plan) -> Rehearsal:
    """Rehearse one stop of one container.

    Raises:
        CannotRehearse: there was nothing to stop.
        Interrupted: we were told to stop ourselves.
    """
    assert plan.image is not None
    if not plan.image.name or plan.image.name.startswith("-"):
        raise CannotRehearse(
            f"{quoted(plan.image.name)} is no name of an image: an engine would take it for an option"
        )
    keep_fds_to_ourselves()
    with Container(waker, plan.image, plan) as container:
        return container.run()
