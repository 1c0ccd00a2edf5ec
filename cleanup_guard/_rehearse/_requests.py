"""Requests in flight at the stop, from a process of their own: the rehearsal itself has no threads, for it forks."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

if sys.platform != "linux":
    raise NotImplementedError("rehearsing a stop needs Linux")

from cleanup_guard._ground.foreign import quoted, shown
from cleanup_guard._rehearse._hook import Beside
from cleanup_guard._rehearse._seen import Requests
from cleanup_guard._supervise._spawn import spawn

CLIENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_client.py")


class Requester(Beside):
    """Asks a server, again and again, from before the stop until all is over.

    Args:
        url: what is asked for.
    """

    def __init__(self, url: str) -> None:
        theirs, self._orders = os.pipe()
        self._answers, written = os.pipe()
        os.set_blocking(self._answers, False)
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            words = [sys.executable, "-I", "-S", CLIENT, url]
            dup = [(theirs, 0), (written, 1), (null, 2)]
            super().__init__(spawn(sys.executable, words, os.environ, dup=dup))
        finally:
            for fd in (theirs, written, null):
                os.close(fd)
        self._url = url
        self._text = b""

    @property
    def begun(self) -> bool:
        """Whether everybody has got an answer once."""
        return "begun" in self._lines()

    @property
    def complaint(self) -> str:
        """Why they have not."""
        failures = [line.removeprefix("failure ") for line in self._lines() if line.startswith("failure ")]
        why = shown(failures[-1] if failures else "nobody answered")
        return f"requests to {quoted(self._url)} were not all answered before the stop: {why}"

    @property
    def found(self) -> Requests:
        """What became of them."""
        counted: list[dict[str, Any]] = [json.loads(line) for line in self._lines() if line.startswith("{")]
        return Requests(**counted[-1]) if counted else Requests()

    def tell_stopped(self) -> None:
        """The stop is sent next."""
        self._tell()

    def tell_over(self) -> None:
        """Nobody is left who could answer."""
        self._tell()

    def close(self, *, ended: bool) -> None:
        """It is not needed any more."""
        super().close(ended=ended)
        os.close(self._orders)
        os.close(self._answers)

    def _tell(self) -> None:
        try:
            os.write(self._orders, b"\n")
        except BrokenPipeError:
            pass  # it has ended, and there is nothing to be found

    def _lines(self) -> list[str]:
        try:
            while data := os.read(self._answers, 4096):
                self._text += data
        except BlockingIOError:
            pass
        return self._text.decode("utf-8", "replace").splitlines()
