"""Fetch, process, ack: a worker that drops and repeats no job. Use it when jobs are long and may be started again.

    python examples/sqlite_queue.py queue.db 100      # a queue of a hundred jobs
    python examples/07_queue.py queue.db              # as many workers as you like

A stop interrupts the work, and the job goes back into the queue at once. It does not interrupt what must be done entirely or
not at all: a mail that has been sent is acked. (Example 04 is for jobs that are short enough to be finished first.)

What nobody can do after a SIGKILL the queue must: take back what has been in hand for too long.
"""

import sys
import time

from sqlite_queue import Queue

from cleanup_guard import guard


def work(job: int, seconds: float) -> int:
    time.sleep(seconds)
    return job * job


def send_mail(job: int, result: int) -> None:
    """What cannot be undone, and must not be done twice."""
    print(f"mail about {job}: {result}", flush=True)


def main(path: str, seconds: float = 1) -> None:
    with guard(grace=10) as g:
        queue = Queue(path)
        g.callback(queue.give_back)  # before the first is taken: there is no gap
        print("ready", flush=True)
        while (job := queue.take()) is not None:
            result = work(job, seconds)
            with g.shield():
                send_mail(job, result)
                queue.finish(job, result)


if __name__ == "__main__":
    main(sys.argv[1], *map(float, sys.argv[2:]))
