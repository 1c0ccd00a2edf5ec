"""Where this process runs, looked at when it is needed: the numbers for a stop, and whether a person stops it by hand."""

from __future__ import annotations

from cleanup_guard._ground.clock import BY_HAND
from cleanup_guard._ground.here import grace_given, in_foreground, is_set, own
from cleanup_guard._ground.names import SIGINT
from cleanup_guard._ground.once import Once
from cleanup_guard._ground.platforms import UNIT_VARIABLE, detect, in_force, told_by_platform
from cleanup_guard._process import native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cleanup_guard._ground.clock import Grace
    from cleanup_guard._ground.platforms import Unit
    from cleanup_guard._process.roster import Roster


class Whereabouts:
    """What this process knows of where it runs. All but `ask` may be called in a handler."""

    def __init__(self) -> None:
        self._asked = Once()
        self._unit: Unit | None = None
        # What the platform gives, with what systemd had said by then.
        self._found: tuple[Unit | None, Grace] | None = None

    def ask(self, roster: Roster) -> None:
        """Have systemd asked, in a thread of its own, if nobody else decides. Main thread.

        Args:
            roster: the guards, which may decide.
        """
        if not (is_set(UNIT_VARIABLE) and own().is_unit):
            return
        if roster.grace is not None or grace_given() is not None:
            return
        if not self._asked.claim():
            return
        from cleanup_guard._ground import systemd

        def work() -> None:
            self._unit = systemd.ask()

        native.Thread(work, "cleanup_guard asks systemd", bare=True, brief=True).start()

    def look_around(self) -> Grace:
        """What the platform gives, which a process asks once: where it runs does not change."""
        unit, found = self._unit, self._found
        if found is None or found[0] is not unit:
            self._found = found = (unit, detect(own(unit)))
        return found[1]

    def grace(self, argument: Grace | None) -> Grace:
        """The grace period in force.

        Args:
            argument: what the guards say; None if they say nothing.
        """
        try:
            given = grace_given() or argument
        except ValueError:  # the variable was broken after the guard had checked it
            given = argument
        return in_force(self.look_around(), given)

    @property
    def tells_everybody(self) -> bool:
        """Whether the platform sends a stop to every process itself."""
        return told_by_platform(own(self._unit))

    def grace_of(self, signum: int, argument: Grace | None) -> Grace:
        """The same for a signal: a person's Ctrl-C has no end."""
        return BY_HAND if signum == SIGINT and in_foreground() else self.grace(argument)
