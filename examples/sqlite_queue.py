"""The queue of the examples 07 and 09: jobs in a SQLite file, shared by any number of workers.

Where a job is stands in the database, not in a worker's memory. So there is no moment at which a worker has taken a job
and does not know of it yet: `give_back` returns whatever this worker has in hand, and is right at any time.
"""

import sqlite3
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (number INTEGER PRIMARY KEY, worker TEXT, done INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS results (job INTEGER NOT NULL, result INTEGER NOT NULL);
"""
TAKE = """
UPDATE jobs SET worker = ? WHERE number = (SELECT min(number) FROM jobs WHERE worker IS NULL AND NOT done)
RETURNING number
"""
ACK = "UPDATE jobs SET worker = NULL, done = 1 WHERE number = ? AND worker = ?"


class Queue:
    """One worker's view of the queue. Thread-safe: each call has a connection of its own."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.worker = uuid.uuid4().hex  # never a process ID: they come again

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; who is interrupted inside leaves nothing."""
        with closing(sqlite3.connect(self.path, timeout=30, isolation_level=None)) as db, db:
            db.execute("BEGIN IMMEDIATE")
            yield db

    def fill(self, jobs: int) -> None:
        """Make the queue, with this many jobs."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(SCHEMA)
        with self.transaction() as db:
            db.executemany("INSERT INTO jobs (number) VALUES (?)", ((number,) for number in range(jobs)))

    def take(self) -> int | None:
        """Fetch: the next job, which is in hand from now on, or None."""
        with self.transaction() as db:
            row = db.execute(TAKE, (self.worker,)).fetchone()
            return None if row is None else row[0]

    def finish(self, job: int, result: int) -> None:
        """Ack: the result and the end of the job are one transaction, so there is never one without the other."""
        with self.transaction() as db:
            db.execute("INSERT INTO results VALUES (?, ?)", (job, result))
            if db.execute(ACK, (job, self.worker)).rowcount != 1:
                raise LookupError(f"job {job} is not in hand (any more)")

    def give_back(self) -> None:
        """What is in hand is ready for somebody else again."""
        with self.transaction() as db:
            db.execute("UPDATE jobs SET worker = NULL WHERE worker = ?", (self.worker,))


if __name__ == "__main__":
    Queue(sys.argv[1]).fill(int(sys.argv[2]))
