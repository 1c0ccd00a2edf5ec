"""`cleanup-guard where`, and the page about it: what the first line of a stop says, without a stop."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import CLEAN, GUESSED, PATIENCE, child, run

from cleanup_guard._ground.platforms import PLATFORMS, Surroundings, describe, detect

PAGE = (Path(__file__).parent.parent.parent / "examples" / "where.md").read_text()

STOPPED = "with guard():\n    ready(); time.sleep(60)\n"


def where(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-m", "cleanup_guard", "where", *words],
        env={**CLEAN, **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    "environ",
    [
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "CLEANUP_GUARD_GRACE": "25"},
        {"WEBSITE_SITE_NAME": "shop", "WEBSITES_CONTAINER_STOP_TIME_LIMIT": "60"},
        {"RAILWAY_ENVIRONMENT_ID": "x"},
    ],
)
def test_it_says_what_the_first_line_of_a_stop_says(environ: dict[str, str]) -> None:
    """Where, how long, and how that is known: given, read, or guessed."""
    said = where(**environ)
    assert (said.returncode, said.stderr) == (0, "")
    platform, _, limit = said.stdout.rstrip("\n").partition(": ")
    long, _, how = limit.partition(
        ", guessed" if ", guessed" in limit else ", given" if ", given" in limit else ", read"
    )
    first = run(STOPPED, signal.SIGTERM, env=environ).err.splitlines()[0]
    assert first.startswith(f"cleanup_guard: SIGTERM received {platform}, {long}: ")
    assert first.endswith(how)


def test_it_looks_into_another_process() -> None:
    """As that one sees itself: the environment that it was started with."""
    with child(STOPPED, env={"DYNO": "web.1"}) as started:
        said = where("--pid", str(started.pid), GITHUB_ACTIONS="true")
    assert said.stdout == "on Heroku (DYNO): 30 s to clean up, guessed; CLEANUP_GUARD_GRACE says it better\n"


def test_where_nothing_is_known() -> None:
    """Docker's ten seconds, and that they are a guess; a plain Python needs no more than the standard library for it."""
    assert where().stdout.rstrip("\n").endswith(GUESSED.replace(":", ","))


@pytest.mark.parametrize(
    ("words", "environ", "status", "complaint"),
    [
        (["--pid", str(2**22 + 1)], {}, 1, "process 4194305 cannot be looked at: No such file or directory"),
        (["--pid", "me"], {}, 2, "--pid takes the number of a process, not 'me'"),
        (["here"], {}, 2, "there is nothing to say about 'here': where takes options only"),
        ([], {"CLEANUP_GUARD_GRACE": "soon"}, 2, "CLEANUP_GUARD_GRACE must be a number of seconds"),
    ],
)
def test_mistakes(words: list[str], environ: dict[str, str], status: int, complaint: str) -> None:
    """One sentence, and the right status."""
    said = where(*words, **environ)
    assert (said.returncode, said.stdout) == (status, "")
    assert said.stderr.startswith("cleanup-guard where: ")
    assert complaint in said.stderr
    assert said.stderr.count("\n") == 1


def test_the_page_shows_a_real_line() -> None:
    """The one of Kubernetes."""
    grace = detect(Surroundings({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, os.getpid(), lambda _: False))
    line = next(line for line in PAGE.splitlines() if line.startswith("cleanup_guard: SIGTERM received"))
    assert (
        describe(grace).replace(": ", ", ").replace(", guessed", ": guessed")
        == line.partition("received ")[2]
    )


def test_the_page_has_each_platform_with_its_numbers() -> None:
    """The table of the page is that of the code."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.splitlines()
        if re.search(r"\| `?[A-Z_]*`?.*\|$", line)
    ]
    numbers: dict[str, list[str]] = {}
    for row in rows:
        if len(row) == 4 and row[0] != "platform":
            for name in re.split(r", (?!jobs)", re.sub(r" \(.*\)", "", row[0])):
                numbers[name] = row[1:3]
    for platform in PLATFORMS:
        name = re.sub(r"^(on|under|in an?) | job$", "", platform.where)
        name = {"JupyterHub": "JupyterHub on Kubernetes", "Azure Container Apps": "Container Apps"}.get(
            name, name
        )
        sure, hope = numbers[name]
        assert sure.removeprefix("read, else ") == f"{platform.sure:g}", name
        assert hope.removeprefix("read, else ") == f"{platform.hope:g}", name
