"""A huey with one task, sent when the worker starts."""

import os

import guest
from huey import RedisHuey

guest.module()
huey = RedisHuey(os.path.basename(guest.FOLDER), url=guest.REDIS)


@huey.task()
@guest.job
def job():
    guest.work()


@huey.on_startup()
def send():
    job()


@huey.on_shutdown()
def over():
    guest.note("host over")
