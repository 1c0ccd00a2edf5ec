"""A real container engine for tests: build, run, stop as `docker stop` does, and leave nothing behind.

How to add a container test:

1. Put what the image needs in ``examples/containers/<name>/``, with a Dockerfile that begins::

       FROM localhost/cleanup-guard-base
       COPY installed/ /

   The base is a small Debian with python3, bash, coreutils, tini and dumb-init. ``installed/`` is there in
   every build context: the package under test, laid out as pip would have installed it, with its command.
   A test that needs no image of its own can run a command in the ``base_image``.

2. Write the test in ``tests/containers/``; the marker ``container`` comes by itself::

       def test_the_program_itself_as_entrypoint(engine: Engine, image_of: ImageOf) -> None:
           "With the program as PID 1, a stop is a cleanup."
           image = image_of("direct", {"main_process.py": EXAMPLES / "02_main_process.py"})
           container = engine.run(image, env={"CLEANUP_GUARD_GRACE": "5"})
           container.wait_for_log("!!!Set up!!!")
           stopped = container.stop(grace=10)
           assert "!!!Clean up!!!" in stopped.logs
           assert stopped.exit_code == 143
           assert stopped.seconds < 8

Wait for a line of the log before stopping, or the stop meets an interpreter that is still starting.
``kill("INT")`` sends one signal and returns; ``wait()`` then says how it ended. Containers are removed after
each test, images after the last. Should the test run itself be killed, then
``podman ps --all --filter label=cleanup-guard-test`` finds what it left.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LABEL = "cleanup-guard-test"
POLL = 0.05  # seconds between two looks at a container; a look itself takes about as long
STATE = "{{.State.Status}} {{.State.ExitCode}}"
ENDED = {"exited", "stopped", "dead"}


class Unavailable(Exception):
    """Containers cannot be had on this machine; the message says why in one sentence."""


class EngineError(Exception):
    """The engine refused a command; the message holds the command and what the engine said."""


@dataclass(frozen=True)
class Dialect:
    """What must be said differently to each engine."""

    program: str
    options: Sequence[str] = ()
    build: Sequence[str] = ()
    run: Sequence[str] = ()
    remove: Sequence[str] = ()


@dataclass(frozen=True)
class Stopped:
    """How a container ended, and how long that took from the moment it was asked for."""

    seconds: float
    exit_code: int
    logs: str

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it: the engine's when grace was over, or the kernel's when memory was.

        Which of the two is not told: where cgroups are v1, podman says OOMKilled=false of either.
        """
        return self.exit_code == 128 + 9


@dataclass(frozen=True)
class Container:
    """A container that was started; it may have ended since."""

    engine: Engine
    name: str

    def logs(self) -> str:
        """What it has written so far, stdout and stderr in the order of arrival."""
        return self.engine.call("logs", self.name)

    def exit_code(self) -> int | None:
        """The exit status of its PID 1, or None while that runs."""
        status, code = self.engine.call("inspect", "--format", STATE, self.name).split()
        return int(code) if status in ENDED else None

    def wait_for_log(self, text: str, timeout: float = 10) -> None:
        """Return once it has written `text`; fail, showing the log, if it ends or `timeout` passes first."""
        deadline = time.monotonic() + timeout
        while True:
            code = self.exit_code()  # before the look at the log: a text written just before the end counts
            logs = self.logs()
            if text in logs:
                return
            if code is not None:
                raise AssertionError(f"{self.name} ended with {code} and never wrote {text!r}, but:\n{logs}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name} did not write {text!r} in {timeout} s, but:\n{logs}")
            time.sleep(POLL)

    def stop(self, grace: int = 10) -> Stopped:
        """Stop it as `docker stop` does: the stop signal to PID 1, after `grace` seconds SIGKILL to all."""
        start = time.monotonic()
        self.engine.call("stop", "--time", str(grace), self.name, timeout=grace + 60)
        seconds = time.monotonic() - start
        return replace(self.wait(), seconds=seconds)

    def kill(self, sig: str) -> None:
        """Send PID 1 one signal, by name ("TERM"), and do not wait."""
        self.engine.call("kill", "--signal", sig, self.name)

    def wait(self, timeout: float = 30) -> Stopped:
        """Wait until it ends by itself; `seconds` count from this call."""
        start = time.monotonic()
        while (code := self.exit_code()) is None:
            if time.monotonic() > start + timeout:
                raise AssertionError(f"{self.name} still runs after {timeout} s, and wrote:\n{self.logs()}")
            time.sleep(POLL)
        return Stopped(time.monotonic() - start, code, self.logs())

    def remove(self) -> None:
        """Remove it, running or not, gone or not."""
        self.engine.remove_container(self.name)


