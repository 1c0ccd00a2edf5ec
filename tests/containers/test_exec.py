"""The entrypoints of the world in real containers: a script that ends in `exec`, and no shell at all.

Their companions are elsewhere: the program itself in test_guard.py, the script without `exec` in test_controls.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from containers.context import EXAMPLES

if TYPE_CHECKING:
    from pathlib import Path

    from containers.context import ImageOf
    from containers.engine import Engine

MAIN = {"main_process.py": EXAMPLES / "02_main_process.py"}


@pytest.mark.parametrize("name", ["direct", "entry_sh_exec", "exec_template"])
def test_where_the_program_is_pid_1_a_stop_is_a_cleanup(engine: Engine, image_of: ImageOf, name: str) -> None:
    """The cleanup is complete long before the ten seconds are over, and the status is the signal's."""
    container = engine.run(image_of(name, MAIN), env={"GREETING": "hi"})
    container.wait_for_log("!!!Set up!!!")
    stopped = container.stop(grace=10)
    assert stopped.logs.count("!!!Clean up!!!") == 1
    assert stopped.exit_code == 143
    assert stopped.seconds < 8


def test_the_config_file_is_rendered_from_the_containers_environment(
    engine: Engine, image_of: ImageOf
) -> None:
    """What `-e` says is in the file when the program starts, and PID 1 is the program."""
    container = engine.run(image_of("exec_template", MAIN), env={"GREETING": "hello $USER"})
    container.wait_for_log("!!!Set up!!!")
    assert engine.call("exec", container.name, "cat", "/etc/main_process.conf") == "greeting=hello $USER\n"
    assert engine.call("exec", container.name, "cat", "/proc/1/cmdline") == "python3\0/main_process.py\0"


def test_the_programs_environment_is_that_of_the_container(engine: Engine, image_of: ImageOf) -> None:
    """As the engine gave it: Python, which runs in the C locale there, adds no LC_CTYPE."""
    container = engine.run(image_of("exec_template", MAIN), env={"GREETING": "hi"})
    container.wait_for_log("!!!Set up!!!")
    environment = engine.call("exec", container.name, "cat", "/proc/1/environ").split("\0")
    assert "GREETING=hi" in environment
    assert not [each for each in environment if each.startswith("LC_CTYPE=")]


def test_root_writes_a_mounted_file_in_place_and_becomes_a_user_without_capabilities(
    engine: Engine, image_of: ImageOf, tmp_path: Path
) -> None:
    """`--volume app.conf:/etc/app.conf` cannot be replaced; what the program becomes has lost every capability."""
    mounted = tmp_path / "app.conf"
    mounted.touch()
    prepare = ["--template", "/main_process.conf.in:/etc/app.conf"]
    drop = ["--user", "nobody", "--drop-caps", "all", "--no-new-privs"]
    show = ["grep", "-hE", "^(Uid|CapBnd|NoNewPrivs|greeting)", "/proc/self/status", "/etc/app.conf"]
    ended = engine.run(
        image_of("exec_template", MAIN),
        *("exec", *prepare, *drop, "--", *show),
        env={"GREETING": "hi"},
        volumes={mounted: "/etc/app.conf"},
        extra=("--entrypoint", "cleanup-guard"),
    ).wait()
    assert ended.logs.split() == [
        *("Uid:", *["65534"] * 4),
        *("CapBnd:", "0" * 16),
        *("NoNewPrivs:", "1"),
        "greeting=hi",
    ]
    assert ended.exit_code == 0
    assert mounted.read_text() == "greeting=hi\n"


def test_a_forgotten_variable_ends_the_container_at_once(engine: Engine, image_of: ImageOf) -> None:
    """With the variable, the file and the line in the log, instead of a program with half a configuration."""
    ended = engine.run(image_of("exec_template", MAIN)).wait()
    assert ended.exit_code == 2
    assert ended.logs.strip() == (
        "cleanup-guard exec: missing environment variable: GREETING (/main_process.conf.in, line 1)"
    )
