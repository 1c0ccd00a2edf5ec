"""The recipes of web servers: who has a request in flight gets it whole, readiness flips first, the pool is closed last."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from guests.stage import accepts, free_port, require
from support import CLEAN, PATIENCE, wait_until

pytestmark = [pytest.mark.guests, pytest.mark.one_python]

FOLDER = Path(__file__).parents[2] / "examples" / "web"

PRELOADED = "gunicorn --preload"

UNTOLD = {"hypercorn", PRELOADED}
"""hypercorn's workers are told by an event, not by a signal: they just end, and `on_stop` is not told. Where gunicorn preloads,
`on_stop` belongs to the master."""

SERVERS = {
    "gunicorn sync": "-m gunicorn --bind 127.0.0.1:{port} --chdir {folder} wsgi:app",
    "gunicorn gthread": "-m gunicorn --bind 127.0.0.1:{port} --chdir {folder} --threads 2 wsgi:app",
    "gunicorn uvicorn": "-m gunicorn --bind 127.0.0.1:{port} --chdir {folder} -k uvicorn_worker.UvicornWorker asgi:app",
    PRELOADED: "-m gunicorn --bind 127.0.0.1:{port} --chdir {folder} --threads 2 --preload --config preload_conf.py wsgi:app",
    "uvicorn": "-m uvicorn --port {port} --app-dir {folder} asgi:app",
    "uvicorn --workers": "-m uvicorn --port {port} --app-dir {folder} --workers 1 asgi:app",
    "hypercorn": "-m hypercorn --bind 127.0.0.1:{port} asgi:app",
}


def ask(port: int, answers: list[bytes]) -> None:
    """One request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/")
        answers.append(connection.getresponse().read())
    except (OSError, http.client.HTTPException) as error:
        answers.append(repr(error).encode())
    finally:
        connection.close()


@pytest.mark.parametrize("server", SERVERS)
def test_a_request_in_flight_is_answered(server: str, tmp_path: Path) -> None:
    """It gets the whole answer, readiness has flipped meanwhile, and the pool is closed behind it."""
    require("starlette", "uvicorn_worker", "hypercorn")
    port, output, answers = free_port(), tmp_path / "output", list[bytes]()
    words = [sys.executable, *SERVERS[server].format(port=port, folder=FOLDER).split()]
    with output.open("wb") as file:
        process = subprocess.Popen(words, cwd=FOLDER, env=CLEAN, stdout=file, stderr=file)
    try:
        wait_until(lambda: accepts(("127.0.0.1", port)) or process.poll() is not None, "the server")
        client = threading.Thread(target=ask, args=(port, answers))
        client.start()
        wait_until(lambda: "begun" in output.read_text() or not client.is_alive(), "the request")
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
        client.join(PATIENCE)
    finally:
        process.kill()
        process.wait()
    lines = [
        line
        for line in output.read_text().splitlines()
        if line in {"ready", "unready", "answered", "pool closed"}
    ]
    assert answers == [b"the whole answer"], output.read_text()
    flipped = "ready" if server in UNTOLD else "unready"
    closed = 2 if server == PRELOADED else 1  # the worker, then the master
    assert lines == [flipped, "answered", *["pool closed"] * closed], output.read_text()
