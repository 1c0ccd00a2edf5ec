"""Fetch, process, ack, several jobs at a time: as example 07, where the workers are tasks.

    python examples/sqlite_queue.py queue.db 100      # a queue of a hundred jobs
    python examples/09_async_queue.py queue.db        # as many processes as you like

A stop cancels the workers wherever they wait, and their jobs go back into the queue. It waits for those that are in the
critical section: a mail that is being sent is sent and acked. No new section begins once the stop has come.
"""

import asyncio
import sys

from sqlite_queue import Queue

from cleanup_guard import Guard, guard

WORKERS = 3


async def work(job: int, seconds: float) -> int:
    await asyncio.sleep(seconds)
    return job * job


async def send_mail(job: int, result: int) -> None:
    """What cannot be undone, and must not be done twice."""
    await asyncio.sleep(0.001)
    print(f"mail about {job}: {result}", flush=True)
    await asyncio.sleep(0.001)  # as if for the answer of the mail server


async def worker(g: Guard, queue: Queue, seconds: float) -> None:
    while (job := queue.take()) is not None:
        result = await work(job, seconds)
        async with g.shield():
            await send_mail(job, result)
            queue.finish(job, result)


async def main(path: str, seconds: float = 1) -> None:
    async with guard(grace=10) as g:
        queue = Queue(path)
        g.callback(queue.give_back)  # before the first is taken: there is no gap
        print("ready", flush=True)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(WORKERS):
                tasks.create_task(worker(g, queue, seconds))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(float, sys.argv[2:])))
