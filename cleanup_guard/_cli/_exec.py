"""`cleanup-guard exec`: an entrypoint that prepares config files and the environment, then becomes the program.

Everything is read, looked up and rendered before the first file is written, and written before the exec.

No argparse: it takes longer to import than all the rest takes to run, at each start of a container. And no `__future__`, which
is a file too: some annotations are strings.
"""

import os
import sys

from cleanup_guard._cli._words import Mistake, Usage, complain, quoted
from cleanup_guard._exec import target as targets

assert sys.platform != "win32"

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from types import FrameType

    from cleanup_guard._cli._words import Given
    from cleanup_guard._exec.identity import Identity
else:
    import _signal

USAGE = Usage(
    "exec",
    ("[options] [--] PROGRAM [ARGUMENT ...]",),
    "Prepares what an entry script would, and becomes PROGRAM: same process, same PID.",
    {
        "Config files": {
            "--template SRC:DST": "write DST from the template SRC; a folder: from every file below it; DST/: into that "
            "folder. $NAME and ${NAME} stand for variables, ${NAME:-text} has a default, ${NAME:?message} and "
            "${NAME:+text} are as in a shell, $$ is a dollar sign. A missing variable is an error, and nothing is "
            "written. Jinja2 renders what is called .j2, .jinja or .jinja2",
            "--only NAMES": "replace these names only, and leave all else as it is: NAME,NAME or '$NAME ${NAME}'",
            "--mode MODE": "mode of the files written, such as 640; else the template's permissions",
            "--owner [USER][:GROUP]": "owner of the files written; else you",
        },
        "Environment, of which a later one wins": {
            "--env-file FILE": "lines NAME=VALUE, taken as they are; # begins a comment",
            "--env NAME=VALUE": "set a variable",
            "--unset NAME": "remove a variable",
        },
        "The program's world": {
            "--user [USER][:GROUP]": "become this user, by name or number, and set HOME, USER and LOGNAME",
            "--drop-caps NAMES": "it can never have these capabilities, such as net_raw,setuid, or all",
            "--no-new-privs": "it can never get more privileges by executing a file that has them, such as sudo",
            "--keep-terminal": "another --user may have a terminal that he shares with you, and type into your shell",
            "--workdir DIR": "it starts in this folder",
            "--umask MODE": "it starts with this umask",
            "--argv0 NAME": "it starts under another name",
            "--pass-fd N": "it has this file descriptor, besides 0, 1 and 2",
            "--signals inherit": "keep ignored what the parent ignored; without it nothing is",
        },
        "Besides": {
            "--verbose": "say on stderr what is done",
        },
    },
    "Exit status: PROGRAM's own; 127: it is not found, 126: it cannot be executed, 2: a mistake in\n"
    "the options or in what they name.",
)

MODE_BITS = 0o7777

MOST_DIGITS = 10
"""Of a number that makes sense here."""


class Stopped(BaseException):
    """As PID 1, a stop signal came before the exec."""

    def __init__(self, signum: int) -> None:
        self.signum = signum


def main(argv: list[str]) -> int:
    """Run `cleanup-guard exec`.

    Args:
        argv: what follows "exec".

    Returns:
        The exit status if the program was not started; else this does not return.
    """
    try:
        _listen()
        return USAGE.main(argv, _prepare_and_exec)
    except Stopped as stop:
        return 128 + stop.signum
    except SystemExit as stop:  # as PID 1: between two steps of the exec
        return int(stop.code or 0)


def _listen() -> None:
    """See to it that until the exec a stop ends this, without a traceback.

    The default does that best: a Python handler is late if the signal comes just before a read that blocks. But PID 1
    has no defaults, and would lose the stop altogether.
    """
    action = _stop if os.getpid() == 1 else _signal.SIG_DFL
    for signum in (_signal.SIGTERM, _signal.SIGINT):
        if _signal.getsignal(signum) != _signal.SIG_IGN:
            _signal.signal(signum, action)


def _stop(signum: int, _frame: "FrameType | None") -> None:
    raise Stopped(signum)


def _prepare_and_exec(given: "Given", command: list[str]) -> int:
    if not command:
        raise Mistake("which program? It comes last: cleanup-guard exec [options] -- PROGRAM [ARGUMENT ...]")
    asked = dict(given)
    tell = _tell if "--verbose" in asked else _tell_nobody
    try:
        who = _identity(asked.get("--user"), keep_terminal="--keep-terminal" in asked)
        changes = environment(given, who)
        target = targets.describe(
            command[0], command[1:], _world(given, who), changes=changes, argv0=asked.get("--argv0")
        )
        _write_templates(given, changes, tell)
    except (ValueError, NotImplementedError) as error:
        raise Mistake(str(error)) from None
    except FileNotFoundError as error:
        return complain(_sentence(error), 127, USAGE.name)
    except OSError as error:
        return complain(_sentence(error), 126, USAGE.name)
    _tell_what_comes(tell, target)
    if target.world.who is not None or target.world.privileges is not None:
        # What a failure is told with, while we may read it: another user perhaps may not.
        from cleanup_guard._ground import foreign  # noqa: F401  # pyright: ignore[reportUnusedImport]
    try:
        targets.become(target, lambda: False)
    except OSError as error:
        return complain(_sentence(error), 126, USAGE.name)
    return 1


def _sentence(error: OSError) -> str:
    return error.strerror or str(error)


