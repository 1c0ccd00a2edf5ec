"""An ASGI application without a framework."""

import guest

guest.module()


@guest.job
async def answer():
    return await guest.work_async()


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await live(receive, send)
        return
    body = await answer()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def live(receive, send):
    await receive()
    async with guest.lifespan():
        await send({"type": "lifespan.startup.complete"})
        await receive()
        guest.note("host over")
    await send({"type": "lifespan.shutdown.complete"})
