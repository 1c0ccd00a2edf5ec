"""Labelled output: every line of every child with its name before it, whole, as it comes.

A thread of its own reads the children's pipes and writes to our stdout and stderr. Where nobody reads these, it stands still,
and in time so do the children, as they would without us; signals are none of its business, and go on.
"""

from __future__ import annotations

import os
import selectors
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

COLOURS = (36, 33, 32, 35, 34, 31)
LONGEST = 65536
"""Bytes after which a line is broken, so that a child that never ends one cannot fill our memory."""


class Stream:
    """One pipe of one child."""

    def __init__(self, target: int, label: bytes) -> None:
        self.target = target
        self.label = label
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Write the lines that are complete now; an empty `data` is the end."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if self._rest and (not data or len(self._rest) >= LONGEST):
            lines.append(self._rest)
            self._rest = b""
        if lines:
            _write_all(self.target, b"".join(self.label + line + b"\n" for line in lines))


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            _wait_for_room(fd)  # whoever shares it with us has made it non-blocking
        except OSError:
            return  # nobody reads any more: the children's output goes nowhere, but goes


def _wait_for_room(fd: int) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_WRITE)
        selector.select()


class Labels:
    """The pipes of all children and the thread that reads them."""

    def __init__(self, names: Iterable[str]) -> None:
        names = list(names)
        self._width = max(map(len, names), default=0)
        self._order = names
        self._selector = selectors.DefaultSelector()
        self._writers: list[int] = []
        self._thread = threading.Thread(target=self._pump, name="cleanup_guard labels", daemon=True)

    def pipes(self, name: str) -> list[tuple[int, int]]:
        """New pipes for a child's stdout and stderr, as pairs (ours, its) for `spawn`."""
        pairs: list[tuple[int, int]] = []
        for target in (1, 2):
            reader, writer = os.pipe()
            self._selector.register(reader, selectors.EVENT_READ, Stream(target, self._label(name, target)))
            self._writers.append(writer)
            pairs.append((writer, target))
        return pairs

    def _label(self, name: str, target: int) -> bytes:
        text = f"{name.ljust(self._width)} | "
        if os.isatty(target) and not os.environ.get("NO_COLOR"):
            colour = COLOURS[self._order.index(name) % len(COLOURS)]
            text = f"\x1b[{colour}m{text}\x1b[0m"
        return text.encode()

    def start(self) -> None:
        """Begin to read: the children have been started."""
        for writer in self._writers:
            os.close(writer)
        self._thread.start()

    def _pump(self) -> None:
        while self._selector.get_map():
            for key, _ in self._selector.select():
                data = os.read(key.fd, LONGEST)
                key.data.feed(data)
                if not data:
                    self._selector.unregister(key.fd)
                    os.close(key.fd)

    def finish(self, seconds: float) -> None:
        """Let what the children wrote last come out, if somebody reads it within this time."""
        self._thread.join(seconds)
