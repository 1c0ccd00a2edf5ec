"""What is rehearsed, and how it is stopped. A line that is tried is another plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cleanup_guard._rehearse._ready import Wish

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cleanup_guard._rehearse._platforms import Way


@dataclass(frozen=True)
class Image:
    """A container image, and how to run it.

    Attributes:
        engine: the command line that everything for the engine is appended to.
        name: of the image.
        options: more options of `run`.
        entrypoint: in place of the image's own.
    """

    engine: list[str]
    name: str
    options: list[str]
    entrypoint: list[str] | None = None


@dataclass(frozen=True)
class Hook:
    """What a platform does before it sends the stop signal, and counts against the grace period.

    Attributes:
        command: a command that it runs beside the program; empty for none.
        seconds: how long it only waits.
    """

    command: list[str]
    seconds: float = 0.0


@dataclass(frozen=True)
class Plan:
    """One thing to rehearse.

    Attributes:
        program: what is started; of an image the arguments after its name.
        grace: seconds between the stop and SIGKILL.
        wish: when it is to be stopped.
        signum: the stop signal; None for what the image names, or SIGTERM.
        image: the image, if it is one.
        files: texts that stand in files in place of what stands there, by path.
        hook: what comes before the stop signal.
        url: what is requested meanwhile; None: nothing.
        way: how a platform does it; None: signal and SIGKILL are all.
        told: what the program is told that it has, as CLEANUP_GUARD_GRACE; None if it is told nothing.
    """

    program: list[str]
    grace: float
    wish: Wish = field(default_factory=Wish)
    signum: int | None = None
    image: Image | None = None
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    hook: Hook | None = None
    url: str | None = None
    way: Way | None = None
    told: str | None = None
