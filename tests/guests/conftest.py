"""Fixtures of the tests with real hosts: a Redis of the test run's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from guests.stage import redis_server


@pytest.fixture(scope="session")
def redis() -> Iterator[str]:
    """The URL of a Redis that ends with the test run."""
    with redis_server() as url:
        yield url
