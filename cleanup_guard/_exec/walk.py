"""Finding a file that root reads or writes, on a way that leads through folders which somebody else may control.

A path is walked name by name, with descriptors of folders; the kernel follows no link for us.

Rules:
1. A link is followed where only root and we could have put it. Elsewhere it is refused: it could lead anywhere.
2. Somebody else controls a folder that is his, or that he may write into, and with it everything below. Who may write
   into a folder with the sticky bit controls what is his in there.
3. In a folder of others a plain file, or folder, is fine: who holds the folder by a descriptor touches nothing outside of
   it. A FIFO or a device is refused there: reading it may take for ever.
4. `..` goes back the way we came, not where the folder says that it is by now.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections import deque

assert sys.platform != "win32"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

if sys.platform == "linux":
    PATH = os.O_PATH  # to have a folder without having to be allowed to list it
else:
    PATH = os.O_RDONLY

FOLDER = PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

MOST_LINKS = 40
"""As many as the kernel follows."""

WRITABLE = stat.S_IWGRP | stat.S_IWOTH


class Refused(Exception):
    """The way leads through what somebody else controls. The message is a sentence that says where, and whose it is."""


class Place:
    """Where a path ends: a name in a folder that is held by a descriptor. The file need not exist.

    Attributes:
        folder: the folder's descriptor; -1 once closed.
        name: the file's name in it; empty for the folder itself.
        path: the way that was taken, for messages.
        found: the file's own status, if there is one; never that of a link, unless the kernel must follow it.
        others: who else controls the folder; empty for nobody.
    """

    __slots__ = ("folder", "found", "name", "others", "path")

    def __init__(self, folder: int, name: str, path: str, found: os.stat_result | None, others: str) -> None:
        self.folder = folder
        self.name = name
        self.path = path
        self.found = found
        self.others = others

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.folder)

    @property
    def is_folder(self) -> bool:
        """Whether there is a folder of that name."""
        return self.found is not None and stat.S_ISDIR(self.found.st_mode)

    @property
    def is_descriptor(self) -> bool:
        """Whether it is one of a process's descriptors in /proc: a link in form, which only the kernel can follow."""
        return self.found is not None and stat.S_ISLNK(self.found.st_mode)

    def check_kind(self) -> None:
        """See that it is a plain file, if there is one and somebody else controls the folder.

        Raises:
            Refused: it is a FIFO or a device.
        """
        if self.others and self.found is not None and not stat.S_ISREG(self.found.st_mode):
            raise Refused(f"{self.path} is no plain file, and {self.others} controls its folder")

    def open(self, flags: int) -> int:
        """Open what was found, and see that it is still the same kind of thing.

        Raises:
            Refused: it is not, or reading it could take for ever.
            OSError: it cannot be opened.
        """
        assert self.found is not None
        if self.is_descriptor:
            if os.path.dirname(self.path) == f"/proc/{os.getpid()}/fd":
                return os.dup(int(self.name))  # at the place where it is, and a socket too
            return os.open(self.name, flags | os.O_CLOEXEC | os.O_NOCTTY, dir_fd=self.folder)
        self.check_kind()
        if self.others:
            flags |= os.O_NONBLOCK  # it may be a FIFO by now
        try:
            fd = os.open(self.name, flags | os.O_CLOEXEC | os.O_NOCTTY | os.O_NOFOLLOW, dir_fd=self.folder)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise _swapped(self.path, self.others) from None
            raise
        opened = os.fstat(fd)
        if self.others and not stat.S_ISREG(opened.st_mode):
            os.close(fd)
            raise _swapped(self.path, self.others)
        if self.others and opened.st_nlink > 1:
            os.close(fd)
            raise Refused(
                f"{self.path} has another name, perhaps elsewhere (a hard link), and {self.others} controls its folder"
            )
        return fd


def walk(path: str, *, make: bool = False) -> Place:
    """Go where a path leads.

    Args:
        path: absolute, or relative to the working directory.
        make: whether folders that are missing are made on the way; else the name of the first one is where it ends.

    Raises:
        Refused: somebody else controls a link on the way.
        OSError: there is no way, or we may not go it.
    """
    way = _Way(path)
    try:
        return way.go(make=make)
    except BaseException:
        way.close()
        raise


class _Folder:
    """A folder on the way, and who else controls what is in it."""

    __slots__ = ("fd", "name", "others", "sticky")

    def __init__(self, fd: int, name: str, above: str) -> None:
        self.fd = fd
        self.name = name
        self.others, self.sticky = (above, False) if above else _who_else(fd)

    def controls(self, entry: os.stat_result | None) -> str:
        """Who else controls an entry, or could make one; empty for nobody."""
        if not self.sticky:
            return self.others
        return "" if entry is None or entry.st_uid in _trusted_users() else _user(entry.st_uid)


