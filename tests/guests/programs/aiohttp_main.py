"""A program that runs aiohttp's server."""

import sys

import guest
from aiohttp import web

guest.module()


@guest.job
async def answer(request):
    return web.Response(body=await guest.work_async())


async def live(app):
    async with guest.lifespan():
        yield
        guest.note("host over")


@guest.main
def main():
    app = web.Application()
    app.router.add_get("/", answer)
    app.cleanup_ctx.append(live)
    web.run_app(app, path=sys.argv[1], print=None)


main()
