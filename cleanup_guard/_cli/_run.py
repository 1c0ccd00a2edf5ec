"""`cleanup-guard run`: the command line of the supervisor.

The first thing it does is to block every signal: from here on a stop is kept by the kernel until we look. What is imported
before that, and what after, is therefore no matter of taste.
"""

from __future__ import annotations

import os
import sys

assert sys.platform == "linux"

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal

    from cleanup_guard._cli._words import Given, Usage
else:
    import _signal

SYNOPSIS = (
    "[options] [--] PROGRAM [ARGUMENT ...] [::: PROGRAM [ARGUMENT ...]] ...",
    "[options] --procfile FILE",
)

ABOUT = "Starts programs, forwards signals to them, and waits until they and all their\ndescendants are gone."

OPTIONS = {
    "Stopping": {
        "--grace [NAME=]SECONDS": "between the stop signal and the platform's SIGKILL: 10 (CLEANUP_GUARD_GRACE wins; none: "
        "no limit); with NAME less for one child, counted from when it is asked",
        "--stop-signal [NAME=]SIG": "ask with this signal instead of the one that arrived",
        "--stop-on SIG": "take this signal, too, for a stop (TERM and INT are)",
        "--no-stop-on SIG": "only forward this signal: INT for a program in which Ctrl-C is no stop",
        "--signal-to [NAME=]WHOM": "tree (default): everybody once, but below a program that catches the signal that program "
        "passes it on; group: the whole process group at once; main; main-then-group",
        "--rewrite SIG:SIG": "send another signal than the one that arrives; SIG:0 drops it",
        "--drain SECONDS": "wait after a stop signal before anybody is asked, inside the grace period",
        "--stay": "go on as long as anybody lives, for a program that daemonizes",
        "--no-wait-all": "leave when the programs have ended, without waiting for their descendants",
        "--on-exit COMMAND": "run this when everybody is gone, inside the grace period; may be repeated; it finds "
        "CLEANUP_GUARD_STATUS and CLEANUP_GUARD_REASON in its environment",
    },
    "Several programs": {
        "--name NAME": "the name of the first, the second ... program; by default the program's own",
        "--procfile FILE": "programs from lines of `name: shell line`, with $PORT and the .env beside it",
        "--when-one-exits WHAT": "stop (default): the others are stopped; wait: they go on",
        "--after NAME=OTHER[,...]": "start NAME after OTHER, and stop it before",
        "--ready NAME=SIGN": "what shows those that come after NAME that it is ready: a text in its output, tcp:PORT, or "
        "file:PATH",
        "--prefix": "label each line of output with its program's name",
    },
    "Status and signals": {
        "--map-exit N:M": "exit with M instead of N; a killed program is never reported as 0",
        "--signals inherit": "children keep the caller's blocked and ignored signals (default: none)",
        "--pdeathsig SIG": "the kernel sends this to the programs, not to their descendants, if we are killed",
        "--verbose": "say of each signal from whom it came, to whom it went, and when",
    },
}

NOTES = """\
Exit status: the program's own; 128+n if signal n ended it; with several, that
of the first to fail. 127: not found, 126: not executable, 2: wrong usage."""


def main(argv: list[str]) -> int:
    """Run `cleanup-guard run` with these arguments. Returns the exit status of wrong usage, and otherwise not at all."""
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    return usage().main(argv, lambda given, words: supervise(given, words, mask))


def usage() -> Usage:
    """What the command understands."""
    from cleanup_guard._cli._words import Usage

    return Usage("run", SYNOPSIS, ABOUT, OPTIONS, NOTES)


def supervise(given: Given, words: list[str], mask: set[int]) -> int:
    """Do what was asked for, and end the process: there is nothing to finalize, and somebody waits for us.

    Raises:
        Mistake: what was asked for makes no sense.
    """
    from cleanup_guard._cli._run_options import parse
    from cleanup_guard._ground.environment import undo_coercion
    from cleanup_guard._supervise._command import Command

    options = parse(given, words)
    undo_coercion()
    os._exit(Command(options, mask).main())
