"""Fetch, process, ack with Redis: as example 07, for workers on many machines. Needs `pip install redis`.

    redis-cli rpush jobs 1 2 3
    python examples/jobs/redis_queue.py redis://localhost

LMOVE puts a job into this worker's own list while it takes it from the queue. So Redis, and not the worker's memory, knows what
is in hand, and `give_back` is right at any time.
"""

import sys
import time
import uuid

import redis

from cleanup_guard import guard


class Queue:
    def __init__(self, url: str) -> None:
        self.redis = redis.Redis.from_url(url, decode_responses=True)
        self.hand = f"hand:{uuid.uuid4().hex}"

    def take(self) -> str | None:
        return self.redis.lmove("jobs", self.hand)

    def finish(self, job: str, result: int) -> None:
        with self.redis.pipeline(transaction=True) as both:  # the result and the ack, or neither
            both.lrem(self.hand, 1, job)
            both.rpush("results", f"{job} {result}")
            both.execute()

    def give_back(self) -> None:
        self.redis.close()  # a stop may have come in the middle of an answer: begin with a new connection
        while self.redis.lmove(self.hand, "jobs", "RIGHT", "LEFT") is not None:
            pass


def work(job: str, seconds: float) -> int:
    time.sleep(seconds)
    return int(job) ** 2


def main(url: str, seconds: float = 1) -> None:
    with guard(grace=10) as g:
        queue = Queue(url)
        g.callback(queue.give_back)  # before the first is taken: there is no gap
        print("ready", flush=True)
        while (job := queue.take()) is not None:
            result = work(job, seconds)
            with g.shield():
                print(f"done {job}", flush=True)  # as if it sent a mail: what cannot be undone
                queue.finish(job, result)


if __name__ == "__main__":
    main(sys.argv[1], *map(float, sys.argv[2:]))
