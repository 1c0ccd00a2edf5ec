"""Readiness: what shows that a program can be used, so that those who need it may be started.

A text in its output, a port of this machine that takes connections, or a file that exists. Only looked at while somebody waits.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

LOOK_AGAIN = 0.05
"""Seconds between two looks for a sign that somebody waits for."""

HIGHEST_PORT = 65535

PATIENCE = 0.2
"""Seconds that a port of this machine may take to answer."""


class Sign:
    """What shows that a program is ready.

    Attributes:
        kind: a text in its output, a TCP port, or a file.
        what: the text, the port, or the path.
        seen: whether it has been.
    """

    def __init__(self, kind: Literal["text", "tcp", "file"], what: str) -> None:
        self.kind = kind
        self.what = what
        self.seen: bool = False
        self._text = os.fsencode(what)

    def look(self) -> bool:
        """Whether it has been seen by now."""
        if not self.seen and self.kind == "file":
            self.seen = os.path.exists(self.what)
        elif not self.seen and self.kind == "tcp":
            self.seen = _answers(int(self.what))
        return self.seen

    def read(self, output: bytes) -> bytes:
        """Look for the text in what the program wrote. Returns what is to come before the next piece of it."""
        if self.kind != "text":
            return b""
        self.seen = self._text in output
        return output[max(0, len(output) - len(self._text) + 1) :]


def parse(text: str) -> Sign:
    """Read `TEXT`, `text:TEXT`, `tcp:PORT` or `file:PATH`.

    Raises:
        ValueError: it is none of these.
    """
    kind, colon, what = text.partition(":")
    if kind == "tcp" and colon:
        return Sign("tcp", _port(what))
    if kind == "file" and colon:
        if not what or "\0" in what:
            raise ValueError("file: takes a path such as file:/run/db.ready")
        return Sign("file", what)
    if kind == "text" and colon:
        text = what
    if not text:
        raise ValueError("a text to wait for is missing")
    return Sign("text", text)


def _port(what: str) -> str:
    """A port, as it was written."""
    if not (what.isascii() and what.isdecimal() and len(what) <= len(str(HIGHEST_PORT))):
        raise ValueError("tcp: takes a port such as tcp:5432")
    if not 0 < int(what) <= HIGHEST_PORT:
        raise ValueError(f"tcp: takes a port from 1 to {HIGHEST_PORT}")
    return what


def _answers(port: int) -> bool:
    """Whether somebody on this machine takes connections there."""
    import socket

    for address in ("127.0.0.1", "::1"):
        try:
            socket.create_connection((address, port), timeout=PATIENCE).close()
        except OSError:
            continue
        return True
    return False
