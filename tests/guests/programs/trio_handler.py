"""A coroutine main on trio that receives the signal."""

import signal

import guest
import trio

guest.module()


async def serve():
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with guest.lifespan(), trio.open_nursery() as nursery:
            nursery.start_soon(guest.work_async, trio.sleep)
            async for _ in signals:
                break
        guest.note("host over")


@guest.main
def main():
    trio.run(serve)


main()
