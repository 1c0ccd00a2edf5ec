"""Writing a config file that may hold secrets, into a folder that may be somebody else's.

Rules:
1. A file is replaced as a whole: a reader sees the old one or the new one, and a SIGKILL leaves nothing that others can read.
   It is written in a folder beside it that only we can enter, has its owner and mode before it is moved out of there.
2. Owner and mode are what was asked, or ours and the template's; never those of the file that is replaced, which somebody
   may have put there for that. Set-id bits are only set if they were asked for.
3. What cannot be replaced, because it is mounted there or the folder is not writable, is written in place. It keeps its
   owner and mode, unless they were asked for, but for permissions to read that the template does not give.
4. Devices and FIFOs are written to and never replaced.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from cleanup_guard._exec.walk import Place, Refused

assert sys.platform != "win32"

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
else:
    import _signal

READ = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH

NOT_REPLACEABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY}
"""What the system says if a folder is not ours to write into, or the file in it is a mount point."""


class Attributes:
    """Whose the file is to be, and who may do what with it.

    Args:
        mode: as asked; None for the template's permissions.
        owner: user and group, as asked; None for us.
    """

    __slots__ = ("mode", "owner")

    def __init__(self, mode: int | None, owner: tuple[int, int] | None) -> None:
        self.mode = mode
        self.owner = owner

    def give(self, fd: int, template_mode: int) -> None:
        """Give them to a new file."""
        if self.owner is not None:
            os.fchown(fd, *self.owner)
        # After the owner, whose change clears set-id bits.
        os.fchmod(fd, template_mode & 0o777 if self.mode is None else self.mode)

    def give_to_existing(self, fd: int, template_mode: int) -> None:
        """Give them to a file that stays, as far as they were asked for."""
        status = os.fstat(fd)
        if self.owner is not None and (status.st_uid, status.st_gid) != self.owner:
            os.fchown(fd, *self.owner)
        before = stat.S_IMODE(status.st_mode)
        mode = before & ~(READ & ~template_mode & ~stat.S_IRUSR) if self.mode is None else self.mode
        if mode != before:
            os.fchmod(fd, mode)


def check(place: Place) -> None:
    """See that a file can be at a place, as far as one can tell without trying.

    Raises:
        Refused: somebody else controls the folder, and what is there is no plain file.
        OSError: it is a folder or a socket.
    """
    if place.is_folder:
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if place.found is not None and stat.S_ISSOCK(place.found.st_mode):
        raise OSError(errno.EOPNOTSUPP, "it is a socket")
    place.check_kind()


def write(place: Place, content: bytes, template_mode: int, attributes: Attributes) -> str:
    """Write a file at a place. A stop signal waits until no half-written file lies about.

    Returns:
        What was done, in words.

    Raises:
        Refused: somebody else controls the folder, and it is no plain file.
        OSError: it cannot be written.
    """
    check(place)
    if place.found is not None and not stat.S_ISREG(place.found.st_mode):
        _write_all(place.open(os.O_WRONLY), content)  # it may wait for a reader, and a stop ends that
        return "written to"
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGTERM, _signal.SIGINT))
    try:
        return _write_file(place, content, template_mode, attributes)
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)


def _write_file(place: Place, content: bytes, template_mode: int, attributes: Attributes) -> str:
    try:
        _replace(place, content, template_mode, attributes)
    except OSError as error:
        if place.found is None or error.errno not in NOT_REPLACEABLE:
            raise
        fd = place.open(os.O_WRONLY)
        attributes.give_to_existing(fd, template_mode)
        os.ftruncate(fd, 0)
        _write_all(fd, content)
        return "written in place"
    return "created" if place.found is None else "replaced"


def _replace(place: Place, content: bytes, template_mode: int, attributes: Attributes) -> None:
    # Not our PID: it is 1 in every container that shares the folder.
    private = f".{os.urandom(8).hex()}.partial"
    os.mkdir(private, 0o700, dir_fd=place.folder)
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        inside = os.open(private, flags, dir_fd=place.folder)
        try:
            _write_inside(inside, place, content, template_mode, attributes)
        finally:
            os.close(inside)
    finally:
        try:
            os.rmdir(private, dir_fd=place.folder)
        except OSError:
            pass  # who controls the folder has taken it away


def _write_inside(
    inside: int, place: Place, content: bytes, template_mode: int, attributes: Attributes
) -> None:
    """Write the file in a folder of ours, and move it out."""
    status = os.fstat(inside)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise Refused(
            f"{place.path} is being changed while it is written; {place.others} controls its folder"
        )
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open("file", flags, 0o600, dir_fd=inside)
    try:
        _write_all(fd, content, lambda: attributes.give(fd, template_mode))
        os.rename("file", place.name, src_dir_fd=inside, dst_dir_fd=place.folder)
    except BaseException:
        os.unlink("file", dir_fd=inside)
        raise


def _write_all(fd: int, content: bytes, finish: Callable[[], None] | None = None) -> None:
    """Write and close."""
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(fd, left) :]
        if finish is not None:
            finish()
        if stat.S_ISREG(os.fstat(fd).st_mode):
            os.fsync(fd)
    finally:
        os.close(fd)
