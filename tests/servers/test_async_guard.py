"""Servers inside a guarded `async def main`: what is in flight is answered, then the callbacks run, then the process ends.

uvicorn handles the signals itself, and raises them again when it is done; aiohttp's runner and anyio leave them to the guard.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from servers.requests_in_flight import AIOHTTP, ANSWERED, ANYIO, STAGE, UVICORN, Stopped, stop
from support import run

from cleanup_guard import Guard

pytestmark = pytest.mark.skipif(not hasattr(Guard, "__aenter__"), reason="guards are not async yet")

FAREWELL = """
async def farewell():
    await asyncio.sleep(0.01)
    say("async callback")

def last_words():
    say("callback", *handlers())
"""
FAREWELLS = ["async callback", "callback ours ours"]

UVICORN_IN_MAIN = """
@guard
async def main():
    global SOCK
    g = current_guard()
    g.callback(last_words)
    g.push_async_callback(farewell)
    SOCK = listen()
    await make_server().serve(sockets=[SOCK])
    await asyncio.sleep(60)
    say("not stopped")
"""
UVICORN_IN_A_TASK = """
async def main():
    global SOCK
    async with guard() as g:
        g.callback(last_words)
        g.push_async_callback(farewell)
        SOCK = listen()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(make_server().serve(sockets=[SOCK]))
            await asyncio.sleep(60)
            say("not stopped")
"""
AIOHTTP_RUNNER = """
@guard
async def main():
    g = current_guard()
    g.callback(last_words)
    g.push_async_callback(farewell)
    runner = web.AppRunner(make_app())
    await runner.setup()
    g.push_async_callback(runner.cleanup)
    sock = listen()
    await web.SockSite(runner, sock).start()
    listening(sock)
    await asyncio.sleep(60)
    say("not stopped")
"""
PROGRAMS = {
    "uvicorn in main": UVICORN + FAREWELL + UVICORN_IN_MAIN,
    "uvicorn in a task": UVICORN + FAREWELL + UVICORN_IN_A_TASK,
    "aiohttp's runner": AIOHTTP + FAREWELL + AIOHTTP_RUNNER,
}
OVER = {
    "uvicorn in main": "lifespan over",
    "uvicorn in a task": "lifespan over",
    "aiohttp's runner": "application over",
}
LOOPS = {"asyncio": "asyncio.run(main())", "uvloop": "import uvloop; uvloop.run(main())"}
COMPLAINTS = ("Traceback", "CancelledError", "was destroyed", "never awaited", "never retrieved")

every_program = pytest.mark.parametrize("program", PROGRAMS)
every_loop = pytest.mark.parametrize("loop", LOOPS)


def check(stopped: Stopped, lines: list[str], status: int) -> None:
    """All of what a stop owes to a server."""
    assert stopped.answers == ANSWERED
    assert stopped.out == ["entered", "answering", *lines]
    assert stopped.ended.status == status
    assert not [word for word in COMPLAINTS if word in stopped.ended.err], stopped.ended.err


@every_loop
@every_program
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_the_request_in_flight_is_answered_before_the_callbacks_run(
    program: str, loop: str, signum: signal.Signals, status: int, tmp_path: Path
) -> None:
    """Answered, the server's own cleanup, then the guard's callbacks, last first; more SIGTERMs change nothing."""
    stopped = stop(PROGRAMS[program] + LOOPS[loop], tmp_path, signum, again=3)
    check(stopped, [OVER[program], *FAREWELLS], status)


ANYIO_IN_MAIN = """
async def farewell():
    await anyio.sleep(0.01)
    say("async callback")

async def main():
    async with guard() as g:
        g.callback(last_words)
        g.push_async_callback(farewell)
        async with anyio.create_task_group() as requests:
            await serve(requests)
    say("not stopped")
"""
BACKENDS = {
    "asyncio": "anyio.run(main)",
    "uvloop": "anyio.run(main, backend_options={'use_uvloop': True})",
    "trio": "anyio.run(main, backend='trio')",
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_an_anyio_program_finishes_what_it_shields(
    backend: str, signum: signal.Signals, status: int, tmp_path: Path
) -> None:
    """The stop cancels the listener, not the request that anyio's shield holds; the same on each backend."""
    stopped = stop(ANYIO + FAREWELL + ANYIO_IN_MAIN + BACKENDS[backend], tmp_path, signum, again=3)
    check(stopped, FAREWELLS, status)


NOT_STOPPED = (
    UVICORN
    + FAREWELL
    + """
signalled = asyncio.Event()

def theirs(signum, frame):
    say("theirs")

async def main():
    global SOCK
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, signalled.set)
    before = handlers()
    async with guard() as g:
        g.push_async_callback(farewell)
        SOCK = listen()
        server = make_server()
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(server.serve(sockets=[SOCK]))
            while not server.started:
                await asyncio.sleep(0.01)
            server.should_exit = True
    assert handlers() == before, (before, handlers())
    os.kill(os.getpid(), signal.SIGUSR1)
    await signalled.wait()
    say("usr1")
    os.kill(os.getpid(), signal.SIGTERM)

signal.signal(signal.SIGTERM, theirs)
"""
)


@every_loop
def test_a_server_that_ends_by_itself_leaves_everybodys_handlers(loop: str) -> None:
    """After guard and server are left, handlers of the program and of its loop are there and work."""
    ended = run(NOT_STOPPED + LOOPS[loop], preamble=STAGE)
    assert ended.out == ["lifespan over", "async callback", "usr1", "theirs"]
    assert (ended.status, ended.err) == (0, "")
