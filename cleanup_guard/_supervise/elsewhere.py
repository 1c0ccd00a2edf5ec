"""Where there is no Linux: `Supervisor`, `Child` and `run` can be imported, and say what they need when they are used.

A container's program is also started on a colleague's laptop, where the line that imports them must not end it.
"""

from __future__ import annotations

from cleanup_guard._ground.elsewhere import needs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


class Child:
    """One child of a `Supervisor`."""

    def __init__(self, *_: object, **__: object) -> None:
        _needs_linux("Child")

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class Supervisor:
    """Children of a Python program, which are stopped when it stops, and end it when they fail."""

    def __init__(self, *_: object, **__: object) -> None:
        _needs_linux("Supervisor")

    if TYPE_CHECKING:

        def __enter__(self) -> Any: ...
        def __exit__(self, *_: object) -> None: ...
        def __getattr__(self, name: str) -> Any: ...


def run(*_: object, **__: object) -> Any:
    """As `subprocess.run`, but a stop asks the program and waits for it."""
    _needs_linux("run")


def _needs_linux(what: str) -> NoReturn:
    raise NotImplementedError(f"cleanup_guard.{what} {needs('Linux', 'pidfds to wait for children by')}")
