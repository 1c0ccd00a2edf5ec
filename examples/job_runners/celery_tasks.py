"""Celery: the worker finishes the job in hand; your cleanup runs in each process that does jobs.

    celery --app celery_tasks worker

A pool child leaves by `os._exit`, where no callback can run: there Celery's own signal is the place.
`acks_late` gives a job back that a SIGKILL has cut.
"""

import os
import time

from celery import Celery
from celery.signals import worker_process_init, worker_process_shutdown

app = Celery("celery_tasks", broker=os.environ.get("REDIS_URL", "redis://localhost"))
app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, worker_prefetch_multiplier=1)
app.conf.worker_redirect_stdouts = False  # so that `print` prints


@worker_process_init.connect
def open_database(**_: object) -> None:
    print("database opened", flush=True)


@worker_process_shutdown.connect
def close_database(**_: object) -> None:
    print("database closed", flush=True)


@app.task
def work(job: int) -> None:
    time.sleep(0.2)
    print(f"done {job}", flush=True)
