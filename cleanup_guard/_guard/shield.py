"""Critical sections: see `Guard.shield`."""

from __future__ import annotations

import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cleanup_guard._guard.stay import Stay


class Shield:
    """See `Guard.shield`. May be nested and reused, not shared between threads or tasks."""

    def __init__(self, stay: Stay | None) -> None:
        # Only main is ever interrupted.
        here = threading.current_thread() is threading.main_thread()
        self._process = stay.process if stay is not None and here else None
        self._held: list[object] = []

    def __enter__(self) -> None:
        if self._process is not None:
            self._process.roster.shields += 1

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        process = self._process
        if process is not None:
            process.roster.shields -= 1
            process.deliver()

    async def __aenter__(self) -> None:
        from cleanup_guard._hosts.loops import backend

        if self._process is not None:
            self._held.append(await backend().enter_shield(self._process))

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from cleanup_guard._hosts.loops import backend

        process = self._process
        if process is not None and not process.foreign:
            await backend().leave_shield(process, self._held.pop(), failed=error is not None)
