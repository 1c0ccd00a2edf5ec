"""How each platform stops a program: with which signals, whom it tells, when it kills, and what the program sees of it.

What is recognised inside a program, and what is sure there, is in `_ground/platforms.py`; here is what comes from outside.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cleanup_guard._ground.platforms import CONTAINERS, PLATFORMS

if TYPE_CHECKING:
    from collections.abc import Mapping

TERM, INT = int(signal.SIGTERM), int(signal.SIGINT)


@dataclass(frozen=True)
class Way:
    """How a platform stops a program.

    Attributes:
        name: what `--platform` calls it.
        grace: seconds from the stop to SIGKILL; None if it gives none unless it is told to.
        environ: the variables that it is recognised by.
        signum: the stop signal; None for what an image names, or SIGTERM.
        everybody: every process is told, not only the first.
        later: more signals, and how many seconds after the stop they come.
        order: what has ended before, in words; empty if that is nothing to know.
    """

    name: str
    grace: float | None
    environ: Mapping[str, str] = field(default_factory=dict[str, str])
    signum: int | None = None
    everybody: bool = False
    later: tuple[tuple[float, int], ...] = ()
    order: str = ""

    @property
    def sure(self) -> float | None:
        """Seconds that are sure there: fewer, perhaps, than it gives in the best case."""
        return next((each.sure for each in (*PLATFORMS, *CONTAINERS) if each.name == self.name), None)


KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}

WAYS = {
    way.name: way
    for way in (
        Way("docker", 10),
        Way("podman", 10, {"container": "podman"}),
        Way("kubernetes", 30, KUBERNETES),
        Way("kubernetes-spot", 15, KUBERNETES),
        Way("kubernetes-sidecar", 2, KUBERNETES, order="the main containers have used up the time"),
        Way("knative", 10, {**KUBERNETES, "K_SERVICE": "rehearsal"}),
        Way("jupyterhub", 1, {**KUBERNETES, "JUPYTERHUB_USER": "rehearsal"}),
        Way("cloud-run", 10, {"K_SERVICE": "rehearsal", "K_REVISION": "rehearsal-1"}),
        Way("heroku", 30, {"DYNO": "web.1"}, TERM, everybody=True),
        Way("github-actions", 10, {"GITHUB_ACTIONS": "true"}, INT, later=((7.5, TERM),)),
        Way("gitlab-ci", 10, {"GITLAB_CI": "true"}, TERM),
        Way("jenkins", 5, {"JENKINS_NODE_COOKIE": "rehearsal"}, TERM, everybody=True),
        Way("systemd", 90, {"SYSTEMD_EXEC_PID": "1"}, TERM, everybody=True),
        Way("supervisord", 10, {"SUPERVISOR_ENABLED": "1"}, TERM),
        Way("azure-app-service", 5, {"WEBSITE_SITE_NAME": "rehearsal"}),
        Way("railway", None, {"RAILWAY_ENVIRONMENT_ID": "rehearsal"}, TERM),
        Way("lambda", 0.3, {"AWS_LAMBDA_FUNCTION_NAME": "rehearsal"}, TERM),
        Way("fly", 5, {"FLY_APP_NAME": "rehearsal"}, INT),
        Way("nomad", 5, {"NOMAD_ALLOC_ID": "rehearsal"}),
        Way("ecs", 30, {"ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4/rehearsal"}),
        Way("aws-batch", 30, {"AWS_BATCH_JOB_ID": "rehearsal"}),
        Way("container-apps", 30, {"CONTAINER_APP_NAME": "rehearsal"}),
        Way("render", 30, {"RENDER": "true"}, TERM),
        Way("slurm", 30, {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0"}, TERM, everybody=True),
        Way("lsf", 20, {"LSB_JOBID": "1"}, INT, everybody=True, later=((10, TERM),)),
        Way("pbs", 10, {"PBS_JOBID": "1"}, TERM),
    )
}
"""By name."""


def clean(environ: Mapping[str, str], way: Way) -> dict[str, str]:
    """An environment as on this platform: with its variables, and without those of the one that we are on ourselves."""
    others = {name for each in WAYS.values() for name in each.environ} | {"JENKINS_URL", "BUILD_ID"}
    return {**{name: value for name, value in environ.items() if name not in others}, **way.environ}
