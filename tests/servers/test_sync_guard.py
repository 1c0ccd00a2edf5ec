"""Servers that run their own event loop, in a `main` that is guarded as any other."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from servers.requests_in_flight import AIOHTTP, ANSWERED, ANYIO, UVICORN, stop

UVICORN_RUNS = (
    UVICORN
    + """
@guard
def main():
    global SOCK
    on_exit(lambda: say("callback", *handlers()))
    SOCK = listen()
    server = make_server(loop={loop!r})
    server.run(sockets=[SOCK])
    {after}

main()
"""
)
OURS = "callback ours ours"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_uvicorn_answers_before_the_callbacks_run(
    signum: signal.Signals, status: int, loop: str, tmp_path: Path
) -> None:
    """The request in flight gets its answer, the lifespan ends, then the callbacks run; the status tells of the signal."""
    stopped = stop(UVICORN_RUNS.format(loop=loop, after="pass"), tmp_path, signum)
    assert stopped.answers == ANSWERED
    assert stopped.out == ["entered", "answering", "lifespan over", OURS]
    assert stopped.ended.status == status
    assert "Traceback" not in stopped.ended.err


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_more_sigterms_change_nothing(loop: str, tmp_path: Path) -> None:
    """An orchestrator that repeats SIGTERM cuts nothing short."""
    stopped = stop(UVICORN_RUNS.format(loop=loop, after="pass"), tmp_path, again=3)
    assert stopped.answers == ANSWERED
    assert stopped.out == ["entered", "answering", "lifespan over", OURS]
    assert stopped.ended.status == 143


@pytest.mark.parametrize("loop", ["asyncio"])
def test_main_goes_no_further_once_uvicorn_has_handed_the_signal_back(loop: str, tmp_path: Path) -> None:
    """When uvicorn is done it raises the signal again: that stops main where it is."""
    after = "time.sleep(60)\n    say('not stopped')"
    stopped = stop(UVICORN_RUNS.format(loop=loop, after=after), tmp_path, env={"CLEANUP_GUARD_GRACE": "60"})
    assert stopped.answers == ANSWERED
    assert stopped.out == ["entered", "answering", "lifespan over", OURS]
    assert stopped.ended.status == 143
    assert (
        stopped.ended.seconds < 40
    )  # the guard would step in at eight tenths of the grace period, after 46 s


AIOHTTP_TAKES_THE_SIGNALS = (
    AIOHTTP
    + """
@guard
def main():
    on_exit(say, "callback")
    sock = listen()
    listening(sock)
    web.run_app(make_app(), sock=sock, print=None)

main()
"""
)
AIOHTTP_IS_TOLD = (
    AIOHTTP
    + """
def leave():
    raise web.GracefulExit

def main():
    loop = {loop}
    with guard(interrupt=False) as g:
        g.callback(lambda: say("callback", *handlers()))
        g.on_stop(loop.call_soon_threadsafe, leave)
        sock = listen()
        listening(sock)
        web.run_app(make_app(), sock=sock, print=None, handle_signals=False, loop=loop)

main()
"""
)


def test_aiohttp_that_takes_the_signals_stops_in_its_own_way(tmp_path: Path) -> None:
    """`run_app` keeps SIGTERM to itself and returns: answered, callbacks run, the status is that of a return."""
    stopped = stop(AIOHTTP_TAKES_THE_SIGNALS, tmp_path)
    assert stopped.answers == ANSWERED
    assert stopped.out == ["entered", "answering", "application over", "callback"]
    assert stopped.ended.status == 0


@pytest.mark.parametrize("loop", ["asyncio.new_event_loop()", "__import__('uvloop').new_event_loop()"])
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_aiohttp_that_is_told_by_the_guard_answers_before_the_callbacks_run(
    signum: signal.Signals, status: int, loop: str, tmp_path: Path
) -> None:
    """With `handle_signals=False` and an on_stop callback that ends its loop, `run_app` leaves the signals to the guard."""
    stopped = stop(AIOHTTP_IS_TOLD.format(loop=loop), tmp_path, signum, again=3)
    assert stopped.answers == ANSWERED
    assert stopped.out == ["entered", "answering", "application over", OURS]
    assert stopped.ended.status == status
    assert "Traceback" not in stopped.ended.err


ANYIO_IS_TOLD = (
    ANYIO
    + """
async def program(g):
    async with anyio.create_task_group() as requests:
        g.on_stop(anyio.from_thread.run_sync, requests.cancel_scope.cancel, token=anyio.lowlevel.current_token())
        await serve(requests)

def main():
    with guard(interrupt=False) as g:
        g.callback(lambda: say("callback", *handlers()))
        anyio.run(program, g, backend={backend!r}, backend_options={options})

main()
"""
)


@pytest.mark.parametrize(
    ("backend", "options"), [("asyncio", {}), ("asyncio", {"use_uvloop": True}), ("trio", {})]
)
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_an_anyio_program_is_told_by_the_guard(
    signum: signal.Signals, status: int, backend: str, options: dict[str, bool], tmp_path: Path
) -> None:
    """An on_stop callback cancels the program's scope: what it shields is finished, on every backend."""
    stopped = stop(ANYIO_IS_TOLD.format(backend=backend, options=options), tmp_path, signum, again=3)
    assert stopped.answers == ANSWERED
    assert stopped.out == ["entered", "answering", OURS]
    assert stopped.ended.status == status
    assert "Traceback" not in stopped.ended.err
