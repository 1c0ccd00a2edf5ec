"""`pytest --done=FILE` writes down which tests are done, and leaves out those that are: run once more, it does what is missing.

pytest's own `--last-failed` knows what failed, and not what a run that was killed had not come to.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest


class Done:
    """The tests that passed, or were skipped, in this run or one before it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before = (
            {json.loads(line) for line in path.read_text().splitlines()} if path.exists() else set[str]()
        )
        self._failed = False

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out what is done."""
        done = [item for item in items if item.nodeid in self.before]
        items[:] = [item for item in items if item.nodeid not in self.before]
        config.hook.pytest_deselected(items=done)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write down a test when its last phase is over."""
        if report.when == "setup":
            self._failed = False
        self._failed |= report.failed
        if report.when == "teardown" and not self._failed:
            with self.path.open("a") as file:
                file.write(json.dumps(report.nodeid) + "\n")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Nothing is left to do: that is what was wanted."""
        if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self.before:
            session.exitstatus = pytest.ExitCode.OK


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option."""
    parser.addoption(
        "--done", type=Path, metavar="FILE", help="write down what is done, and leave out what is"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Only if it is asked for."""
    path = config.getoption("done")
    if path is not None:
        config.pluginmanager.register(Done(path), "done")
