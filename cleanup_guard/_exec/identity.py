"""Whom to become, and how: supplementary groups, then the group, then the user, and no way back.

Rules:
1. Users and groups are looked up as gosu does it: a number needs no entry in the databases, a name does.
2. What names the user in the environment goes with him: HOME, USER and LOGNAME. (runuser sets them, gosu only HOME; but a
   USER=root that stays behind is a lie which getpass and many a shell script believe.)
3. A signal that was asked for in case the parent dies survives: the kernel forgets it when the user changes.
4. He cannot type into the terminal of whoever started us: it is given up, unless the session is ours alone.
"""

from __future__ import annotations

import errno
import os
import sys

from cleanup_guard._ground.kernel import (
    CAP_SETGID,
    CAP_SETUID,
    PR_GET_PDEATHSIG,
    PR_SET_PDEATHSIG,
    may,
    prctl,
)

assert sys.platform != "win32"

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal

NOBODY = (1 << 32) - 1
"""(uid_t) -1, which to the system calls means "leave it as it is"."""

HIGHEST_DIGITS = len(str(NOBODY))


class Identity:
    """Whom to become.

    Attributes:
        uid: None for the user that we are.
        gid: the group.
        groups: the supplementary groups; None where they stay, because a plain user may not set them.
        variables: what belongs into the environment; None for a variable that does not.
    """

    __slots__ = ("_keep_terminal", "gid", "groups", "uid", "variables")

    def __init__(
        self,
        uid: int | None,
        gid: int,
        groups: list[int] | None,
        variables: dict[bytes, bytes | None],
        *,
        keep_terminal: bool,
    ) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.variables = variables
        self._keep_terminal = keep_terminal

    def assume(self) -> None:
        """Become it, unless that is what we are. There is no way back.

        Raises:
            PermissionError: the system does not let us; `strerror` is a sentence.
        """
        changes = self.uid is not None and _users() != {self.uid}
        if changes and not self._keep_terminal:
            _give_up_terminal()
        parent, deathsig = os.getppid(), _death_signal()
        try:
            self._change()
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise PermissionError(errno.EPERM, f"cannot become {self}: {reason}") from None
        if deathsig:
            _die_with(parent, deathsig)

    def _change(self) -> None:
        if self.groups is not None and (may(CAP_SETGID) or not _has_groups(self.gid, self.groups)):
            os.setgroups(self.groups)
        if _groups() != {self.gid}:
            os.setgid(self.gid)
        if self.uid is not None and _users() != {self.uid}:
            os.setuid(self.uid)

    def __str__(self) -> str:
        return f"group {self.gid}" if self.uid is None else f"user {self.uid} and group {self.gid}"


def identity(
    user: str | int | None, group: str | int | None, *, keep_terminal: bool = False
) -> Identity | None:
    """Look up a user and a group, names or numbers. A number needs no entry in the user database, a name does.

    A group that is named is the only one; without one the user's groups are those of the databases.

    Args:
        user: whom to become; None for the one that we are.
        group: the group to have; None for those of the user.
        keep_terminal: whether he may have the terminal that others of this session have.

    Returns:
        None if neither was asked for.

    Raises:
        ValueError: there is no such user or group.
        PermissionError: only root could become it.
    """
    if user is None and group is None:
        return None
    uid, gid, groups, variables = _look_up(user, group)
    return Identity(uid, gid, _permitted(uid, gid, groups), variables, keep_terminal=keep_terminal)


def owner(user: str | int | None, group: str | int | None) -> tuple[int, int] | None:
    """Look up whose a file is to be: user and group, in numbers; None if neither was asked for.

    Raises:
        ValueError: there is no such user or group.
    """
    if user is None and group is None:
        return None
    uid, gid, _, _ = _look_up(user, group)
    return os.geteuid() if uid is None else uid, gid


# -- looking up -------------------------------------------------------------------------------------------------------------