class Engine:
    """A container engine that works here, and everything that was made with it.

    Leaving its `with` block removes the containers and images that came from `run` and `build`.
    """

    def __init__(self, dialect: Dialect) -> None:
        """Take the engine that speaks `dialect`; `Engine.find` chooses one."""
        self._dialect = dialect
        self._containers: list[Container] = []
        self._images: list[str] = []

    @classmethod
    def find(cls) -> Self:
        """The first engine that answers: podman, or docker.

        Raises:
            Unavailable: neither does.
        """
        for dialect in (_podman(), DOCKER):
            if shutil.which(dialect.program):
                engine = cls(dialect)
                if engine.answers():
                    return engine
        raise Unavailable("no container engine works here: install podman, or start docker's daemon")

    def __enter__(self) -> Self:
        """Nothing is made yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what was made, each whatever becomes of the others."""
        with ExitStack() as removals:
            for image in self._images:
                removals.callback(self.call, "rmi", "--force", image)
            removals.callback(self.remove_containers)

    def __repr__(self) -> str:
        """The engine's name, for pytest's reports."""
        return f"<Engine {self._dialect.program}>"

    @property
    def command_line(self) -> list[str]:
        """What to call it by on this machine."""
        return [self._dialect.program, *self._dialect.options]

    @property
    def run_options(self) -> list[str]:
        """What every `run` needs on this machine, without a network."""
        return ["--network=none", "--pull=never", *self._dialect.run]

    def answers(self) -> bool:
        """Whether it works at all: docker's client is often installed where its daemon is not."""
        try:
            self.call("info")
        except EngineError:
            return False
        return True

    def build(self, context_dir: Path, name: str) -> str:
        """Build an image from a folder with a Dockerfile; its tag is `name`, made unique to this build."""
        tag = f"localhost/{LABEL}-{name.replace('/', '-')}:{uuid.uuid4().hex[:12]}"
        self._images.append(tag)
        self.call("build", *self._dialect.build, "--tag", tag, str(context_dir), timeout=300)
        return tag

    def run(
        self,
        image: str,
        *args: str,
        env: Mapping[str, str] | None = None,
        volumes: Mapping[Path, str] | None = None,
        extra: Sequence[str] = (),
    ) -> Container:
        """Start a container in the background, without a network.

        Args:
            image: Its tag.
            args: What follows the image on the command line: the command, or the entrypoint's arguments.
            env: Environment variables.
            volumes: Folders of this machine, and where in the container they appear.
            extra: More options of `run`, such as ("--init",) or ("--stop-signal", "INT").
        """
        container = Container(self, f"{LABEL}-{uuid.uuid4().hex[:12]}")
        self._containers.append(container)
        options = ["--detach", f"--name={container.name}", f"--label={LABEL}", *self.run_options]
        options += [f"--env={key}={value}" for key, value in (env or {}).items()]
        options += [f"--volume={folder}:{place}" for folder, place in (volumes or {}).items()]
        self.call("run", *options, *extra, image, *args)
        return container

    def remove_containers(self) -> None:
        """Remove every container that was run and is still there."""
        with ExitStack() as removals:
            for container in self._containers:
                removals.callback(container.remove)
            self._containers.clear()

    def remove_container(self, name: str) -> None:
        """Remove one container by name, running or not, gone or not."""
        self.call("rm", "--force", *self._dialect.remove, name)

    def import_image(self, archive: Path, tag: str, *, recipe: str) -> None:
        """Make the image `tag` of a root file system's tar archive; it stays, labelled with its recipe."""
        change = f"LABEL {LABEL}-recipe={recipe}"
        self.call("import", "--change", change, str(archive), tag, timeout=300)

    def recipe_of(self, tag: str) -> str | None:
        """The recipe that `import_image` labelled an image with, or None if there is no such image."""
        template = f'{{{{index .Config.Labels "{LABEL}-recipe"}}}}'
        try:
            return self.call("image", "inspect", "--format", template, tag).strip()
        except EngineError:
            return None

    def call(self, *args: str, timeout: float = 60) -> str:
        """Run the engine with `args`; what it says, stdout and stderr together.

        Raises:
            EngineError: it failed, or did not answer in `timeout` seconds.
        """
        command = [*self.command_line, *args]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                timeout=timeout,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            raise EngineError(f"{' '.join(command)}: status {error.returncode}\n{error.stdout}") from None
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"{' '.join(command)}: no answer in {timeout} s\n{error.output}") from None
        return done.stdout


def _podman() -> Dialect:
    options = []
    if shutil.which("runc"):
        # crun starts nothing where cgroups are "hybrid" (v1 controllers beside a v2 tree); runc does.
        options += ["--runtime=runc"]
    if not Path("/run/systemd/system").is_dir():
        # As sd_booted(3) tells: there is no systemd to keep cgroups, and podman may count on one.
        options += ["--cgroup-manager=cgroupfs"]
    return Dialect(
        program="podman",
        options=options,
        # RUN steps in containers of their own would meet the limits below, which `build` has no say in.
        build=["--isolation=chroot"],
        # podman asks for a million files and processes; runc may not grant them without CAP_SYS_RESOURCE.
        run=[
            "--log-driver=k8s-file",
            _ulimit("nofile", resource.RLIMIT_NOFILE),
            _ulimit("nproc", resource.RLIMIT_NPROC),
        ],
        # `rm` is a stop with ten seconds of grace for whoever ignores it.
        remove=["--time=0", "--ignore"],
    )


def _ulimit(name: str, limit: int) -> str:
    _, hard = resource.getrlimit(limit)
    enough = 4096 if hard == resource.RLIM_INFINITY else min(hard, 4096)
    return f"--ulimit={name}={enough}:{enough}"


DOCKER = Dialect(program="docker")
