"""`cleanup-guard check --image`: real containers, stopped by a real engine and watched from outside."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from containers.context import EXAMPLES
from support import CLEAN, PATIENCE, wait_until

from cleanup_guard._rehearse._seen import Rehearsal

if TYPE_CHECKING:
    from containers.context import ImageOf
    from containers.engine import Engine

MAIN = {"main_process.py": EXAMPLES / "02_main_process.py"}
READY = ("--ready", "!!!Set up!!!")
QUICK = ("--env=CLEANUP=1",)
COMMAND = [sys.executable, "-m", "cleanup_guard", "check"]


@dataclass
class Check:
    """The command, for containers with a label of this test's own."""

    engine: Engine
    label: str
    fake: tuple[str, ...] = ()

    def start(
        self, *words: str, extra: tuple[str, ...] = (), under: tuple[str, ...] = ()
    ) -> subprocess.Popen[str]:
        """Start it in the background."""
        options = shlex.join([*self.engine.run_options, f"--label={self.label}", *extra])
        return subprocess.Popen(
            [*under, *COMMAND, "--run-options", options, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**CLEAN, "CLEANUP_GUARD_ENGINE": shlex.join(self.fake or self.engine.command_line)},
            # A shell's background job, as CI's are, ignores it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def __call__(self, *words: str, **options: tuple[str, ...]) -> tuple[int, str, str]:
        """Run it. Returns its status, stdout and stderr."""
        process = self.start(*words, **options)
        out, err = process.communicate(timeout=2 * PATIENCE)
        return process.returncode, out, err

    def rehearse(self, *words: str, status: int, **options: tuple[str, ...]) -> Rehearsal:
        """Run it for one rehearsal, as JSON."""
        found, out, err = self("--json", *words, **options)
        assert found == status, out + err
        return Rehearsal.from_json(json.loads(out)["rehearsals"][0])

    @property
    def left(self) -> list[str]:
        """The containers that are there."""
        return self.engine.call("ps", "--all", "--quiet", "--filter", f"label={self.label}").split()


@pytest.fixture
def check(engine: Engine) -> Iterator[Check]:
    """The command. Whatever it does, it leaves no container behind."""
    check = Check(engine, f"check-{uuid.uuid4().hex[:12]}")
    yield check
    left = check.left
    for each in left:
        engine.remove_container(each)
    assert not left


def codes(rehearsal: Rehearsal) -> list[str]:
    """What is said about it, in short."""
    return [advice.code for advice in rehearsal.advice]


def test_an_unfixed_entry_script_is_not_clean(check: Check, image_of: ImageOf) -> None:
    """The shell keeps the stop to itself, both are killed in the end, and the advice is the line to change."""
    image = image_of("entry_sh_plain", MAIN)
    found = check.rehearse(*READY, "--grace", "1", "--image", image, status=1)
    assert (found.image, found.isolation, found.program) == (image, "container", ["/entry.sh"])
    shell, program = found.processes
    assert (shell.pid, shell.argv, shell.handling, shell.how) == (
        1,
        ["/bin/sh", "/entry.sh"],
        "default",
        "killed",
    )
    assert [(heard.name, heard.sender) for heard in shell.heard] == [("SIGTERM", None)]
    assert (program.handling, program.how, program.heard) == ("catches", "killed", [])
    assert found.status == 137
    assert found.advice[0].code == "shell-does-not-forward"
    assert found.advice[0].line == "exec python3 /main_process.py"


@pytest.mark.parametrize("name", ["entry_sh_exec", "run_entry_sh"])
def test_a_fixed_one_is_clean(check: Check, image_of: ImageOf, name: str) -> None:
    """With `exec`, or with `cleanup-guard run` before the unchanged script, everybody ends by themselves."""
    image = image_of(name, MAIN if name == "entry_sh_exec" else {})
    found = check.rehearse(*READY, "--grace", "20", "--image", image, extra=QUICK, status=0)
    assert "!!!Clean up!!!" in found.output
    assert "!!!Set up!!!" not in found.output
    assert found.status == 143
    assert {seen.how for seen in found.processes} <= {"exited", "signal"}
    assert len(found.processes) == (1 if name == "entry_sh_exec" else 3)


def test_who_is_there_already_is_watched_too(check: Check, base_image: str) -> None:
    """Children of children that were started before anybody looked: each is seen to be killed when PID 1 leaves."""
    script = (
        "trap 'exit 0' TERM; for each in 1 2 3 4 5 6 7 8 9; do sh -c 'sleep 3600; true' & done; echo up; wait"
    )
    found = check.rehearse("--grace", "20", "--image", base_image, "sh", "-c", script, status=1)
    first, *others = found.processes
    assert (first.how, first.status, first.handling) == ("exited", 0, "catches")
    assert len(others) == 18
    assert {seen.how for seen in others} == {"torn-down"}
    assert codes(found) == ["children-killed"]
    assert found.advice[0].line.startswith('ENTRYPOINT ["cleanup-guard", "run", "--", "sh", "-c", "trap ')


def test_the_signal_is_the_images_own_or_ours(check: Check, image_of: ImageOf) -> None:
    """STOPSIGNAL is what the engine sends, unless --signal says otherwise; it arrives as that."""
    image = image_of("direct", MAIN)
    found = check.rehearse(*READY, "--image", image, extra=("--stop-signal=SIGINT",), status=0)
    assert (found.signal, found.status) == ("SIGINT", 130)
    words = (*READY, "--signal", "INT", "--image", image)
    found = check.rehearse(*words, status=0)
    assert (found.signal, found.status, found.processes[0].heard[0].name) == ("SIGINT", 130, "SIGINT")


def test_what_it_would_need_is_measured(check: Check, image_of: ImageOf) -> None:
    """A cleanup that is cut short is rehearsed again without a limit; fractions of a second are not for engines."""
    words = (*READY, "--grace", "0.5", "--image", image_of("run_entry_sh"), "/main_process.py")
    found = check.rehearse(*words, extra=("--entrypoint=", "--env=CLEANUP=2"), status=1)
    assert found.grace == 1
    assert codes(found) == ["too-slow"]
    assert found.needed is not None
    assert 2 <= found.needed < 30


def test_readiness_is_looked_for_inside(check: Check, base_image: str) -> None:
    """A port in the container's network, and a file behind a link that leads elsewhere out here."""
    script = (
        "import os, signal, socket, time; signal.signal(signal.SIGTERM, lambda *_: os._exit(0)); time.sleep(3);"
        "s = socket.create_server(('127.0.0.1', 4711)); open('/var/run/check-is-ready', 'w'); time.sleep(3600)"
    )
    words = ("--ready-tcp", "4711", "--ready-file", "/var/run/check-is-ready")
    found = check.rehearse(*words, "--image", base_image, "python3", "-c", script, status=0)
    assert found.status == 0
    assert found.readied > 0.5


def test_several_stops_at_random_moments(check: Check, base_image: str) -> None:
    """--repeat is for images, too."""
    words = ("--grace", "2", "--repeat", "3", "--ready", "up", "--json", "--image", base_image)
    script = "trap 'exit 0' TERM; echo up; sleep 3600 & wait $!"
    status, out, err = check(*words, "sh", "-c", script)
    assert status == 1, out + err
    assert len(json.loads(out)["rehearsals"]) == 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--image", "localhost/no-such-image"), "could not start localhost/no-such-image: "),
        (("--image", "{}", "no-such-program"), "no-such-program"),
        (("--image", "{}", "sh", "-c", "echo good bye; exit 7"), "the program ended, with status 7, before"),
        (("--ready", "x", "--timeout", "1", "--image", "{}", "sleep", "60"), "did not print 'x' within 1 s"),
    ],
)
def test_no_stop_to_rehearse(check: Check, base_image: str, words: tuple[str, ...], sentence: str) -> None:
    """One sentence, status 3."""
    status, out, err = check(*(word.format(base_image) for word in words))
    assert (status, out) == (3, "")
    assert err.startswith("cleanup-guard check: ")
    assert sentence in err
    assert "Traceback" not in err
    if "good bye" in " ".join(words):
        assert err.endswith("\n  good bye\n")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_it_leaves_no_container(check: Check, base_image: str, signum: int) -> None:
    """Whether it waits for readiness or for the end of a stop: the container is gone before it is."""
    process = check.start("--ready", "never", "--image", base_image, "sh", "-c", "sleep 3600; true")
    wait_until(lambda: check.left != [], "the container")
    process.send_signal(signum)
    assert "nobody is left" in process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 128 + signum
    assert not check.left


