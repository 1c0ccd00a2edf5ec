"""The program to become: found and checked before anything is torn down, and then the exec itself.

Rules:
1. `world` and `describe` find out all that can be found out beforehand, and change nothing.
2. `become` changes the process step by step and takes each step back if the exec fails; what cannot be taken back comes last:
   a terminal that was given up, privileges, and the user.
3. No value of an environment variable is ever part of a message.
4. This is loaded at each start of a container: os, sys and `_signal`, which cost nothing (`signal` takes 3 ms, for
   its enums), and the rest where it is used. No `__future__`, which is a file too, so some annotations are strings.
"""

import os
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from cleanup_guard._exec.identity import Identity
    from cleanup_guard._exec.privileges import Privileges

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

MOST_FDS = 1 << 20
"""As many as a process can have, unless its administrator has changed the kernel: what is allowed may be a billion."""


class Target:
    """A program that was found, and the world that it is to start in.

    Attributes:
        path: the file to execute.
        argv: its arguments, its own name first.
        env: its whole environment; None for this process's own, byte for byte, but for `changes`.
        changes: values of variables by their names; None for those that are to go.
        world: the rest of what it finds.
    """

    __slots__ = ("argv", "changes", "env", "path", "world")

    def __init__(
        self,
        path: bytes,
        argv: list[bytes],
        env: dict[bytes, bytes] | None,
        changes: dict[bytes, bytes | None],
        world: "World",
    ) -> None:
        self.path = path
        self.argv = argv
        self.env = env
        self.changes = changes
        self.world = world


class World:
    """What a program finds besides its arguments and its environment.

    Args:
        cwd: its working directory; None for ours.
        who: whom it runs as; None for us.
        privileges: what it may never have.
        umask: its file mode creation mask; None for ours.
        fds: the file descriptors that it inherits besides 0, 1 and 2.
        inherit: whether it keeps ignored what we do, but for what Python itself ignores.
    """

    __slots__ = ("cwd", "fds", "inherit", "privileges", "umask", "who")

    def __init__(
        self,
        *,
        cwd: bytes | None,
        who: "Identity | None",
        privileges: "Privileges | None",
        umask: int | None,
        fds: frozenset[int],
        inherit: bool,
    ) -> None:
        self.cwd = cwd
        self.who = who
        self.privileges = privileges
        self.umask = umask
        self.fds = fds
        self.inherit = inherit


def world(
    *,
    cwd: "Word | None" = None,
    who: "Identity | None" = None,
    privileges: "Privileges | None" = None,
    umask: int | None = None,
    pass_fds: "Iterable[int]" = (),
    signals: str = "default",
) -> World:
    """Check what a program is to find.

    Raises:
        FileNotFoundError: there is no such working directory.
        OSError: it cannot be entered; `strerror` is a sentence that says why.
        TypeError, ValueError: an argument makes no sense.
    """
    if signals not in ("default", "inherit"):
        raise ValueError(f"signals must be 'default' or 'inherit', not {signals!r}")
    if umask is not None and not 0 <= umask <= ALL_BITS:
        raise ValueError(f"umask must be from 0 to 0o777, not {umask!r}")
    return World(
        cwd=None if cwd is None else _folder(_word(cwd, "the working directory")),
        who=who,
        privileges=privileges,
        umask=umask,
        fds=frozenset(_open_fd(fd) for fd in pass_fds),
        inherit=signals == "inherit",
    )


def describe(
    program: "Word",
    args: "Sequence[Word]",
    world: World,
    *,
    env: "Environment | None" = None,
    changes: "Mapping[bytes, bytes | None] | None" = None,
    argv0: "Word | None" = None,
) -> Target:
    """Check everything and find the program, in the PATH of its new environment.

    Args:
        program: a path, or a name to look for.
        args: its arguments, without its own name.
        world: what `world` returned.
        env: its whole environment; None for this process's own, without what Python's locale coercion added.
        changes: to that environment: values of variables by their names, None for those that are to go.
        argv0: the name it is called by; None for `program`.

    Raises:
        FileNotFoundError: there is no such program.
        OSError: it is there, and cannot be executed; `strerror` is a sentence that says why.
        TypeError, ValueError: an argument makes no sense.
    """
    argv = [_word(each, "an argument") for each in (program if argv0 is None else argv0, *args)]
    name = _word(program, "the program")
    if not name or not argv[0]:
        raise ValueError("the name of the program is empty")
    differences = dict(changes or {})
    for key, value in differences.items():
        _variable(key, value or b"")
    own = os.environb if env is None else dict(_variable(key, value) for key, value in env.items())
    found = with_changes(own, differences)
    path = find(name, found, world.cwd or b"")
    return Target(path, argv, None if env is None else found, differences, world)


