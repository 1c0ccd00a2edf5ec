"""Real rehearsals for tests: `cleanup-guard check --json` in a folder of its own, and what it said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from run.supervised import kill_marked
from support import CLEAN, PATIENCE

from cleanup_guard._rehearse import _kinds
from cleanup_guard._rehearse._seen import Rehearsal, Seen

COMMAND = [sys.executable, "-m", "cleanup_guard", "check"]

SIMULATED = [
    *("unshare", "--user", "--map-root-user", "sh", "-c"),
    'echo 0 >/proc/sys/user/max_pid_namespaces; exec "$@"',
    "sh",
]
"""Before a command: no PID namespace is to be had there, whoever asks."""

UNPRIVILEGED = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
"""Before a command: to the kernel it is run by an ordinary user, who happens to be able to read our files."""


@dataclass(frozen=True)
class Told:
    """What the command said.

    Attributes:
        status: its exit status, as subprocess gives it.
        out: its stdout.
        err: its stderr.
    """

    status: int
    out: str
    err: str

    @property
    def rehearsals(self) -> list[Rehearsal]:
        """All rehearsals, read from the JSON on stdout."""
        assert self.status in {0, 1}, f"status {self.status}: {self.out}{self.err}"
        data = json.loads(self.out)
        assert data["clean"] is (self.status == 0)
        return [Rehearsal.from_json(each) for each in data["rehearsals"]]

    @property
    def rehearsal(self) -> Rehearsal:
        """The only one."""
        (only,) = self.rehearsals
        return only


def folder_of(name: str, files: Mapping[str, str]) -> Path:
    """Write these files, executable, into a folder."""
    folder = Path(name)
    for path, text in files.items():
        (folder / path).write_text(text)
        (folder / path).chmod(0o755)
    return folder


@contextmanager
def checking(
    *words: str,
    files: Mapping[str, str] | None = None,
    wrapper: Sequence[str] = (),
    command: Sequence[str] = (*COMMAND, "--json"),
    env: Mapping[str, str] | None = None,
    **options: Any,
) -> Iterator[subprocess.Popen[str]]:
    """Start a rehearsal in a folder of its own; nobody whom it started is left when the block ends.

    Args:
        words: options of `check`, and the program.
        files: what is in the folder: names and texts. All can be executed.
        wrapper: a command to put before.
        command: how `check` is called.
        env: environment variables to add.
        options: for `subprocess.Popen`.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = folder_of(name, files or {})
        folder.chmod(0o755)
        key, value = "CLEANUP_GUARD_TEST", folder.name
        path = f"{Path(sys.executable).parent}:{CLEAN.get('PATH', os.defpath)}"
        environ = {
            **CLEAN,
            "PATH": path,
            "PYTHONDONTWRITEBYTECODE": "1",
            "FOLDER": name,
            **(env or {}),
            key: value,
        }
        process = subprocess.Popen[str](
            [*wrapper, *command, *words],
            stdin=subprocess.DEVNULL,
            stdout=options.pop("stdout", subprocess.PIPE),
            stderr=options.pop("stderr", subprocess.PIPE),
            cwd=folder,
            env=environ,
            text=True,
            **options,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()
            kill_marked(f"{key}={value}")


def check(*words: str, **options: Any) -> Told:
    """Rehearse to the end; see `checking`."""
    with checking(*words, **options) as process:
        out, err = process.communicate(timeout=PATIENCE)
        return Told(process.returncode, out, err)


def described(seen: Seen) -> str:
    """A process and its end in a few words: `sh exited 0`, `sleep killed`, `cat by SIGPIPE`."""
    name = _kinds.base(seen.argv)
    name = "python" if name.startswith("python") else name
    if seen.how == "exited":
        return f"{name} exited {seen.status}"
    return f"{name} by {signal.Signals(seen.status).name}" if seen.how == "signal" else f"{name} {seen.how}"
