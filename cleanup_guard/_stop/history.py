"""What has happened in a stop so far, for the record at its end."""

from __future__ import annotations

from cleanup_guard._ground.events import CallbackRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cleanup_guard._ground.events import Event

DRAINING, STOPPING, UNWINDING = "draining", "stopping", "unwinding"
WORK, CLEANING = "waiting for work", "cleaning up"
"""The phases of a stop: the words of `Guard.state`, and one for what the callbacks wait for."""

ORDER = {DRAINING: 0, STOPPING: 1, UNWINDING: 2, WORK: 3, CLEANING: 3}
"""None goes back to an earlier one; each guard may wait before it cleans up."""


class History:
    """It is added to from any thread, and by handlers.

    Args:
        began: when the stop came.
        phase: in which one it is.
    """

    __slots__ = ("_began", "_callbacks", "_cut", "_phases")

    def __init__(self, began: float, phase: str) -> None:
        self._began = began
        self._phases: list[tuple[str, float]] = [(phase, began)]
        self._callbacks: list[tuple[str, float, float, BaseException | None, bool]] = []
        self._cut: list[tuple[str, float]] = []

    def enters(self, phase: str, now: float) -> None:
        """A phase begins, and lasts until another one does. What main does between two of its guards is cleaning up, too."""
        last = self._phases[-1][0]
        if phase != last and ORDER[phase] >= ORDER[last]:
            self._phases.append((phase, now))

    def ended(
        self, name: str, error: BaseException | None, *, began: float, seconds: float, interrupted: bool
    ) -> None:
        """A callback has ended."""
        self._callbacks.append((name, began, seconds, error, interrupted))
        if interrupted:
            self._cut.append((f"callback {name}", seconds))

    def told(self, event: Event) -> None:
        """Everybody is told of something, perhaps that somebody was cut short."""
        self._cut.extend(event.cut_short())

    @property
    def callbacks(self) -> int:
        """How many callbacks have ended."""
        return len(self._callbacks)

    @property
    def failures(self) -> int:
        """How many of them failed."""
        return sum(error is not None for _, _, _, error, _ in self._callbacks[:])

    def cut(self) -> tuple[tuple[str, float], ...]:
        """Who was cut short."""
        return tuple(self._cut)

    def phases(self, now: float) -> tuple[tuple[str, float], ...]:
        """What it went through until now, each phase with all of its seconds."""
        log = self._phases[:]
        phases: dict[str, float] = {}
        for (name, began), (_, end) in zip(log, [*log[1:], ("", now)], strict=True):
            phases[name] = phases.get(name, 0.0) + max(0.0, end - began)
        return tuple(phases.items())

    def seconds(self, now: float) -> float:
        """How long it has taken."""
        return now - self._began

    def records(self) -> tuple[CallbackRecord, ...]:
        """The callbacks that have ended."""
        return tuple(
            CallbackRecord(
                name=name, began=began - self._began, seconds=seconds, error=error, interrupted=interrupted
            )
            for name, began, seconds, error, interrupted in self._callbacks[:]
        )
