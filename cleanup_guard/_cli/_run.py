"""`cleanup-guard run`: the command line of the supervisor.

The first thing it does is to block every signal: from here on a stop is kept by the kernel until we look. What is imported
before that, and what after, is therefore no matter of taste; and argparse (15 ms, 1.4 MB) is not imported at all.
"""

from __future__ import annotations

import sys

assert sys.platform == "linux"

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    from cleanup_guard._supervise._options import Options
    from cleanup_guard._supervise._policy import Child, Scope

    T = TypeVar("T")
else:
    import _signal

USAGE = """\
usage: cleanup-guard run [options] [--] program [args ...] [::: program [args ...]] ...
       cleanup-guard run [options] --procfile FILE

Starts programs, forwards signals to them, and waits until they and all their descendants are gone.

Stopping
  --grace SECONDS            between the stop signal and the platform's SIGKILL: 10 (CLEANUP_GUARD_GRACE wins; none: no limit)
  --grace NAME=SECONDS       less for one child, counted from when it is asked
  --stop-signal [NAME=]SIG   ask with this signal instead of the one that arrived
  --stop-on SIG              take this signal, too, for a stop (TERM and INT are)
  --signal-to WHOM           group (default), main, or main-then-group; [NAME=]WHOM for one child
  --rewrite SIG:SIG          send another signal than the one that arrives; SIG:0 drops it
  --drain SECONDS            wait after a stop signal before anybody is asked, inside the grace period
  --no-wait-all              leave when the programs have ended, without waiting for their descendants
  --on-exit COMMAND          run this when everybody is gone, inside the grace period; repeatable, in this order

Several programs
  --name NAME                the name of the first, the second ... program; the default is the program's own
  --procfile FILE            programs from lines of `name: command`
  --when-one-exits WHAT      stop (default): the others are stopped; wait: they go on
  --after NAME=OTHER[,...]   start NAME after OTHER, and stop it before
  --prefix                   label each line of output with its program's name

Status and signals
  --map-exit N:M             exit with M instead of N; a killed program is never reported as 0
  --signals inherit          children keep the caller's blocked and ignored signals (default: none)
  --pdeathsig SIG            the kernel sends this to the programs, though not to their descendants, if we are killed

Exit status: the program's own; 128+n if signal n ended it; with several, that of the first to fail. 127: not found,
126: not executable, 2: wrong usage.
"""


HIGHEST = 255


class UsageError(Exception):
    """The command line makes no sense; the message says which word and why."""


def main(argv: list[str]) -> int:
    """Run `cleanup-guard run` with these arguments. Returns the exit status."""
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    try:
        options = parse(argv)
    except UsageError as error:
        print(f"cleanup-guard run: {error} (see cleanup-guard run --help)", file=sys.stderr)
        return 2
    if options is None:
        print(USAGE, end="")
        return 0
    from cleanup_guard._ground.environment import undo_coercion
    from cleanup_guard._supervise._command import Command

    undo_coercion()
    return Command(options, mask).main()


def parse(argv: list[str]) -> Options | None:
    """Read the command line. Returns None if help was asked for.

    Raises:
        UsageError: it makes no sense.
    """
    parser = Parser()
    rest = parser.read_options(argv)
    return None if rest is None else parser.finish(rest)


