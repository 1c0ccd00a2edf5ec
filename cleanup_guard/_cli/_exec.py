"""`cleanup-guard exec`: an entrypoint that prepares config files and the environment, then becomes the program.

Everything is read, looked up and rendered before the first file is written, and written before the exec.

No argparse: it takes longer to import than all the rest takes to run, at each start of a container.
"""

from __future__ import annotations

import os
import sys

from cleanup_guard import _target

assert sys.platform != "win32"

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from types import FrameType
else:
    import _signal

HELP = """\
usage: cleanup-guard exec [options] [--] PROGRAM [ARGUMENT ...]
Become PROGRAM: same process, same PID, every signal at its default. First:
  --template SRC:DST    write DST with $NAME, ${NAME} from the environment ($$
                        is a dollar sign); folders: all files; missing: error
  --mode 640            mode and owner of the files written; else as the file
  --owner NAME[:GROUP]  that is replaced, or with the template's mode
  --env-file FILE       lines NAME=VALUE, taken as they are; # begins a comment
  --env NAME=VALUE      set a variable; of these three options a later one wins
  --unset NAME          remove a variable
  --user NAME[:GROUP]   become this user, by name or number, and set HOME
  --workdir DIR         start in DIR            --umask 027  with this umask
  --argv0 NAME          under another name      --pass-fd N  with descriptor N
  --signals inherit     keep ignored what the parent ignored (default: nothing)
examples:
  cleanup-guard exec --template /etc/app.in:/etc/app.conf -- gunicorn app:app
  cleanup-guard exec --user app --env-file /run/secrets/env -- python worker.py
  ENTRYPOINT ["cleanup-guard", "exec", "--template", "/in:/etc/app", "--"]
status: PROGRAM's; 127 it is not found, 126 it cannot be executed, 2 a mistake
in the options or in what they name."""

OPTIONS = {
    "--argv0": "NAME",
    "--env": "NAME=VALUE",
    "--env-file": "FILE",
    "--mode": "MODE",
    "--owner": "NAME[:GROUP]",
    "--pass-fd": "N",
    "--signals": "default or inherit",
    "--template": "SRC:DST",
    "--umask": "MODE",
    "--unset": "NAME",
    "--user": "NAME[:GROUP]",
    "--workdir": "DIR",
}


MODE_BITS = 0o7777


class Mistake(Exception):
    """The command line, or a file that it names, makes no sense. The message is a sentence, and holds no secret."""


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
        return _prepare_and_exec(argv)
    except Stopped as stop:
        return 128 + stop.signum
    except Mistake as mistake:
        return _complain(str(mistake), 2)
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


def _complain(sentence: str, status: int) -> int:
    print(f"cleanup-guard exec: {sentence}", file=sys.stderr)
    return status


def _prepare_and_exec(argv: list[str]) -> int:
    options, command = parse(argv)
    if any(name == "--help" for name, _ in options):
        print(HELP)
        return 0
    if not command:
        raise Mistake("which program? It comes last: cleanup-guard exec [options] -- PROGRAM [ARGUMENT ...]")
    given = dict(options)
    workdir = given.get("--workdir")
    if workdir is not None and not os.path.isdir(workdir):
        raise Mistake(f"--workdir {workdir!r} is not a directory")
    try:
        who = _target.identity(*_user_and_group(given.get("--user")))
        env = environment(options, None if who is None else who.home)
        target = _target.describe(
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
        return _complain(_sentence(error), 127)
    except OSError as error:
        return _complain(_sentence(error), 126)
    try:
        _target.become(target, lambda: False)
    except OSError as error:
        return _complain(_sentence(error), 126)
    return 1


def _sentence(error: OSError) -> str:
    return error.strerror or str(error)


# -- the command line -------------------------------------------------------------------------------------------------------


def parse(argv: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Split the arguments into options with their values, in order, and the command.

    The first word that is no option begins the command; so does the one after `--`.
    """
    options: list[tuple[str, str]] = []
    words = iter(argv)
    for word in words:
        if word == "--":
            return options, list(words)
        if not word.startswith("-") or word == "-":
            return options, [word, *words]
        if word in ("-h", "--help"):
            options.append(("--help", ""))
            continue
        name, equals, value = word.partition("=")
        if name not in OPTIONS:
            raise Mistake(f"there is no option {name!r}; see cleanup-guard exec --help")
        if not equals:
            following = next(words, None)
            if following is None:
                raise Mistake(f"{name!r} needs a value: {name} {OPTIONS[name]}")
            value = following
        options.append((name, value))
    return options, []


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


def environment(options: list[tuple[str, str]], home: str | None) -> dict[str, str]:
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


def _write_templates(options: list[tuple[str, str]], env: dict[str, str]) -> None:
    wanted = [word for name, word in options if name == "--template"]
    if not wanted:
        return
    from cleanup_guard._cli._templates import Rendering

    given = dict(options)
    rendering = Rendering(env)
    for word in wanted:
        rendering.add(word)
    rendering.check()
    owner = _target.owner(*_user_and_group(given.get("--owner")))
    mode = _octal("--mode", given.get("--mode"))
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGTERM, _signal.SIGINT))
    try:
        rendering.write(mode=mode, owner=owner)  # a stop waits until no half-written file lies about
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)
