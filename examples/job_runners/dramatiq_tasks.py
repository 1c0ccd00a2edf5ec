"""Dramatiq: the worker finishes the jobs in hand, and returns from its main. So `on_exit` in the module is enough.

Start it by `dramatiq dramatiq_tasks`.
"""

import os
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from cleanup_guard import on_exit

dramatiq.set_broker(RedisBroker(url=os.environ.get("REDIS_URL", "redis://localhost")))


@on_exit
def close_database() -> None:
    os.write(1, b"database closed\n")  # Dramatiq has closed sys.stdout by then


@dramatiq.actor
def work(job: int) -> None:
    time.sleep(0.2)
    print(f"done {job}", flush=True)
