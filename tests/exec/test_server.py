"""exec into a real server, and stop it with a request in flight."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support import PATIENCE, wait_until

pytest.importorskip("gunicorn")

APP = """
import os, time
def app(environ, start_response):
    with open("entered", "w"): pass
    while not os.path.exists("answer"): time.sleep(0.01)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"pid %d" % os.getppid()]
"""


def test_gunicorn_answers_the_request_in_flight_and_leaves(tmp_path: Path) -> None:
    """The server has the PID that was started, gets the stop itself, finishes the request, and exits 0."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "conf.in").write_text('bind = "127.0.0.1:$PORT"\nworkers = $WORKERS\ngraceful_timeout = 50\n')
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path / "log").open("wb")
    command = [
        *(sys.executable, "-m", "cleanup_guard", "exec"),
        *("--env", f"PORT={port}", "--env", "WORKERS=1", "--workdir", str(tmp_path)),
        *("--template", f"{tmp_path}/conf.in:{tmp_path}/gunicorn.conf.py"),
        *("--", sys.executable, "-m", "gunicorn", "app:app"),
    ]
    answers: list[bytes] = []
    with log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            wait_until(lambda: b"Booting worker" in (tmp_path / "log").read_bytes(), "gunicorn")
            client = threading.Thread(target=lambda: answers.append(get(port)))
            client.start()
            wait_until((tmp_path / "entered").exists, "the request")
            server.send_signal(signal.SIGTERM)
            wait_until(lambda: b"Handling signal: term" in (tmp_path / "log").read_bytes(), "the stop")
            assert answers == []
            (tmp_path / "answer").touch()
            client.join(PATIENCE)
            assert server.wait(PATIENCE) == 0
        finally:
            (tmp_path / "answer").touch()
            if server.poll() is None:
                server.kill()
    assert answers == [f"pid {server.pid}".encode()]


def get(port: int) -> bytes:
    """Ask the server once."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", "/")
    return connection.getresponse().read()
