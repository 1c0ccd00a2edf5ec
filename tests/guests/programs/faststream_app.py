"""A FastStream application with one subscriber, that gets a message when it is up."""

import asyncio
import os
from contextlib import asynccontextmanager

import guest
from faststream import FastStream
from faststream.redis import RedisBroker

guest.module()
broker = RedisBroker(guest.REDIS, graceful_timeout=20)
QUEUE = os.path.basename(guest.FOLDER)


@broker.subscriber(list=QUEUE)
@guest.job
async def job(message: str):
    await guest.work_async()


@asynccontextmanager
async def lifespan():
    async with guest.lifespan():
        yield


app = FastStream(broker, lifespan=lifespan)


@app.after_startup
async def send():
    await broker.publish("job", list=QUEUE)


@app.after_shutdown
async def over():
    guest.note("host over")


@guest.main
async def main():
    await app.run()


asyncio.run(main())