class _Way:
    """The folders from the first to where we are."""

    def __init__(self, path: str) -> None:
        self._names = deque(path.split("/"))
        self._links = 0
        self._folders: list[_Folder] = []
        self._start("/" if path.startswith("/") else ".")

    def _start(self, name: str) -> None:
        self.close()
        self._folders.append(_Folder(os.open(name, FOLDER), "" if name == "/" else name, ""))

    def close(self) -> None:
        while self._folders:
            os.close(self._folders.pop().fd)

    def _path(self, name: str) -> str:
        names = [folder.name for folder in self._folders] + ([name] if name else [])
        return "/".join(names).removeprefix("./") or "/"

    def go(self, *, make: bool) -> Place:
        while self._names:
            name = self._names.popleft()
            if name == "..":
                self._back()
            elif name not in ("", "."):
                place = self._forward(name, make=make)
                if place is not None:
                    return place
        return self._arrive("", os.stat(self._folders[-1].fd))

    def _arrive(self, name: str, found: os.stat_result | None) -> Place:
        last = self._folders[-1]
        place = Place(os.dup(last.fd), name, self._path(name), found, last.controls(found))
        self.close()
        return place

    def _back(self) -> None:
        last = self._folders[-1]
        if last.name in (".", ".."):  # a relative path that leaves the working directory
            self._folders.append(_Folder(os.open("..", FOLDER, dir_fd=last.fd), "..", ""))
        elif len(self._folders) > 1:
            os.close(self._folders.pop().fd)

    def _forward(self, name: str, *, make: bool) -> Place | None:
        folder = self._folders[-1]
        try:
            found = os.stat(name, dir_fd=folder.fd, follow_symlinks=False)
        except FileNotFoundError:
            if not any(each not in ("", ".") for each in self._names) or not make:
                return self._arrive(name, None)
            os.mkdir(name, 0o755, dir_fd=folder.fd)
            found = os.stat(name, dir_fd=folder.fd, follow_symlinks=False)
        others = folder.controls(found)
        if stat.S_ISLNK(found.st_mode):
            if others:
                raise Refused(
                    f"{self._path(name)} is a link, which could lead anywhere, and {others} controls its folder"
                )
            return self._follow(name, found)
        if stat.S_ISDIR(found.st_mode):
            self._enter(name, others)
            return None
        if any(self._names):
            raise NotADirectoryError(errno.ENOTDIR, f"{self._path(name)} is not a directory")
        return self._arrive(name, found)

    def _enter(self, name: str, others: str) -> None:
        try:
            fd = os.open(name, FOLDER, dir_fd=self._folders[-1].fd)
        except OSError as error:
            if others and error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise _swapped(self._path(name), others) from None
            raise
        self._folders.append(_Folder(fd, name, others))

    def _follow(self, name: str, found: os.stat_result) -> Place | None:
        if not any(self._names) and _is_of_proc(self._folders[-1]) and self._folders[-1].name == "fd":
            return self._arrive(name, found)
        self._links += 1
        if self._links > MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = os.readlink(name, dir_fd=self._folders[-1].fd)
        if target.startswith("/"):
            self._start("/")
        self._names.extendleft(reversed(target.split("/")))
        return None


def _swapped(path: str, others: str) -> Refused:
    return Refused(f"{path} is being replaced while it is used; {others} controls its folder")


def _is_of_proc(folder: _Folder) -> bool:
    try:
        return os.stat(folder.fd).st_dev == os.stat("/proc/self/fd").st_dev
    except OSError:
        return False


# -- whose it is ------------------------------------------------------------------------------------------------------------


def _trusted_users() -> tuple[int, int]:
    return 0, os.geteuid()


def _who_else(fd: int) -> tuple[str, bool]:
    """Who but root and we may change what is in a folder, in words, and whether only what is his own."""
    status = os.stat(fd)
    if status.st_uid not in _trusted_users() and not _is_outside(status.st_uid):
        return _user(status.st_uid), False
    if not status.st_mode & WRITABLE or os.fstatvfs(fd).f_flag & os.ST_RDONLY:
        return (
            "",
            False,
        )  # a mount that is only to be read, such as a ConfigMap's, whose mode says that all may write
    sticky = bool(status.st_mode & stat.S_ISVTX)
    if status.st_mode & stat.S_IWOTH:
        return "everybody", sticky
    # A plain user's own group is his, as most systems set it up.
    if status.st_gid == 0 or (os.geteuid() != 0 and status.st_gid == os.getegid()):
        return "", False
    return f"group {status.st_gid}", sticky


def _user(uid: int) -> str:
    import pwd

    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"


def _is_outside(uid: int) -> bool:
    """Whether this is how a user namespace shows all users that it does not have: nobody in it can be one of them."""
    try:
        with open("/proc/sys/fs/overflowuid", "rb") as overflow, open("/proc/self/uid_map", "rb") as mapped:
            if uid != int(overflow.read()):
                return False
            ranges = [[int(word) for word in line.split()] for line in mapped]
    except OSError:
        return False
    return not any(first <= uid < first + count for first, _, count in ranges)
