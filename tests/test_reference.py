"""What a user reads with `help`, in an editor, and in the reference: it is there, and its examples do what they say."""

from __future__ import annotations

import importlib.metadata
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import CLEAN, PATIENCE

import cleanup_guard
from cleanup_guard import testing

ROOT = Path(__file__).parent.parent

NAMES = [f"cleanup_guard.{name}" for name in cleanup_guard.__all__]
NAMES += [f"cleanup_guard.testing.{name}" for name in testing.__all__]

PLAY = """\
import doctest, importlib, subprocess, sys
import cleanup_guard
from cleanup_guard import testing
failed = 0
for name in sys.argv[1:]:
    module, _, attribute = name.rpartition(".")
    thing = getattr(importlib.import_module(module), attribute)
    known = {"subprocess": subprocess, "sys": sys}
    known |= {each: getattr(cleanup_guard, each) for each in cleanup_guard.__all__}
    known |= {each: getattr(testing, each) for each in testing.__all__}
    example = doctest.DocTestParser().get_doctest(thing.__doc__ or "", known, name, None, None)
    result = doctest.DocTestRunner().run(example)
    if not result.attempted:
        print(f"{name} has no example")
    failed += bool(result.failed or not result.attempted)
sys.exit(failed > 0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="run and check need Linux")
def test_the_example_of_each_name_does_what_it_says() -> None:
    """Every public name has a docstring with an example, and what the example shows is what happens."""
    command = [
        sys.executable,
        "-c",
        PLAY,
        *NAMES,
    ]  # in main of a process of their own: guards are entered there
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=2 * PATIENCE, env=CLEAN, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_help_shows_the_options() -> None:
    """`help(guard)`: each option of a guard is in the signature, with its default, and is explained below."""
    signature = inspect.signature(cleanup_guard.guard)
    wanted = inspect.signature(cleanup_guard.Guard).parameters
    assert list(signature.parameters) == ["function", "run", *wanted]
    for name, parameter in wanted.items():
        assert signature.parameters[name].default == parameter.default, name
        assert f"{name}: " in str(inspect.getdoc(cleanup_guard.guard)), name


def test_type_checkers_see_every_name() -> None:
    """Each public name is used in the files that mypy and pyright read as a user's."""
    seen = "".join(file.read_text() for file in (ROOT / "tests" / "typing").glob("*.py"))
    words = set(re.findall(r"\w+", seen))
    assert {name.rpartition(".")[2] for name in NAMES} <= words


def test_there_is_one_version() -> None:
    """Of the package, of what is installed, and in the list of changes."""
    assert cleanup_guard.__version__ == importlib.metadata.version("cleanup-guard")
    versions = re.findall(r"^## ([\w.]+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[:2] == ["Unreleased", cleanup_guard.__version__]


@pytest.mark.one_python
def test_the_reference_has_every_name(tmp_path: Path) -> None:
    """`make docs`: a page for each module that users import, with each of its names."""
    recipe = re.search(r"^docs:.*\n\t\$\(bin\)/python (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    words = [sys.executable, *recipe[1].replace("dist/docs", str(tmp_path)).split()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=2 * PATIENCE, env=CLEAN, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    for module in (cleanup_guard, testing):
        page = (tmp_path / f"{module.__name__.replace('.', '/')}.html").read_text()
        assert not [name for name in module.__all__ if f'id="{name}"' not in page]
    assert (tmp_path / "index.html").exists()
