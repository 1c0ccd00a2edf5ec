"""The controls: stops that must go wrong in the way the world knows, or those that go right prove nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from containers.context import EXAMPLES

if TYPE_CHECKING:
    from containers.context import ImageOf
    from containers.engine import Engine

FOREVER = "import time; print('!!!Set up!!!', flush=True); time.sleep(3600)"
LISTENS = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
try:
    print('!!!Set up!!!', flush=True)
    time.sleep(3600)
finally:
    time.sleep(float(os.environ.get('CLEANUP', '0')))
    print('!!!Clean up!!!', flush=True)
"""


def test_a_shell_entrypoint_keeps_the_stop_to_itself(engine: Engine, image_of: ImageOf) -> None:
    """Behind a shell script without `exec` there is no cleanup: ten seconds of nothing, then SIGKILL."""
    container = engine.run(image_of("entry_sh_plain", {"main_process.py": EXAMPLES / "02_main_process.py"}))
    container.wait_for_log("!!!Set up!!!")
    stopped = container.stop(grace=10)
    assert "!!!Clean up!!!" not in stopped.logs
    assert 9.5 < stopped.seconds < 15
    assert stopped.exit_code == 137
    assert stopped.killed


def test_python_as_pid_1_ignores_the_stop(engine: Engine, base_image: str) -> None:
    """A program without a handler dies of SIGTERM anywhere but as PID 1: there it must be killed."""
    container = engine.run(base_image, "python3", "-c", FOREVER)
    container.wait_for_log("!!!Set up!!!")
    stopped = container.stop(grace=2)
    assert 1.5 < stopped.seconds < 7
    assert stopped.killed


def test_a_program_that_listens_is_seen_to_clean_up(engine: Engine, base_image: str) -> None:
    """The harness tells the difference: a handler of one's own, as PID 1, is quick, clean and not killed."""
    container = engine.run(base_image, "python3", "-c", LISTENS)
    container.wait_for_log("!!!Set up!!!")
    stopped = container.stop(grace=10)
    assert stopped.logs.split() == ["!!!Set", "up!!!", "!!!Clean", "up!!!"]
    assert stopped.seconds < 8
    assert stopped.exit_code == 143


@pytest.mark.parametrize("init", ["tini", "dumb-init"])
def test_an_init_leaves_before_a_slow_cleanup_is_done(engine: Engine, base_image: str, init: str) -> None:
    """An init in front of the script ends when the shell does, and the kernel kills the cleanup half-way."""
    script = 'python3 -c "$PROGRAM"; true'
    env = {"PROGRAM": LISTENS, "CLEANUP": "8"}
    container = engine.run(base_image, init, "--", "sh", "-c", script, env=env)
    container.wait_for_log("!!!Set up!!!")
    stopped = container.stop(grace=10)
    assert "!!!Clean up!!!" not in stopped.logs
    assert stopped.seconds < 7
    assert stopped.exit_code == 143
