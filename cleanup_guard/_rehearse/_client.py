"""Keeps requests in flight while a server is stopped, and counts what becomes of them. A program of its own, see `_requests`.

It says `begun` when every worker has got an answer, learns by a line that the stop is being sent, and by the next line or the
end of its stdin that all is over; then it prints what it has counted, as JSON.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import sys
import threading
import time
from urllib.parse import urlsplit

WORKERS = 4
COUNTED: tuple[str, ...] = ("in_flight", "answered", "lost", "refused", "dropped", "served")
PAUSE = 0.05
"""Seconds from a failure to the next try."""

BREATH = 0.002
"""Seconds from an answer that came at once to the next request."""

LONGEST = 300.0
"""Seconds that an answer may take."""

MOST_BODY = 1 << 20
SERVER_ERROR, UNAVAILABLE = 500, 503


class Client:
    """The workers' common book."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._lock = threading.Lock()
        self._began: dict[int, float] = {}
        self._stopped: float | None = None
        self._awaited: set[int] = set()
        self.answered_once: set[int] = set()
        self.failure = "nobody answered"
        self.counts: dict[str, int] = dict.fromkeys(COUNTED, 0)

    def work(self, worker: int) -> None:
        """One request after the other, for ever."""
        while True:
            with self._lock:
                self._began[worker] = began = time.monotonic()
            outcome = self._request()
            with self._lock:
                self._count(worker, outcome)
            if outcome != "answered":
                time.sleep(PAUSE)
            elif time.monotonic() - began < BREATH:
                time.sleep(BREATH)

    def stop(self) -> None:
        """The stop is being sent: who is in flight now is to get an answer."""
        with self._lock:
            self._stopped = time.monotonic()
            self._awaited = set(self._began)
            self.counts["in_flight"] = len(self._awaited)

    def finish(self) -> dict[str, int]:
        """What is counted; who has no answer by now gets none."""
        with self._lock:
            self.counts["lost"] += len(self._awaited)
            self._awaited = set()
            return dict(self.counts)

    def _count(self, worker: int, outcome: str) -> None:
        self._began.pop(worker, None)
        if self._stopped is None:
            if outcome == "answered":
                self.answered_once.add(worker)
            return
        if worker in self._awaited:
            self._awaited.discard(worker)
            if outcome == "refused":  # it was not in flight yet, but about to be
                self.counts["in_flight"] -= 1
                self.counts["refused"] += 1
                return
            self.counts["answered" if outcome == "answered" else "lost"] += 1
            return
        self.counts["served" if outcome == "answered" else outcome] += 1

    def _request(self) -> str:
        """Make one. Returns `answered`, `refused`, or `dropped`."""
        connection = self._connection()
        try:
            try:
                connection.connect()
            except ConnectionRefusedError as error:
                self.failure = str(error)
                return "refused"
            target = f"{self._parts.path or '/'}{'?' if self._parts.query else ''}{self._parts.query}"
            connection.request("GET", target, headers={"Connection": "close", "User-Agent": "cleanup-guard"})
            answer = connection.getresponse()
            answer.read(MOST_BODY)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.failure = str(error) or type(error).__name__
            return "dropped"
        finally:
            connection.close()
        if answer.status >= SERVER_ERROR:
            self.failure = f"the answer was {answer.status}"
            return "refused" if answer.status == UNAVAILABLE else "dropped"
        return "answered"

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            # What is asked is whether there is an answer, not whether it may be believed.
            trusting = ssl.create_default_context()
            trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
            return http.client.HTTPSConnection(host, port, timeout=LONGEST, context=trusting)
        return http.client.HTTPConnection(host, port, timeout=LONGEST)


def main(url: str) -> None:
    """Keep asking until told that all is over."""
    client = Client(url)
    for worker in range(WORKERS):
        threading.Thread(target=client.work, args=(worker,), daemon=True).start()
    waiting = threading.Thread(target=_say_begun, args=(client,), daemon=True)
    waiting.start()
    if sys.stdin.readline():
        client.stop()
        sys.stdin.readline()
    _say(json.dumps(client.finish()))
    os._exit(0)  # whoever still waits for an answer waits for nothing


def _say_begun(client: Client) -> None:
    told = ""
    while len(client.answered_once) < WORKERS:
        time.sleep(BREATH)
        if client.failure != told:
            told = client.failure
            _say(f"failure {told}")
    _say("begun")


def _say(line: str) -> None:
    print(line.replace("\n", " "), flush=True)  # noqa: T201 - to the pipe


if __name__ == "__main__":
    main(sys.argv[1])
