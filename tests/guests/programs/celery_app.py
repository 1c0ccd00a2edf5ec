"""A Celery application with one task, sent as soon as the worker is ready. As a program it runs its worker itself."""

import os
import sys

import guest
from celery import Celery
from celery.signals import worker_ready, worker_shutdown

guest.module()
app = Celery("guest", broker=guest.REDIS, backend=None)
app.conf.task_default_queue = os.path.basename(guest.FOLDER)
app.conf.broker_connection_retry_on_startup = True


@app.task(name="job")
@guest.job
def job():
    guest.work()


@worker_ready.connect
def send(**_):
    job.delay()


@worker_shutdown.connect
def over(**_):
    guest.note("host over")


@guest.main
def main():
    app.worker_main(sys.argv[1:])


if __name__ == "__main__":
    main()