class Parser:
    """Collects the options; what names a child is settled when all children are known."""

    def __init__(self) -> None:
        from cleanup_guard._supervise._options import Options

        self.options = Options()
        self.names: list[str] = []
        self.procfile: str | None = None
        self.per_child: list[tuple[str, str, Callable[[Child], None]]] = []
        self.after: list[tuple[str, str, str]] = []

    def read_options(self, argv: list[str]) -> list[str] | None:
        """Take the options off the front. Returns the programs, or None for --help."""
        words = list(argv)
        while words and words[0].startswith("-") and words[0] != "-":
            word = words.pop(0)
            if word == "--":
                break
            if word in ("-h", "--help"):
                return None
            option, equals, value = word.partition("=")
            if option in FLAGS:
                if equals:
                    raise UsageError(f"{option} takes no value, but was given {value!r}")
                FLAGS[option](self)
            elif option in VALUES:
                if not equals:
                    if not words:
                        raise UsageError(f"{option} needs a value")
                    value = words.pop(0)
                VALUES[option](self, option, value)
            else:
                raise UsageError(f"there is no option {option!r}")
        return words

    def finish(self, words: list[str]) -> Options:
        """Make the children, now that all is known."""
        from cleanup_guard._supervise._policy import Child

        options = self.options
        programs = self._programs(words)
        if len(self.names) > len(programs):
            raise UsageError(
                f"--name {self.names[len(programs)]!r} has no program: there are {len(programs)}"
            )
        names = [name for name, _ in programs]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"there are two programs named {name!r}: tell them apart with --name")
        options.children = [Child(name, program) for name, program in programs]
        by_name = {child.name: child for child in options.children}
        for option, name, apply in self.per_child:
            for child in [self._child(by_name, option, name)] if name else options.children:
                apply(child)
        self._order(by_name)
        self._check_grace()
        return options

    def _programs(self, words: list[str]) -> list[tuple[str, list[str]]]:
        if self.procfile is not None:
            if words:
                raise UsageError(f"--procfile and the program {words[0]!r} exclude each other")
            return self._from_procfile(self.procfile)
        found: list[list[str]] = [[]]
        for word in words:
            if word == ":::":
                found.append([])
            else:
                found[-1].append(word)
        if found == [[]]:
            raise UsageError("there is no program to run")
        if [] in found:
            raise UsageError("a program is missing beside ':::'")
        return [(self._name(number, program, found), program) for number, program in enumerate(found)]

    def _name(self, number: int, program: list[str], found: list[list[str]]) -> str:
        if number < len(self.names):
            return self.names[number]
        base = program[0].rpartition("/")[2] or program[0]
        same = [each for each in found[:number] if each[0].rpartition("/")[2] == base]
        return f"{base}-{len(same) + 1}" if same else base

    def _from_procfile(self, file: str) -> list[tuple[str, list[str]]]:
        from cleanup_guard._supervise._procfile import parse as parse_procfile

        try:
            with open(file, encoding="utf-8") as lines:
                found = parse_procfile(lines.read())
        except OSError as error:
            raise UsageError(f"--procfile {file!r} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise UsageError(f"--procfile {file!r}: {error}") from None
        if not found:
            raise UsageError(f"--procfile {file!r} names no program")
        return found

    @staticmethod
    def _child(by_name: dict[str, Child], option: str, name: str) -> Child:
        if name not in by_name:
            raise UsageError(f"{option}: there is no program named {name!r}, only {', '.join(by_name)}")
        return by_name[name]

    def _order(self, by_name: dict[str, Child]) -> None:
        """Start order: as given, but everybody after those that it comes after."""
        for option, name, other in self.after:
            child = self._child(by_name, option, name)
            child.after = (*child.after, self._child(by_name, option, other))
        ordered: list[Child] = []
        waiting = list(self.options.children)
        while waiting:
            ready = next((child for child in waiting if all(other in ordered for other in child.after)), None)
            if ready is None:
                raise UsageError(
                    f"--after goes round in a circle: {', '.join(child.name for child in waiting)}"
                )
            ordered.append(ready)
            waiting.remove(ready)
        self.options.children = ordered

    def _check_grace(self) -> None:
        """The environment's grace period wins, and draining must leave time to stop."""
        import os

        from cleanup_guard._ground.clock import Budget, grace_from_environment
        from cleanup_guard._supervise._policy import KILL, KILL_BEFORE_CALLBACKS

        options = self.options
        try:
            told, grace = grace_from_environment(os.environ)  # type: ignore[arg-type]
        except ValueError as error:
            raise UsageError(str(error)) from None
        if told:
            options.grace = grace
        asking = Budget(options.grace, 0.0).at(KILL_BEFORE_CALLBACKS if options.on_exit else KILL)
        if options.drain >= asking:
            raise UsageError(
                f"--drain {options.drain:g} leaves no time to stop: SIGKILL is due {asking:.1f} s after the stop signal"
            )


# -- options ------------------------------------------------------------------------------------------------------------------


def _seconds(option: str, text: str) -> float | None:
    from cleanup_guard._ground.clock import seconds

    if text.lower() == "none":
        return None
    try:
        return seconds(float(text), option)
    except ValueError:
        raise UsageError(f"{option} takes seconds such as 5 or 0.5, not {text!r}") from None


def _signum(option: str, text: str) -> int:
    from cleanup_guard._ground.names import number_of

    try:
        return number_of(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def _status(option: str, text: str) -> int:
    if not text.isdecimal() or int(text) > HIGHEST:
        raise UsageError(f"{option} takes exit statuses from 0 to 255, not {text!r}")
    return int(text)


def _pair(option: str, text: str, form: str) -> tuple[str, str]:
    left, colon, right = text.partition(":")
    if not (colon and left and right):
        raise UsageError(f"{option} takes {form}, not {text!r}")
    return left, right


def _choice(option: str, text: str, choices: Iterable[T]) -> T:
    for choice in choices:
        if choice == text:
            return choice
    raise UsageError(f"{option} takes {' or '.join(map(str, choices))}, not {text!r}")


def _grace(parser: Parser, option: str, text: str) -> None:
    name, equals, value = text.rpartition("=")
    grace = _seconds(option, value)
    if grace == 0:
        raise UsageError(f"{option} must be more than 0 seconds, not {text!r}")
    if equals:
        parser.per_child.append((option, name, lambda child: setattr(child, "grace", grace)))
    else:
        parser.options.grace = grace


def _stop_signal(parser: Parser, option: str, text: str) -> None:
    name, _, value = text.rpartition("=")
    signum = _signum(option, value)
    parser.per_child.append((option, name, lambda child: setattr(child, "stop_signal", signum)))


def _signal_to(parser: Parser, option: str, text: str) -> None:
    name, _, value = text.rpartition("=")
    scopes: tuple[Scope, ...] = ("group", "main", "main-then-group")
    scope = _choice(option, value, scopes)
    parser.per_child.append((option, name, lambda child: setattr(child, "scope", scope)))


def _stop_on(parser: Parser, option: str, text: str) -> None:
    parser.options.stop_signals.add(_signum(option, text))


def _rewrite(parser: Parser, option: str, text: str) -> None:
    left, right = _pair(option, text, "SIGNAL:SIGNAL such as TERM:QUIT")
    parser.options.rewrite[_signum(option, left)] = 0 if right == "0" else _signum(option, right)


def _map_exit(parser: Parser, option: str, text: str) -> None:
    left, right = _pair(option, text, "STATUS:STATUS such as 143:0")
    parser.options.map_exit[_status(option, left)] = _status(option, right)


def _drain(parser: Parser, option: str, text: str) -> None:
    drain = _seconds(option, text)
    if drain is None:
        raise UsageError(f"{option} takes seconds such as 5, not {text!r}")
    parser.options.drain = drain


def _on_exit(parser: Parser, option: str, text: str) -> None:
    from cleanup_guard._supervise._procfile import words

    try:
        words(text)
    except ValueError as error:
        raise UsageError(f"{option} {text!r}: {error}") from None
    parser.options.on_exit.append(text)


def _name(parser: Parser, option: str, text: str) -> None:
    if not text or "=" in text or "," in text:
        raise UsageError(f"{option} takes a name without '=' and ',', not {text!r}")
    parser.names.append(text)


def _procfile(parser: Parser, _option: str, text: str) -> None:
    parser.procfile = text


def _when_one_exits(parser: Parser, option: str, text: str) -> None:
    parser.options.when_one_exits = "stop" if _choice(option, text, ("stop", "wait")) == "stop" else "wait"


def _after(parser: Parser, option: str, text: str) -> None:
    name, equals, others = text.partition("=")
    if not (name and equals and others):
        raise UsageError(f"{option} takes NAME=OTHER such as worker=db, not {text!r}")
    parser.after += [(option, name, other) for other in others.split(",")]


def _signals(parser: Parser, option: str, text: str) -> None:
    parser.options.inherit_signals = _choice(option, text, ("inherit", "default")) == "inherit"


def _pdeathsig(parser: Parser, option: str, text: str) -> None:
    parser.options.pdeathsig = _signum(option, text)


def _no_wait_all(parser: Parser) -> None:
    parser.options.wait_all = False


def _prefix(parser: Parser) -> None:
    parser.options.prefix = True


FLAGS: dict[str, Callable[[Parser], None]] = {"--no-wait-all": _no_wait_all, "--prefix": _prefix}
VALUES: dict[str, Callable[[Parser, str, str], None]] = {
    "--after": _after,
    "--drain": _drain,
    "--grace": _grace,
    "--map-exit": _map_exit,
    "--name": _name,
    "--on-exit": _on_exit,
    "--pdeathsig": _pdeathsig,
    "--procfile": _procfile,
    "--rewrite": _rewrite,
    "--signal-to": _signal_to,
    "--signals": _signals,
    "--stop-on": _stop_on,
    "--stop-signal": _stop_signal,
    "--when-one-exits": _when_one_exits,
}
