"""The pytest plugin: one fixture. Every pytest run where this package is installed imports it, so it imports nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

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
