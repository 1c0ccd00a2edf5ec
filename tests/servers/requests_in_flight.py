"""A real server in a child, a real client with a slow request in flight, and a stop: the stage of the tests in this folder.

The programs print "port N" and "ready" when they listen, "entered" when the slow request has reached them, and answer it when
the file `answer` is there.
"""

from __future__ import annotations

import http.client
import signal
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import PATIENCE, PREAMBLE, Ended, child, wait_until

STAGE = (
    PREAMBLE
    + """
import asyncio, socket
from contextlib import asynccontextmanager

def say(*words):  # one write, because several tasks and threads speak
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def listen():
    return socket.create_server(("127.0.0.1", 0))

def listening(sock):
    say("port", sock.getsockname()[1])
    ready()

async def wait_for_answer():
    say("entered")
    while not os.path.exists(ANSWER):
        await asyncio.sleep(0.01)
    say("answering")

def handlers():  # nobody's handler is lost
    return [whose(signal.getsignal(signum)) for signum in (signal.SIGTERM, signal.SIGINT)]

def whose(handler):
    module = str(getattr(handler, "__module__", ""))
    return "ours" if module.startswith("cleanup_guard.") else getattr(handler, "__qualname__", handler)
"""
)

UVICORN = """
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def slow(request):
    await wait_for_answer()
    return PlainTextResponse("the whole answer")

@asynccontextmanager
async def lifespan(app):
    listening(SOCK)
    yield
    say("lifespan over")

def make_server(**config):
    app = Starlette(routes=[Route("/", slow)], lifespan=lifespan)
    return uvicorn.Server(uvicorn.Config(app, log_level="warning", **config))
"""

AIOHTTP = """
from aiohttp import web

async def slow(request):
    await wait_for_answer()
    return web.Response(text="the whole answer")

async def tidy_up(app):
    say("application over")

def make_app():
    app = web.Application()
    app.router.add_get("/", slow)
    app.on_cleanup.append(tidy_up)
    return app
"""

ANYIO = """
import anyio

async def handle(stream):
    async with stream:
        await stream.receive()
        with anyio.CancelScope(shield=True):  # who has asked is answered
            say("entered")
            while not os.path.exists(ANSWER):
                await anyio.sleep(0.01)
            say("answering")
            await stream.send(b"HTTP/1.0 200 OK\\r\\n\\r\\nthe whole answer")

async def serve(requests):
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        say("port", listener.extra(anyio.abc.SocketAttribute.local_port))
        ready()
        await listener.serve(handle, requests)
"""


@dataclass(frozen=True)
class Stopped:
    """How a server ended, and what the client got."""

    ended: Ended
    answers: list[tuple[int, bytes]]

    @property
    def out(self) -> list[str]:
        """What the program printed after its ready line."""
        return self.ended.out


ANSWERED = [(200, b"the whole answer")]


def stop(
    code: str,
    folder: Path,
    signum: int = signal.SIGTERM,
    *,
    again: int = 0,
    env: Mapping[str, str] | None = None,
) -> Stopped:
    """Stop a server that has a request in flight; once it takes no more connections, let it answer.

    Args:
        code: the program, after `STAGE`.
        folder: an empty one.
        signum: the stop.
        env: for the program, to add.
        again: how many more SIGTERMs to send while it waits for the answer.
    """
    answer = folder / "answer"
    answers: list[tuple[int, bytes]] = []
    with child(f"ANSWER = {str(answer)!r}\n{code}", preamble=STAGE, env=env) as server:
        port = int(server.out[0].removeprefix("port "))
        client = threading.Thread(target=lambda: answers.append(ask(port)))
        client.start()
        try:
            server.wait_for_line("entered")
            server.signal(signum)
            wait_until(lambda: not listens(port), "the end of new connections")
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
            server.signal(*[signal.SIGTERM] * again)
            assert answers == [], f"was not in flight any more:\n{server.out}\n{server.err}"
        finally:
            answer.touch()
            client.join(PATIENCE)
        return Stopped(server.end(), answers)


def ask(port: int) -> tuple[int, bytes]:
    """A request; status 0 stands for no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        return 0, repr(error).encode()
    finally:
        connection.close()


def listens(port: int) -> bool:
    """Whether anybody listens there. A connection made to find out would be one more that the server has to deal with."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(local.endswith(f":{port:04X}") and state == "0A" for _, local, _, state, *_ in rows)
