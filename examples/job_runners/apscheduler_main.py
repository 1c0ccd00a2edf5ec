"""APScheduler: `start` blocks in main, so the stop is ours. `shutdown` waits for the jobs that run.

Start it by `python examples/job_runners/apscheduler_main.py`.
"""

import time

from apscheduler.schedulers.blocking import BlockingScheduler

from cleanup_guard import guard, on_exit


def work() -> None:
    print("begun", flush=True)
    time.sleep(0.5)
    print("done", flush=True)


@guard(grace=30)
def main() -> None:
    scheduler = BlockingScheduler()
    on_exit(print, "database closed", flush=True)
    on_exit(scheduler.shutdown)  # registered last, so it comes first: no job runs when the database is closed
    scheduler.add_job(work)
    scheduler.start()


if __name__ == "__main__":
    main()