def with_changes(
    environment: "Mapping[bytes, bytes]", changes: "Mapping[bytes, bytes | None]"
) -> dict[bytes, bytes]:
    """An environment with some variables changed, or, where the value is None, without them."""
    left = {name: value for name, value in environment.items() if name not in changes}
    return left | {name: value for name, value in changes.items() if value is not None}


def privileges(*, no_new_privs: bool, drop_caps: "Iterable[str]") -> "Privileges | None":
    """What is to be given up, if anything is.

    Raises:
        ValueError, PermissionError, NotImplementedError: see `Privileges`.
    """
    drop_caps = list(drop_caps)
    if not (no_new_privs or drop_caps):
        return None
    from cleanup_guard._exec.privileges import Privileges

    return Privileges(no_new_privs=no_new_privs, drop_caps=drop_caps)


def _word(word: "Word", what: str) -> bytes:
    encoded = os.fsencode(word)
    if b"\0" in encoded:
        raise ValueError(f"{what} contains a NUL character, at which the system would cut it off")
    return encoded


def _variable(key: str | bytes, value: str | bytes) -> tuple[bytes, bytes]:
    name, content = os.fsencode(key), os.fsencode(value)
    if not name or b"=" in name or b"\0" in name:
        begin = os.fsdecode(name.partition(b"=")[0])  # what follows was meant to be a value
        raise ValueError(
            f"what begins with {begin!r} cannot be the name of an environment variable: it is empty, or has = or NUL in it"
        )
    if b"\0" in content:
        raise ValueError(
            f"the value of the environment variable {os.fsdecode(name)} contains a NUL character"
        )
    return name, content


def _open_fd(fd: int) -> int:
    try:
        os.fstat(fd)
    except (OSError, OverflowError):
        raise ValueError(f"file descriptor {fd} is not open") from None
    return fd


def _folder(cwd: bytes) -> bytes:
    shown = os.fsdecode(cwd)
    try:
        is_folder = _is_directory(cwd)
    except OSError as error:
        raise type(error)(error.errno, f"the working directory {shown}: {_lower(error)}") from None
    if not is_folder:
        raise _error("ENOTDIR", f"the working directory {shown} is not a directory")
    if not os.access(cwd, os.X_OK):
        raise _error("EACCES", f"the working directory {shown} may not be entered")
    return cwd


def _is_directory(path: bytes) -> bool:
    return stat.S_ISDIR(os.stat(path).st_mode)


def _error(name: str, sentence: str) -> OSError:
    """The one that the system raises for this number, with a sentence of ours. The numbers are loaded when one is needed."""
    import errno

    return OSError(getattr(errno, name), sentence)


def _lower(error: OSError) -> str:
    text = error.strerror or type(error).__name__
    return text[:1].lower() + text[1:]


# -- finding ----------------------------------------------------------------------------------------------------------------


def find(program: bytes, env: "Mapping[bytes, bytes]", base: bytes) -> bytes:
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
        if _is_missing(os.path.join(base, path)):
            continue
        problem = _problem(path, base)
        if problem is None:
            return path
        if not isinstance(problem, FileNotFoundError) and not (first or _names_directory(path, base)):
            first = problem  # execvp looks further, too, and remembers
    if first is not None:
        raise first
    where = "in any folder of PATH" if b"PATH" in env else f"in {os.defpath}, as there is no PATH"
    raise _error("ENOENT", f"there is no program {shown} {where}")


def _is_missing(path: bytes) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


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
            return _error("EACCES", f"{shown} is a directory, not a program")
    except (FileNotFoundError, NotADirectoryError):
        return _error("ENOENT", f"there is no file {shown}")
    except OSError as error:
        return _error("EACCES", f"{shown} cannot be reached: {_lower(error)}")
    if not os.access(full, os.X_OK):
        return _error(
            "EACCES", f"{shown} is not executable: chmod +x {shown}, or name its interpreter before it"
        )
    reason = _bad_script(full, base)
    return None if reason is None else _error("ENOEXEC", f"{shown} cannot be executed: {reason}")


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
    import errno

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
    elif error.errno == errno.EACCES and target.world.who is not None:
        reason = f"{reason} for user {os.getuid()} and group {os.getgid()}"
    # An ENOENT would be a FileNotFoundError, which says that the program was not found. It was.
    number = errno.ENOEXEC if error.errno == errno.ENOENT else error.errno or errno.ENOEXEC
    return OSError(number, f"{shown} cannot be executed: {reason}")


# -- becoming ---------------------------------------------------------------------------------------------------------------


def become(target: Target, stopped: "Callable[[], bool]") -> None:
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
    changes = _in_our_environment(target)
    undo: Undo = []
    try:
        _still_timers(undo)
        _block_signals(undo)
        if stopped():
            return
        _reset_signals(target, undo)
        _choose_descriptors(target.world.fds, undo)
        _settle(target.world, undo)
        _change_environment(changes, target.changes, undo)
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


def _still_timers(undo: "Undo") -> None:
    """Cancel alarms: they survive the exec, and kill a target that does not expect them. Other timers do not survive."""
    for which in (_signal.ITIMER_REAL, _signal.ITIMER_VIRTUAL, _signal.ITIMER_PROF):
        left, interval = _signal.setitimer(which, 0)
        if left:
            undo.append((_signal.setitimer, which, left, interval))


def _block_signals(undo: "Undo") -> None:
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
    undo.append((_signal.pthread_sigmask, _signal.SIG_SETMASK, before))
    # Once more, with all: this runs the handlers of what came before, and they may raise.
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())


def _reset_signals(target: Target, undo: "Undo") -> None:
    """An exec resets what is caught, but keeps what is ignored, SIGPIPE and SIGXFSZ among it."""
    for signum in _signal.valid_signals():
        if signum in (_signal.SIGKILL, _signal.SIGSTOP):
            continue
        before = _signal.getsignal(signum)
        if before is _signal.SIG_DFL:
            continue
        if before == _signal.SIG_IGN and target.world.inherit and signum not in PYTHONS_OWN:
            continue
        _signal.signal(signum, _signal.SIG_DFL)
        if before is not None:  # None: a handler from C, which Python cannot put back
            undo.append((_signal.signal, signum, before))


def _choose_descriptors(wanted: frozenset[int], undo: "Undo") -> None:
    """Close all others on exec. Not at once: if it fails they are still needed."""
    folder = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    try:
        open_fds = [int(name) for name in os.listdir(folder)]
    except OSError:
        open_fds = list(range(min(os.sysconf("SC_OPEN_MAX"), MOST_FDS)))  # no /proc
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


def _settle(world: World, undo: "Undo") -> None:
    if world.umask is not None:
        umask = os.umask(world.umask)
        undo.append((os.umask, umask))
    if world.cwd is not None:
        here = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
        undo += [(os.close, here), (os.fchdir, here)]
        os.chdir(world.cwd)
    if world.privileges is not None:
        world.privileges.bound()
    if world.who is not None:
        world.who.assume()
    if world.privileges is not None:
        world.privileges.finish()


def _in_our_environment(target: Target) -> dict[bytes, bytes | None]:
    """What is to be changed there. Asked for while we may read what tells it: another user perhaps may not."""
    if target.env is not None:
        return {}
    if b"LC_CTYPE" not in os.environb:
        return target.changes
    from cleanup_guard._ground.environment import coercion

    return {**coercion(), **target.changes}


def _change_environment(
    changes: dict[bytes, bytes | None], asked: dict[bytes, bytes | None], undo: "Undo"
) -> None:
    """In our own, of which an exec hands on all bytes: what is twice in it, or has no name, as well."""
    for name, value in changes.items():
        undo.append((_set_variable, name, os.environb.get(name)))
        if name in asked:
            _set_variable(name, None)  # it may be there twice
        _set_variable(name, value)


def _set_variable(name: bytes, value: bytes | None) -> None:
    if value is not None:
        os.environb[name] = value
    elif name in os.environb:
        del os.environb[name]
    else:
        os.unsetenv(name)


def _start(target: Target) -> None:
    pending = _signal.sigpending() & STOPS
    if pending and os.getpid() == 1:
        raise SystemExit(128 + min(pending))
    # With the defaults in place a stop that waits, or comes until the exec, kills here: it is not forgotten. As PID 1 one
    # that comes between these two lines is, like any that comes before the target listens.
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    try:
        if target.env is None:
            os.execv(target.path, target.argv)  # noqa: S606 - no shell is the point
        else:
            os.execve(target.path, target.argv, target.env)  # noqa: S606 - as above
    except OSError as error:
        raise explain(error, target) from None
