"""What a guard raises: `SignalExit` when a stop arrives, `CleanupError` when callbacks failed."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self


class SignalExit(SystemExit):
    """Raised in the main thread when a stop arrives, so that `with` and `finally` blocks unwind before the callbacks run.

    A `SystemExit`, because that is what asyncio, uvloop, concurrent.futures and logging let through: a
    `BaseException` of our own would be swallowed by their loops, an `Exception` by everybody's `except
    Exception`. For SIGINT the guard raises a plain `KeyboardInterrupt` instead, because only that exact type
    makes Python die of SIGINT, which is what shells look at.

    Attributes:
        signum: the signal's number, or None when the stop came from `Guard.request_stop`.
        code: the exit status of the process, 128 + signum unless chosen otherwise.
        reason: what `request_stop` was told, or the signal's name.

    Example:
        >>> try:
        ...     with guard(hooks=()) as g:
        ...         g.request_stop("lease lost", status=1)
        ... except SignalExit as stop:
        ...     print(stop.reason, stop.code)
        lease lost 1
    """

    def __init__(self, signum: int | None, code: int, reason: str) -> None:
        super().__init__(code)
        self.signum = signum
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason}, exit status {self.code}"


class CleanupError(ExceptionGroup[Exception]):
    """One or more callbacks failed on a normal exit. All the others ran; `exceptions` holds the failures, first one first.

    Example:
        >>> def flush() -> None:
        ...     raise OSError("disk full")
        >>> try:
        ...     with guard(hooks=()) as g:
        ...         _ = g.callback(flush)
        ... except* OSError as failed:
        ...     print(failed.exceptions)
        (OSError('disk full'),)
    """

    # Typeshed's overloads also promise groups of BaseExceptions, which a subclass of ExceptionGroup cannot be.
    def derive(  # type: ignore[override]
        self,
        excs: Sequence[Exception],  # pyright: ignore[reportIncompatibleMethodOverride]
        /,
    ) -> Self:
        """Make the group that `except*` and `split` hand out.

        Args:
            excs: the exceptions of the new group.

        Returns:
            A `CleanupError` with the same message.
        """
        return type(self)(self.message, excs)


class CallbackInterrupted(KeyboardInterrupt):
    """Raised inside a callback that has used up its time, or that a person interrupted with a second Ctrl-C.

    A `KeyboardInterrupt`, because that passes `except Exception`, event loops and `subprocess.run` without
    killing the child.
    It never leaves the guard: the failure that is reported is a `TimeoutError`.
    """


class CallbackLeftBehind(CallbackInterrupted):
    """A coroutine, or a callback of a group, was interrupted and does not end: the others have their turn all the same."""
