"""Signals as words and numbers, and which of them can be caught.

Without the 9 ms and 300 KB that importing `signal` costs where nothing else needs it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Iterable
else:
    import _signal


SIGINT, SIGTERM = int(_signal.SIGINT), int(_signal.SIGTERM)
STOPS = frozenset(
    int(getattr(_signal, name))
    for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM")
    if hasattr(_signal, name)
)
"""Signals by which people and programs stop others."""

UNCATCHABLE = frozenset(
    int(getattr(_signal, name)) for name in ("SIGKILL", "SIGSTOP") if hasattr(_signal, name)
)
NAMES: dict[int, str] = {
    int(value): name
    for name, value in [*vars(_signal).items()][::-1]  # of two names for one signal the first counts
    if name[:3] == "SIG" and name[3:4] != "_" and isinstance(value, int)
}
RTMIN, RTMAX = int(getattr(_signal, "SIGRTMIN", 0)), int(getattr(_signal, "SIGRTMAX", -1))


def number_of(text: str) -> int:
    """The number of the signal that a person means.

    Args:
        text: its name, with or without SIG, in any case; its number; RTMIN+n or RTMAX-n.

    Raises:
        ValueError: there is no such signal here.
    """
    name = text.strip().upper().removeprefix("SIG")
    found = int(name) if name.isdecimal() else _named(name)
    if found not in _signal.valid_signals():
        raise ValueError(f"there is no signal {text!r}: use a name such as TERM or RTMIN+3, or a number")
    return int(found)


def _named(name: str) -> int:
    for anchor, sign in (("RTMIN+", 1), ("RTMAX-", -1)):
        if name.startswith(anchor) and name[len(anchor) :].isdecimal():
            base = int(getattr(_signal, "SIG" + anchor[:-1], -1))
            found = base + sign * int(name[len(anchor) :])
            return found if RTMIN <= found <= RTMAX else -1
    found = getattr(_signal, "SIG" + name, -1) if name.isalnum() else -1
    return int(found) if isinstance(found, int) else -1


def name_of(signum: int) -> str:
    """SIGTERM for 15, SIGRTMIN+3 for 37, "signal 33" for one without a name."""
    name = NAMES.get(signum)
    if name is not None:
        return name
    if RTMIN < signum <= RTMAX:
        return f"SIGRTMIN+{signum - RTMIN}"
    return f"signal {signum}"


def caught(signums: Iterable[object]) -> tuple[int, ...]:
    """The signals that a caller wants to catch, each once. What cannot be caught is refused, with a sentence that says which.

    Raises:
        TypeError: not a collection of signal numbers.
        ValueError: a signal that does not exist here, or cannot be caught.
    """
    if isinstance(signums, (str, bytes)) or not hasattr(signums, "__iter__"):
        raise TypeError(
            f"signals must be a collection of signals such as (signal.SIGTERM, signal.SIGHUP), not {signums!r}"
        )
    chosen: list[int] = []
    for signum in signums:
        if not isinstance(signum, int) or isinstance(signum, bool):
            raise TypeError(f"signals must be signal numbers such as signal.SIGTERM, not {signum!r}")
        if signum not in _signal.valid_signals():
            raise ValueError(f"there is no signal {int(signum)} that a program can use on this platform")
        if signum in UNCATCHABLE:
            raise ValueError(f"{name_of(signum)} cannot be caught: no program can clean up after it")
        if signum not in chosen:
            chosen.append(int(signum))
    return tuple(chosen)
