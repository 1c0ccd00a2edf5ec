"""The examples of a worker, stopped at random moments: no job is lost, none is done twice, no mail is sent twice.

Every stop hits a real process that works on a real queue in a file, which other workers use at the same time. A failure
prints its seed; `CLEANUP_GUARD_QUEUE=SEED` makes that plan again.
"""

from __future__ import annotations

import os
import random
import re
import runpy
import signal
import sqlite3
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support import PATIENCE, child, wait_until

EXAMPLES = Path(__file__).parent.parent / "examples"
SEED = int(os.environ.get("CLEANUP_GUARD_QUEUE", "0")) or random.SystemRandom().randrange(1, 10**9)
JOB_SECONDS = 0.02
"""So short that a good part of the stops come while a job is fetched or acked."""

JOBS_PER_STOP = 25
"""More than one worker can do until it is stopped."""

AT_ONCE = 3

CODE = """\
import runpy, sys
sys.argv = [{program!r}, {queue!r}, {seconds!r}]
sys.path.insert(0, {examples!r})
runpy.run_path({program!r}, run_name="__main__")
"""

EXAMPLE = pytest.mark.parametrize("name", ["07_queue.py", "09_async_queue.py"])


@dataclass
class Storm:
    """Workers of one kind on one queue, all of which are stopped but the last."""

    program: Path
    queue: Path
    stops: int
    sent: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        queue = runpy.run_path(str(EXAMPLES / "sqlite_queue.py"))["Queue"](str(self.queue))
        queue.fill(self.stops * JOBS_PER_STOP)

    def code(self, seconds: float) -> str:
        """What a worker runs."""
        return CODE.format(
            program=str(self.program), queue=str(self.queue), seconds=str(seconds), examples=str(EXAMPLES)
        )

    def stop(self, number: int) -> None:
        """Start a worker and stop it at a random moment."""
        chance = random.Random(SEED + number)
        signum = chance.choice((signal.SIGTERM, signal.SIGTERM, signal.SIGINT))
        expected = 128 + signum if signum == signal.SIGTERM else -signum
        with child(self.code(JOB_SECONDS), preamble="") as worker:
            time.sleep(chance.random() * 0.2)  # the random moment itself
            worker.signal(signum)
            ended = worker.end()
        self.sent += ended.out
        if ended.status != expected or "Traceback" in ended.err:
            self.faults.append(f"{signum.name}: ended with {ended.status}:\n{ended.err[-2000:]}")

    def run(self) -> None:
        """Stop so many workers, several at a time, and have one more do what is left."""
        with ThreadPoolExecutor(AT_ONCE) as executor:
            list(executor.map(self.stop, range(self.stops)))
        self.in_hand = self.rows("SELECT count(*) FROM jobs WHERE worker IS NOT NULL")[0][0]
        self.stopped_after = len(self.sent)
        with child(self.code(0), preamble="") as last:
            wait_until(lambda: last.process.poll() is not None, "the last worker")
            self.sent += last.end().out

    def rows(self, query: str) -> list[tuple[int, ...]]:
        """Look into the queue."""
        with closing(sqlite3.connect(self.queue, timeout=PATIENCE)) as db:
            return db.execute(query).fetchall()

    def check(self) -> None:
        """Every job was done once, entirely."""
        once = {(job, job * job) for job in range(self.stops * JOBS_PER_STOP)}
        repeated = [line for line, times in Counter(self.sent).items() if times > 1]
        assert not self.faults, f"seed {SEED}: " + "\n\n".join(self.faults[:5])
        assert self.in_hand == 0, f"seed {SEED}: jobs stayed in the hands of workers that were gone"
        assert sorted(self.rows("SELECT job, result FROM results")) == sorted(once), f"seed {SEED}"
        assert not repeated, f"seed {SEED}: sent twice"
        assert set(self.sent) == {f"mail about {job}: {result}" for job, result in once}, f"seed {SEED}"
        assert 0 < self.stopped_after < len(once), "the stops were to come while there was work"


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    """Where the queue is kept."""
    return tmp_path / "queue.db"


@EXAMPLE
def test_a_stopped_worker_drops_and_repeats_no_job(name: str, queue: Path) -> None:
    """After 20 stops at random moments every job has one result, and one mail was sent about it."""
    storm = Storm(EXAMPLES / name, queue, stops=20)
    storm.run()
    storm.check()


@pytest.mark.nightly
@EXAMPLE
def test_200_stops(name: str, queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As above, with 200 stops."""
    storm = Storm(EXAMPLES / name, queue, stops=200)
    storm.run()
    with capsys.disabled():
        print(
            f"\n  {name}: 200 stops, {storm.stopped_after} jobs done meanwhile, {len(storm.sent)} in all ",
            end="",
        )
    storm.check()


@EXAMPLE
def test_the_queue_shows_what_a_killed_worker_leaves(name: str, queue: Path) -> None:
    """The check can fail: a SIGKILL leaves the job in the hand of a worker that is gone."""
    storm = Storm(EXAMPLES / name, queue, stops=1)
    with child(storm.code(3600), preamble="") as worker:
        in_hand = "SELECT count(*) FROM jobs WHERE worker IS NOT NULL"
        wait_until(lambda: storm.rows(in_hand) != [(0,)], "a job in hand")
        worker.signal(signal.SIGKILL)
        worker.end()
    assert storm.rows(in_hand) != [(0,)]


@pytest.mark.nightly
@EXAMPLE
def test_without_the_shield_mails_are_sent_twice(name: str, queue: Path, tmp_path: Path) -> None:
    """The other half of the check can fail, too: without the critical section a stop comes between mail and ack."""
    unshielded = tmp_path / name
    source = (EXAMPLES / name).read_text()
    unshielded.write_text(re.sub(r"(async )?with g.shield\(\):", "if True:", source))
    storm = Storm(unshielded, queue, stops=200)
    storm.run()
    assert [line for line, times in Counter(storm.sent).items() if times > 1]
