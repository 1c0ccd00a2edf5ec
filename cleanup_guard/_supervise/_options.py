"""What `cleanup-guard run` was asked for."""

from __future__ import annotations

from cleanup_guard._supervise._policy import SIGINT, SIGTERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from cleanup_guard._supervise._policy import Child


class Options:
    """The options of one command line, at their defaults until it is read."""

    def __init__(self) -> None:
        self.children: list[Child] = []
        self.grace: float | None = 10.0
        self.drain = 0.0
        self.when_one_exits: Literal["stop", "wait"] = "stop"
        self.wait_all = True
        self.stop_signals: set[int] = {SIGTERM, SIGINT}
        self.rewrite: dict[int, int] = {}
        self.map_exit: dict[int, int] = {}
        self.on_exit: list[str] = []
        self.prefix = False
        self.inherit_signals = False
        self.pdeathsig: int | None = None
