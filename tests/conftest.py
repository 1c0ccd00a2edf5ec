"""What holds for every test: it cannot hang the suite, and generated inputs are the same each time: a commit gets one verdict.

`pytest --hypothesis-profile=default` draws new ones.
"""

from __future__ import annotations

import pytest
from hypothesis import settings

pytest_plugins = ["watchdog", "second_chance"]

settings.register_profile("the same every time", derandomize=True, database=None)
settings.load_profile("the same every time")


ABOUT_LINUX = {"check", "cli", "exec", "run"}
"""Folders of tests whose subject is processes and the kernel."""

ON_EVERY_PYTHON = {"test_exec_into.py", "test_one_child.py"}
"""Files in them that use most of Python."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is not for every Python."""
    for item in items:
        if item.path.parent.name in ABOUT_LINUX and item.path.name not in ON_EVERY_PYTHON:
            item.add_marker(pytest.mark.two_pythons)
