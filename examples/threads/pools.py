"""Threads, pools, and a database that all of them use: closed last. Use it when work is handed to executors.

Callbacks run in reverse order of registration, so register what is used first: the database, then the pools.
"""

import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

from cleanup_guard import guard


def work(number: int) -> int:
    time.sleep(0.3)
    return number * number


def main() -> None:
    with guard(grace=10) as g:
        g.callback(print, "database closed", flush=True)
        threads = ThreadPoolExecutor(2)
        g.callback(print, "threads are gone", flush=True)
        g.callback(threads.shutdown, cancel_futures=True)  # waits for what runs, drops what has not begun
        processes = ProcessPoolExecutor(2)
        g.callback(print, "processes are gone", flush=True)
        g.callback(processes.shutdown, cancel_futures=True)
        jobs = [pool.submit(work, number) for number in range(100) for pool in (threads, processes)]
        jobs[1].result()  # a process has begun
        print("ready", flush=True)
        for job in jobs:
            job.result()


if __name__ == "__main__":
    main()
