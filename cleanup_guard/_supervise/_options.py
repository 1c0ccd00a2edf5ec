"""What `cleanup-guard run` was asked for."""

from __future__ import annotations

from cleanup_guard._ground.clock import DEFAULT_GRACE, Grace
from cleanup_guard._supervise._terms import SIGINT, SIGTERM, Terms

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import Literal

    from cleanup_guard._supervise._child import Child
else:
    import _signal

REFUSED = frozenset(
    int(getattr(_signal, name))
    for name in (
        *("SIGKILL", "SIGSTOP"),  # nobody can fetch them
        "SIGCHLD",  # tells us who has ended
        *("SIGPIPE", "SIGXFSZ", "SIGTTIN", "SIGTTOU"),  # answers to what we do ourselves
    )
)
"""Signals whose arrival cannot be given a meaning."""


class Options:
    """The options of one command line, at their defaults until it is read."""

    def __init__(self) -> None:
        self.children: list[Child] = []
        self.grace: Grace = Grace(DEFAULT_GRACE)
        self.platform_tells = False  # the platform sends a stop to every process, not only to us
        self.drain = 0.0
        self.when_one_exits: Literal["stop", "wait"] = "stop"
        self.stop_signals: set[int] = {SIGTERM, SIGINT}
        self.rewrite: dict[int, int] = {}
        self.map_exit: dict[int, int] = {}
        self.on_exit: list[str] = []
        self.inherit_signals = False
        self.pdeathsig: int | None = None
        self.flags: set[str] = set()

    def is_stop(self, signum: int) -> bool:
        """Whether a signal that arrives means a stop."""
        return signum in self.stop_signals and self.rewrite.get(signum) != 0

    @property
    def terms(self) -> Terms:
        """What the policy is to know."""
        return Terms(
            grace=self.grace,
            drain=self.drain,
            when_one_exits=self.when_one_exits,
            wait_all="--no-wait-all" not in self.flags,
            stay="--stay" in self.flags,
            callbacks=bool(self.on_exit),
            stop_signals=self.stop_signals,
            rewrite=self.rewrite,
        )
