"""The pytest plugin: one fixture, and what it saw in the report of a test that fails.

Every pytest run where this package is installed imports it, so it imports nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from cleanup_guard.testing import Rehearsal

SEEN = pytest.StashKey["list[Rehearsal]"]()
"""What has been rehearsed since the last report."""


@pytest.fixture(name="rehearse", scope="session")
def _rehearse(pytestconfig: pytest.Config) -> Callable[..., Rehearsal]:
    """Rehearse a stop: `assert rehearse(["python", "app.py"], ready="started").clean`. See cleanup_guard.testing.rehearse."""
    from cleanup_guard import testing

    def rehearse(*args: object, **kwargs: object) -> Rehearsal:
        __tracebackhide__ = True
        found = testing.rehearse(*args, **kwargs)  # type: ignore[arg-type]
        pytestconfig.stash.setdefault(SEEN, []).append(found)
        return found

    return rehearse


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where a test fails, the timeline of each stop that it has rehearsed is part of the failure."""
    report = yield
    seen = item.config.stash.get(SEEN, [])
    if report.failed:
        report.sections += [("rehearsed stop", str(each)) for each in seen]
    seen.clear()
    return report
