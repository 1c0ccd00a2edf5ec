"""The guard in real containers: the program is the entrypoint, PID 1, and the engine stops it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from containers.context import EXAMPLES

if TYPE_CHECKING:
    from containers.context import ImageOf
    from containers.engine import Engine

MAIN = {"main_process.py": EXAMPLES / "02_main_process.py"}


def test_the_program_as_entrypoint_cleans_up(engine: Engine, image_of: ImageOf) -> None:
    """The classic program as PID 1: a stop is a cleanup, and takes a fraction of the ten seconds."""
    container = engine.run(image_of("direct", MAIN))
    container.wait_for_log("!!!Set up!!!")
    stopped = container.stop(grace=10)
    assert stopped.logs.count("!!!Clean up!!!") == 1
    assert re.search(
        r"SIGTERM received in a \w+ container \(.*\), 10 s to clean up: given by guard", stopped.logs
    )
    assert stopped.exit_code == 143
    assert stopped.seconds < 8
    assert not stopped.killed


def test_a_cleanup_that_needs_most_of_the_grace_period_is_not_cut_short(
    engine: Engine, image_of: ImageOf
) -> None:
    """A cleanup of five seconds is finished inside the ten."""
    container = engine.run(image_of("direct", MAIN), env={"CLEANUP_SECONDS": "5"})
    container.wait_for_log("!!!Set up!!!")
    stopped = container.stop(grace=10)
    assert stopped.logs.count("!!!Clean up!!!") == 1
    assert (stopped.exit_code, stopped.killed) == (143, False)


def test_a_callback_that_hangs_is_reported_before_the_engine_kills(engine: Engine, image_of: ImageOf) -> None:
    """A callback that hangs: the log says which and where, and the process ends itself inside the grace period."""
    image = image_of("direct", MAIN)
    container = engine.run(image, env={"CLEANUP_SECONDS": "3600", "CLEANUP_GUARD_GRACE": "4"})
    container.wait_for_log("!!!Set up!!!")
    stopped = container.stop(grace=10)
    assert "callback clean_up interrupted" in stopped.logs
    assert "main_process.py" in stopped.logs
    assert "!!!Clean up!!!" not in stopped.logs
    assert (stopped.exit_code, stopped.killed) == (143, False)
    assert stopped.seconds < 9


def test_ctrl_c_as_pid_1(engine: Engine, image_of: ImageOf) -> None:
    """SIGINT to the container: the same cleanup, status 130."""
    container = engine.run(image_of("direct", MAIN))
    container.wait_for_log("!!!Set up!!!")
    container.kill("INT")
    stopped = container.wait()
    assert stopped.logs.count("!!!Clean up!!!") == 1
    assert stopped.exit_code == 130


def test_a_main_that_is_a_task_as_entrypoint(engine: Engine, image_of: ImageOf) -> None:
    """An async program as PID 1: its async callback is awaited, and the stop takes a fraction of the ten seconds."""
    container = engine.run(image_of("direct", {"main_process.py": EXAMPLES / "08_async.py"}))
    container.wait_for_log("ready")
    stopped = container.stop(grace=10)
    assert stopped.logs.count("goodbye") == 1
    assert "Traceback" not in stopped.logs
    assert (stopped.exit_code, stopped.killed) == (143, False)
    assert stopped.seconds < 8
