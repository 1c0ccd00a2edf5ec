"""Job runners that own the stop: the job in hand is finished, whatever guard its module has."""

from __future__ import annotations

import signal

import pytest
from guests.stage import Host, check, check_alone

pytestmark = pytest.mark.guests

QUIET = ("--concurrency", "1", "--loglevel", "WARNING", "--without-gossip", "--without-mingle")
CELERY = ("-m", "celery", "--app", "celery_app", "worker", *QUIET, "--pool")
DRAMATIQ = ("-m", "dramatiq", "dramatiq_app", "--processes", "1", "--threads", "1")


def worker(name: str, *command: str, needs: str) -> Host:
    """A host that takes jobs from Redis."""
    return Host(name, command, ("redis", *needs.split()))


WORKERS = {
    worker("celery prefork", *CELERY, "prefork", needs="celery"): "module job",
    worker("celery solo", *CELERY, "solo", needs="celery"): "module job",
    worker("celery threads", *CELERY, "threads", needs="celery"): "module job",
    worker("celery gevent", *CELERY, "gevent", needs="celery gevent"): "module job",
    worker("celery.worker_main", "celery_app.py", "worker", *QUIET, needs="celery"): "main",
    worker("rq Worker", "rq_worker.py", "Worker", needs="rq"): "module job main",
    worker("rq SimpleWorker", "rq_worker.py", "SimpleWorker", needs="rq"): "module job main",
    worker("dramatiq", *DRAMATIQ, needs="dramatiq"): "module job",
    worker(
        "taskiq", "-m", "taskiq", "worker", "taskiq_app:broker", "--workers", "1", needs="taskiq taskiq_redis"
    ): "module job",
    worker("faststream", "faststream_app.py", needs="faststream"): "module lifespan job main",
}
"""Each worker, and the places where its users put a guard."""

HUEY = {
    worker("huey thread", "-m", "huey.bin.huey_consumer", "huey_app.huey", needs="huey"): "module job",
    worker(
        "huey process", "-m", "huey.bin.huey_consumer", "huey_app.huey", "-k", "process", needs="huey"
    ): "module job",
}
"""Those whose graceful stop is SIGINT: at SIGTERM they drop the job, guard or not."""

HOSTS = [(host, at, signal.SIGTERM) for host, at in WORKERS.items()]
HOSTS += [(host, at, signal.SIGINT) for host, at in HUEY.items()]


@pytest.mark.parametrize(
    ("host", "signum"), [pytest.param(host, signum, id=str(host)) for host, _, signum in HOSTS]
)
def test_without_a_guard(host: Host, signum: signal.Signals, redis: str) -> None:
    """The worker itself finishes the job in hand."""
    check_alone(host.on(redis), signum)


@pytest.mark.parametrize(
    ("host", "at", "signum"),
    [pytest.param(host, at, signum, id=f"{host}-{at}") for host, ats, signum in HOSTS for at in ats.split()],
)
def test_a_guard_cuts_nothing(host: Host, at: str, signum: signal.Signals, redis: str) -> None:
    """The job is done, the callback ran once, the worker's own shutdown ran, the status is what it was."""
    check(host.on(redis), at, signum)


LONG = {
    host: at for host, at in WORKERS.items() if host.name in {"celery solo", "rq Worker", "rq SimpleWorker"}
}


@pytest.mark.parametrize("host", LONG, ids=str)
def test_a_job_that_needs_most_of_the_grace_period_is_finished(host: Host, redis: str) -> None:
    """Their handlers replace ours, or ours are in front: either way nobody takes over before eight tenths of a stated grace."""
    check(host.on(redis), "module", seconds=7.5, grace="14")


@pytest.mark.nightly
@pytest.mark.parametrize("host", WORKERS, ids=str)
def test_a_job_that_is_longer_than_a_grace_that_nobody_stated_is_finished(host: Host, redis: str) -> None:
    """Ten seconds are a guess: where the platform gives more, a guard must not cut what it would have allowed."""
    check(host.on(redis), "module", seconds=13)


@pytest.mark.parametrize("options", [(), ("--signal-to", "main")], ids=["by default", "to main"])
def test_dramatiq_under_run(options: tuple[str, ...], redis: str) -> None:
    """`cleanup-guard run` around a host that tells its own children: the job in hand is finished."""
    command = ("-m", "cleanup_guard", "run", *options, "--", "{python}", *DRAMATIQ)
    check_alone(Host("dramatiq under run", command, ("dramatiq", "redis")).on(redis))
