"""The main process of a systemd service: systemd is asked for its number, when a guard is entered and not before."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support import child, run, wait_until

from cleanup_guard._ground import systemd
from cleanup_guard._ground.systemd import span, unit_of

UNIT = "def unit(): os.environ['SYSTEMD_EXEC_PID'] = str(os.getpid())\n"
CGROUP = """
from cleanup_guard._ground import systemd
systemd.unit_of = lambda text: ("web.service", False)  # this machine may have no systemd
"""
GUARD = "unit()\nwith guard() as g:\n    answered(); ready(); time.sleep(60)\n"

ANSWERED = """
def answered():
    from cleanup_guard._process.process import REGISTRY
    while REGISTRY.get().whereabouts._unit is None: time.sleep(0.01)
"""
NO_ANSWER = "def answered(): pass\n"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1min 30s", 90.0),
        ("45s", 45.0),
        ("500ms", 0.5),
        ("1h 2min 3s 4ms", 3723.004),
        ("1d", 86400.0),
        ("infinity", None),
        ("2000us\n", 0.002),
    ],
)
def test_time_spans(text: str, seconds: float | None) -> None:
    """As `systemctl show` prints them."""
    assert span(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1s", "1 fortnight", "90"])
def test_what_is_no_time_span(text: str) -> None:
    """Such as the empty answer for a unit that is not there."""
    with pytest.raises(ValueError, match="no time span"):
        span(text)


@pytest.mark.parametrize(
    ("cgroups", "unit"),
    [
        ("0::/system.slice/web.service\n", ("web.service", False)),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/web.service\n", ("web.service", True)),
        ("0::/user.slice/user-1000.slice/user@1000.service\n", ("user@1000.service", False)),
        ("5:cpu:/x.service\n1:name=systemd:/system.slice/web@1.service\n", ("web@1.service", False)),
        ("0::/\n", None),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", None),
        ("", None),
        ("nonsense\n", None),
    ],
)
def test_whose_service_it_is(cgroups: str, unit: tuple[str, bool] | None) -> None:
    """The innermost service, and whether a user's manager has it."""
    assert unit_of(cgroups) == unit


def systemctl(folder: Path, script: str) -> dict[str, str]:
    """An environment in which `systemctl` is this script; it notes its arguments."""
    file = folder / "systemctl"
    file.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\n{script}\n')
    file.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_systemd_is_asked_and_its_word_is_both_numbers(tmp_path: Path) -> None:
    """In a thread, by `systemctl show`, once a guard is entered; who has the number given asks nobody."""
    environ = systemctl(tmp_path, "echo TimeoutStopUSec=1min 30s; echo KillMode=mixed")
    code = CGROUP + UNIT + ANSWERED + GUARD
    ended = run(code, signal.SIGTERM, env=environ)
    assert (
        "under systemd (SYSTEMD_EXEC_PID), 90 s to clean up: read from TimeoutStopSec of web.service"
        in ended.err
    )
    asked = (tmp_path / "asked").read_text()
    assert asked == "show --property=TimeoutStopUSec --property=KillMode -- web.service\n"
    ended = run(
        CGROUP + UNIT + NO_ANSWER + GUARD, signal.SIGTERM, env={**environ, "CLEANUP_GUARD_GRACE": "7"}
    )
    assert "7 s to clean up: given by CLEANUP_GUARD_GRACE" in ended.err
    assert (tmp_path / "asked").read_text() == asked


@pytest.mark.parametrize("script", ["exit 1", "echo nonsense", "exec sleep 10"])
def test_without_an_answer_it_is_a_guess(tmp_path: Path, script: str) -> None:
    """Nothing waits for one; and there is no child left over."""
    ended = run(CGROUP + UNIT + NO_ANSWER + GUARD, signal.SIGTERM, env=systemctl(tmp_path, script))
    assert ended.status == 143
    assert "under systemd (SYSTEMD_EXEC_PID), 45 s to clean up: guessed" in ended.err


def test_who_does_not_answer_is_not_left_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is killed when its time is over, and reaped."""
    monkeypatch.setenv("PATH", systemctl(tmp_path, "exec sleep 600")["PATH"])
    monkeypatch.setattr(systemd, "PATIENCE", 0.2)
    monkeypatch.setattr(systemd, "unit_of", lambda text: ("web.service", True))
    assert systemd.ask() is None
    assert not Path("/proc/self/task").joinpath(str(os.getpid()), "children").read_text().split()


def test_nobody_is_asked_before_a_guard_is_entered(tmp_path: Path) -> None:
    """Importing starts no program, nor does a guard where systemd is not the one that stops."""
    environ = systemctl(tmp_path, "echo TimeoutStopUSec=1min 30s; echo KillMode=mixed")
    code = "import cleanup_guard\nfrom cleanup_guard import guard, on_exit\n" + UNIT + "unit(); ready()\n"
    with child(code, env=environ) as started:
        wait_until(lambda: started.process.poll() is not None, "the end")
    assert not (tmp_path / "asked").exists()
    run("with guard(): ready()\n", env={**environ, "SYSTEMD_EXEC_PID": "1"})
    assert not (tmp_path / "asked").exists()
