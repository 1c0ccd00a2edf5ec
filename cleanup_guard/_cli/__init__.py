"""The command line: a table of subcommands, of which only the one that is used is imported."""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal

PURPOSES = {
    "check": "rehearse `docker stop`: who cleans up, who is killed, and why",
    "exec": "prepare config files and the environment, then become the program",
    "run": "start programs, forward signals to them, and wait until their last descendant is gone",
    "where": "say on which platform this is, how long a stop may take there, and how that is known",
}
"""Each subcommand lives in a module of its name with an underscore before it, whose `main` takes its arguments."""


ELSEWHERE = {
    "check": (3, "Linux", "namespaces and ptrace(2)"),
    "exec": (126, "a POSIX system", "an exec that keeps the process"),
    "run": (126, "Linux", "subreapers and sigtimedwait(2)"),
}
"""With which status a subcommand ends where it cannot work, what it needs, and why."""


def command() -> int:
    """The process is this command: run it, and import nothing that somebody else may have put in the way."""
    _look_only_where_python_is_installed()
    return main()


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        argv: what follows the command's name; None for the process's own.

    Returns:
        The exit status: 2 for a command line that makes no sense; where a subcommand cannot work, its own for a program that
        could not be started.
    """
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] not in PURPOSES:
        return _without_command(words)
    works = sys.platform == "linux" or words[0] == "where" or (sys.platform != "win32" and words[0] == "exec")
    if not works:
        from cleanup_guard._cli._words import complain
        from cleanup_guard._ground.elsewhere import needs

        status, *why = ELSEWHERE[words[0]]
        return complain(needs(*why), status, words[0])
    _end_at_once_by_ctrl_c()
    return int(__import__(f"{__name__}._{words[0]}", fromlist=["main"]).main(words[1:]))


def _look_only_where_python_is_installed() -> None:
    """Import from nowhere else, but at last from where we were found.

    The command is often run by root, in a folder and with an environment that are those of the user who is to be less
    than that. `python -m` looks into the current folder first, then into PYTHONPATH; a plain user's site-packages are
    wherever HOME is. Nothing but builtins has been imported so far, and no `__future__`, which is a file too.
    """
    import os

    foreign = {str(getattr(sys.modules.get("site"), "USER_SITE", None))}
    if not sys.flags.safe_path:
        foreign.add(os.path.abspath(sys.path[0]))
    if not sys.flags.ignore_environment and os.environ.get("PYTHONPATH"):
        foreign.update(map(os.path.abspath, os.environ["PYTHONPATH"].split(os.pathsep)))
    pythons_own = os.path.dirname(os.__file__)
    kept = [each for each in sys.path if os.path.abspath(each) not in foreign or each.startswith(pythons_own)]
    ours = os.path.dirname(os.path.dirname(__path__[0]))
    if ours in sys.path and ours not in kept:
        kept.append(ours)
    sys.path[:] = kept


def _end_at_once_by_ctrl_c() -> None:
    """Until a subcommand takes signals itself there is nothing to clean up, and imports may swallow a KeyboardInterrupt."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


def _without_command(words: list[str]) -> int:
    from cleanup_guard._cli._words import WRONG, Mistake, complain, say, version
    from cleanup_guard._ground.foreign import quoted

    wanted = words[0] if words else "--help"
    if wanted not in ("-h", "--help", "--version"):
        return complain(f"there is no command {quoted(wanted)}, but {', '.join(PURPOSES)}", WRONG)
    try:
        say(version() if wanted == "--version" else _usage())
    except Mistake as mistake:
        return complain(str(mistake), WRONG)
    return 0 if words else WRONG


def _usage() -> str:
    lines = ["usage: cleanup-guard COMMAND [options] [--] PROGRAM [ARGUMENT ...]", ""]
    lines += [f"  {name:8}{purpose}" for name, purpose in PURPOSES.items()]
    return "\n".join([*lines, "", "cleanup-guard COMMAND --help tells more.", ""])
