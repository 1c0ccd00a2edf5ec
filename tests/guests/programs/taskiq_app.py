"""A taskiq broker with one task, sent when the worker starts."""

import os

import guest
from taskiq import TaskiqEvents
from taskiq_redis import ListQueueBroker

guest.module()
broker = ListQueueBroker(guest.REDIS, queue_name=os.path.basename(guest.FOLDER))


@broker.task
@guest.job
async def job():
    await guest.work_async()


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def send(state):
    await job.kiq()


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def over(state):
    guest.note("host over")
