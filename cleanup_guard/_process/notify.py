"""Tells systemd what a service of `Type=notify` is doing: sd_notify(3), one datagram for each message.

`_socket`, because `socket` costs more to import than all of this package. A socket is opened for each message, and never waits:
a message that cannot be sent is not sent.
"""

from __future__ import annotations

import _socket
import os

from cleanup_guard._ground.clock import inf
from cleanup_guard._ground.once import Once

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cleanup_guard._process.roster import ProcessView
    from cleanup_guard._stop.stop import Stop

EXTENSION = 30.0
"""Seconds for which systemd is asked to wait, again each half of them: should we hang, it does not wait for ever."""


class Notify:
    """Any thread.

    Args:
        address: of systemd's socket; an @ at its beginning stands for the abstract namespace.
    """

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._stopping = Once()
        self._doing = ""
        self._extend_at = -inf

    def say(self, *lines: str) -> None:
        """Send one message."""
        kind = _socket.SOCK_DGRAM | getattr(_socket, "SOCK_NONBLOCK", 0) | getattr(_socket, "SOCK_CLOEXEC", 0)
        try:
            sender = _socket.socket(_socket.AF_UNIX, kind)
            try:
                sender.sendto("\n".join(lines).encode(errors="replace"), self._address)
            finally:
                sender.close()
        except OSError:
            pass  # nobody listens, or he does not keep up

    def stopping(self) -> None:
        """The service has begun to end; said once."""
        if self._stopping.claim():
            self.say("STOPPING=1")

    def look(self, process: ProcessView, stop: Stop, now: float) -> float:
        """Say what is being done, and ask for as much time as there is, in portions. Returns when to look again."""
        lines: list[str] = []
        doing = _doing(process, stop)
        until = inf if stop.budget.grace is None else stop.budget.began + stop.budget.grace
        if doing != self._doing:
            self._doing = doing
            lines.append(f"STATUS={doing}")
        if now >= self._extend_at and until > now:
            lines.append(f"EXTEND_TIMEOUT_USEC={int(1e6 * min(EXTENSION, until - now))}")
            self._extend_at = now + EXTENSION / 2
        if lines:
            self.say(*lines)
        return self._extend_at


def _doing(process: ProcessView, stop: Stop) -> str:
    """What the process does, for a person to read."""
    running = [turn.current.name for turn in list(process.roster.turns) if turn.current is not None]
    state = process.state.value if stop.drained else "draining"
    return f"{state}: callback {', '.join(running)}" if running else state


def notify_of(environ: Mapping[str, str]) -> Notify | None:
    """Who is to be told: nobody where this is not the service's main process, but one that it has started."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")) or environ.get("SYSTEMD_EXEC_PID", str(os.getpid())) != str(
        os.getpid()
    ):
        return None
    return Notify(address)