def _look_up(
    user: str | int | None, group: str | int | None
) -> tuple[int | None, int, list[int], dict[bytes, bytes | None]]:
    gid, groups = os.getgid(), [os.getgid()]
    uid: int | None = None
    variables: dict[bytes, bytes | None] = {}
    if user is not None:
        import pwd

        number = _number(user)
        try:
            entry = pwd.getpwnam(str(user)) if number is None else pwd.getpwuid(number)
        except KeyError:
            if number is None:
                raise ValueError(f"there is no user {user!r}") from None
            uid = number
            variables = {b"HOME": b"/", b"USER": None, b"LOGNAME": None}
        else:
            uid, gid = entry.pw_uid, entry.pw_gid
            groups = os.getgrouplist(entry.pw_name, gid)
            name = os.fsencode(entry.pw_name)
            variables = {b"HOME": os.fsencode(entry.pw_dir), b"USER": name, b"LOGNAME": name}
    if group is not None:
        gid = _group_id(group)
        groups = [gid]
    return uid, gid, groups, variables


def _group_id(group: str | int) -> int:
    import grp

    number = _number(group)
    try:
        return (grp.getgrnam(str(group)) if number is None else grp.getgrgid(number)).gr_gid
    except KeyError:
        if number is None:
            raise ValueError(f"there is no group {group!r}") from None
        return number


def _number(word: str | int) -> int | None:
    text = str(word)
    if not (text.isascii() and text.isdecimal()):
        return None
    digits = text.lstrip("0") or "0"
    if len(digits) > HIGHEST_DIGITS or int(digits) >= NOBODY:
        raise ValueError(f"that is the number of no user or group: the highest is {NOBODY - 1}")
    return int(digits)


def _permitted(uid: int | None, gid: int, groups: list[int]) -> list[int] | None:
    if os.geteuid() != 0 and uid in (None, os.getuid()) and gid == os.getgid():
        return None
    other_groups = not _has_groups(gid, groups) or _groups() != {gid}
    other_user = uid is not None and _users() != {uid}
    if (other_groups and not may(CAP_SETGID)) or (other_user and not may(CAP_SETUID)):
        wanted = f"group {gid}" if uid is None else f"user {uid} and group {gid}"
        raise PermissionError(
            errno.EPERM,
            f"only root can become {wanted}, with the capabilities SETUID and SETGID; "
            f"this is user {os.getuid()} and group {os.getgid()}",
        )
    return groups


def _has_groups(gid: int, groups: list[int]) -> bool:
    """Whether we are in these groups. Whether our own is named once more makes no difference."""
    return {gid, *groups} == {os.getgid(), *os.getgroups()}


def _users() -> set[int]:
    """Real, effective and saved: with a saved one, one could come back."""
    if sys.platform == "linux":
        return set(os.getresuid())
    return {os.getuid(), os.geteuid()}


def _groups() -> set[int]:
    if sys.platform == "linux":
        return set(os.getresgid())
    return {os.getgid(), os.getegid()}


# -- what the change of a user must neither lose nor leave open -------------------------------------------------------------


def _death_signal() -> int:
    """The signal that we get when our parent dies; 0 if there is none, or no way to know."""
    if sys.platform != "linux":
        return 0
    answer = bytes(4)  # the kernel writes into it
    return int.from_bytes(answer, sys.byteorder) if prctl(PR_GET_PDEATHSIG, answer) else 0


def _die_with(parent: int, signum: int) -> None:
    prctl(PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent:  # it has died just now, when nothing was asked for
        os.kill(os.getpid(), signum)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [signum])


def _give_up_terminal() -> None:
    """Have no controlling terminal any more, unless the session is our own and nobody else reads from it.

    Who has the terminal of a more powerful shell can type commands into it (TIOCSTI), which that shell will execute.
    Giving it up needs no session of its own, for which a process would have to be forked. Ctrl-C and Ctrl-Z still arrive,
    because they are for the foreground process group; only /dev/tty cannot be opened any more.
    """
    if os.getsid(0) == os.getpid():
        return
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return  # there is none
    try:
        import fcntl
        import termios

        fcntl.ioctl(terminal, termios.TIOCNOTTY)
    finally:
        os.close(terminal)
