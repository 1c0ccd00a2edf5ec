"""`cleanup-guard where`: what the first line of a stop would say here, without a stop."""

from __future__ import annotations

import sys

from cleanup_guard._cli._words import Mistake, Usage, complain, say
from cleanup_guard._ground.foreign import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cleanup_guard._cli._words import Given

UNSEEN = 1
"""The exit status for a process that cannot be looked at."""

USAGE = Usage(
    "where",
    ("[options]",),
    "Says on which platform this is, how long a stop may take there, and how that is known: given,\n"
    "read, or guessed. A guard in a program says the same in the first line of a stop.",
    {
        "Whom": {
            "--pid PID": "look at another process, such as 1 in a container: its environment may say more than a shell's",
        },
    },
    "Exit status: 0; 1 if the process cannot be looked at, 2 for wrong usage.",
)


def main(argv: list[str]) -> int:
    """Run `cleanup-guard where` with these arguments. Returns the exit status."""
    return USAGE.main(argv, _where)


def _where(given: Given, words: list[str]) -> int:
    if words:
        raise Mistake(f"there is nothing to say about {quoted(words[0])}: where takes options only")
    pid = dict(given).get("--pid")
    if pid is not None and not (pid.isascii() and pid.isdecimal()):
        raise Mistake(f"--pid takes the number of a process, not {quoted(pid)}")
    from cleanup_guard._ground.clock import BY_HAND
    from cleanup_guard._ground.here import in_foreground, of, own_asked
    from cleanup_guard._ground.platforms import describe, grace_here

    if pid is not None and sys.platform != "linux":
        raise Mistake("--pid needs Linux, where a process can be looked at")
    try:
        here = own_asked() if pid is None else of(int(pid))
    except OSError as error:
        return complain(f"process {pid} cannot be looked at: {error.strerror}", UNSEEN, "where")
    try:
        say(f"{describe(grace_here(here))}\n")
    except ValueError as error:
        raise Mistake(str(error)) from None
    if pid is None and in_foreground():
        say(f"{describe(BY_HAND)}\n")
    return 0
