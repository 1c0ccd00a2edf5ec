"""Web servers that own the stop: the request in flight gets its whole answer, whatever guard the application has."""

from __future__ import annotations

import signal

import pytest
from guests.stage import Host, check, check_alone

pytestmark = pytest.mark.guests

GUNICORN = ("-m", "gunicorn", "--bind", "unix:{socket}", "--config", "gunicorn_settings.py", "--worker-class")
UVICORN = ("-m", "uvicorn", "--uds", "{socket}", "--log-level", "warning")


def server(name: str, *command: str, needs: str, says: str = "") -> Host:
    """A host that listens."""
    return Host(name, command, tuple(needs.split()), listens=True, says=says)


SERVERS = {
    server("gunicorn sync", *GUNICORN, "sync", "wsgi:app", needs="gunicorn"): "module job",
    server("gunicorn gthread", *GUNICORN, "gthread", "wsgi:app", needs="gunicorn"): "module job",
    server("gunicorn gevent", *GUNICORN, "gevent", "wsgi:app", needs="gunicorn gevent"): "module job",
    server("gunicorn asgi", *GUNICORN, "asgi", "asgi:app", needs="gunicorn"): "module lifespan job",
    server(
        "gunicorn uvicorn-worker",
        *GUNICORN,
        "uvicorn_worker.UvicornWorker",
        "asgi:app",
        needs="gunicorn uvicorn_worker",
    ): "module lifespan job",
    server("gunicorn flask", *GUNICORN, "sync", "flask_app:app", needs="gunicorn flask"): "module job",
    server("uvicorn", *UVICORN, "asgi:app", needs="uvicorn"): "module lifespan job",
    server("uvicorn workers", *UVICORN, "--workers", "2", "asgi:app", needs="uvicorn"): "module lifespan job",
    server("uvicorn reload", *UVICORN, "--reload", "asgi:app", needs="uvicorn"): "module lifespan",
    server("uvicorn fastapi", *UVICORN, "fastapi_app:app", needs="uvicorn fastapi"): "module lifespan job",
    server("uvicorn.run", "uvicorn_main.py", "{socket}", needs="uvicorn"): "module lifespan main",
    server("uvicorn serve", "uvicorn_serve.py", "{socket}", needs="uvicorn"): "module lifespan main",
    server(
        "hypercorn", "-m", "hypercorn", "--bind", "unix:{socket}", "asgi:app", needs="hypercorn"
    ): "module lifespan job",
    server(
        "hypercorn serve", "hypercorn_serve.py", "{socket}", needs="hypercorn"
    ): "module lifespan job main",
    server(
        "granian asgi",
        *("-m", "granian", "--interface", "asgi", "--no-ws", "--uds", "{socket}", "asgi:app"),
        needs="granian",
    ): "module lifespan job",
    server(
        "granian wsgi",
        *("-m", "granian", "--interface", "wsgi", "--uds", "{socket}", "wsgi:app"),
        needs="granian",
        says="Granian shutdown completed",
    ): "module job",
    server("aiohttp", "aiohttp_main.py", "{socket}", needs="aiohttp"): "module lifespan job main",
}
"""Each server, and the places where its users put a guard."""


@pytest.mark.parametrize("host", SERVERS, ids=str)
def test_without_a_guard(host: Host) -> None:
    """The server itself finishes what is in flight."""
    check_alone(host)


@pytest.mark.parametrize(
    ("host", "at"),
    [pytest.param(host, at, id=f"{host}-{at}") for host in SERVERS for at in SERVERS[host].split()],
)
def test_a_guard_cuts_nothing(host: Host, at: str) -> None:
    """The answer is whole, the callback ran once, the server's own shutdown ran, the status is what it was."""
    check(host, at)


@pytest.mark.parametrize("at", ["module", "lifespan"])
@pytest.mark.parametrize(
    "host", [host for host in SERVERS if host.name in {"uvicorn", "hypercorn serve"}], ids=str
)
def test_ctrl_c_cuts_nothing(host: Host, at: str) -> None:
    """Where Ctrl-C is the server's, too, it stays the server's."""
    check(host, at, signal.SIGINT)
