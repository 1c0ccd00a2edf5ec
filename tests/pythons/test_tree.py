"""Where CI's newest Pythons come from: a failing debootstrap costs one more try, a missing Python not the others."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2] / ".ci" / "tree"

pytestmark = [
    pytest.mark.one_python,
    pytest.mark.skipif(not TREE.exists(), reason="there is no .ci here"),
    pytest.mark.skipif(
        subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode != 0,
        reason="mounting needs root",
    ),
]

DEBOOTSTRAP = """#!/bin/sh
echo "$*" >> "$CALLS"
for tree; do :; done
case $(wc -l < "$CALLS") in {fails}) echo 'E: Couldn'"'"'t find these debs' >&2; exit 1 ;; esac
mkdir -p "$tree/usr/bin"
"""


def make(folder: Path, fails: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Make a tree with a debootstrap that fails in these calls; what came of it, and the Pythons of each call."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "debootstrap").write_text(DEBOOTSTRAP.format(fails=fails))
    (folder / "bin" / "debootstrap").chmod(0o755)
    calls = folder / "calls"
    calls.write_text("")
    done = subprocess.run(
        [TREE, "make", folder / "tree", "14", "15"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "CALLS": str(calls)},
    )
    return done, [
        " ".join(each for each in ("14", "15") if f"python3.{each}" in line)
        for line in calls.read_text().splitlines()
    ]


@pytest.mark.parametrize(
    ("fails", "calls"),
    [
        ("0", ["14 15"]),
        ("1", ["14 15", "14 15"]),
        ("[12]", ["14 15", "14 15", "14"]),
        ("[123]", ["14 15", "14 15", "14", "15"]),
    ],
)
def test_a_debootstrap_that_fails_is_tried_again_and_then_with_less(
    tmp_path: Path, fails: str, calls: list[str]
) -> None:
    """All Pythons twice, then each alone; what there is then is a tree, kept for the next run if it is whole."""
    done, tried = make(tmp_path, fails)
    assert (done.returncode, tried) == (0, calls), done.stderr
    _, again = make(tmp_path, "0")
    assert again == ([] if calls[-1] == "14 15" else ["14 15"])


def test_without_a_tree_there_is_a_sentence(tmp_path: Path) -> None:
    """Nothing is left of a tree that cannot be made, and the last line says so; one that was there is kept."""
    done, tried = make(tmp_path, "*")
    assert (done.returncode, tried) == (1, ["14 15", "14 15", "14", "15"])
    assert (
        done.stderr.splitlines()[-1] == "There is no tree of Debian unstable: debootstrap failed each time."
    )
    assert not (tmp_path / "tree").exists()
    assert not (tmp_path / "tree.new").exists()
    make(tmp_path, "[12]")
    done, _ = make(tmp_path, "*")
    assert done.returncode == 0
    assert (tmp_path / "tree" / ".complete").read_text() == "14\n"


def test_who_may_not_mount_gets_a_sentence(tmp_path: Path) -> None:
    """Without root, or without the right to mount, there is one line and status 1."""
    for wrapper, sentence in (
        (["setpriv", "--reuid", "65534"], "A tree of Debian unstable needs root."),
        (
            ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"],
            "A tree of Debian unstable needs the right to mount (CAP_SYS_ADMIN).",
        ),
    ):
        done = subprocess.run(
            [*wrapper, "bash", TREE, "make", tmp_path / "tree", "14"],
            check=False,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr.splitlines()) == (1, [sentence])
