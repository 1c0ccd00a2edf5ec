"""`cleanup-guard run` as the entrypoint of real containers that a real engine stops, and other inits beside it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from containers.context import PACKAGES

if TYPE_CHECKING:
    from containers.context import ImageOf
    from containers.engine import Container, Engine, Stopped

RUN = ["cleanup-guard", "run"]
SCRIPT = "/entry.sh"
SHOWN = "what {} leaves of it: exit code {}, {:.1f} s, the log:\n{}"


@pytest.fixture(scope="module")
def entry_image(image_of: ImageOf) -> str:
    """The image with the unfixed entry script."""
    return image_of("run_entry_sh")


@pytest.fixture(scope="module")
def several_image(image_of: ImageOf) -> str:
    """The image with two workers and a volume."""
    return image_of("run_several")


def started(
    engine: Engine, image: str, *words: str, extra: tuple[str, ...] = (), **options: object
) -> Container:
    """Start the image with another entrypoint, if there are words for it, and wait until the program is up."""
    entrypoint = ("--entrypoint", json.dumps(words)) if words else ()
    container = engine.run(image, extra=(*entrypoint, *extra), **options)  # type: ignore[arg-type]
    container.wait_for_log("!!!Set up!!!", timeout=60)
    return container


def told(name: str, stopped: Stopped) -> Stopped:
    """Show in the test's output what a stop came to."""
    print(SHOWN.format(name, stopped.exit_code, stopped.seconds, stopped.logs))
    return stopped


def test_the_reference_a_hand_written_trap(engine: Engine, entry_image: str) -> None:
    """(a) `trap handler TERM; child & wait` by hand: the cleanup is complete."""
    stopped = told("trap and wait", started(engine, entry_image, "/trap.sh").stop(grace=20))
    assert "!!!Clean up!!!" in stopped.logs
    assert stopped.exit_code == 143


def test_an_unfixed_script_under_run_cleans_up(engine: Engine, entry_image: str) -> None:
    """(b) The plain script, unchanged, behind `cleanup-guard run`: the cleanup of three seconds is complete."""
    stopped = told("cleanup-guard run", started(engine, entry_image).stop(grace=20))
    assert stopped.logs.count("!!!Clean up!!!") == 1
    assert stopped.exit_code == 143
    assert 3 <= stopped.seconds < 18


@pytest.mark.parametrize("init", ["tini", "tini -g", "dumb-init"])
def test_the_controls_lose_the_cleanup(engine: Engine, entry_image: str, init: str) -> None:
    """(b) The same image under the inits of Debian: they leave when the shell does, and the cleanup is lost."""
    container = started(engine, entry_image, *init.split(), "--", SCRIPT)
    stopped = told(init, container.stop(grace=20))
    assert "!!!Clean up!!!" not in stopped.logs


PIPELINE = ["sh", "-c", "/main_process.py | tee /tmp/log"]


def test_the_reader_of_a_pipe_goes_last(engine: Engine, entry_image: str) -> None:
    """(b) `app | tee log`, unchanged: what the cleanup of three seconds says is still read."""
    stopped = told("cleanup-guard run", started(engine, entry_image, *RUN, "--", *PIPELINE).stop(grace=20))
    assert stopped.logs.count("!!!Clean up!!!") == 1
    assert stopped.exit_code == 143
    control = told("tini", started(engine, entry_image, "tini", "--", *PIPELINE).stop(grace=20))
    assert "!!!Clean up!!!" not in control.logs


HEAD = {"honcho": "", "supervisor": "[supervisord]\n"}
EACH = {
    "honcho": "{0}: NAME={0} exec /main_process.py\n",
    "supervisor": """\
[program:{0}]
command = /main_process.py
environment = NAME={0}
stdout_logfile = /dev/fd/1
stdout_logfile_maxbytes = 0
""",
}
START = {"honcho": "honcho -f /etc/mine start", "supervisor": "supervisor.supervisord -n -c /etc/mine"}


@pytest.mark.guests
@pytest.mark.parametrize("module", START)
def test_a_supervisor_below_us_is_left_to_its_work(
    engine: Engine, entry_image: str, module: str, tmp_path: Path
) -> None:
    """(b) honcho and supervisord tell their programs themselves: nobody is told twice, and each cleanup is complete."""
    (tmp_path / "mine").write_text(HEAD[module] + EACH[module].format("one") + EACH[module].format("two"))
    volumes = {tmp_path / "mine": "/etc/mine", folder_of(module): f"/{PACKAGES}/{module}"}
    words = [*RUN, "--grace", "20", "--", "python3", "-u", "-m", *START[module].split()]
    container = started(engine, entry_image, *words, volumes=volumes, env={"CLEANUP": "2"})
    for name in ("one", "two"):
        container.wait_for_log(f"!!!Set up!!!{name}", timeout=60)
    stopped = told(f"cleanup-guard run -- {module}", container.stop(grace=20))
    assert [stopped.logs.count(f"!!!Clean up!!!{name}") for name in ("one", "two")] == [1, 1]
    assert stopped.exit_code != 137


