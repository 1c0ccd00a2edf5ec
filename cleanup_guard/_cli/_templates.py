"""Config files from templates: all are rendered, and all places looked at, before the first is written.

Bytes that are no UTF-8 go through as they are. How a template is filled is in `_exec/placeholders.py` and `_jinja.py`, how a
file is found among what others may have put there in `_exec/walk.py`, and how it is written in `_exec/write.py`.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from cleanup_guard._cli._words import Mistake
from cleanup_guard._exec import write as writing
from cleanup_guard._exec.placeholders import Missing, Unclear, fill, name_at
from cleanup_guard._exec.walk import Place, Refused, walk

assert sys.platform != "win32"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

JINJA = (".j2", ".jinja", ".jinja2")
"""By these the name of a template tells that Jinja2 is to render it. A folder gets the file without them."""

MOST_NAMED = 20
"""Missing variables that are named."""

DEEPEST = 100
"""Levels of folders in folders."""


class File:
    """A file to write."""

    __slots__ = ("content", "destination", "mode", "source")

    def __init__(self, source: str, destination: str, content: bytes, mode: int) -> None:
        self.source = source
        self.destination = destination
        self.content = content
        self.mode = mode


class Rendering:
    """Templates in an environment, and what they come to.

    Args:
        env: what the templates' names stand for.
        only: the names that are replaced in templates with dollar signs; None for all.
    """

    def __init__(self, env: Mapping[str, str], only: Collection[str] | None = None) -> None:
        self._env = env
        self._only = only
        self._files: list[File] = []
        self._missing: list[str] = []

    def add(self, word: str) -> None:
        """Read and render SRC:DST, a file or a folder of files.

        Raises:
            Mistake: it is no pair of paths, cannot be read, or has a dollar sign that begins no name.
        """
        source, _, destination = word.rpartition(":")
        if not (source and destination):
            raise Mistake("--template needs SRC:DST, two paths")
        with _Explained(f"--template {source} cannot be read"), walk(source) as place:
            folder = place.is_folder
        if folder:
            for name in _files_below(source, ()):
                target = os.path.join(destination, _without_suffix(name))
                self._render(os.path.join(source, name), target)
        elif destination.endswith("/") or _is_folder(destination):
            target = os.path.join(destination, _without_suffix(os.path.basename(source)))
            self._render(source, target)
        else:
            self._render(source, destination)

    def _render(self, source: str, destination: str) -> None:
        content, mode = read(source, f"--template {source} cannot be read")
        text = content.decode("utf-8", "surrogateescape")
        filled = self._with_jinja(source, text) if source.endswith(JINJA) else self._with_names(source, text)
        try:
            rendered = filled.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise Mistake(f"{source}: it comes to characters that no file can hold") from None
        self._files.append(File(source, destination, rendered, mode))

    def _with_names(self, source: str, text: str) -> str:
        try:
            filled, missing = fill(text, self._env, self._only)
        except Unclear as error:
            raise Mistake(f"{source}, {error}") from None
        self._missing += [_told(source, each) for each in missing]
        return filled

    def _with_jinja(self, source: str, text: str) -> str:
        from cleanup_guard._cli._jinja import render

        def included(name: str) -> str:
            path = os.path.join(os.path.dirname(source), name)
            return read(path, f"{path} cannot be included")[0].decode("utf-8", "surrogateescape")

        return render(source, text, self._env, included)

    def check(self) -> None:
        """See that every name had a value, and that every file can be where it is to be.

        Raises:
            Mistake: it names each variable that is missing, with the file and the line, or the place.
        """
        if self._missing:
            plural = "s" if len(self._missing) > 1 else ""
            named = ", ".join(self._missing[:MOST_NAMED])
            more = len(self._missing) - MOST_NAMED
            raise Mistake(
                f"missing environment variable{plural}: {named}{f', and {more} more' if more > 0 else ''}"
            )
        for file in self._files:
            with _Explained(f"{file.destination} cannot be written"), walk(file.destination) as place:
                writing.check(place)

    def write(self, attributes: writing.Attributes, tell: Callable[[str], None]) -> None:
        """Write all files, each complete or not at all.

        Args:
            attributes: what was asked for.
            tell: is told in a sentence what was done.

        Raises:
            Mistake: one cannot be written.
        """
        for file in self._files:
            destination = file.destination
            with _Explained(f"{destination} cannot be written"), walk(destination, make=True) as place:
                done = writing.write(place, file.content, file.mode, attributes)
            tell(f"{file.destination} {done}, from {file.source}")


def read(path: str, problem: str) -> tuple[bytes, int]:
    """Read a file that root is told to read, and its mode. Reading a FIFO or a terminal waits.

    Raises:
        Mistake: `problem`, and why.
    """
    with _Explained(problem), walk(path) as place:
        if place.found is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such file")
        if place.is_folder:
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        with open(place.open(os.O_RDONLY), "rb") as file:
            return file.read(), os.fstat(file.fileno()).st_mode


def names(word: str) -> set[str]:
    """The names that --only means: NAME,NAME or, as envsubst takes them, '$NAME ${NAME}'.

    Raises:
        Mistake: there is something else in it.
    """
    found: set[str] = set()
    for part in word.replace(",", " ").split():
        name = part.removeprefix("$")
        if part.startswith("${") and part.endswith("}"):
            name = part[2:-1]
        if not name or name_at(name, 0) != len(name):
            raise Mistake("--only needs names of variables: NAME,NAME or '$NAME ${NAME}'")
        found.add(name)
    return found


class _Explained:
    """Makes a Mistake of what goes wrong with a file: what was to be done, and why it cannot be."""

    def __init__(self, problem: str) -> None:
        self._problem = problem

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Refused):
            raise Mistake(f"{self._problem}: {error}") from None
        if isinstance(error, OSError):
            raise Mistake(f"{self._problem}: {error.strerror or error}") from None
        if isinstance(error, ValueError):
            raise Mistake(f"{self._problem}: no file can have that name") from None


def _is_folder(path: str) -> bool:
    with _Explained(f"{path} cannot be written"), walk(path) as place:
        return place.is_folder


def _files_below(folder: str, around: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Relative names, links followed; without those that begin with "..", among which Kubernetes keeps a ConfigMap's files.

    Args:
        folder: where to look.
        around: the folders that this one lies in, by device and inode.
    """
    problem = f"--template {folder} cannot be read"
    with _Explained(problem), walk(folder) as place:
        listed = _list(place)
    inside = listed.status.st_dev, listed.status.st_ino
    if inside in around or len(around) > DEEPEST:
        raise Mistake(f"{problem}: it lies in itself, by a link, or too deep")
    for name in listed.names:
        path = os.path.join(folder, name)
        with _Explained(f"--template {path} cannot be read"), walk(path) as place:
            kind = 0 if place.found is None else stat.S_IFMT(place.found.st_mode)
        if kind == stat.S_IFDIR:
            yield from (os.path.join(name, each) for each in _files_below(path, (*around, inside)))
        elif kind == stat.S_IFREG:
            yield name
        else:
            raise Mistake(f"--template {path} cannot be read: it is no plain file")


class _Listed:
    def __init__(self, names: list[str], status: os.stat_result) -> None:
        self.names = names
        self.status = status


def _list(place: Place) -> _Listed:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(place.name or ".", flags, dir_fd=place.folder)
    try:
        found = sorted(name for name in os.listdir(fd) if not name.startswith(".."))
        return _Listed(found, os.fstat(fd))
    finally:
        os.close(fd)


def _without_suffix(name: str) -> str:
    return next((name.removesuffix(each) for each in JINJA if name.endswith(each)), name)


def _told(source: str, missing: Missing) -> str:
    message = f": {missing.message}" if missing.message else ""
    return f"{missing.name} ({source}, line {missing.line}{message})"
