"""One program that is looked after: what was asked for, and what became of it."""

from __future__ import annotations

from cleanup_guard._ground.clock import inf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal

    from cleanup_guard._supervise._ready import Sign

    Scope = Literal["tree", "group", "main", "main-then-group"]


class Wish:
    """What was asked for.

    Attributes:
        name: what reports call it.
        argv: the program and its arguments.
        after: those who must be ready before it is started, and are stopped when it is gone.
        stop_signal: what asks it to stop, instead of the signal that arrived.
        grace: seconds after which it is killed, if that is sooner than everybody's.
        scope: whom signals reach.
        ready: what shows that it is ready; None if that it was started is enough.
        environ: what its environment has besides ours.
    """

    __slots__ = ("after", "argv", "environ", "grace", "name", "ready", "scope", "stop_signal")

    def __init__(
        self,
        name: str,
        argv: list[str] | None = None,
        *,
        after: Iterable[Child] = (),
        stop_signal: int | None = None,
        grace: float | None = None,
        scope: Scope = "tree",
        ready: Sign | None = None,
    ) -> None:
        self.name: str = name
        self.argv: list[str] = argv or []
        self.after: tuple[Child, ...] = tuple(after)
        self.stop_signal: int | None = stop_signal
        self.grace: float | None = grace
        self.scope: Scope = scope
        self.ready: Sign | None = ready
        self.environ: dict[str, str] = {}


class Child(Wish):
    """What became of it.

    Attributes:
        pid: its main process's, once it was started.
        status: as subprocess says it: negative for a death by signal, None while the main process runs or has not started.
        ended_at: when its main process did.
        asked_at: when it was asked to stop.
        rest_told_at: when those whom its main process left behind were first told.
        sent: the signal that it was asked with.
        killed: whether it, or somebody whom it had started, had to be killed.
        gone: whether nobody of it is left.
    """

    __slots__ = ("asked_at", "ended_at", "gone", "killed", "pid", "rest_told_at", "sent", "status")

    def __init__(
        self,
        name: str,
        argv: list[str] | None = None,
        *,
        after: Iterable[Child] = (),
        stop_signal: int | None = None,
        grace: float | None = None,
        scope: Scope = "tree",
        ready: Sign | None = None,
    ) -> None:
        super().__init__(
            name, argv, after=after, stop_signal=stop_signal, grace=grace, scope=scope, ready=ready
        )
        self.pid: int | None = None
        self.status: int | None = None
        self.ended_at: float = inf
        self.asked_at: float = inf
        self.rest_told_at: float = inf
        self.sent: int | None = None
        self.killed: bool = False
        self.gone: bool = False

    def __repr__(self) -> str:
        return f"<{self.name} pid={self.pid} status={self.status}>"

    @property
    def started(self) -> bool:
        """Whether it was started."""
        return self.pid is not None

    @property
    def running(self) -> bool:
        """Whether its main process runs."""
        return self.pid is not None and self.status is None

    @property
    def code(self) -> int:
        """Its exit status as a shell says it."""
        status = self.status or 0
        return status if status >= 0 else 128 - status
