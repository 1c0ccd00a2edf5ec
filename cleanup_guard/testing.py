"""For test suites: rehearse a stop of your own program.

    def test_the_app_cleans_up(rehearse):
        assert rehearse(["python", "app.py"], ready="started").clean

`rehearse` is a pytest fixture as soon as this package is installed; what it saw is among the captured output of a test that
fails. The function of the same name here is for everybody else. Linux only, as `cleanup-guard check` is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from cleanup_guard._rehearse import _seen
from cleanup_guard._rehearse._seen import Advice, Heard, Requests, Seen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Advice", "CannotRehearse", "Heard", "Rehearsal", "Requests", "Seen", "rehearse"]

UNCLEAN = 1

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

COMMAND = [
    sys.executable,
    "-I",
    "-c",
    "import sys; sys.path.append(sys.argv.pop(1)); from cleanup_guard._cli import main; sys.exit(main())",
    HERE,
]
"""The command, for a process that imports nothing from the folder or the PYTHONPATH of what it rehearses: it may be root, and
others may write there. What is ours comes last, so nothing that lies beside it stands before the standard library."""


class CannotRehearse(Exception):
    """There was no stop to rehearse: the program did not start, ended before, or was not ready in time.

    Example:
        >>> try:
        ...     rehearse(["true"])
        ... except CannotRehearse as error:
        ...     print(str(error)[:17])
        the program ended
    """


class Rehearsal(_seen.Rehearsal):
    """One rehearsed stop. `str()` of it is the timeline, with verdict and advice, as the command prints it.

    Example:
        >>> found = rehearse(["sleep", "60"], after=0.1, grace=0.2, tries=False)
        >>> found.clean, found.signal, found.processes[0].how
        (False, 'SIGTERM', 'killed')
    """

    def __str__(self) -> str:
        """The timeline, the verdict and the advice as text."""
        from cleanup_guard._rehearse._timeline import timeline

        return timeline(self, colour=False)

    def __repr__(self) -> str:
        """The verdict: what a failed assertion shows."""
        from cleanup_guard._rehearse._words import title

        return f"<{title(self)}: {self.verdict}>"


def rehearse(
    program: Sequence[str] = (),
    *,
    ready: str | None = None,
    ready_tcp: int | None = None,
    ready_file: str | os.PathLike[str] | None = None,
    after: float | None = None,
    timeout: float = 60.0,
    signal: str | int = "",
    grace: float = 10.0,
    image: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    tries: bool = True,
    allow: Sequence[str] = (),
    request: str | None = None,
) -> Rehearsal:
    """Start a program as a container would, stop it, and tell who cleaned up and who was killed.

    It runs in a process of its own (`cleanup-guard check`), so this may be called in any thread, also several times at once,
    and nothing of this process is touched. Nobody of the program is left when it returns or raises.

    Args:
        program: the program and its arguments; with `image` the arguments of the container, if any.
        ready: stop when this text is in its output.
        ready_tcp: stop when somebody listens on this port.
        ready_file: stop when this file is written.
        after: stop after this many seconds. If nothing is said, the stop comes when no process has worked for half a second.
        timeout: seconds after which we give up waiting for it to be ready.
        signal: the stop signal, "TERM" for example; the default is SIGTERM, or what the image names.
        grace: seconds between the stop signal and SIGKILL.
        image: a container image to rehearse instead, with docker or podman.
        env: its environment; None for ours.
        cwd: its working directory; None for ours.
        tries: whether the lines that are advised are tried before, each in a rehearsal of its own.
        allow: codes of advice that are no faults here.
        request: an address; requests to it are kept in flight during the stop, and counted.

    Returns:
        What was seen; `clean` says whether everybody ended in time and well, `str()` of it is the timeline as text.

    Raises:
        CannotRehearse: there was nothing to stop; the message says why.
        ValueError: the arguments make no sense.

    Example:
        >>> found = rehearse(["sh", "-c", "trap 'exit 0' TERM; echo started; sleep 60 & wait"], ready="started")
        >>> found.status
        0
    """
    __tracebackhide__ = True  # pytest: what is wrong is told by the message
    given = {
        "--ready": ready,
        "--ready-tcp": ready_tcp,
        "--ready-file": ready_file,
        "--after": after,
        "--timeout": timeout,
        "--signal": signal or None,
        "--grace": grace,
        "--image": image,
        "--request": request,
    }
    words = [
        f"{name}={os.fspath(value) if isinstance(value, os.PathLike) else value}"
        for name, value in given.items()
        if value is not None
    ]
    words += [*([] if tries else ["--no-try"]), *(f"--allow={code}" for code in allow)]
    if isinstance(program, (str, bytes)):
        raise TypeError(f"program must be a list of words such as ['python', 'app.py'], not {program!r}")
    if sys.platform != "linux":
        from cleanup_guard._ground.elsewhere import needs

        raise CannotRehearse(f"rehearse {needs('Linux', 'namespaces and ptrace(2)')}")
    done = subprocess.run(
        [*COMMAND, "check", "--json", *words, "--", *program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=env,
        cwd=cwd,
    )
    if done.returncode > UNCLEAN:
        from cleanup_guard._cli._words import WRONG

        complaint = done.stderr.strip().removeprefix("cleanup-guard check: ")
        raise ValueError(complaint) if done.returncode == WRONG else CannotRehearse(complaint)
    return Rehearsal.from_json(json.loads(done.stdout)["rehearsals"][0])
