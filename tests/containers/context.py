"""Build contexts: a folder of examples/containers, other files that it wants, and the package, installed.

The package is taken from where the running interpreter imports it, so that an image holds what the tests
test: the wheel where a wheel is installed, the source folder where that is.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

EXAMPLES = Path(__file__).parents[2] / "examples"
PACKAGES = "usr/lib/python3/dist-packages"  # where Debian's python3 looks
COMMAND = """\
#!/usr/bin/python3
import sys
from cleanup_guard._cli import command
sys.exit(command())
"""


class ImageOf(Protocol):
    """What the fixture `image_of` gives."""

    def __call__(self, name: str, files: Mapping[str, Path] | None = None) -> str:
        """Build `examples/containers/<name>`, with `files` by the names its Dockerfile uses; the tag."""
        ...


def stage(folder: Path, files: Mapping[str, Path], context: Path) -> None:
    """Fill the new folder `context` with a copy of `folder`, of `files` by name, and with `installed/`."""
    shutil.copytree(folder, context)
    for name, source in files.items():
        shutil.copy(source, context / name)
    install(context / "installed")


def install(root: Path) -> None:
    """Lay out cleanup_guard, what it depends on, and its command under `root`, as pip would in a Debian."""
    packages = root / PACKAGES
    packages.mkdir(parents=True)
    for module in ("cleanup_guard", "typing_extensions"):
        _copy_module(module, packages)
        _copy_metadata(module, packages)
    command = root / "usr/local/bin/cleanup-guard"
    command.parent.mkdir(parents=True)
    command.write_text(COMMAND)
    command.chmod(0o755)


def _copy_module(name: str, packages: Path) -> None:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{name} is not installed here")
    source = Path(spec.origin)
    if source.name == "__init__.py":
        # Without bytecode: it is this interpreter's, and the image's is another.
        shutil.copytree(source.parent, packages / name, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, packages)


def _copy_metadata(name: str, packages: Path) -> None:
    for file in importlib.metadata.files(name) or []:
        if file.parts[0].endswith(".dist-info"):
            target = packages / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(str(file.locate())), target)
