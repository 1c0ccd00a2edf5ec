"""A FastAPI application with a lifespan."""

from contextlib import asynccontextmanager

import guest
from fastapi import FastAPI, Response

guest.module()


@asynccontextmanager
async def lifespan(app):
    async with guest.lifespan():
        yield
        guest.note("host over")


app = FastAPI(lifespan=lifespan)


@app.get("/")
@guest.job
async def answer():
    return Response(await guest.work_async())
