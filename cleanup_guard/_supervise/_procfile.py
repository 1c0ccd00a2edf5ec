"""Commands written as text: the lines of a Procfile, and what `--on-exit` is given."""

from __future__ import annotations

SHELL = "|&;<>()$`*?[]#~{}\n!=%"
"""Characters that mean something to a shell outside quotes, or may."""


def words(text: str) -> list[str]:
    """A command as its arguments; through a shell only where it needs one, because an image may have none.

    Raises:
        ValueError: a quotation is not closed, or there is no command.
    """
    if any(character in text for character in SHELL):
        return ["/bin/sh", "-c", text]
    if '"' not in text and "'" not in text and "\\" not in text:
        found = text.split()
    else:
        import shlex

        found = shlex.split(text)
    if not found:
        raise ValueError("there is no command in it")
    return found


def parse(text: str) -> list[tuple[str, list[str]]]:
    """The processes of a Procfile: lines of `name: command`, empty lines, and comments.

    Raises:
        ValueError: a line is none of these; the message says which.
    """
    found: list[tuple[str, list[str]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, colon, command = stripped.partition(":")
        if not colon or not name.replace("-", "_").isidentifier() or not command.strip():
            raise ValueError(f"line {number} is not of the form `name: command`: {stripped!r}")
        found.append((name, words(command.strip())))
    return found
