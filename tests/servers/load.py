"""Steady requests to a server that is stopped, from clients that leave when it is not ready any more, as behind a balancer."""

from __future__ import annotations

import http.client
import signal
import threading
import time

from support import PREAMBLE, Child, Ended, child, wait_until

CLIENTS = 3
LAG = 0.25
"""Seconds from the moment at which the server is not ready until the clients know."""

STAGE = (
    PREAMBLE
    + """
import random
def say(*words): os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""
)

THREADS = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        with g.work(self.path):
            if self.path == "/ready": self.answer(200 if g.is_ready else 503)
            else:
                time.sleep(random.random() * 0.1)
                self.answer(200 if open else 500)
    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "3")
        self.end_headers()
        self.wfile.write(b"yes")
    def log_message(self, *args): pass

class Server(ThreadingHTTPServer):
    daemon_threads, request_queue_size = False, 64

open = True
def close():
    global open
    open = False
    say("closed")

with guard(drain=3, grace=60) as g:
    g.callback(close)
    with Server(("127.0.0.1", 0), Handler) as server:
        say("port", server.server_port)
        g.ready()
        ready()
        server.serve_forever(poll_interval=0.05)
"""

TASKS = """
import asyncio

async def handle(reader, writer):
    head = await reader.readuntil(b"\\r\\n\\r\\n")
    path = head.split()[1].decode()
    async with g.work(path):
        if path == "/ready": status = b"200 yes" if g.is_ready else b"503 no"
        else:
            await asyncio.sleep(random.random() * 0.1)
            status = b"200 yes" if open else b"500 closed"
        writer.write(b"HTTP/1.1 " + status + b"\\r\\ncontent-length: 3\\r\\nconnection: close\\r\\n\\r\\nyes")
        await writer.drain()
    writer.close()

open = True
async def close():
    global open
    open = False
    say("closed")

@guard(drain=3, grace=60)
async def main():
    global g
    g = current_guard()
    g.callback(close)
    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=64)
    say("port", server.sockets[0].getsockname()[1])
    g.ready()
    ready()
    await asyncio.sleep(3600)

asyncio.run(main())
"""

SERVERS = {"threads": THREADS, "tasks": TASKS}


class Load:
    """Clients that ask one request after the other, and a probe."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answered = 0
        self.lost: list[str] = []
        self.not_ready: float | None = None
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        self._threads.append(threading.Thread(target=self._probe))
        self._lock = threading.Lock()
        for each in self._threads:
            each.start()

    def end(self) -> None:
        """Wait until the clients have left."""
        for each in self._threads:
            each.join()

    def get(self, path: str) -> int:
        """The status that a request is answered with."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    def _probe(self) -> None:
        while self.not_ready is None:
            try:
                status = self.get("/ready")
            except OSError as error:
                self.lost.append(f"probe: {error!r}")
                status = 503
            if status != 200:
                self.not_ready = time.monotonic()
            time.sleep(0.005)

    def _ask(self) -> None:
        while self.not_ready is None or time.monotonic() < self.not_ready + LAG:
            try:
                status = self.get("/job")
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(repr(error))
                return
            if status == 200:
                with self._lock:
                    self.answered += 1
            else:
                self.lost.append(str(status))
            time.sleep(0.01)


def stop_under_load(kind: str) -> tuple[Ended, Load]:
    """Start a server, put it under load, stop it, and wait until everybody has left."""
    started: Child
    with child(SERVERS[kind], preamble=STAGE) as started:
        port = next(line for line in started.out if line.startswith("port"))
        load = Load(int(port.split()[1]))
        try:
            wait_until(lambda: load.answered >= 2 * CLIENTS or bool(load.lost), "answers")
        finally:
            started.signal(signal.SIGTERM)
            load.end()
        return started.end(), load
