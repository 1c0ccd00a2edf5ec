"""RQ: the worker finishes the job in hand. Each job runs in a child of its own, and the guard belongs to the job.

    rq worker --url redis://localhost

A child of RQ leaves by `os._exit`, so `on_exit` outside of the job would never be called there.
"""

import time

from cleanup_guard import guard, on_exit


@guard
def work(job: int) -> None:
    on_exit(print, "database closed", flush=True)
    time.sleep(0.2)
    print(f"done {job}", flush=True)
