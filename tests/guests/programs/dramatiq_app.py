"""Dramatiq actors, one message sent as soon as the worker's process has booted."""

import os

import dramatiq
import guest
from dramatiq.brokers.redis import RedisBroker

guest.module()


class Noting(dramatiq.Middleware):
    """Sends the job; notes the worker's own end."""

    def after_process_boot(self, broker):
        job.send()

    def after_worker_shutdown(self, broker, worker):
        guest.note("host over")


broker = RedisBroker(url=guest.REDIS, namespace=os.path.basename(guest.FOLDER))
broker.add_middleware(Noting())
dramatiq.set_broker(broker)


@dramatiq.actor(max_retries=0)
@guest.job
def job():
    guest.work()
