"""Secrets in command lines, made unreadable before anybody is shown what was seen: reports are kept, and CI logs are public.

What looks like a secret is one: after names such as --password or token=, in the user part of an address, and what has the form
of a well-known kind of key. The program itself gets what it was given.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cleanup_guard._rehearse._seen import Advice, Rehearsal, Seen

MASK = "***"

NAME = re.compile(
    r"(?:pass(?:wd|word|phrase)|pwd|secret|token|api[-_.]?key|(?:access|private|secret|account|master)[-_.]?key"
    r"|(?:^|[-_.])(?:pass|credentials?|auth|authorization|requirepass|masterauth|dsn|sig|signature|session[-_.]?id|cookie))"
    r"(?:[-_.]?(?:value|string|base64|base))?\Z",
    re.IGNORECASE,
)
"""The end of the name of an option or a variable that is secret."""

LONGEST_NAME = 80

SWITCHES = re.compile(r"-{1,2}(?:no|disable|enable|skip|without|use|allow|ask)[-_]", re.IGNORECASE)
"""Beginnings of options without a value."""

# Each begins where it can begin only once, and never goes back: they are told by strangers what to look at.
VALUE = r"(?:\"[^\"]*+\"|'[^']*+'|[^\s&;'\"),}]++)"
SCHEMES = r"(?:bearer|basic|digest)"
ASSIGNMENT = re.compile(
    rf"(?<![\w.-])([\w.-]++)([\"']?+\s?+[=:]\s?+)(?!{SCHEMES}\s|//)({VALUE})", re.IGNORECASE
)
OPTION = re.compile(rf"(?<![\w.-])(--?+[\w.-]++)(\s++)(?!-)({VALUE})")
ADDRESS = re.compile(r"(://)([^/\s'\"?#]++)")
KEY = re.compile(
    r"(?<![\w-])(?:(?:AKIA|ASIA)[A-Z0-9]{12,200}|gh[pousr]_\w{16,200}|github_pat_\w{16,200}|glpat-[\w-]{12,200}"
    r"|xox[abeoprs]-[\w-]{8,200}|sk-[\w-]{16,200}|AIza[\w-]{20,200}|eyJ[\w-]{8,900}\.[\w-]{8,900}\.[\w-]{0,900})"
)
SCHEME = re.compile(rf"(?<!\w)({SCHEMES}\s++)[\w.~+/=-]{{6,}}+", re.IGNORECASE)
LONG = 16
"""Characters from which on a name in an address is taken for a token."""


def masked(rehearsal: Rehearsal) -> Rehearsal:
    """The same without secrets in command lines and in what was made of them."""
    return replace(
        rehearsal,
        program=words(rehearsal.program),
        entrypoint=words(rehearsal.entrypoint),
        processes=[_seen(seen) for seen in rehearsal.processes],
        advice=[_advice(each) for each in rehearsal.advice],
    )


def words(argv: list[str]) -> list[str]:
    """A command line without its secrets."""
    return list(_words(argv))


def text(line: str) -> str:
    """A line of a shell, or another text, without its secrets."""
    line = SCHEME.sub(rf"\1{MASK}", line)
    line = KEY.sub(MASK, line)
    line = ADDRESS.sub(_address, line)
    line = ASSIGNMENT.sub(_assignment, line)
    return OPTION.sub(_assignment, line)


def _is_secret(name: str) -> bool:
    return NAME.search(name[-LONGEST_NAME:]) is not None and not SWITCHES.match(name)


def _assignment(found: re.Match[str]) -> str:
    name, between, _ = found.groups()
    return f"{name}{between}{MASK}" if _is_secret(name) else found[0]


def _address(found: re.Match[str]) -> str:
    user, at, host = found[2].rpartition("@")
    secret = ":" in user or len(user) >= LONG
    return f"{found[1]}{MASK}{at}{host}" if at and secret else found[0]


def _words(argv: list[str]) -> Iterator[str]:
    is_secret = False
    for word in argv:
        name, equals, value = word.partition("=")
        if is_secret and not word.startswith("-"):
            yield MASK
        elif value and name.startswith("-") and _is_secret(name):
            yield f"{name}{equals}{MASK}"  # whatever is in it: blanks, quotes
        else:
            yield text(word)
        is_secret = word.startswith("-") and not equals and _is_secret(word)


def _seen(seen: Seen) -> Seen:
    return replace(seen, argv=words(seen.argv), executed=[words(each) for each in seen.executed])


def _advice(advice: Advice) -> Advice:
    return replace(advice, line=text(advice.line))