def test_interrupted_in_the_middle_of_the_stop(check: Check, base_image: str, tmp_path: Path) -> None:
    """The engine's own stop is not waited for either."""
    script = "trap 'touch /told/it' TERM; echo up; while :; do sleep 0.1; done"
    volume = (f"--volume={tmp_path}:/told",)
    words = ("--ready", "up", "--grace", "3600", "--image", base_image, "sh", "-c", script)
    process = check.start(*words, extra=volume)
    wait_until((tmp_path / "it").exists, "the stop")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM


FAR = """\
#!/bin/sh
# An engine on another machine: its pids mean nothing here.
case "$1 $2" in
"container inspect") {engine} "$@" | sed 's/"Pid": [1-9][0-9]*/"Pid": 4194303/' ;;
*) exec {engine} "$@" ;;
esac
"""


@pytest.fixture
def far(check: Check, tmp_path: Path) -> Check:
    """The command with an engine that is far away."""
    script = tmp_path / "far"
    script.write_text(FAR.format(engine=shlex.join(check.engine.command_line)))
    script.chmod(0o755)
    check.fake = (str(script),)
    return check


def test_an_engine_on_another_machine(far: Check, image_of: ImageOf) -> None:
    """What is known is how PID 1 ended; the rest is said to be unknown, and why."""
    found = far.rehearse(*READY, "--grace", "1", "--image", image_of("entry_sh_plain", MAIN), status=1)
    shell, program = found.processes
    assert (shell.pid, shell.handling, shell.how) == (1, "unknown", "killed")
    assert (program.parent, program.argv, program.how) == (1, ["python3", "/main_process.py"], "unknown")
    assert codes(found) == ["shell-does-not-forward"]
    assert "not among those of this machine" in found.remark
    fixed = (*READY, "--grace", "20", "--image", image_of("run_entry_sh"))
    found = far.rehearse(*fixed, extra=QUICK, status=0)
    assert (found.processes[0].how, found.processes[0].status, found.status) == ("exited", 143, 143)
    assert "not-seen" in codes(found)


def test_what_cannot_be_seen_far_away_is_refused(far: Check, base_image: str) -> None:
    """A port or a file of a container that is elsewhere: one sentence, status 3."""
    for words in (("--ready-tcp", "80"), ("--ready-file", "/x")):
        status, _, err = far(*words, "--image", base_image, "sleep", "60")
        assert status == 3
        assert f"{words[0]} cannot be seen from here" in err


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv(1)")
def test_without_the_privilege_to_trace(check: Check, image_of: ImageOf) -> None:
    """Another user's processes may not be traced, but they may be looked at."""
    words = (*READY, "--grace", "20", "--image", image_of("run_entry_sh"))
    under = ("setpriv", "--bounding-set=-sys_ptrace")
    found = check.rehearse(*words, extra=("--user=1234", *QUICK), under=under, status=0)
    assert [seen.parent for seen in found.processes][:2] == [0, 1]
    assert [seen.handling for seen in found.processes] == ["unknown", "unknown", "catches"]
    assert "Operation not permitted" in found.remark
