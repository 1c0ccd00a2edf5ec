"""One way for all commands to understand a command line, to print help, and to say what is wrong.

Rules:
1. Options come first. The first word that is none begins the rest; so does the one after `--`.
2. A value follows `=`, or is the next word, whatever that looks like. Nothing is abbreviated.
3. The table that is parsed by is the table that help is printed from.
4. Whatever is wrong is one sentence on stderr, on one line, with nothing in it that a terminal obeys. Only the name of an
   option is quoted here: a value may be a secret.
5. No argparse: it takes longer to import (15 ms) than `exec` takes to run, at each start of a container. No `__future__`
   either, which is a file too: some annotations are strings.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TextIO

    Given = list[tuple[str, str]]
    """Options and their values, in the order of the command line; a flag's value is empty."""

WRONG = 2
"""The exit status of a mistake, as the shell's own."""

WIDTH, INDENT = 79, 29
"""Columns of a help text, and where its second one begins."""

EVERYWHERE = {
    "--help": "print this",
    "--version": "print the version",
}


class Mistake(Exception):
    """The command line, or what it names, makes no sense. The message is one sentence, and holds no secret."""


def quoted(word: str) -> str:
    """A foreign word between quotes. What makes it safe to write is loaded when there is something to say."""
    from cleanup_guard._ground import foreign

    return foreign.quoted(word)


class Usage:
    """What one command understands.

    Args:
        name: the command's, as in `cleanup-guard NAME`.
        synopsis: what may follow the name, one line for each form.
        about: what the command does; printed as it is.
        options: groups of options by their heading. A group's keys are an option and, unless it is a flag, what its
            value is called: "--mode MODE"; its values say what the option does, and are wrapped.
        notes: what is printed below the options, as it is.
    """

    __slots__ = ("_about", "_groups", "_known", "_notes", "_synopsis", "name")

    def __init__(
        self,
        name: str,
        synopsis: tuple[str, ...],
        about: str,
        options: "Mapping[str, Mapping[str, str]]",
        notes: str,
    ) -> None:
        self.name = name
        self._synopsis = synopsis
        self._about = about
        self._groups = {**options, "Everywhere": EVERYWHERE}
        self._notes = notes
        self._known: dict[str, str] = {}
        for group in self._groups.values():
            for key in group:
                option, _, value = key.partition(" ")
                self._known.setdefault(option, value)

    def main(self, argv: list[str], act: "Callable[[Given, list[str]], int]") -> int:
        """Understand the arguments and act on them, unless help or the version was asked for.

        Args:
            argv: what follows the command's name.
            act: takes the options and the words behind them, and returns the exit status.

        Returns:
            The exit status: 2 if there was a `Mistake`, which is told.
        """
        try:
            given, words = self.split(argv)
            asked = {option for option, _ in given}
            if "--help" in asked:
                say(self.help())
                return 0
            if "--version" in asked:
                say(version())
                return 0
            return act(given, words)
        except Mistake as mistake:
            return complain(str(mistake), WRONG, self.name)

    def split(self, argv: list[str]) -> "tuple[Given, list[str]]":
        """Split the arguments into options and the words behind them.

        Raises:
            Mistake: there is no such option, or its value is missing or one too many.
        """
        given: Given = []
        words = iter(argv)
        for word in words:
            if word == "--":
                return given, list(words)
            if not word.startswith("-") or word == "-":
                return given, [word, *words]
            given.append(self._understand("--help" if word == "-h" else word, words))
        return given, []

    def _understand(self, word: str, following: "Iterator[str]") -> tuple[str, str]:
        option, equals, value = word.partition("=")
        if option not in self._known:
            raise Mistake(f"there is no option {quoted(option)}; see cleanup-guard {self.name} --help")
        wanted = self._known[option]
        if not wanted:
            if equals:
                raise Mistake(f"{option} takes no value")
            return option, ""
        if equals:
            return option, value
        found = next(following, None)
        if found is None:
            raise Mistake(f"{option} needs a value: {option} {wanted}")
        return option, found

    def help(self) -> str:
        """The help text, with a newline at its end."""
        import textwrap

        names = ["usage:", *[""] * (len(self._synopsis) - 1)]
        lines = [
            f"{name:6} cleanup-guard {self.name} {form}"
            for name, form in zip(names, self._synopsis, strict=True)
        ]
        lines += ["", self._about]
        for heading, group in self._groups.items():
            lines += ["", f"{heading}:"]
            for key, text in group.items():
                first = f"  {key:{INDENT - 3}} "
                lines += textwrap.wrap(
                    text,
                    WIDTH,
                    initial_indent=first,
                    subsequent_indent=" " * INDENT,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
        return "\n".join([*lines, "", self._notes, ""])


def version() -> str:
    """The line that --version prints."""
    import cleanup_guard

    return f"cleanup-guard {cleanup_guard.__version__}\n"


def say(text: str) -> None:
    """Write on stdout, at once.

    Raises:
        Mistake: it is closed, full, or nobody reads it.
    """
    try:
        _write(sys.stdout, text)
    except OSError as error:
        raise Mistake(f"stdout cannot be written: {error.strerror}") from None


def complain(sentence: str, status: int, name: str = "") -> int:
    """Write a sentence on stderr, if that is possible, on one line whatever is in it.

    Returns:
        The status, so that it can be returned.
    """
    from cleanup_guard._ground.foreign import shown

    command = f"cleanup-guard {name}".rstrip()
    try:
        _write(sys.stderr, f"{command}: {shown(sentence, limit=None)}\n")
    except OSError:
        pass  # there is nobody left to tell
    return status


def _write(stream: "TextIO | None", text: str) -> None:
    """A stream is None if its descriptor was closed when Python started."""
    if stream is None:
        raise OSError(0, "it is closed")
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError:
        # What is left in the buffer would be tried again when Python ends: with a traceback, and status 120.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        raise
