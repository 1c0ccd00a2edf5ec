"""Where a program runs: every platform in a faked environment, and what follows when several match."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanup_guard._ground import here
from cleanup_guard._ground.clock import DEFAULT_GRACE, GIVEN, GRACE_VARIABLE, GUESSED, READ, Grace
from cleanup_guard._ground.platforms import (
    PLATFORMS,
    Surroundings,
    Unit,
    describe,
    detect,
    grace_here,
    matches,
    told_by_platform,
)

PID = 4711

Environ = dict[str, str]


def around(environ: Environ, *files: str, pid: int = PID, unit: Unit | None = None) -> Surroundings:
    """Surroundings in which only this is to be seen."""
    return Surroundings(environ, pid, files.__contains__, unit)


KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}

ROWS: dict[str, tuple[Environ, float, float]] = {
    "cloud-run": ({"K_SERVICE": "web", "K_REVISION": "web-1"}, 10, 10),
    "cloud-run, job": ({"CLOUD_RUN_JOB": "nightly"}, 10, 10),
    "cloud-run, worker pool": ({"CLOUD_RUN_WORKER_POOL": "pool"}, 10, 10),
    "heroku": ({"DYNO": "web.1"}, 30, 30),
    "github-actions": ({"GITHUB_ACTIONS": "true"}, 10, 10),
    "systemd": ({"SYSTEMD_EXEC_PID": str(PID)}, 45, 45),
    "azure-app-service": ({"WEBSITE_SITE_NAME": "shop"}, 5, 5),
    "azure-app-service, instance": ({"WEBSITE_INSTANCE_ID": "abc"}, 5, 5),
    "railway": ({"RAILWAY_ENVIRONMENT_ID": "x"}, 2, 2),
    "railway, deployment": ({"RAILWAY_DEPLOYMENT_ID": "x"}, 2, 2),
    "lambda": ({"AWS_LAMBDA_FUNCTION_NAME": "f"}, 0.3, 0.3),
    "fly": ({"FLY_MACHINE_ID": "x"}, 5, 5),
    "fly, app": ({"FLY_APP_NAME": "x"}, 5, 5),
    "nomad": ({"NOMAD_ALLOC_ID": "x"}, 5, 5),
    "ecs": ({"ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4"}, 10, 30),
    "aws-batch": ({"AWS_BATCH_JOB_ID": "x"}, 10, 30),
    "container-apps": ({"CONTAINER_APP_NAME": "x"}, 10, 30),
    "container-apps, revision": ({"CONTAINER_APP_REVISION": "x"}, 10, 30),
    "render": ({"RENDER": "true"}, 10, 30),
    "kubernetes": (KUBERNETES, 10, 30),
    "knative": ({**KUBERNETES, "K_SERVICE": "web"}, 10, 10),
    "jupyterhub": ({**KUBERNETES, "JUPYTERHUB_USER": "ada"}, 1, 1),
    "supervisord": ({"SUPERVISOR_ENABLED": "1"}, 10, 10),
    "supervisord, process": ({"SUPERVISOR_PROCESS_NAME": "web"}, 10, 10),
    "slurm": ({"SLURM_JOB_ID": "1"}, 10, 30),
    "lsf": ({"LSB_JOBID": "1"}, 10, 10),
    "pbs": ({"PBS_JOBID": "1"}, 10, 10),
    "gitlab-ci": ({"GITLAB_CI": "true"}, 10, 10),
    "jenkins": ({"JENKINS_NODE_COOKIE": "x"}, 5, 5),
    "jenkins, build": ({"BUILD_ID": "7", "JENKINS_URL": "http://ci"}, 5, 5),
}
"""The variables of each platform, and what it gives: for sure, and in hope."""


@pytest.mark.parametrize(("row", "environ", "sure", "hope"), [(row, *more) for row, more in ROWS.items()])
def test_each_platform(row: str, environ: Environ, sure: float, hope: float) -> None:
    """It is recognised by its variables; what is known of it is a guess, and says so."""
    surroundings = around(environ, "/.dockerenv")
    found = detect(surroundings)
    assert row.partition(",")[0] in [platform.name for platform, _ in matches(surroundings)]
    assert (found.sure, found.hope, found.known) == (sure, hope, GUESSED)
    assert any(f"({name}" in found.where or f"and {name}" in found.where for name in environ)
    assert found.how.startswith("guessed; CLEANUP_GUARD_GRACE says it better")


def test_no_platform_is_left_out() -> None:
    """Each that is known has a row above."""
    assert {platform.name for platform in PLATFORMS} == {row.partition(",")[0] for row in ROWS}


@pytest.mark.parametrize(
    ("files", "environ", "pid", "where"),
    [
        (["/.dockerenv"], {}, PID, "in a docker container (/.dockerenv)"),
        (["/run/.containerenv"], {}, PID, "in a podman container (/run/.containerenv)"),
        ([], {"container": "podman"}, PID, "in a podman container (container)"),
        ([], {}, 1, "as PID 1 (of a container)"),
        (["/.dockerenv"], {}, 1, "in a docker container (/.dockerenv)"),
        ([], {}, PID, ""),
    ],
)
def test_containers(files: list[str], environ: Environ, pid: int, where: str) -> None:
    """A file, or being PID 1, where nothing else is recognised: ten seconds, as where nothing is known at all."""
    found = detect(around(environ, *files, pid=pid))
    assert (found.sure, found.hope, found.known, found.where) == (
        DEFAULT_GRACE,
        DEFAULT_GRACE,
        GUESSED,
        where,
    )


@pytest.mark.parametrize(
    "environ",
    [
        {"INVOCATION_ID": "x"},  # everything below a service has it
        {"SYSTEMD_EXEC_PID": str(PID + 1)},  # so is this, of its parent
        {"JUPYTERHUB_USER": "ada"},  # of a hub that is not on Kubernetes: nobody knows
        {"BUILD_ID": "7"},  # in many an image
        {"AWS_EXECUTION_ENV": "AWS_ECS_EC2"},
        {"WSL_DISTRO_NAME": "Debian"},
        {"DYNO": ""},
    ],
)
def test_what_is_no_platform(environ: Environ) -> None:
    """What children inherit, what others have, too, and what is empty is no sign."""
    assert matches(around(environ)) == []


@pytest.mark.parametrize(
    ("environ", "sure", "hope"),
    [
        ({**KUBERNETES, "GITLAB_CI": "true"}, 10, 10),
        ({"ECS_CONTAINER_METADATA_URI_V4": "x", "SUPERVISOR_ENABLED": "1"}, 10, 10),
        ({**KUBERNETES, "JENKINS_NODE_COOKIE": "x"}, 5, 5),
        ({"DYNO": "run.1", "SLURM_JOB_ID": "1"}, 10, 30),
        ({**KUBERNETES, "NOMAD_ALLOC_ID": "x"}, 5, 5),
    ],
)
def test_of_several_platforms_each_number_is_the_smallest(environ: Environ, sure: float, hope: float) -> None:
    """A CI job in a pod has what the shorter of both gives, and the line names both."""
    found = detect(around(environ))
    assert (found.sure, found.hope) == (sure, hope)
    assert " and " in found.where


@given(st.sets(st.sampled_from(sorted(ROWS)), min_size=1))
def test_whatever_matches_nothing_gets_longer(rows: set[str]) -> None:
    """One more match never lengthens anything; `sure` is never more than `hope`."""
    together: Environ = {}
    for row in rows:
        together.update(ROWS[row][0])
    found = detect(around(together))
    assert found.sure is not None
    assert found.hope is not None
    assert found.sure <= found.hope
    alone = [detect(around(ROWS[row][0])) for row in rows]
    assert all(found.sure <= (each.sure or 0) and found.hope <= (each.hope or 0) for each in alone)


# -- read ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "unit", "seconds", "source"),
    [
        (
            {"WEBSITE_SITE_NAME": "shop", "WEBSITES_CONTAINER_STOP_TIME_LIMIT": "90"},
            None,
            90,
            "WEBSITES_CONTAINER_STOP_TIME_LIMIT",
        ),
        (
            {"RAILWAY_ENVIRONMENT_ID": "x", "RAILWAY_DEPLOYMENT_DRAINING_SECONDS": "25"},
            None,
            25,
            "RAILWAY_DEPLOYMENT_DRAINING_SECONDS",
        ),
        (
            {"SYSTEMD_EXEC_PID": str(PID)},
            Unit("web.service", 90.0),
            90,
            "TimeoutStopSec of web.service",
        ),
        (
            {"SYSTEMD_EXEC_PID": str(PID)},
            Unit("web.service", None),
            None,
            "TimeoutStopSec of web.service",
        ),
    ],
)
def test_a_number_that_can_be_read_is_both(
    environ: Environ, unit: Unit | None, seconds: float | None, source: str
) -> None:
    """And the words are those for what was read."""
    found = detect(around(environ, unit=unit))
    assert (found.sure, found.hope, found.known) == (seconds, seconds, READ)
    assert found.how == f"read from {source}"


@pytest.mark.parametrize("text", ["0", "", "soon", "-3", "inf", "nan"])
def test_railway_without_a_number_is_warned_of(text: str) -> None:
    """The true number is none at all: two seconds are hoped for, and the variable that helps is named."""
    found = detect(around({"RAILWAY_ENVIRONMENT_ID": "x", "RAILWAY_DEPLOYMENT_DRAINING_SECONDS": text}))
    assert (found.sure, found.known) == (2, GUESSED)
    assert "RAILWAY_DEPLOYMENT_DRAINING_SECONDS" in found.how


def test_what_was_read_and_what_is_guessed() -> None:
    """The smaller one counts, with its own word."""
    environ = {"SYSTEMD_EXEC_PID": str(PID), **KUBERNETES}
    assert (
        detect(around(environ, unit=Unit("unit", 5.0))).sure,
        detect(around(environ, unit=Unit("unit", 5.0))).known,
    ) == (5, READ)
    longer = detect(around(environ, unit=Unit("unit", 20.0)))
    assert (longer.sure, longer.hope, longer.known) == (10, 20, GUESSED)


def test_lambda_says_when_no_signal_comes() -> None:
    """Without an external extension nothing of ours can run."""
    assert "external extension" in detect(around({"AWS_LAMBDA_FUNCTION_NAME": "f"})).how


# -- given -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("environ", [environ for environ, _, _ in ROWS.values()])
def test_what_is_given_wins_over_every_platform(environ: Environ) -> None:
    """The operator's word over the program's, and that over the platform's; the line still says where."""
    program = Grace(3, source="guard(grace=)")
    found = grace_here(around(environ), program)
    assert (found.sure, found.hope, found.known, found.how) == (3, 3, GIVEN, "given by guard(grace=)")
    found = grace_here(around({**environ, GRACE_VARIABLE: "120"}), program)
    assert (found.sure, found.hope, found.how) == (120, 120, "given by CLEANUP_GUARD_GRACE")
    assert found.where == detect(around(environ)).where


