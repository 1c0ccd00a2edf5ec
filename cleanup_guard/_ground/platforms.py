"""Where the program runs, and what a stop is there: from the environment and two files, never from the network.

Rules:
1. If several platforms match, each number is the smallest over all of them: a CI job in a pod has what the shorter one gives.
   A plain container, or being PID 1, counts only where nothing else matches.
2. A number is given (an argument, CLEANUP_GUARD_GRACE), read (the platform says it here), or guessed (it is known for it).
   What is given wins; what is read is both `sure` and `hope`, as that is.
3. What is recognised must be told by the platform to the process itself. Host names, cgroup paths and DMI lie; variables that
   children inherit count only with something that they do not (systemd: SYSTEMD_EXEC_PID is the own PID).
"""

from __future__ import annotations

from cleanup_guard._ground.clock import (
    DEFAULT_GRACE,
    GUESSED,
    READ,
    Grace,
    grace_from_environment,
    how_long,
    inf,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Reading = tuple[str, float | None]
    """From what it was read, and the seconds; None for no limit."""


class Unit:
    """What systemd says of a service.

    Attributes:
        name: the service's.
        seconds: how long a stop may take; None for no limit.
        whole_group: every process of it is told, not only the main one (KillMode=control-group, the default).
    """

    __slots__ = ("name", "seconds", "whole_group")

    def __init__(self, name: str, seconds: float | None, *, whole_group: bool = True) -> None:
        self.name: str = name
        self.seconds: float | None = seconds
        self.whole_group: bool = whole_group


UNIT_VARIABLE = "SYSTEMD_EXEC_PID"
"""Where systemd says which process it has started."""


class Surroundings:
    """What can be seen of where a process runs.

    Args:
        environ: its environment.
        pid: its process number, as it sees that itself.
        exists: whether there is a file.
        unit: what systemd said when it was asked (`systemd.py`); None if it was not, or did not answer.
    """

    __slots__ = ("environ", "exists", "pid", "unit")

    def __init__(
        self,
        environ: Mapping[str, str],
        pid: int,
        exists: Callable[[str], bool],
        unit: Unit | None = None,
    ) -> None:
        self.environ: Mapping[str, str] = environ
        self.pid: int = pid
        self.exists: Callable[[str], bool] = exists
        self.unit: Unit | None = unit

    def has(self, *names: str) -> str | None:
        """The first of these variables that is set."""
        return next((name for name in names if self.environ.get(name)), None)

    @property
    def is_unit(self) -> bool:
        """Whether it is the main process of a systemd service, not something below one."""
        said = self.environ.get(UNIT_VARIABLE)
        return said is not None and said == str(self.pid)

    def number(self, name: str) -> Reading | None:
        """Read a variable that is a number of seconds above 0."""
        try:
            value = float(self.environ.get(name, ""))
        except ValueError:
            return None
        return (name, value) if 0 < value < inf else None


def _variable(*names: str) -> Callable[[Surroundings], str | None]:
    return lambda here: here.has(*names)


def _all(*names: str) -> Callable[[Surroundings], str | None]:
    return lambda here: " and ".join(names) if all(map(here.has, names)) else None


def _cloud_run(here: Surroundings) -> str | None:
    """A service, a job, or a worker pool; a service variable together with Kubernetes' is Knative."""
    job = here.has("CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL")
    return job or (None if here.has("KUBERNETES_SERVICE_HOST") else here.has("K_SERVICE"))


def _unit(here: Surroundings) -> Reading | None:
    return None if here.unit is None else (f"TimeoutStopSec of {here.unit.name}", here.unit.seconds)


def _jenkins(here: Surroundings) -> str | None:
    """BUILD_ID alone is in many an image that was never near Jenkins."""
    return here.has("JENKINS_NODE_COOKIE") or (here.has("BUILD_ID") if here.has("JENKINS_URL") else None)


def _docker(here: Surroundings) -> str | None:
    return "/.dockerenv" if here.exists("/.dockerenv") else None


def _podman(here: Surroundings) -> str | None:
    """The file is not there where something is mounted on /run."""
    file = "/run/.containerenv"
    return file if here.exists(file) else "container" if here.environ.get("container") == "podman" else None


class Platform:
    """One row of the table.

    Attributes:
        name: what an operator calls it.
        where: the same in a sentence.
        sign: what it is recognised by; None if it is not this one.
        sure, hope: the seconds, as for `Grace`.
        reading: what it says itself, where it does.
        tells_everybody: it sends the stop to every process, not only to the first: no supervisor has to pass it on.
        drain: seconds for which requests still arrive after the signal: who sends them is told at the same time.
        note: what an operator should know if nothing was read.
    """

    __slots__ = ("drain", "hope", "name", "note", "reading", "sign", "sure", "tells_everybody", "where")

    def __init__(
        self,
        name: str,
        where: str,
        sign: Callable[[Surroundings], str | None],
        sure: float,
        hope: float | None = None,
        *,
        reading: Callable[[Surroundings], Reading | None] = lambda _: None,
        tells_everybody: Callable[[Surroundings], object] = lambda _: False,
        drain: float = 0.0,
        note: str = "",
    ) -> None:
        self.name: str = name
        self.where: str = where
        self.sign: Callable[[Surroundings], str | None] = sign
        self.sure: float = sure
        self.hope: float = sure if hope is None else hope
        self.reading: Callable[[Surroundings], Reading | None] = reading
        self.tells_everybody: Callable[[Surroundings], object] = tells_everybody
        self.drain: float = drain
        self.note: str = note


def _always(_: Surroundings) -> bool:
    return True


PLATFORMS = (
    Platform("cloud-run", "on Cloud Run", _cloud_run, 10),
    Platform("heroku", "on Heroku", _variable("DYNO"), 30, tells_everybody=_always),
    Platform("github-actions", "on GitHub Actions", _variable("GITHUB_ACTIONS"), 10),
    Platform(
        "systemd",
        "under systemd",
        lambda here: "SYSTEMD_EXEC_PID" if here.is_unit else None,
        45,
        reading=_unit,
        tells_everybody=lambda here: here.unit is None or here.unit.whole_group,
    ),
    Platform(
        "azure-app-service",
        "on Azure App Service",
        _variable("WEBSITE_SITE_NAME", "WEBSITE_INSTANCE_ID"),
        5,
        reading=lambda here: here.number("WEBSITES_CONTAINER_STOP_TIME_LIMIT"),
    ),
    Platform(
        "railway",
        "on Railway",
        _variable("RAILWAY_ENVIRONMENT_ID", "RAILWAY_DEPLOYMENT_ID"),
        2,
        reading=lambda here: here.number("RAILWAY_DEPLOYMENT_DRAINING_SECONDS"),
        note="Railway gives 0 s unless the service has RAILWAY_DEPLOYMENT_DRAINING_SECONDS",
    ),
    Platform(
        "lambda",
        "on AWS Lambda",
        _variable("AWS_LAMBDA_FUNCTION_NAME"),
        0.3,
        note="without an external extension Lambda sends no signal at all",
    ),
    Platform("fly", "on Fly.io", _variable("FLY_MACHINE_ID", "FLY_APP_NAME"), 5),
    Platform("nomad", "on Nomad", _variable("NOMAD_ALLOC_ID"), 5),
    Platform("ecs", "on ECS", _variable("ECS_CONTAINER_METADATA_URI_V4"), 10, 30),
    Platform("aws-batch", "on AWS Batch", _variable("AWS_BATCH_JOB_ID"), 10, 30),
    Platform(
        "container-apps",
        "on Azure Container Apps",
        _variable("CONTAINER_APP_NAME", "CONTAINER_APP_REVISION"),
        10,
        30,
    ),
    Platform("render", "on Render", _variable("RENDER"), 10, 30),
    Platform("kubernetes", "on Kubernetes", _variable("KUBERNETES_SERVICE_HOST"), 10, 30, drain=3),
    Platform("knative", "on Knative", _all("K_SERVICE", "KUBERNETES_SERVICE_HOST"), 10),
    Platform("jupyterhub", "on JupyterHub", _all("JUPYTERHUB_USER", "KUBERNETES_SERVICE_HOST"), 1),
    Platform(
        "supervisord", "under supervisord", _variable("SUPERVISOR_ENABLED", "SUPERVISOR_PROCESS_NAME"), 10
    ),
    Platform(
        "slurm",
        "in a Slurm job",
        _variable("SLURM_JOB_ID"),
        10,
        30,
        tells_everybody=_variable("SLURM_STEP_ID"),  # the batch script itself is not told
    ),
    Platform("lsf", "in an LSF job", _variable("LSB_JOBID"), 10, tells_everybody=_always),
    Platform("pbs", "in a PBS job", _variable("PBS_JOBID"), 10),
    Platform("gitlab-ci", "on GitLab CI", _variable("GITLAB_CI"), 10),
    Platform("jenkins", "on Jenkins", _jenkins, 5, tells_everybody=_always),
)
"""In the order of the judgement that they come from; `sure` and `hope` are its numbers."""

CONTAINERS = (
    Platform("docker", "in a docker container", _docker, DEFAULT_GRACE),
    Platform("podman", "in a podman container", _podman, DEFAULT_GRACE),
    Platform("pid-1", "as PID 1", lambda here: "of a container" if here.pid == 1 else None, DEFAULT_GRACE),
)
"""What counts only where nothing else matches; the first that does."""


def matches(here: Surroundings) -> list[tuple[Platform, str]]:
    """The platforms that this is, each with what it is recognised by."""
    return _signs(PLATFORMS, here) or _signs(CONTAINERS, here)[:1]


def _signs(platforms: Iterable[Platform], here: Surroundings) -> list[tuple[Platform, str]]:
    return [(each, sign) for each in platforms if (sign := each.sign(here)) is not None]


def detect(here: Surroundings) -> Grace:
    """What the platform gives, by all that is known without asking anybody."""
    found = matches(here)
    if not found:
        return Grace(DEFAULT_GRACE, known=GUESSED)
    each = [_grace_of(platform, here) for platform, _ in found]
    shortest = min(each, key=lambda grace: inf if grace.sure is None else grace.sure)
    hope = min(inf if grace.hope is None else grace.hope for grace in each)
    return Grace(
        shortest.sure,
        None if hope == inf else hope,
        known=shortest.known,
        source=shortest.source,
        where=" and ".join(f"{platform.where} ({sign})" for platform, sign in found),
        note="; ".join(grace.note for grace in each if grace.note),
        drain=max(platform.drain for platform, _ in found),
    )


def _grace_of(platform: Platform, here: Surroundings) -> Grace:
    """What one platform gives."""
    reading = platform.reading(here)
    if reading is None:
        return Grace(platform.sure, platform.hope, known=GUESSED, note=platform.note)
    source, seconds = reading
    return Grace(seconds, known=READ, source=source)


def grace_here(here: Surroundings, argument: Grace | None = None) -> Grace:
    """The grace period in force: the environment's, else the program's own, else the platform's.

    Args:
        here: where the program runs.
        argument: what the program says itself; None if it says nothing.

    Raises:
        ValueError: CLEANUP_GUARD_GRACE makes no sense.
    """
    return in_force(detect(here), grace_from_environment(here.environ) or argument)


def in_force(found: Grace, given: Grace | None) -> Grace:
    """What is given wins over what the platform gives, which still says where this is."""
    if given is None:
        return found
    return Grace(given.sure, given.hope, source=given.source, where=found.where, drain=found.drain)


def told_by_platform(here: Surroundings) -> bool:
    """Whether the platform tells every process of a stop itself."""
    return any(each.tells_everybody(here) for each, _ in matches(here))


def describe(grace: Grace) -> str:
    """Where the program runs, how long a stop may take there, and how that is known: one line for a person."""
    where = grace.where or "no platform is recognised here"
    return f"{where}: {how_long(grace.sure, grace.hope)}, {grace.how}"