def folder_of(module: str) -> Path:
    """Where a package is installed here."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        pytest.skip(f"{module} is not installed: make GUESTS=1")
    return Path(spec.origin).parent


@pytest.mark.parametrize("names", [("one", "two"), ("one", "two", "three")])
def test_several_programs_and_a_volume(
    engine: Engine, several_image: str, names: tuple[str, ...], tmp_path: Path
) -> None:
    """(c) Every program cleans up once, then the supervisor's own cleanup moves the data to the volume."""
    words = [*RUN, "--on-exit", "cp -a /scratch/. /persistent/", "--on-exit", "echo moved", "--prefix"]
    for number, name in enumerate(names):
        words[2:2] = ["--name", names[-1 - number]]
        words += [":::" if number else "--", "/worker.py", name]
    container = started(engine, several_image, *words, volumes={tmp_path: "/persistent"})
    for name in names:
        container.wait_for_log(f"!!!Set up!!! {name}")
    stopped = told("cleanup-guard run", container.stop(grace=20))
    for name in names:
        assert stopped.logs.count(f"!!!Clean up!!! {name}\n") == 1
        assert (tmp_path / name).read_text() == "result"
    assert stopped.logs.rstrip().endswith("moved")
    assert stopped.exit_code == 0


def test_a_deaf_program_is_killed_in_time(engine: Engine, several_image: str, tmp_path: Path) -> None:
    """(d) One ignores SIGTERM: it is killed in time; the other and the callback are unharmed."""
    words = ["--", "/worker.py", "one", ":::", "/worker.py", "deaf"]
    container = engine.run(several_image, *words, volumes={tmp_path: "/persistent"})
    container.wait_for_log("!!!Set up!!! one")
    container.wait_for_log("!!!Set up!!! deaf")
    stopped = told("cleanup-guard run", container.stop(grace=10))
    assert "!!!Clean up!!! one" in stopped.logs
    assert (tmp_path / "one").read_text() == "result"
    assert stopped.exit_code == 137
    assert stopped.seconds < 12
    assert "killed" in stopped.logs
    assert "two: " in stopped.logs  # its name on the command line


def test_kill_9_of_the_supervisor_itself(engine: Engine, entry_image: str) -> None:
    """(e) SIGKILL to the supervisor: with --pdeathsig TERM the program is told, and cleans up."""
    script = """\
    cleanup-guard run --pdeathsig TERM -- /main_process.py > /tmp/log &
    until grep Set /tmp/log; do sleep 0.1; done
    kill -9 $!
    until grep Clean /tmp/log; do sleep 0.1; done
    """
    container = engine.run(entry_image, extra=("--entrypoint", json.dumps(["sh", "-c", script])))
    ended = told("kill -9", container.wait(timeout=60))
    assert "!!!Clean up!!!" in ended.logs


SURROUNDINGS = {
    "non-root": ("--user", "1234:1234"),
    "a read-only root": ("--read-only", "--read-only-tmpfs=false"),
    "no capabilities": ("--cap-drop=all",),
    "the host's processes around": ("--pid=host",),
}


@pytest.mark.parametrize("extra", SURROUNDINGS.values(), ids=SURROUNDINGS.keys())
def test_it_works_in_any_surroundings(engine: Engine, entry_image: str, extra: tuple[str, ...]) -> None:
    """As any user, with nothing to write to, beside others' processes: the same cleanup."""
    container = started(engine, entry_image, extra=extra, env={"CLEANUP": "1"})
    container.kill("TERM")  # not `stop`: without a PID namespace podman then signals every process itself
    stopped = told("cleanup-guard run", container.wait())
    assert stopped.logs.count("!!!Clean up!!!") == 1
    assert stopped.exit_code == 143
    assert stopped.seconds < 18


def test_an_init_above_does_no_harm(engine: Engine, entry_image: str) -> None:
    """`docker --init` puts tini above us: not PID 1, we adopt orphans all the same."""
    container = started(engine, entry_image, "tini", "--", *RUN, "--", SCRIPT, env={"CLEANUP": "1"})
    stopped = told("tini -- cleanup-guard run", container.stop(grace=20))
    assert stopped.logs.count("!!!Clean up!!!") == 1
    assert stopped.exit_code == 143


def test_it_needs_no_shell(engine: Engine, entry_image: str, tmp_path: Path) -> None:
    """An image without a shell: programs and callbacks are started all the same."""
    (tmp_path / "empty").touch(mode=0o644)
    hidden = [f"--volume={tmp_path}/empty:{shell}:ro" for shell in ("/usr/bin/dash", "/usr/bin/bash")]
    words = [*RUN, "--on-exit", "echo 'good bye'", "--", "/main_process.py"]
    container = started(engine, entry_image, *words, extra=tuple(hidden), env={"CLEANUP": "0"})
    stopped = told("cleanup-guard run", container.stop(grace=20))
    assert stopped.logs.rstrip().endswith("good bye")
    assert stopped.exit_code == 143
