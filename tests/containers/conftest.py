"""Fixtures of the container tests: an engine, the base image, and images built from examples/containers.

Where no engine works these tests are skipped with one sentence; CLEANUP_GUARD_REQUIRE_CONTAINERS=1, which CI
sets, makes that a failure. How to write one is told in engine.py.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from containers import base_image as base
from containers.context import EXAMPLES, stage
from containers.engine import Engine, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from containers.context import ImageOf

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder, so that none is forgotten when a run deselects containers."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.container)


@pytest.fixture(scope="session")
def session_engine() -> Iterator[Engine]:
    """The engine of the whole session, which in the end removes all that was made with it."""
    try:
        found = Engine.find()
    except Unavailable as reason:
        _do_without(reason)
    with found:
        yield found


@pytest.fixture
def engine(session_engine: Engine) -> Iterator[Engine]:
    """An engine to run containers with; they are gone after the test."""
    yield session_engine
    session_engine.remove_containers()


@pytest.fixture(scope="session")
def base_image(session_engine: Engine) -> str:
    """The tag of a Debian with python3, bash, coreutils, tini and dumb-init, but without cleanup_guard."""
    try:
        return base.ensure(session_engine)
    except Unavailable as reason:
        _do_without(reason)


@pytest.fixture(scope="session")
def image_of(
    session_engine: Engine,
    base_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> ImageOf:
    """A function that builds an image from `examples/containers/<name>` and returns its tag."""

    def build(name: str, files: Mapping[str, Path] | None = None) -> str:
        context = tmp_path_factory.mktemp(name) / "context"
        stage(EXAMPLES / "containers" / name, files or {}, context)
        return session_engine.build(context, name)

    return build


def _do_without(reason: Unavailable) -> NoReturn:
    if os.environ.get("CLEANUP_GUARD_REQUIRE_CONTAINERS") == "1":
        pytest.fail(str(reason), pytrace=False)
    pytest.skip(str(reason))
