"""What kind of program a process is, as its command line tells."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
STOPS = {int(getattr(signal, name)) for name in NAMES if hasattr(signal, name)}
"""Signals that programs tell each other to stop with."""

SHELLS = {"sh", "ash", "bash", "busybox", "dash", "ksh", "ksh93", "mksh", "zsh"}
INITS = {"catatonit", "docker-init", "dumb-init", "tini", "tini-static"}
HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
"""Of Python's multiprocessing: they ignore stops, and end when the pipe from their parent does."""

GUARD = "cleanup-guard"


def base(words: Sequence[str]) -> str:
    """The name of the file that a command line executes."""
    word = words[0] if words else ""
    if " " in word and not word.startswith(("/", ".")):
        word = word.split()[0].rstrip(":")  # a title that it gave itself: `nginx: master process ...`
    return os.path.basename(word).removeprefix("-") or "?"


def name(words: Sequence[str]) -> str:
    """What a person would call it: an interpreter by the script that it runs."""
    found = base(words)
    return (os.path.basename(script(words)) if found.startswith("python") else "") or found


def is_shell(words: Sequence[str]) -> bool:
    """Whether a shell runs there."""
    return name(words) in SHELLS


def is_python(words: Sequence[str]) -> bool:
    """Whether Python runs there."""
    return base(words).startswith("python")


def is_init(words: Sequence[str]) -> bool:
    """Whether one of the small inits runs there."""
    return name(words) in INITS


def is_helper(words: Sequence[str]) -> bool:
    """Whether it is one of multiprocessing's own processes."""
    return is_python(words) and any(helper in word for word in words for helper in HELPERS)


def is_ours(words: Sequence[str]) -> bool:
    """Whether this command runs there."""
    return name(words) == GUARD or (is_python(words) and "cleanup_guard" in words)


def ours(words: Sequence[str]) -> tuple[str, list[str]] | None:
    """The subcommand of `cleanup-guard` and what follows it; None if that is not what runs there."""
    if not is_ours(words):
        return None
    at = next((at for at, word in enumerate(words) if word == "cleanup_guard" or base([word]) == GUARD), None)
    rest = [] if at is None else list(words[at + 1 :])
    return (rest[0], rest[1:]) if rest else None


def inline(words: Sequence[str]) -> int | None:
    """Where the script stands in the command line itself, as in `sh -c SCRIPT`; None if it does not."""
    if not is_shell(words):
        return None
    start = 2 if base(words) == "busybox" else 1
    for at in range(start, len(words)):
        word = words[at]
        if not word.startswith(("-", "+")) or word == "--":
            return None
        if word.startswith("-") and not word.startswith("--") and "c" in word:
            return at + 1 if at + 1 < len(words) else None
    return None


def script(words: Sequence[str]) -> str:
    """The file that an interpreter reads its program from; empty if it does not."""
    left = list(words[2:] if base(words) == "busybox" else words[1:])
    while left:
        word = left.pop(0)
        if not word.startswith(("-", "+")):
            return word
        if word[-1] in "cm" and not word.startswith("--"):
            return ""  # the program itself follows, or the name of a module
        if word in {"-X", "-W", "-o"}:
            left = left[1:]
    return ""


def is_scripted(words: Sequence[str]) -> bool:
    """Whether what it runs is text that can be read: a shell's or Python's."""
    return is_shell(words) or is_python(words)


def without_init(words: list[str]) -> list[str]:
    """What another init was to start: that one is not needed any more."""
    if base(words) not in INITS:
        return words
    if "--" in words:
        return words[words.index("--") + 1 :] or words
    return next((words[at:] for at, word in enumerate(words) if at and not word.startswith("-")), words)
