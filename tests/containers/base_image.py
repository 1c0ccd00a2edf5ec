"""The image that every test's Dockerfile begins with: a small Debian, made once per machine.

No registry is asked: `ensure` bootstraps it from a Debian mirror into a tar archive in the user's cache
folder, named after its recipe, and imports that. A second call finds the image; a new recipe, a new archive.
Test runs that start together wait for each other, and an archive exists only when it is complete.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from containers.engine import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containers.engine import Engine

TAG = "localhost/cleanup-guard-base"
SUITE = "bookworm"
VARIANT = "minbase"
# python3, not python3-minimal: that one has no asyncio, ctypes or logging. Two inits to compare with.
PACKAGES = ("python3", "tini", "dumb-init")
# What no test looks at, and what would be most of the image.
PRUNED = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man")
RECIPE = hashlib.sha256(repr((SUITE, VARIANT, PACKAGES, PRUNED, platform.machine())).encode()).hexdigest()[
    :16
]


def ensure(engine: Engine) -> str:
    """Have the base image ready in `engine`, whatever that takes (under a minute, once), and return its tag.

    Raises:
        Unavailable: it is not there, and cannot be made here.
    """
    with _locked(_cache()) as cache:
        if engine.recipe_of(TAG) != RECIPE:
            archive = cache / f"base-{RECIPE}.tar"
            if not archive.exists():
                _bootstrap(archive)
            engine.import_image(archive, TAG, recipe=RECIPE)
    return TAG


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "cleanup-guard"


@contextmanager
def _locked(cache: Path) -> Iterator[Path]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield cache


def _bootstrap(archive: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        raise Unavailable(f"{TAG} is not built yet: run this once as root with debootstrap installed")
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        root = Path(scratch) / "root"
        # debootstrap mounts /proc in there. In a mount namespace of its own that mount is gone when it is,
        # however it ends; without, removing `scratch` after a failure would walk into a live /proc.
        _run(
            *("unshare", "--mount"),
            *("debootstrap", f"--variant={VARIANT}", f"--include={','.join(PACKAGES)}"),
            *(SUITE, str(root), *_mirror()),
        )
        for pruned in PRUNED:
            shutil.rmtree(root / pruned)
        partial = Path(scratch) / "partial.tar"
        _run("tar", "--create", "--file", str(partial), "--numeric-owner", "--directory", str(root), ".")
        partial.replace(archive)


def _mirror() -> list[str]:
    """The mirror that this machine itself uses, if it is a Debian; debootstrap has a default of its own."""
    if not shutil.which("apt-get"):
        return []
    form = "$(ORIGIN) $(CODENAME) $(REPO_URI)"
    listing = _run("apt-get", "indextargets", "--format", form, "Created-By: Packages")
    found = (line.rsplit(" ", 2) for line in listing.splitlines())
    return [uri for origin, codename, uri in found if (origin, codename) == ("Debian", SUITE)][:1]


def _run(*command: str) -> str:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Unavailable(f"{TAG} could not be built: {' '.join(command)} said:\n{done.stdout[-2000:]}")
    return done.stdout
