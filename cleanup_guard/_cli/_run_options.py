"""What the options of `cleanup-guard run` mean. Imported when every signal is blocked."""

from __future__ import annotations

import os

from cleanup_guard._cli._words import Mistake
from cleanup_guard._ground.clock import Grace
from cleanup_guard._ground.foreign import quoted
from cleanup_guard._supervise._child import Child
from cleanup_guard._supervise._options import REFUSED, Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    from cleanup_guard._cli._words import Given
    from cleanup_guard._supervise._child import Scope
    from cleanup_guard._supervise._procfile import Line
    from cleanup_guard._supervise._ready import Sign

    T = TypeVar("T")

HIGHEST = 255


def parse(given: Given, words: list[str]) -> Options:
    """What options and programs mean.

    Raises:
        Mistake: they make no sense.
    """
    parser = Parser()
    for option, value in given:
        if option in VALUES:
            VALUES[option](parser, option, value)
        else:
            parser.options.flags.add(option)
    return parser.finish(words)


class Parser:
    """Collects the options; what names a child is settled when all children are known."""

    def __init__(self) -> None:
        self.options = Options()
        self.grace: Grace | None = None
        self.names: list[str] = []
        self.procfile: str | None = None
        self.per_child: list[tuple[str, str, Callable[[Child], None]]] = []
        self.after: list[tuple[str, str, str]] = []
        self.ready: list[tuple[str, str, Sign]] = []

    def finish(self, words: list[str]) -> Options:
        """Make the children, now that all is known."""
        options = self.options
        options.children = self._children(words)
        names = [child.name for child in options.children]
        for name in names:
            if names.count(name) > 1:
                raise Mistake(f"there are two programs named {quoted(name)}: tell them apart with --name")
        by_name = {child.name: child for child in options.children}
        for option, name, apply in self.per_child:
            for child in [self._child(by_name, option, name)] if name else options.children:
                apply(child)
        for option, name, sign in self.ready:
            self._child(by_name, option, name).ready = sign
        self._order(by_name)
        self._check_flags()
        self._check_grace()
        return options

    def _children(self, words: list[str]) -> list[Child]:
        if self.procfile is not None:
            if words:
                raise Mistake(f"--procfile and the program {quoted(words[0])} exclude each other")
            return self._from_procfile(self.procfile)
        found: list[list[str]] = [[]]
        for word in words:
            if word == ":::":
                found.append([])
            else:
                found[-1].append(word)
        if found == [[]]:
            raise Mistake("there is no program to run")
        if [] in found:
            raise Mistake("a program is missing beside ':::'")
        if len(self.names) > len(found):
            raise Mistake(f"--name {quoted(self.names[len(found)])} has no program: there are {len(found)}")
        return [Child(self._name(number, program, found), program) for number, program in enumerate(found)]

    def _name(self, number: int, program: list[str], found: list[list[str]]) -> str:
        if number < len(self.names):
            return self.names[number]
        base = program[0].rpartition("/")[2] or program[0]
        same = [each for each in found[:number] if each[0].rpartition("/")[2] == base]
        return f"{base}-{len(same) + 1}" if same else base

    def _from_procfile(self, file: str) -> list[Child]:
        from cleanup_guard._supervise import _procfile

        lines: list[Line] = self._reading(file, lambda: _procfile.read(file))
        if not lines:
            raise Mistake(f"--procfile {quoted(file)} names no program")
        if self.names:
            raise Mistake(f"--name {quoted(self.names[0])}: the programs of a Procfile have names")
        more: dict[str, str] = self._reading(f"{file}, its .env", lambda: _procfile.environment(file))
        try:
            ports = _procfile.ports(len(lines), {**os.environ, **more})
        except ValueError as error:
            raise Mistake(f"--procfile {quoted(file)}: {error}") from None
        children = [Child(line.name, line.argv) for line in lines]
        for child, port in zip(children, ports, strict=True):
            child.environ = {**more, "PORT": port}
        return children

    @staticmethod
    def _reading(file: str, read: Callable[[], T]) -> T:
        try:
            return read()
        except OSError as error:
            raise Mistake(f"--procfile {quoted(file)} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise Mistake(f"--procfile {quoted(file)}: {error}") from None

    @staticmethod
    def _child(by_name: dict[str, Child], option: str, name: str) -> Child:
        if name not in by_name:
            raise Mistake(f"{option}: there is no program named {quoted(name)}, only {', '.join(by_name)}")
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
                raise Mistake(f"--after goes round in a circle: {', '.join(child.name for child in waiting)}")
            ordered.append(ready)
            waiting.remove(ready)
        self.options.children = ordered

    def _check_flags(self) -> None:
        if {"--stay", "--no-wait-all"} <= self.options.flags:
            raise Mistake("--stay and --no-wait-all exclude each other")

    def _check_grace(self) -> None:
        """What the platform does; the environment's grace period wins over all, and draining must leave time to stop."""
        from cleanup_guard._ground.clock import Budget
        from cleanup_guard._ground.here import own_asked
        from cleanup_guard._ground.platforms import grace_here, told_by_platform
        from cleanup_guard._supervise._terms import KILL, KILL_BEFORE_CALLBACKS

        options, here = self.options, own_asked()
        options.platform_tells = told_by_platform(here)
        try:
            options.grace = grace_here(here, self.grace)
        except ValueError as error:
            raise Mistake(str(error)) from None
        asking = Budget(options.grace, 0.0).sure(KILL_BEFORE_CALLBACKS if options.on_exit else KILL)
        if options.drain >= asking:
            raise Mistake(
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
        raise Mistake(f"{option} takes seconds such as 5 or 0.5, not {quoted(text)}") from None


def _signum(option: str, text: str) -> int:
    from cleanup_guard._ground.names import number_of

    try:
        return number_of(text)
    except ValueError as error:
        raise Mistake(f"{option}: {error}") from None


def _status(option: str, text: str) -> int:
    if not text.isdecimal() or len(text) > len(str(HIGHEST)) or int(text) > HIGHEST:
        raise Mistake(f"{option} takes exit statuses from 0 to 255, not {quoted(text)}")
    return int(text)


def _pair(option: str, text: str, form: str) -> tuple[str, str]:
    left, colon, right = text.partition(":")
    if not (colon and left and right):
        raise Mistake(f"{option} takes {form}, not {quoted(text)}")
    return left, right


def _choice(option: str, text: str, choices: Iterable[T]) -> T:
    for choice in choices:
        if choice == text:
            return choice
    raise Mistake(f"{option} takes {' or '.join(map(str, choices))}, not {quoted(text)}")


def _grace(parser: Parser, option: str, text: str) -> None:
    name, equals, value = text.rpartition("=")
    grace = _seconds(option, value)
    if grace == 0:
        raise Mistake(f"{option} must be more than 0 seconds, not {quoted(text)}")
    if equals:
        parser.per_child.append((option, name, lambda child: setattr(child, "grace", grace)))
    else:
        parser.grace = Grace(grace, source=option)


def _stop_signal(parser: Parser, option: str, text: str) -> None:
    name, _, value = text.rpartition("=")
    signum = _signum(option, value)
    parser.per_child.append((option, name, lambda child: setattr(child, "stop_signal", signum)))


def _signal_to(parser: Parser, option: str, text: str) -> None:
    name, _, value = text.rpartition("=")
    scopes: tuple[Scope, ...] = ("tree", "group", "main", "main-then-group")
    scope = _choice(option, value, scopes)
    parser.per_child.append((option, name, lambda child: setattr(child, "scope", scope)))


def _arriving(option: str, text: str) -> int:
    """A signal that arrives here, and may be given a meaning."""
    signum = _signum(option, text)
    if signum in REFUSED:
        raise Mistake(f"{option}: {quoted(text)} never arrives, or means something else to us")
    return signum


def _stop_on(parser: Parser, option: str, text: str) -> None:
    parser.options.stop_signals.add(_arriving(option, text))


def _no_stop_on(parser: Parser, option: str, text: str) -> None:
    parser.options.stop_signals.discard(_arriving(option, text))


def _rewrite(parser: Parser, option: str, text: str) -> None:
    left, right = _pair(option, text, "SIGNAL:SIGNAL such as TERM:QUIT")
    parser.options.rewrite[_arriving(option, left)] = 0 if right == "0" else _signum(option, right)


def _map_exit(parser: Parser, option: str, text: str) -> None:
    left, right = _pair(option, text, "STATUS:STATUS such as 143:0")
    parser.options.map_exit[_status(option, left)] = _status(option, right)


def _drain(parser: Parser, option: str, text: str) -> None:
    drain = _seconds(option, text)
    if drain is None:
        raise Mistake(f"{option} takes seconds such as 5, not {quoted(text)}")
    parser.options.drain = drain


def _on_exit(parser: Parser, option: str, text: str) -> None:
    from cleanup_guard._supervise._procfile import words

    number = len(parser.options.on_exit) + 1
    try:
        words(text)
    except ValueError as error:
        raise Mistake(f"{option} number {number}: {error}") from None
    parser.options.on_exit.append(text)


def _name(parser: Parser, option: str, text: str) -> None:
    if not text or "=" in text or "," in text:
        raise Mistake(f"{option} takes a name without '=' and ',', not {quoted(text)}")
    parser.names.append(text)


def _procfile(parser: Parser, _option: str, text: str) -> None:
    parser.procfile = text


def _when_one_exits(parser: Parser, option: str, text: str) -> None:
    parser.options.when_one_exits = "stop" if _choice(option, text, ("stop", "wait")) == "stop" else "wait"


def _after(parser: Parser, option: str, text: str) -> None:
    name, equals, others = text.partition("=")
    if not (name and equals and others):
        raise Mistake(f"{option} takes NAME=OTHER such as worker=db, not {quoted(text)}")
    parser.after += [(option, name, other) for other in others.split(",")]


def _ready(parser: Parser, option: str, text: str) -> None:
    from cleanup_guard._supervise._ready import parse as parse_sign

    name, equals, sign = text.partition("=")
    if not (name and equals):
        raise Mistake(f"{option} takes NAME=TEXT, NAME=tcp:PORT or NAME=file:PATH, not {quoted(text)}")
    try:
        parser.ready.append((option, name, parse_sign(sign)))
    except ValueError as error:
        raise Mistake(f"{option} {quoted(name)}=...: {error}") from None


def _signals(parser: Parser, option: str, text: str) -> None:
    parser.options.inherit_signals = _choice(option, text, ("inherit", "default")) == "inherit"


def _pdeathsig(parser: Parser, option: str, text: str) -> None:
    parser.options.pdeathsig = _signum(option, text)


VALUES: dict[str, Callable[[Parser, str, str], None]] = {
    "--after": _after,
    "--drain": _drain,
    "--grace": _grace,
    "--map-exit": _map_exit,
    "--name": _name,
    "--no-stop-on": _no_stop_on,
    "--on-exit": _on_exit,
    "--pdeathsig": _pdeathsig,
    "--procfile": _procfile,
    "--ready": _ready,
    "--rewrite": _rewrite,
    "--signal-to": _signal_to,
    "--signals": _signals,
    "--stop-on": _stop_on,
    "--stop-signal": _stop_signal,
    "--when-one-exits": _when_one_exits,
}
