"""Commands written as text: the lines of a Procfile with their `.env`, and what `--on-exit` is given.

As foreman and honcho have them: a line is a shell line, `$PORT` is 5000 for the first, 5100 for the second and so on, and the
variables of a `.env` beside the Procfile come before ours. Messages name the line and never show it: what is given for a
Procfile by mistake may hold a password.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SHELL = "|&;<>()$`*?[]#~{}\n!=%"
"""Characters that mean something to a shell outside quotes, or may."""

BUILT_IN = frozenset(
    (
        *(
            ".",
            ":",
            "alias",
            "bg",
            "break",
            "case",
            "cd",
            "command",
            "continue",
            "declare",
            "do",
            "eval",
            "exec",
        ),
        *(
            "exit",
            "export",
            "fc",
            "fg",
            "for",
            "getopts",
            "hash",
            "if",
            "jobs",
            "let",
            "local",
            "popd",
            "pushd",
        ),
        *("read", "readonly", "return", "set", "shift", "shopt", "source", "time", "times", "trap", "type"),
        *("typeset", "ulimit", "umask", "unalias", "unset", "until", "wait", "while"),
    )
)
"""Words that mean something to a shell that no program can do for it."""

TOLD_APART = frozenset({"echo", "kill", "printf", "pwd", "test"})
"""Words that a shell does itself, and not quite as the program of that name does."""

SH = "/bin/sh"

FIRST_PORT, STEP = 5000, 100
"""`$PORT` of the first program, and how far the next is from it."""

HIGHEST_PORT = 65535


def words(text: str, built_in: frozenset[str] = BUILT_IN) -> list[str]:
    """A command as its arguments; through a shell only where it needs one, because an image may have none.

    Args:
        text: the command.
        built_in: the first words that are for the shell.

    Raises:
        ValueError: a quotation is not closed, or there is no command; the message does not show it.
    """
    if "\0" in text:
        raise ValueError("there is a NUL in it")
    if any(character in text for character in SHELL):
        return [SH, "-c", text]
    if '"' not in text and "'" not in text and "\\" not in text:
        found = text.split()
    else:
        import shlex

        try:
            found = shlex.split(text)
        except ValueError:
            raise ValueError("a quotation in it is not closed") from None
    if not found:
        raise ValueError("there is no command in it")
    return [SH, "-c", text] if found[0] in built_in else found


class Line:
    """One program of a Procfile.

    Attributes:
        name: what comes before the colon.
        argv: the command, to be executed as it is or by a shell.
    """

    def __init__(self, name: str, argv: list[str]) -> None:
        self.name = name
        self.argv = argv


def read(path: str) -> list[Line]:
    """The programs of a Procfile.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no Procfile; the message says which line is none.
    """
    return parse(_text(path))


def _text(path: str) -> str:
    with open(path, "rb") as file:
        return os.fsdecode(file.read().removeprefix(b"\xef\xbb\xbf"))


def parse(text: str) -> list[Line]:
    """The programs of a Procfile: lines of `name: command`, empty lines, and comments.

    Raises:
        ValueError: a line is none of these; the message says which.
    """
    found: list[Line] = []
    built_in = BUILT_IN | TOLD_APART if os.path.exists(SH) else BUILT_IN
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            found.append(_program(number, stripped, built_in))
    return found


def _program(number: int, line: str, built_in: frozenset[str]) -> Line:
    """The program of a line that is neither empty nor a comment."""
    name, colon, command = line.partition(":")
    name, command = name.strip(), command.strip()
    if not (colon and name and command) or "=" in name:
        hint = " (is this a .env file?)" if "=" in name else ""
        raise ValueError(f"line {number} is not of the form `name: command`{hint}")
    try:
        argv = words(command, built_in)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from None
    if any(ord(character) < ord(" ") for character in name):
        raise ValueError(f"line {number}: the name has a control character in it")
    return Line(name, argv)


def environment(path: str) -> dict[str, str]:
    """What the `.env` beside a Procfile says; nothing if there is none.

    Raises:
        OSError: it cannot be read.
        ValueError: a NUL is in it.
    """
    file = os.path.join(os.path.dirname(path), ".env")
    return parse_environment(_text(file)) if os.path.isfile(file) else {}


def parse_environment(text: str) -> dict[str, str]:
    r"""Lines of `NAME=value`: in quotes or not, `export` before it or not, `\n` and `\t` in double quotes.

    Whatever else is there is skipped, as foreman and honcho do.

    Raises:
        ValueError: a NUL is in it; the message says in which line.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        name, value = name.strip(), value.strip()
        if "\0" in line:
            raise ValueError(f"line {number} has a NUL in it")
        if equals and name.isidentifier() and name.isascii():
            found[name] = _unquoted(value)
    return found


def _unquoted(value: str) -> str:
    for quote in "'\"":
        inside, closed, _ = value[1:].partition(quote) if quote == "'" else _until_quote(value[1:])
        if value.startswith(quote) and closed:
            return inside
    return value.partition(" #")[0].rstrip()


def _until_quote(text: str) -> tuple[str, str, str]:
    """What comes before the first double quote that is not escaped, with its escapes undone; the quote; and the rest."""
    found: list[str] = []
    characters = iter(enumerate(text))
    for index, character in characters:
        if character == '"':
            return "".join(found), character, text[index + 1 :]
        if character == "\\":
            _, escaped = next(characters, (index, "\\"))
            found.append({"n": "\n", "t": "\t"}.get(escaped, escaped))
        else:
            found.append(character)
    return "".join(found), "", ""


def ports(count: int, environ: Mapping[str, str]) -> list[str]:
    """`$PORT` of so many programs: the first has the one that the environment says, or 5000.

    Raises:
        ValueError: the environment says something that is no port.
    """
    text = environ.get("PORT", "").strip() or str(FIRST_PORT)
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(HIGHEST_PORT))):
        raise ValueError("the variable PORT is not a number")
    return [str(int(text) + STEP * number) for number in range(count)]
