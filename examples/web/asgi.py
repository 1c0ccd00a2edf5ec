"""FastAPI and Starlette: a guard in the lifespan. `uvicorn --app-dir examples/web asgi:app`, and hypercorn the same.

The server owns the stop: it finishes the requests in hand, then ends the lifespan, and with it the guard. So the pool is
closed last. `on_stop` is told at once: a load balancer that asks for /ready sends its requests elsewhere.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from cleanup_guard import guard

unready = asyncio.Event()


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncGenerator[None]:
    async with guard() as g:
        g.callback(print, "pool closed", flush=True)
        g.on_stop(unready.set)
        yield


async def ready(_: Request) -> PlainTextResponse:
    return PlainTextResponse("", 503 if unready.is_set() else 200)


async def slow(_: Request) -> PlainTextResponse:
    print("begun", flush=True)
    await asyncio.sleep(1)
    print("unready" if unready.is_set() else "ready", flush=True)
    print("answered", flush=True)
    return PlainTextResponse("the whole answer")


app = Starlette(routes=[Route("/ready", ready), Route("/{rest:path}", slow)], lifespan=lifespan)
