"""A program whose coroutine main awaits uvicorn's server."""

import asyncio
import sys

import asgi
import guest
import uvicorn


@guest.main
async def main():
    await uvicorn.Server(uvicorn.Config(asgi.app, uds=sys.argv[1])).serve()


asyncio.run(main())