def _tell(sentence: str) -> None:
    complain(sentence, 0, USAGE.name)


def _tell_nobody(sentence: str) -> None:
    pass


def _tell_what_comes(tell: "Callable[[str], None]", target: targets.Target) -> None:
    """Names of variables, and no values."""
    for name, value in target.changes.items():
        tell(f"the variable {os.fsdecode(name)} is {'removed' if value is None else 'set'}")
    if target.world.who is not None:
        tell(f"becoming {target.world.who}")
    tell(f"executing {os.fsdecode(target.path)}")


# -- words ------------------------------------------------------------------------------------------------------------------


def _world(given: "Given", who: "Identity | None") -> targets.World:
    asked = dict(given)
    workdir = asked.get("--workdir")
    if workdir is not None and not os.path.isdir(workdir):
        raise Mistake(f"--workdir {quoted(workdir)} is not a directory")
    return targets.world(
        cwd=workdir,
        who=who,
        privileges=targets.privileges(
            no_new_privs="--no-new-privs" in asked,
            drop_caps=[name for option, word in given if option == "--drop-caps" for name in word.split(",")],
        ),
        umask=_octal("--umask", asked.get("--umask"), targets.ALL_BITS),
        pass_fds=[_number(word) for option, word in given if option == "--pass-fd"],
        signals=asked.get("--signals", "default"),
    )


def _identity(word: str | None, *, keep_terminal: bool) -> "Identity | None":
    if word is None:
        return None
    from cleanup_guard._exec.identity import identity

    user, group = _user_and_group(word)
    return identity(user, group, keep_terminal=keep_terminal)


def _user_and_group(word: str) -> tuple[str | int, str | None]:
    """As gosu takes them: without a user it is the one that we are, without a group it is the user's."""
    user, _, group = word.partition(":")
    return user or os.getuid(), group or None


def _octal(option: str, word: str | None, highest: int) -> int | None:
    if word is None:
        return None
    digits = word.removeprefix("0o").lstrip("0") or "0"
    if not set(digits) <= set("01234567") or len(digits) > MOST_DIGITS or int(digits, 8) > highest:
        raise Mistake(f"{option} {quoted(word)} is no octal number such as 640, or too high")
    return int(digits, 8)


def _number(word: str) -> int:
    if not (word.isascii() and word.isdecimal()):
        raise Mistake(f"--pass-fd {quoted(word)} is not the number of a file descriptor")
    if len(word) > MOST_DIGITS:
        raise Mistake(f"--pass-fd {quoted(word)}: there is no file descriptor of so high a number")
    return int(word)


# -- the environment --------------------------------------------------------------------------------------------------------


def environment(given: "Given", who: "Identity | None") -> dict[bytes, bytes | None]:
    """What changes in the environment: what belongs to the user, then what the options say, from left to right."""
    changes: dict[bytes, bytes | None] = {} if who is None else dict(who.variables)
    for option, word in given:
        if option == "--env":
            name, equals, value = word.partition("=")
            if not (name and equals):
                raise Mistake(f"--env needs NAME=VALUE: {'=' if name else 'the name'} is missing")
            changes[os.fsencode(name)] = os.fsencode(value)
        elif option == "--unset":
            if not word or "=" in word:
                raise Mistake("--unset needs the NAME of a variable and nothing else")
            changes[os.fsencode(word)] = None
        elif option == "--env-file":
            changes.update(read_env_file(word))
    return changes


def read_env_file(path: str) -> dict[bytes, bytes]:
    """Read lines NAME=VALUE, as docker's --env-file does: values are taken as they are, quotes and spaces included.

    Empty lines and lines that begin with # are skipped, spaces before the name too.

    Raises:
        Mistake: the file cannot be read, or a line is no assignment; the line is named, not shown.
    """
    from cleanup_guard._cli._templates import read

    env: dict[bytes, bytes] = {}
    content, _ = read(path, f"--env-file {path} cannot be read")
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        line = raw.removesuffix(b"\r").lstrip(b" \t")
        if not line or line.startswith(b"#"):
            continue
        name, equals, value = line.partition(b"=")
        if b"\0" in line:
            raise Mistake(f"--env-file {path}, line {number}: a NUL, which no variable can hold")
        if not equals or not name or any(character.isspace() for character in os.fsdecode(name)):
            raise Mistake(f"--env-file {path}, line {number}: not NAME=VALUE")
        env[name] = value
    return env


def _write_templates(
    given: "Given", changes: dict[bytes, bytes | None], tell: "Callable[[str], None]"
) -> None:
    wanted = [word for option, word in given if option == "--template"]
    only = [word for option, word in given if option == "--only"]
    if not wanted:
        return
    from cleanup_guard._cli._templates import Rendering, names
    from cleanup_guard._exec.write import Attributes

    asked = dict(given)
    env = targets.with_changes(os.environb, changes)
    rendering = Rendering(
        {os.fsdecode(name): os.fsdecode(value) for name, value in env.items()},
        {name for word in only for name in names(word)} if only else None,
    )
    for word in wanted:
        rendering.add(word)
    rendering.check()
    rendering.write(Attributes(_octal("--mode", asked.get("--mode"), MODE_BITS), _owner(asked)), tell)


def _owner(asked: dict[str, str]) -> tuple[int, int] | None:
    if "--owner" not in asked:
        return None
    from cleanup_guard._exec.identity import owner

    return owner(*_user_and_group(asked["--owner"]))
