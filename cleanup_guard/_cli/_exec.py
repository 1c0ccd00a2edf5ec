"""`cleanup-guard exec`: an entrypoint that prepares config files and the environment, then becomes the program.

Everything is read, looked up and rendered before the first file is written, and written before the exec.

No argparse: it takes longer to import than all the rest takes to run, at each start of a container.
"""

from __future__ import annotations

import os
import sys

from cleanup_guard._cli._words import Mistake, Usage, complain
from cleanup_guard._exec import target as targets

assert sys.platform != "win32"

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from types import FrameType

    from cleanup_guard._cli._words import Given
else:
    import _signal

USAGE = Usage(
    "exec",
    ("[options] [--] PROGRAM [ARGUMENT ...]",),
    "Becomes PROGRAM: same process, same PID, every signal at its default. Before that it\n"
    "prepares what an entry script would.",
    {
        "Config files": {
            "--template SRC:DST": "write DST with $NAME and ${NAME} from the environment ($$ is a dollar sign); "
            "folders: all files; a missing variable is an error",
            "--mode MODE": "mode of the files written, such as 640; else as the file that is replaced, or the template's",
            "--owner NAME[:GROUP]": "owner of the files written; else as the file that is replaced",
        },
        "Environment (of these a later one wins)": {
            "--env-file FILE": "lines NAME=VALUE, taken as they are; # begins a comment",
            "--env NAME=VALUE": "set a variable",
            "--unset NAME": "remove a variable",
        },
        "The program's world": {
            "--user NAME[:GROUP]": "become this user, by name or number, and set HOME",
            "--workdir DIR": "start in this folder",
            "--umask MODE": "start with this umask",
            "--argv0 NAME": "start it under another name",
            "--pass-fd N": "let it have this file descriptor, besides 0, 1 and 2",
            "--signals WHICH": "inherit: keep ignored what the parent ignored; default: nothing",
        },
    },
    "Exit status: PROGRAM's own; 127: it is not found, 126: it cannot be executed, 2: a mistake in\n"
    "the options or in what they name.",
)


MODE_BITS = 0o7777


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


def _stop(signum: int, _frame: FrameType | None) -> None:
    raise Stopped(signum)


def _prepare_and_exec(options: Given, command: list[str]) -> int:
    if not command:
        raise Mistake("which program? It comes last: cleanup-guard exec [options] -- PROGRAM [ARGUMENT ...]")
    given = dict(options)
    workdir = given.get("--workdir")
    if workdir is not None and not os.path.isdir(workdir):
        raise Mistake(f"--workdir {workdir!r} is not a directory")
    try:
        who = targets.identity(*_user_and_group(given.get("--user")))
        env = environment(options, None if who is None else who.home)
        target = targets.describe(
            command[0],
            command[1:],
            env=env,
            cwd=workdir,
            argv0=given.get("--argv0"),
            who=who,
            umask=_octal("--umask", given.get("--umask")),
            pass_fds=[_number(word) for name, word in options if name == "--pass-fd"],
            signals=given.get("--signals", "default"),
        )
        _write_templates(options, env)
    except ValueError as error:
        raise Mistake(str(error)) from None
    except FileNotFoundError as error:
        return complain(_sentence(error), 127, "exec")
    except OSError as error:
        return complain(_sentence(error), 126, "exec")
    try:
        targets.become(target, lambda: False)
    except OSError as error:
        return complain(_sentence(error), 126, "exec")
    return 1


def _sentence(error: OSError) -> str:
    return error.strerror or str(error)


# -- words ------------------------------------------------------------------------------------------------------------------


def _user_and_group(word: str | None) -> tuple[str | None, str | None]:
    if word is None:
        return None, None
    user, colon, group = word.partition(":")
    if not user or (colon and not group):
        raise Mistake(f"--user {word!r} is not NAME or NAME:GROUP")
    return user, group or None


def _octal(option: str, word: str | None) -> int | None:
    if word is None:
        return None
    try:
        number = int(word, 8)
    except ValueError:
        number = -1
    if not 0 <= number <= MODE_BITS:
        raise Mistake(f"{option} {word!r} is no octal number such as 640")
    return number


def _number(word: str) -> int:
    if not (word.isascii() and word.isdecimal()):
        raise Mistake(f"--pass-fd {word!r} is not the number of a file descriptor")
    return int(word)


# -- the environment --------------------------------------------------------------------------------------------------------


def environment(options: Given, home: str | None) -> dict[str, str]:
    """The program's environment: ours, HOME of its user, then what the options say, from left to right."""
    env = dict(os.environ)
    if home is not None:
        env["HOME"] = home
    for option, word in options:
        if option == "--env":
            name, equals, value = word.partition("=")
            if not (name and equals):
                shown = repr(name) if name else "the word before '=' is missing"
                raise Mistake(f"--env needs NAME=VALUE: {shown}")
            env[name] = value
        elif option == "--unset":
            if not word or "=" in word:
                raise Mistake(
                    f"--unset {word.partition('=')[0]!r}: needs the NAME of a variable and nothing else"
                )
            env.pop(word, None)
        elif option == "--env-file":
            env.update(read_env_file(word))
    return env


def read_env_file(path: str) -> dict[str, str]:
    """Read lines NAME=VALUE, as docker's --env-file does: values are taken as they are, quotes and spaces included.

    Empty lines and lines that begin with # are skipped, spaces before the name too.

    Raises:
        Mistake: the file cannot be read, or a line is no assignment; the line is named, not shown.
    """
    env: dict[str, str] = {}
    for number, raw in enumerate(_read(path, "--env-file").split("\n"), 1):
        line = raw.removesuffix("\r").lstrip(" \t")
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not name or any(character.isspace() for character in name):
            raise Mistake(f"--env-file {path}, line {number}: not NAME=VALUE")
        env[name] = value
    return env


def _read(path: str, option: str) -> str:
    try:
        with open(path, "rb") as file:
            return os.fsdecode(file.read().removeprefix(b"\xef\xbb\xbf"))
    except OSError as error:
        raise Mistake(f"{option} {path} cannot be read: {_sentence(error)}") from None


def _write_templates(options: Given, env: dict[str, str]) -> None:
    wanted = [word for name, word in options if name == "--template"]
    if not wanted:
        return
    from cleanup_guard._cli._templates import Rendering

    given = dict(options)
    rendering = Rendering(env)
    for word in wanted:
        rendering.add(word)
    rendering.check()
    owner = targets.owner(*_user_and_group(given.get("--owner")))
    mode = _octal("--mode", given.get("--mode"))
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGTERM, _signal.SIGINT))
    try:
        rendering.write(mode=mode, owner=owner)  # a stop waits until no half-written file lies about
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)
