"""Config files from templates: `string.Template`, all rendered before the first is written, each replaced as a whole.

Bytes that are no UTF-8 go through as they are.
"""

from __future__ import annotations

import os
import string
import sys

from cleanup_guard._cli._words import Mistake

assert sys.platform != "win32"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Rendering:
    """Templates in an environment, and what they come to.

    Args:
        env: what the templates' names stand for.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._files: list[tuple[str, str, bytes]] = []
        self._missing: list[str] = []

    def add(self, word: str) -> None:
        """Read and render SRC:DST, a file or a folder of files.

        Raises:
            Mistake: it is no pair of paths, cannot be read, or has a dollar sign that begins no name.
        """
        source, _, destination = word.rpartition(":")
        if not (source and destination):
            raise Mistake(f"--template {word!r} is not SRC:DST")
        if os.path.isdir(source):
            for name in _files_below(source):
                self._render(os.path.join(source, name), os.path.join(destination, name))
        elif os.path.isdir(destination):
            self._render(source, os.path.join(destination, os.path.basename(source)))
        else:
            self._render(source, destination)

    def _render(self, source: str, destination: str) -> None:
        try:
            with open(source, "rb") as file:
                text = file.read().decode("utf-8", "surrogateescape")
        except OSError as error:
            raise Mistake(f"--template {source} cannot be read: {error.strerror}") from None
        template = string.Template(text)
        for found in template.pattern.finditer(text):
            name = found["named"] or found["braced"]
            where = f"{source}, line {text.count(chr(10), 0, found.start()) + 1}"
            if found["invalid"] is not None:
                raise Mistake(f"{where}: a dollar sign that begins no name; write $$ for a dollar sign")
            if name is not None and name not in self._env:
                self._missing.append(f"{name} ({where})")
        rendered = template.safe_substitute(self._env).encode("utf-8", "surrogateescape")
        self._files.append((source, destination, rendered))

    def check(self) -> None:
        """See that every name had a value.

        Raises:
            Mistake: it names each variable that is missing, with the file and the line.
        """
        if self._missing:
            plural = "s" if len(self._missing) > 1 else ""
            raise Mistake(f"missing environment variable{plural}: {', '.join(self._missing)}")

    def write(self, *, mode: int | None, owner: tuple[int, int] | None) -> None:
        """Write all files, each complete or not at all.

        Args:
            mode: None for that of the file which is replaced, or else the template's.
            owner: user and group; None for those of the file which is replaced, or else ours.

        Raises:
            Mistake: one cannot be written.
        """
        for source, destination, content in self._files:
            try:
                _replace(os.path.realpath(destination), content, os.stat(source), mode, owner)
            except OSError as error:
                raise Mistake(f"{destination} cannot be written: {error.strerror}") from None


def _files_below(folder: str) -> Iterator[str]:
    """Relative names; without those that begin with "..", among which Kubernetes keeps the real files of a ConfigMap."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".."))
        for name in sorted(names):
            if not name.startswith(".."):
                yield os.path.relpath(os.path.join(parent, name), folder)


def _replace(
    path: str, content: bytes, template: os.stat_result, mode: int | None, owner: tuple[int, int] | None
) -> None:
    """Write a new file beside the old one, and put it in its place; a reader sees the one or the other."""
    try:
        replaced: os.stat_result | None = os.stat(path)
    except FileNotFoundError:
        replaced = None
        os.makedirs(os.path.dirname(path), exist_ok=True)
    if mode is None:
        mode = (replaced or template).st_mode & 0o7777
    if owner is None and replaced is not None:
        owner = replaced.st_uid, replaced.st_gid
    # Not our PID: it is 1 in every container that shares the folder.
    partial = f"{path}.{os.urandom(4).hex()}.partial"
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(content)
            if owner is not None and owner != (os.geteuid(), os.getegid()):
                os.fchown(fd, *owner)
            os.fchmod(fd, mode)  # after the owner, whose change clears set-id bits
            file.flush()
            os.fsync(fd)
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise
