"""The program to become: found and checked before anything is torn down, and then the exec itself.

Rules:
1. `describe` finds out all that can be found out beforehand, and changes nothing.
2. `become` changes the process step by step and takes each step back if the exec fails; only a changed user stays changed.
3. No value of an environment variable is ever part of a message.
4. This is loaded at each start of a container: os, sys, errno and `_signal`, which cost nothing (`signal` takes 3 ms, for
   its enums), and the rest where it is used.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    Word = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    Environment = Mapping[str, str] | Mapping[bytes, bytes]
    Undo = list[tuple[Any, ...]]
else:
    import _signal

# On Windows exec starts another process and ends this one: whoever waits for it sees the wrong end.
assert sys.platform != "win32"

PYTHONS_OWN = (_signal.SIGPIPE, _signal.SIGXFSZ)
"""What Python ignores for itself, so that nobody can tell any more whether the parent did."""

STOPS = {_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGQUIT}

STDIO = (0, 1, 2)

ALL_BITS = 0o777

NOBODY = (1 << 32) - 1
"""(uid_t) -1, which to the system calls means "leave it as it is"."""


class Identity:
    """Whom to become: as `gosu` does it, supplementary groups first, then the group, then the user.

    Attributes:
        uid: None for the user that we are.
        groups: the supplementary groups; None where they stay, because nothing changes and a plain user may not set them.
        home: what HOME is to be; None if no user was asked for.
    """

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int | None, gid: int, groups: list[int] | None, home: str | None) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home

    def assume(self) -> None:
        """Become it. There is no way back."""
        if self.groups is not None:
            os.setgroups(self.groups)
            os.setgid(self.gid)
            if self.uid is not None:
                os.setuid(self.uid)


def identity(user: str | int | None, group: str | int | None) -> Identity | None:
    """Look up a user and a group, names or numbers. A number needs no entry in the user database, a name does.

    A group that is named is the only one; without one the user's groups are those of the databases.

    Returns:
        None if neither was asked for.

    Raises:
        ValueError: there is no such user or group.
        PermissionError: only root could become it.
    """
    if user is None and group is None:
        return None
    uid, gid, groups, home = _look_up(user, group)
    return Identity(uid, gid, _permitted(uid, gid, groups), home)


def owner(user: str | int | None, group: str | int | None) -> tuple[int, int] | None:
    """Look up whose a file is to be: user and group, in numbers; None if neither was asked for.

    Raises:
        ValueError: there is no such user or group.
    """
    if user is None and group is None:
        return None
    uid, gid, _, _ = _look_up(user, group)
    return os.geteuid() if uid is None else uid, gid


def _look_up(
    user: str | int | None, group: str | int | None
) -> tuple[int | None, int, list[int], str | None]:
    gid, groups = os.getgid(), [os.getgid()]
    uid = home = None
    if user is not None:
        import pwd

        try:
            entry = pwd.getpwuid(int(user)) if _is_number(user) else pwd.getpwnam(str(user))
        except KeyError:
            if not _is_number(user):
                raise ValueError(f"there is no user {user!r}") from None
            uid, home = int(user), "/"
        else:
            uid, gid, home = entry.pw_uid, entry.pw_gid, entry.pw_dir
            groups = os.getgrouplist(entry.pw_name, gid)
    if group is not None:
        gid = _group_id(group)
        groups = [gid]
    return uid, gid, groups, home


def _group_id(group: str | int) -> int:
    import grp

    try:
        return (grp.getgrgid(int(group)) if _is_number(group) else grp.getgrnam(str(group))).gr_gid
    except KeyError:
        if not _is_number(group):
            raise ValueError(f"there is no group {group!r}") from None
        return int(group)


def _is_number(word: str | int) -> bool:
    text = str(word)
    if not (text.isascii() and text.isdecimal()):
        return False
    if int(text) >= NOBODY:
        raise ValueError(f"{text} is no user or group: the highest number is {NOBODY - 1}")
    return True


def _permitted(uid: int | None, gid: int, groups: list[int]) -> list[int] | None:
    if os.geteuid() == 0:
        return groups
    if uid in (None, os.getuid()) and gid == os.getgid():
        return None
    wanted = f"group {gid}" if uid is None else f"user {uid} and group {gid}"
    raise PermissionError(
        errno.EPERM, f"only root can become {wanted}; this is user {os.getuid()} and group {os.getgid()}"
    )


class Target:
    """A program that was found, and the world that it is to start in."""

    __slots__ = ("argv", "cwd", "env", "fds", "identity", "inherit", "path", "umask")

    def __init__(
        self,
        path: bytes,
        argv: list[bytes],
        env: dict[bytes, bytes],
        cwd: bytes | None,
        *,
        who: Identity | None,
        umask: int | None,
        fds: frozenset[int],
        inherit: bool,
    ) -> None:
        self.path = path
        self.argv = argv
        self.env = env
        self.cwd = cwd
        self.identity = who
        self.umask = umask
        self.fds = fds
        self.inherit = inherit


def describe(
    program: Word,
    args: Sequence[Word],
    *,
    env: Environment,
    cwd: Word | None,
    argv0: Word | None,
    who: Identity | None,
    umask: int | None,
    pass_fds: Iterable[int],
    signals: str,
) -> Target:
    """Check everything and find the program, in the PATH of its new environment.

    Raises:
        FileNotFoundError: there is no such program, or no such working directory.
        OSError: it is there, and cannot be executed; `strerror` is a sentence that says why.
        TypeError, ValueError: an argument makes no sense.
    """
    argv = [_word(each, "an argument") for each in (program if argv0 is None else argv0, *args)]
    name = _word(program, "the program")
    if not name or not argv[0]:
        raise ValueError("the name of the program is empty")
    new_env = dict(_variable(key, value) for key, value in env.items())
    if signals not in ("default", "inherit"):
        raise ValueError(f"signals must be 'default' or 'inherit', not {signals!r}")
    if umask is not None and not 0 <= umask <= ALL_BITS:
        raise ValueError(f"umask must be from 0 to 0o777, not {umask!r}")
    fds = frozenset(_open_fd(fd) for fd in pass_fds)
    folder = None if cwd is None else _folder(_word(cwd, "the working directory"))
    path = find(name, new_env, folder or b"")
    inherit = signals == "inherit"
    return Target(path, argv, new_env, folder, who=who, umask=umask, fds=fds, inherit=inherit)


def _word(word: Word, what: str) -> bytes:
    encoded = os.fsencode(word)
    if b"\0" in encoded:
        raise ValueError(f"{what} contains a NUL character, at which the system would cut it off")
    return encoded


def _variable(key: str | bytes, value: str | bytes) -> tuple[bytes, bytes]:
    name, content = os.fsencode(key), os.fsencode(value)
    if not name or b"=" in name or b"\0" in name:
        raise ValueError(f"{os.fsdecode(name)!r} cannot be the name of an environment variable")
    if b"\0" in content:
        raise ValueError(
            f"the value of the environment variable {os.fsdecode(name)} contains a NUL character"
        )
    return name, content


def _open_fd(fd: int) -> int:
    try:
        os.fstat(fd)
    except OSError:
        raise ValueError(f"file descriptor {fd} is not open") from None
    return fd


def _folder(cwd: bytes) -> bytes:
    shown = os.fsdecode(cwd)
    try:
        is_folder = _is_directory(cwd)
    except OSError as error:
        raise type(error)(error.errno, f"the working directory {shown}: {_lower(error)}") from None
    if not is_folder:
        raise NotADirectoryError(errno.ENOTDIR, f"the working directory {shown} is not a directory")
    if not os.access(cwd, os.X_OK):
        raise PermissionError(errno.EACCES, f"the working directory {shown} may not be entered")
    return cwd


def _is_directory(path: bytes) -> bool:
    return stat.S_ISDIR(os.stat(path).st_mode)


def _lower(error: OSError) -> str:
    text = error.strerror or type(error).__name__
    return text[:1].lower() + text[1:]


# -- finding ----------------------------------------------------------------------------------------------------------------


def find(program: bytes, env: Mapping[bytes, bytes], base: bytes) -> bytes:
    """Find the file to execute, as execvp would in that environment, started in that folder.

    Args:
        program: a path if it has a slash; else a name to look for in PATH.
        env: the target's environment.
        base: the working directory that the target is to have; empty for ours.

    Returns:
        A path, relative to `base` unless absolute.

    Raises:
        FileNotFoundError: it is nowhere.
        OSError: it is there, and cannot be executed.
    """
    shown = os.fsdecode(program)
    if b"/" in program:
        problem = _problem(program, base)
        if problem is not None:
            raise problem
        return program
    searched = env.get(b"PATH", os.fsencode(os.defpath))
    first: OSError | None = None
    for entry in searched.split(b":"):
        path = os.path.join(entry or b".", program)
        problem = _problem(path, base)
        if problem is None:
            return path
        if not isinstance(problem, FileNotFoundError) and not (first or _names_directory(path, base)):
            first = problem  # execvp looks further, too, and remembers
    if first is not None:
        raise first
    where = "in any folder of PATH" if b"PATH" in env else f"in {os.defpath}, as there is no PATH"
    raise FileNotFoundError(errno.ENOENT, f"there is no program {shown} {where}")


def _names_directory(path: bytes, base: bytes) -> bool:
    try:
        return _is_directory(os.path.join(base, path))
    except OSError:
        return False


def _problem(path: bytes, base: bytes) -> OSError | None:
    """Why this file cannot be executed, as far as one can tell without trying."""
    shown, full = os.fsdecode(path), os.path.join(base, path)
    try:
        if _is_directory(full):
            return PermissionError(errno.EACCES, f"{shown} is a directory, not a program")
    except (FileNotFoundError, NotADirectoryError):
        return FileNotFoundError(errno.ENOENT, f"there is no file {shown}")
    except OSError as error:
        return PermissionError(errno.EACCES, f"{shown} cannot be reached: {_lower(error)}")
    if not os.access(full, os.X_OK):
        return PermissionError(
            errno.EACCES, f"{shown} is not executable: chmod +x {shown}, or name its interpreter before it"
        )
    reason = _bad_script(full, base)
    return None if reason is None else OSError(errno.ENOEXEC, f"{shown} cannot be executed: {reason}")


def _head(path: bytes) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None  # it may be executable all the same
    try:
        return os.read(fd, 256)
    except OSError:
        return None
    finally:
        os.close(fd)


def _bad_script(path: bytes, base: bytes) -> str | None:
    head = _head(path)
    if head is None:
        return None
    if head.startswith(b"#!"):
        return _bad_interpreter(head, base)
    if not head:
        return "it is empty"
    # Binaries are left to the kernel: it may know a foreign format by binfmt_misc, which a container cannot see.
    if b"\0" in head:
        return None
    return "it is a text without a first line that names its interpreter, such as #!/bin/sh"


def _bad_interpreter(head: bytes, base: bytes) -> str | None:
    words = head[2:].partition(b"\n")[0].strip(b" \t").split(None, 1) or [b""]
    line = head[2:].partition(b"\n")[0].lstrip(b" \t")
    interpreter = line.replace(b"\t", b" ").partition(b" ")[0]
    if not interpreter.strip():
        return "its first line, #!, names no interpreter"
    if os.path.exists(os.path.join(base, interpreter)):
        return None
    shown = os.fsdecode(words[0])
    if interpreter.endswith(b"\r"):
        return (
            f"its lines end as on Windows, so that its interpreter would be {shown!r} and a carriage return"
        )
    return f"its first line names the interpreter {shown}, which does not exist"


# -- explaining -------------------------------------------------------------------------------------------------------------

MACHINES = {
    2: "sparc",
    3: "i386",
    8: "mips",
    20: "ppc",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv",
    258: "loongarch",
}
"""ELF's numbers for the machines that images are built for."""


def _machine(head: bytes) -> str:
    """Whom an ELF file is for; byte 5 of its head says in which order the two bytes at 18 are."""
    number = int.from_bytes(head[18:20], "big" if head[5:6] == b"\x02" else "little")
    return MACHINES.get(number, f"machine type {number}")


def explain(error: OSError, target: Target) -> OSError:
    """What the kernel means by refusing a file that had looked fine."""
    shown = os.fsdecode(target.path)
    reason = _lower(error)
    if error.errno == errno.ENOEXEC:
        head = _head(target.path) or b""
        if head.startswith(b"\x7fELF"):
            machine = _machine(head)
            reason = f"it was built for {machine}, and this machine is {os.uname().machine}"
        else:
            reason = "the system knows no such format"
    elif error.errno == errno.ENOENT:
        reason = "the loader or interpreter that it names does not exist (built for another C library?)"
    elif error.errno == errno.E2BIG:
        reason = "its arguments and environment variables are too long"
    elif error.errno == errno.EACCES and target.identity is not None:
        reason = f"{reason} for user {os.getuid()} and group {os.getgid()}"
    # An ENOENT would be a FileNotFoundError, which says that the program was not found. It was.
    number = errno.ENOEXEC if error.errno == errno.ENOENT else error.errno or errno.ENOEXEC
    return OSError(number, f"{shown} cannot be executed: {reason}")


# -- becoming ---------------------------------------------------------------------------------------------------------------


def become(target: Target, stopped: Callable[[], bool]) -> None:
    """Replace this process by the program. Main thread only.

    Args:
        target: what `describe` returned.
        stopped: asked when signals are blocked: whether a stop came first. One that comes later ends the process.

    Returns:
        Only if a stop came first; nothing has been changed then.

    Raises:
        OSError: the exec failed; `strerror` is a sentence that says why.
        SystemExit: as PID 1, which survives its own signals, for a stop that came in the middle of it.
    """
    flush()
    undo: Undo = []
    try:
        _still_timers(undo)
        _block_signals(undo)
        if stopped():
            return
        _reset_signals(target, undo)
        _choose_descriptors(target.fds, undo)
        _settle(target, undo)
        _start(target)
    finally:
        for function, *args in reversed(undo):
            function(*args)


def flush() -> None:
    """Write out what is buffered: an exec forgets it. What cannot be written has no reader any more."""
    logging = sys.modules.get("logging")
    if logging is not None:
        logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass


def _still_timers(undo: Undo) -> None:
    """Cancel alarms: they survive the exec, and kill a target that does not expect them. Other timers do not survive."""
    for which in (_signal.ITIMER_REAL, _signal.ITIMER_VIRTUAL, _signal.ITIMER_PROF):
        left, interval = _signal.setitimer(which, 0)
        if left:
            undo.append((_signal.setitimer, which, left, interval))


def _block_signals(undo: Undo) -> None:
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
    undo.append((_signal.pthread_sigmask, _signal.SIG_SETMASK, before))
    # Once more, with all: this runs the handlers of what came before, and they may raise.
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())


def _reset_signals(target: Target, undo: Undo) -> None:
    """An exec resets what is caught, but keeps what is ignored, SIGPIPE and SIGXFSZ among it."""
    for signum in _signal.valid_signals():
        if signum in (_signal.SIGKILL, _signal.SIGSTOP):
            continue
        before = _signal.getsignal(signum)
        if before is _signal.SIG_DFL:
            continue
        if before == _signal.SIG_IGN and target.inherit and signum not in PYTHONS_OWN:
            continue
        _signal.signal(signum, _signal.SIG_DFL)
        if before is not None:  # None: a handler from C, which Python cannot put back
            undo.append((_signal.signal, signum, before))


def _choose_descriptors(wanted: frozenset[int], undo: Undo) -> None:
    """Close all others on exec. Not at once: if it fails they are still needed."""
    folder = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    try:
        open_fds = [int(name) for name in os.listdir(folder)]
    except OSError:
        open_fds = list(range(os.sysconf("SC_OPEN_MAX")))  # no /proc
    for fd in open_fds:
        if fd in STDIO and fd not in wanted:
            continue
        try:
            before = os.get_inheritable(fd)
            if before == (fd in wanted):
                continue
            os.set_inheritable(fd, fd in wanted)
        except OSError:
            continue  # the one that listed the folder, or another thread closed it
        undo.append((os.set_inheritable, fd, before))


def _settle(target: Target, undo: Undo) -> None:
    if target.umask is not None:
        umask = os.umask(target.umask)
        undo.append((os.umask, umask))
    if target.cwd is not None:
        here = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
        undo += [(os.close, here), (os.fchdir, here)]
        os.chdir(target.cwd)
    if target.identity is not None:
        target.identity.assume()


def _start(target: Target) -> None:
    pending = _signal.sigpending() & STOPS
    if pending and os.getpid() == 1:
        raise SystemExit(128 + min(pending))
    # With the defaults in place a stop that waits, or comes until the exec, kills here: it is not forgotten. As PID 1 one
    # that comes between these two lines is, like any that comes before the target listens.
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    try:
        os.execve(target.path, target.argv, target.env)  # noqa: S606 - no shell is the point
    except OSError as error:
        raise explain(error, target) from None
