"""The entrypoints of the world in real containers: a script that ends in `exec`, and no shell at all.

Their companions are elsewhere: the program itself in test_guard.py, the script without `exec` in test_controls.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from containers.context import EXAMPLES

if TYPE_CHECKING:
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


def test_a_forgotten_variable_ends_the_container_at_once(engine: Engine, image_of: ImageOf) -> None:
    """With the variable, the file and the line in the log, instead of a program with half a configuration."""
    ended = engine.run(image_of("exec_template", MAIN)).wait()
    assert ended.exit_code == 2
    assert ended.logs.strip() == (
        "cleanup-guard exec: missing environment variable: GREETING (/main_process.conf.in, line 1)"
    )
