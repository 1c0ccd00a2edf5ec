"""The manifests of examples/deploy, and our own workflow, are valid: asked of the libraries and tools that have the schemas."""

from __future__ import annotations

import configparser
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from guests.stage import require
from support import PATIENCE

pytestmark = [pytest.mark.guests, pytest.mark.one_python]

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "examples" / "deploy"


def succeeds(*words: str) -> None:
    """A tool ends with status 0."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.compose-spec", DEPLOY / "compose.yaml"),
        ("vendor.github-workflows", DEPLOY / "github.yml"),
        ("vendor.github-workflows", ROOT / ".github" / "workflows" / "ci.yml"),
    ],
    ids=lambda each: getattr(each, "name", each),
)
def test_the_schema_allows_it(schema: str, file: Path) -> None:
    """Compose's schema, and that of GitHub's workflows."""
    require("check_jsonschema")
    succeeds(sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(file))


def test_kubernetes_allows_it() -> None:
    """Each field is known, and of its type."""
    require("kubernetes_validate")
    import yaml

    library = importlib.import_module("kubernetes_validate")
    for document in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()):
        library.validate(document, "1.33", strict=True)


def test_systemd_allows_it(tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("There is no systemd-analyze here.")
    unit = tmp_path / "app.service"
    python = "/usr/bin/python3"  # must exist where it is verified
    unit.write_text((DEPLOY / "app.service").read_text().replace(python, sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert "app.service" not in done.stderr, done.stderr


def test_the_grace_periods_agree() -> None:
    """What the platform gives is what the guard is told, and no shorter."""
    import yaml

    pod = yaml.safe_load((DEPLOY / "kubernetes.yaml").read_text())["spec"]["template"]["spec"]
    container = pod["containers"][0]
    slept = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert float(container["env"][0]["value"]) <= pod["terminationGracePeriodSeconds"] - slept
    app = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["app"]
    assert app["stop_grace_period"] == app["environment"]["CLEANUP_GUARD_GRACE"] + "s"
    conf = configparser.ConfigParser(inline_comment_prefixes=(";",))
    conf.read(DEPLOY / "supervisord.conf")
    program = conf["program:app"]
    assert program["environment"] == f'CLEANUP_GUARD_GRACE="{program["stopwaitsecs"]}"'
