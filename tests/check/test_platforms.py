"""`check --platform`: stopped as that platform does it, seeing what it would see there; and numbers that do not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import CLEAN, PATIENCE

from cleanup_guard._cli._check import USAGE, understand
from cleanup_guard._ground.platforms import PLATFORMS, Surroundings, matches
from cleanup_guard._rehearse._platforms import WAYS, clean

pytestmark = pytest.mark.one_python  # what is stopped is Python, and the way of it is not

GUARDED = """\
import os, time
from cleanup_guard import guard
with guard() as g:
    g.callback(time.sleep, {cleanup})
    print("ready", flush=True)
    time.sleep(60)
"""

COUNTS = """\
import os, signal, sys, time
def note(signum, frame): os.write(1, f"{{os.getpid()}} heard {{signal.Signals(signum).name}}\\n".encode())
for signum in (signal.SIGTERM, signal.SIGINT): signal.signal(signum, note)
if {children} and os.fork() == 0: pass
print("ready", flush=True)
end = time.monotonic() + {seconds}
while time.monotonic() < end: time.sleep(0.02)
"""


def check(*words: str, program: str, **environ: str) -> dict[str, Any]:
    """Rehearse a Python program. Returns the first rehearsal."""
    command = [
        sys.executable,
        "-m",
        "cleanup_guard",
        "check",
        "--json",
        "--no-try",
        "--ready",
        "ready",
        "--show-output",
        *words,
    ]
    done = subprocess.run(
        [*command, "--", sys.executable, "-c", program],
        env={**CLEAN, **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["rehearsals"][0]
    return found


def test_each_platform_that_is_recognised_can_be_rehearsed() -> None:
    """And what the program sees there is what it is recognised by."""
    assert {platform.name for platform in PLATFORMS} <= WAYS.keys()
    for platform in PLATFORMS:
        environ = clean({"PATH": "/bin", "GITHUB_ACTIONS": "true"}, WAYS[platform.name])
        found = [each.name for each, _ in matches(Surroundings(environ, 1, lambda path: False))]
        assert platform.name in found
        assert platform.name == "github-actions" or "GITHUB_ACTIONS" not in environ
        way = WAYS[platform.name]
        assert bool(platform.tells_everybody(Surroundings(environ, 1, lambda path: False))) is way.everybody


def test_the_guard_inside_knows_where_it_is() -> None:
    """Whatever machine this is: the program sees the platform, the platform's signal comes, and its end."""
    found = check("--platform", "fly", program=GUARDED.format(cleanup=0), GITHUB_ACTIONS="true")
    assert (found["platform"], found["signal"], found["grace"], found["clean"]) == ("fly", "SIGINT", 5, True)
    assert "SIGINT received on Fly.io (FLY_APP_NAME), 5 s to clean up: guessed" in found["output"]


def test_a_second_signal_comes_by_schedule() -> None:
    """GitHub's SIGTERM after 7.5 s of SIGINT; nobody is blamed for it."""
    found = check("--platform", "github-actions", program=COUNTS.format(children=0, seconds=9))
    heard = [each["name"] for each in found["processes"][0]["heard"]]
    assert heard == ["SIGINT", "SIGTERM"]
    assert "told-twice" not in [each["code"] for each in found["advice"]]


@pytest.mark.parametrize(("platform", "hear"), [("heroku", 2), ("kubernetes", 1)])
def test_whom_a_platform_tells(platform: str, hear: int) -> None:
    """Every process, or the first alone."""
    found = check("--platform", platform, program=COUNTS.format(children=1, seconds=4))
    heard = [seen for seen in found["processes"] if [each["name"] for each in seen["heard"]] == ["SIGTERM"]]
    assert len(heard) == hear


def test_what_is_only_hoped_for_is_said() -> None:
    """A cleanup that needs more than is sure is clean, with a remark."""
    found = check("--platform", "kubernetes", program=GUARDED.format(cleanup=0))
    assert "hoped-for" not in [each["code"] for each in found["advice"]]
    words = ["--platform", "kubernetes"]
    found = check(
        *words,
        program=COUNTS.format(children=0, seconds=9).replace("while", "signal.pause()\nend += 9\nwhile"),
    )
    assert "hoped-for" in [each["code"] for each in found["advice"] if not each["fault"]], found["advice"]


def test_a_program_that_is_told_too_much_is_a_fault() -> None:
    """CLEANUP_GUARD_GRACE beyond what there is, less what the hook before the signal takes."""
    words = ["--grace", "5", "--pre-stop", "sleep 1"]
    found = check(*words, program=GUARDED.format(cleanup=0), CLEANUP_GUARD_GRACE="5")
    advice = {each["code"]: each for each in found["advice"]}
    assert advice["told-too-much"]["fault"]
    assert (
        "CLEANUP_GUARD_GRACE says that there are 5 s, but there are 5 s less 1"
        in advice["told-too-much"]["text"]
    )
    assert advice["told-too-much"]["line"].startswith("CLEANUP_GUARD_GRACE=3")
    found = check(*words, program=GUARDED.format(cleanup=0), CLEANUP_GUARD_GRACE="3")
    assert found["clean"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--platform", "moon"], "--platform: there is no platform 'moon', but aws-batch, azure-app-service"),
        (
            ["--platform", "railway"],
            "railway gives no time unless it is told to: say with --grace how much it is told",
        ),
        (["--platform", "heroku", "--image", "app"], "an engine cannot stop an image like that"),
    ],
)
def test_mistakes(words: list[str], complaint: str) -> None:
    """One sentence, and status 2."""
    done = subprocess.run(
        [sys.executable, "-m", "cleanup_guard", "check", *words, "--", "true"],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_manifest_is_stopped_as_kubernetes_does_it(tmp_path: Path) -> None:
    """Without being told; another platform can be, where the manifest is for another cluster."""
    manifest = tmp_path / "pod.yaml"
    manifest.write_text("kind: Pod\nspec: {containers: [{name: web, image: web}]}\n")
    for more, name in ([], "kubernetes"), (["--platform", "kubernetes-spot"], "kubernetes-spot"):
        given, words = USAGE.split(["--kubernetes", str(manifest), *more])
        way = understand(given, words).way
        assert way is not None
        assert way.name == name


def test_the_sidecars_two_seconds() -> None:
    """It is stopped when the main containers have used up the time, and that is said."""
    command = [
        sys.executable,
        "-m",
        "cleanup_guard",
        "check",
        "--no-try",
        "--ready",
        "ready",
        "--platform",
        "kubernetes-sidecar",
    ]
    done = subprocess.run(
        [*command, "--", sys.executable, "-c", GUARDED.format(cleanup=0)],
        env=CLEAN,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = " ".join(done.stdout.split())
    assert "as on kubernetes-sidecar when the main containers have used up the time: SIGTERM to PID 1" in said
    assert "SIGKILL 2 s after the stop" in said
