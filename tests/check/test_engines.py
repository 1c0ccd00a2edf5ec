"""What container engines say, and which of them is asked: docker and podman differ in words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support import wait_until

from cleanup_guard._rehearse import _proc
from cleanup_guard._rehearse._engine import CannotRehearse
from cleanup_guard._rehearse._image import Command, command_of, find_engine, listed
from cleanup_guard._supervise._spawn import CannotStart

DOCKER_TOP = """\
UID     PID     PPID     C     STIME     TTY     TIME     CMD
root     4711     4690     0     10:02     ?     00:00:00     /bin/sh /entry.sh
root     4750     4711     1     10:02     ?     00:00:00     python3 /main process.py
"""
PODMAN_TOP = """\
USER        PID         PPID        %CPU        ELAPSED       TTY         TIME        COMMAND
root        6           1           0.000       1.199982467s  ?           0s          sleep 1000 
root        1           0           0.000       1.199912163s  ?           0s          sh -c sleep 1000; true 
"""  # noqa: W291 - as it is


def test_top_of_docker() -> None:
    """The pids are those of docker's machine; the first is PID 1 all the same."""
    first, second = listed(DOCKER_TOP)
    assert (first.pid, first.parent, first.argv) == (1, 0, ["/bin/sh", "/entry.sh"])
    assert (second.pid, second.parent, second.argv) == (4750, 1, ["python3", "/main", "process.py"])
    assert first.handling == second.handling == "unknown"


def test_top_of_podman() -> None:
    """The pids are those in the container, and the first comes first."""
    first, second = listed(PODMAN_TOP)
    assert (first.pid, first.parent, first.argv[0]) == (1, 0, "sh")
    assert (second.pid, second.parent, second.argv) == (6, 1, ["sleep", "1000"])


@pytest.mark.parametrize("text", ["", "UID PID PPID CMD\n", "no such thing"])
def test_top_without_processes(text: str) -> None:
    """That is an error, not a container without processes."""
    with pytest.raises(ValueError):  # noqa: PT011 - nobody reads the message
        listed(text)


@pytest.mark.parametrize(
    ("path", "arguments", "config", "command"),
    [
        ("/a", [], {"Entrypoint": ["/a"], "Cmd": None}, ["/a"]),  # docker
        ("/a", ["/a"], {"Entrypoint": ["/a", "/a"], "Cmd": None}, ["/a", "/a"]),
        ("/a", ["b"], {"Entrypoint": ["/a"], "Cmd": ["b"]}, ["/a", "b"]),
        ("/a", ["/a"], {"Entrypoint": "/a", "Cmd": None}, ["/a"]),  # podman 4
        ("/a", ["/a"], {"Entrypoint": "/a", "Cmd": ["/a"]}, ["/a", "/a"]),
        ("/a", ["/a"], {"Entrypoint": "", "Cmd": ["/a"]}, ["/a"]),
        ("sh", ["-c", "x"], {"Entrypoint": "", "Cmd": ["sh", "-c", "x"]}, ["sh", "-c", "x"]),
    ],
)
def test_the_command_of_a_container(
    path: str, arguments: list[str], config: dict[str, Any], command: list[str]
) -> None:
    """Each word once, whatever the engine makes of it."""
    assert command_of({"Path": path, "Args": arguments, "Config": config}) == command


COMPLAINTS = {
    "docker: Error response from daemon: pull access denied for x.\n\nRun 'docker run --help' for more information\n": (
        "pull access denied for x."
    ),
    "Trying to pull x...\nError: x: image not known\n": "x: image not known",
    'Error: no such container\ntime="2026" level=warning msg="late"\n': "no such container",
    "": "it did not say why",
}


@pytest.mark.parametrize("said", COMPLAINTS, ids=COMPLAINTS.values())
def test_the_complaint_of_an_engine(said: str) -> None:
    """What went wrong, without what is printed around it."""
    command = Command(["sh", "-c", 'printf %s "$1" >&2; exit 1', "sh", said])
    wait_until(lambda: reaped(command.pid), "its end")
    assert command.complaint == COMPLAINTS[said]
    assert command.text == ""
    command.close()


def reaped(pid: int) -> bool:
    """Reap a child; whether that could be done already."""
    return os.waitpid(pid, os.WNOHANG)[0] == pid


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH without an engine; what is put there is found."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CLEANUP_GUARD_ENGINE", raising=False)
    return tmp_path


def engine(folder: Path, name: str, status: int) -> None:
    """An engine that answers, or does not."""
    (folder / name).write_text(f"#!/bin/sh\nexit {status}\n")
    (folder / name).chmod(0o755)


def test_docker_is_asked_first_but_its_client_alone_is_no_engine(path: Path) -> None:
    """Docker if its daemon answers, else podman; if neither does, docker may say why."""
    engine(path, "podman", 0)
    assert find_engine() == ["podman"]
    engine(path, "docker", 1)
    assert find_engine() == ["podman"]
    engine(path, "docker", 0)
    assert find_engine() == ["docker"]
    engine(path, "docker", 1)
    engine(path, "podman", 1)
    assert find_engine() == ["docker"]


def test_the_environment_names_another(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CLEANUP_GUARD_ENGINE is a command line."""
    engine(path, "podman", 0)
    engine(path, "other", 0)
    monkeypatch.setenv("CLEANUP_GUARD_ENGINE", "other --option 'two words'")
    assert find_engine() == ["other", "--option", "two words"]
    for wrong, sentence in (("none -x", "'none' was not found"), ("'", "is no command line")):
        monkeypatch.setenv("CLEANUP_GUARD_ENGINE", wrong)
        with pytest.raises(CannotRehearse, match=sentence):
            find_engine()


def test_no_engine_at_all(path: Path) -> None:
    """What to install is said."""
    with pytest.raises(CannotRehearse, match="install docker or podman"):
        find_engine()
    with pytest.raises(CannotStart):
        Command(["docker", "version"])


def test_links_are_followed_inside(tmp_path: Path) -> None:
    """A path of another root: its absolute links begin there, `..` does not leave it, and circles end."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").touch()
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "run").symlink_to("/run")
    (tmp_path / "var" / "up").symlink_to("../../../run/./file")
    (tmp_path / "circle").symlink_to("circle")
    root = str(tmp_path)
    assert _proc.inside(root, "/var/run/file") == f"{root}/run/file"
    assert _proc.inside(root, "/var/up") == f"{root}/run/file"
    assert _proc.inside(root, "/none") == f"{root}/none"
    with pytest.raises(OSError, match="symbolic links"):
        _proc.inside(root, "/circle")
