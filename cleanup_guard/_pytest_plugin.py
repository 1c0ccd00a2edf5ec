"""The pytest plugin: one fixture, and a stop that ends the run.

Every pytest run where this package is installed imports it, so it imports nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from cleanup_guard.testing import Rehearsal


@pytest.fixture(name="rehearse", scope="session")
def _rehearse() -> Callable[..., Rehearsal]:
    """Rehearse a stop: `assert rehearse(["python", "app.py"], ready="started").clean`. See cleanup_guard.testing.rehearse."""
    from cleanup_guard import testing

    def rehearse(*args: object, **kwargs: object) -> Rehearsal:
        __tracebackhide__ = True  # a failure is about the program, not about us
        found = testing.rehearse(*args, **kwargs)  # type: ignore[arg-type]
        print(found)  # noqa: T201 - pytest shows it if the test fails
        return found

    return rehearse


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
    """See `_end_at_a_stop`."""
    return (yield from _end_at_a_stop())


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """See `_end_at_a_stop`."""
    return (yield from _end_at_a_stop())


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown() -> Generator[None, object, object]:
    """See `_end_at_a_stop`."""
    return (yield from _end_at_a_stop())


def _end_at_a_stop() -> Generator[None, object, object]:
    """A stop ends the run as Ctrl-C does, fixtures and all: pytest takes a SystemExit for a failed test, and goes on."""
    try:
        return (yield)
    except SystemExit as error:
        from cleanup_guard import SignalExit, current_guard

        if not isinstance(error, SignalExit):
            raise
        guard = current_guard()
        if guard is not None:
            guard.shield().__enter__()  # for the rest of the run: fixtures have what is left of the grace period
        pytest.exit(str(error), returncode=int(error.code or 0))
