"""A program whose coroutine main awaits hypercorn's server."""

import asyncio
import sys

import asgi
import guest
from hypercorn.asyncio import serve
from hypercorn.config import Config


@guest.main
async def main():
    config = Config()
    config.bind = [f"unix:{sys.argv[1]}"]
    config.graceful_timeout = 20
    await serve(asgi.app, config)


asyncio.run(main())
