"""The recipes of jobs and job runners, as their pages show them: stopped at random moments they lose no job, and do none twice.

`CLEANUP_GUARD_RECIPES=SEED` makes the moments of a failure again.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from guests.stage import require
from support import CLEAN, PATIENCE, wait_until

pytestmark = [pytest.mark.guests, pytest.mark.one_python]

EXAMPLES = Path(__file__).parents[2] / "examples"
SEED = int(os.environ.get("CLEANUP_GUARD_RECIPES", "0")) or random.SystemRandom().randrange(1, 10**9)
JOBS_PER_STOP = 8
"""More than a worker does until it is stopped."""


@dataclass(frozen=True)
class Runner:
    """A recipe: what its page says to start, and how jobs come into its queue.

    Attributes:
        name: for the test's id.
        needs: what must be importable.
        folder: where its modules lie.
        worker: words after `python`; {redis} stands for the URL.
        put: a program that puts each of JOBS into the queue.
        cleanups: who prints a line for the cleanup: each "worker", each "job", or "nobody".
        put_back: a program that puts jobs back which a worker had taken and not begun when it was stopped, if the runner
            itself does that only after minutes, as its page says.
    """

    name: str
    needs: tuple[str, ...]
    folder: str
    worker: tuple[str, ...]
    put: str
    cleanups: Literal["worker", "job", "nobody"] = "worker"
    put_back: str = ""

    def __str__(self) -> str:
        return self.name


QUIET = ("--loglevel", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat")

RUNNERS = [
    Runner(
        "own loop",
        ("redis",),
        "jobs",
        (str(EXAMPLES / "jobs" / "redis_queue.py"), "{redis}", "0.2"),
        "redis.Redis.from_url(os.environ['REDIS_URL']).rpush('jobs', *JOBS)",
        "nobody",
    ),
    Runner(
        "celery",
        ("celery", "redis"),
        "job_runners",
        ("-m", "celery", "--app", "celery_tasks", "worker", "--concurrency", "1", *QUIET),
        "from celery_tasks import work\nfor job in JOBS: work.delay(job)",
    ),
    Runner(
        "rq",
        ("rq",),
        "job_runners",
        ("-m", "rq.cli", "worker", "--url", "{redis}", "--quiet"),
        "from rq import Queue\nfrom redis import Redis\nimport rq_tasks\n"
        "queue = Queue(connection=Redis.from_url(os.environ['REDIS_URL']))\nfor job in JOBS: queue.enqueue(rq_tasks.work, job)",
        "job",
        "queue = 'rq:queue:default'\n"
        "while redis.Redis.from_url(os.environ['REDIS_URL']).lmove(queue + ':intermediate', queue): pass",
    ),
    Runner(
        "dramatiq",
        ("dramatiq", "redis"),
        "job_runners",
        ("-m", "dramatiq", "dramatiq_tasks", "--processes", "1", "--threads", "1"),
        "from dramatiq_tasks import work\nfor job in JOBS: work.send(job)",
    ),
]


class Storm:
    """Workers of one kind, one after the other, all of which are stopped but the last."""

    def __init__(self, runner: Runner, redis: str, folder: Path) -> None:
        require(*runner.needs)
        self.runner = runner
        self.folder = folder
        self.redis = redis
        self.env = {**CLEAN, "REDIS_URL": redis, "PYTHONPATH": str(EXAMPLES / runner.folder)}
        self.output = folder / "output"
        self.output.touch()

    def put(self, jobs: int) -> None:
        """Fill the queue, which was emptied before."""
        empty = "redis.Redis.from_url(os.environ['REDIS_URL']).flushall()"
        self.do(f"{empty}\nJOBS = range({jobs})\n{self.runner.put}")

    def do(self, code: str) -> None:
        """Run a program, which asks the queue for something."""
        words = [sys.executable, "-c", f"import os, redis\n{code}"]
        subprocess.run(words, env=self.env, check=True, timeout=PATIENCE, cwd=self.folder)

    def lines(self, word: str) -> list[str]:
        """The lines of all workers so far that begin with this word."""
        return [line for line in self.output.read_text().splitlines() if line.startswith(word)]

    def wait_for_job(self, number: int, worker: subprocess.Popen[bytes]) -> None:
        """Wait until so many jobs are done in all, or the worker has ended."""
        wait_until(lambda: len(self.lines("done")) >= number or worker.poll() is not None, "a job")

    def work(self, until: int, pause: float) -> None:
        """Start a worker, wait until so many jobs are done in all, and stop it a moment later."""
        words = [sys.executable, *(word.format(redis=self.redis) for word in self.runner.worker)]
        with self.output.open("ab") as output:
            worker = subprocess.Popen(words, env=self.env, stdout=output, stderr=output, cwd=self.folder)
        try:
            for count in range(len(self.lines("done")) + 1, until + 1):
                self.wait_for_job(count, worker)
            time.sleep(pause)  # the random moment itself
            worker.terminate()
            worker.wait(PATIENCE)
        finally:
            worker.kill()
            worker.wait()

    def run(self, stops: int) -> None:
        """Stop so many workers in the middle of their work, have one more do the rest, and count."""
        chance = random.Random(SEED)
        jobs = stops * JOBS_PER_STOP
        self.put(jobs)
        for _ in range(stops):
            self.work(len(self.lines("done")) + 1, chance.random() * 0.5)
            if self.runner.put_back:
                self.do(self.runner.put_back)
        stopped_after = len(self.lines("done"))
        self.work(jobs, 0)
        times = Counter(self.lines("done"))
        said = f"seed {SEED}:\n{self.output.read_text()[-4000:]}"
        assert set(times) == {f"done {job}" for job in range(jobs)}, said
        assert set(times.values()) == {1}, said
        assert 0 < stopped_after < jobs, said
        cleanups = {"worker": stops + 1, "job": jobs, "nobody": 0}[self.runner.cleanups]
        assert len(self.lines("database closed")) == cleanups, said


@pytest.mark.parametrize("runner", RUNNERS, ids=str)
def test_a_stopped_runner_drops_and_repeats_no_job(runner: Runner, redis: str, tmp_path: Path) -> None:
    """Two stops at random moments: each job is done once, and the cleanup of the recipe ran each time."""
    Storm(runner, redis, tmp_path).run(2)


@pytest.mark.nightly
@pytest.mark.parametrize("runner", RUNNERS, ids=str)
def test_50_stops(runner: Runner, redis: str, tmp_path: Path) -> None:
    """As above, with 50 stops."""
    Storm(runner, redis, tmp_path).run(50)


def test_a_scheduler_finishes_its_job(tmp_path: Path) -> None:
    """APScheduler in a guarded main: the job that runs is finished, then the database is closed."""
    require("apscheduler")
    output = tmp_path / "output"
    with output.open("wb") as file:
        words = [sys.executable, str(EXAMPLES / "job_runners" / "apscheduler_main.py")]
        process = subprocess.Popen(words, env=CLEAN, stdout=file, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: "begun" in output.read_text() or process.poll() is not None, "the job")
        process.terminate()
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.wait()
    assert output.read_text().split("\n") == ["begun", "done", "database closed", ""]
