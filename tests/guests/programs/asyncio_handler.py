"""A coroutine main that asks its loop for the signal; a guard is around the loop, or inside after the handler."""

import asyncio
import signal

import guest

guest.module()


@guest.job
async def job():
    await guest.work_async()


@guest.main
async def main():
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    loop.add_signal_handler(signal.SIGINT, stopped.set)
    async with guest.lifespan():
        await job()
        await stopped.wait()
        guest.note("host over")


asyncio.run(main())
