"""What children print, where we have to read it: to label its lines, or to look for a text in it.

A thread of its own reads the children's pipes and writes to our stdout and stderr. Where nobody reads these, it stands still,
and in time so do the children, as they would without us; signals are none of its business, and go on.
"""

from __future__ import annotations

import os
import select
import selectors
import threading

from cleanup_guard._ground.foreign import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cleanup_guard._supervise._ready import Sign

COLOURS = (36, 33, 32, 35, 34, 31)
LONGEST = 65536
"""Bytes after which a line is broken, so that a child that never ends one cannot fill our memory."""


class Stream:
    """One pipe of one child.

    Args:
        target: where it goes to.
        label: what is written before each line; empty to pass on what comes as it comes.
        sign: what to look for in it.
    """

    def __init__(self, target: int, label: bytes = b"", sign: Sign | None = None) -> None:
        self.target = target
        self.label = label
        self.sign = sign
        self._rest = b""
        self._unseen = b""

    def feed(self, data: bytes) -> None:
        """Write what is complete now; an empty `data` is the end."""
        if self.sign is not None and not self.sign.seen:
            self._unseen = self.sign.read(self._unseen + data)
        if not self.label:
            _write_all(self.target, data)
            return
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
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll()


class Output:
    """The pipes of all children and the thread that reads them.

    Args:
        names: of the children whose lines are to be labelled.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._open = 0
        self._pausing = False
        self._names = list(names)
        self._width = max((len(shown(name)) for name in self._names), default=0)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def pipes(
        self, name: str, sign: Sign | None = None, targets: tuple[int, int] = (1, 2)
    ) -> list[tuple[int, int]]:
        """New pipes for a child's stdout and stderr, as pairs (ours, its) for `spawn`. `close` ours when it has been started.

        Args:
            name: the child's.
            sign: what to look for in what it writes.
            targets: where that goes to.

        Raises:
            OSError: there are no descriptors left.
        """
        pairs: list[tuple[int, int]] = []
        try:
            for its, target in enumerate(targets, 1):
                reader, writer = os.pipe()
                pairs.append((writer, its))
                stream = Stream(target, self._label(name, target), sign)
                with self._lock:
                    self._selector.register(reader, selectors.EVENT_READ, stream)
                    self._open += 1
        except OSError:
            self.close(pairs)
            raise
        return pairs

    @staticmethod
    def close(pairs: list[tuple[int, int]]) -> None:
        """Close our ends of a child's pipes."""
        for writer, _ in pairs:
            os.close(writer)

    def _label(self, name: str, target: int) -> bytes:
        if name not in self._names:
            return b""
        text = f"{shown(name).ljust(self._width)} | "
        if os.isatty(target) and not os.environ.get("NO_COLOR"):
            colour = COLOURS[self._names.index(name) % len(COLOURS)]
            text = f"\x1b[{colour}m{text}\x1b[0m"
        return text.encode()

    def start(self) -> None:
        """Read from now on, unless we do already, or there is nothing to read."""
        with self._lock:
            self._pausing = False
            if self._thread is None and self._open:
                self._thread = threading.Thread(target=self._pump, name="cleanup_guard output", daemon=True)
                self._thread.start()

    def _pump(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is not None:
                    self._pass_on(key.fd, key.data)
            with self._lock:
                if self._pausing or not self._open:
                    self._thread = None
                    return

    def _pass_on(self, reader: int, stream: Stream) -> None:
        data = os.read(reader, LONGEST)
        stream.feed(data)
        if not data:
            with self._lock:
                self._selector.unregister(reader)
                self._open -= 1
            os.close(reader)

    def pause(self, seconds: float) -> None:
        """Have no thread, until the next `start`. One that stands still, because nobody reads, stays."""
        with self._lock:
            self._pausing = True
        os.eventfd_write(self._wake, 1)
        self.finish(seconds)
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            pass  # it has not been written, because there was no thread

    def finish(self, seconds: float) -> None:
        """Let what the children wrote last come out, if somebody reads it within this time."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def give_up(self) -> None:
        """Close everything: nobody writes any more, or whoever does is not ours to read."""
        self.pause(0)
        if self._thread is None:
            for key in list(self._selector.get_map().values()):
                os.close(key.fd)
            self._selector.close()