def test_the_words_for_given_read_and_guessed_differ() -> None:
    """One line for each."""
    unit = {"SYSTEMD_EXEC_PID": str(PID)}
    assert describe(grace_here(around({**KUBERNETES, GRACE_VARIABLE: "45"}))) == (
        "on Kubernetes (KUBERNETES_SERVICE_HOST): 45 s to clean up, given by CLEANUP_GUARD_GRACE"
    )
    assert describe(grace_here(around(unit, unit=Unit("web.service", 90.0)))) == (
        "under systemd (SYSTEMD_EXEC_PID): 90 s to clean up, read from TimeoutStopSec of web.service"
    )
    assert describe(grace_here(around(KUBERNETES))) == (
        "on Kubernetes (KUBERNETES_SERVICE_HOST): 10 s to clean up for sure, up to 30 s in hope, guessed; CLEANUP_GUARD_GRACE "
        "says it better"
    )
    assert describe(grace_here(around({}))) == (
        "no platform is recognised here: 10 s to clean up, guessed; CLEANUP_GUARD_GRACE says it better"
    )


@pytest.mark.parametrize(
    ("environ", "tells"),
    [
        ({"DYNO": "web.1"}, True),
        ({"SYSTEMD_EXEC_PID": str(PID)}, True),
        ({"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0"}, True),
        ({"SLURM_JOB_ID": "1"}, False),  # the batch script itself is not told
        ({"LSB_JOBID": "1"}, True),
        ({"JENKINS_NODE_COOKIE": "x"}, True),
        (KUBERNETES, False),
        ({"GITHUB_ACTIONS": "true"}, False),
        ({}, False),
    ],
)
def test_who_tells_every_process_itself(environ: Environ, tells: bool) -> None:
    """There a supervisor that passes the stop on tells its children twice."""
    assert told_by_platform(around(environ)) is tells


@pytest.mark.parametrize("whole_group", [True, False])
def test_systemd_may_tell_the_main_process_alone(whole_group: bool) -> None:
    """With KillMode=mixed, and then a supervisor has to pass it on."""
    unit = Unit("web.service", 90.0, whole_group=whole_group)
    assert told_by_platform(around({"SYSTEMD_EXEC_PID": str(PID)}, unit=unit)) is whole_group


# -- this machine ------------------------------------------------------------------------------------------------------------


def test_another_process_is_seen_as_it_sees_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its environment is that of its start, its number that of its own namespace, its files those of its own root."""
    found = here.of(os.getpid())
    assert found.pid == os.getpid()
    assert (
        found.environ["PATH"]
        == Path("/proc/self/environ").read_bytes().split(b"\0PATH=")[-1].split(b"\0")[0].decode()
    )
    assert found.exists("/proc/self") is True
    assert found.exists("/nowhere/at/all") is False
    with pytest.raises(OSError, match="No such file"):
        here.of(2**22 + 1)
