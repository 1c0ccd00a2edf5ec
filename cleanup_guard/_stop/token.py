"""An exception of ours: how it is known, and whether somebody is still on his way out because of it.

Where main is a thread the interpreter knows that (`handles`): the exception is in the chain of what main handles now, or main
has let go of it, whether somebody kept a reference or not. Tasks and greenlets are not asked so easily: there the exception
carries a token that lives as long as it does (`Pulse`); what a suspended task handles is for its host to say.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import weakref
    from types import FrameType
    from typing import Any

OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
"""Where our own frames come from."""

MARK = "_cleanup_guard"
"""The name under which an exception of ours carries its token."""


VARARGS = 0x04
"""`inspect.CO_VARARGS`: a function that takes whatever it is told."""


class Token:
    """Lives as long as the exception it hangs on: a plain KeyboardInterrupt cannot be weakly referenced itself."""

    __slots__ = ("__weakref__",)


def mark(exception: BaseException, token: Token) -> BaseException:
    """Make it an exception of ours."""
    exception.__dict__[MARK] = token
    return exception


def is_ours(error: BaseException | None) -> bool:
    """Whether an exception is one with which a stop was delivered, or a callback interrupted."""
    return error is not None and MARK in error.__dict__


def is_all_ours(error: BaseException) -> bool:
    """The same, and for what trio makes of it: a group of nothing else."""
    inner: tuple[BaseException, ...] | None = getattr(error, "exceptions", None)
    return all(map(is_all_ours, inner)) if inner else is_ours(error)


def leads_to(error: object, token: Token | None) -> bool:
    """Whether an exception came while this token's was being handled, or is that one."""
    seen: set[int] = set()
    while isinstance(error, BaseException) and id(error) not in seen:
        if token is not None and error.__dict__.get(MARK) is token:
            return True
        seen.add(id(error))  # a chain can be made a circle by hand
        error = error.__context__
    return False


def handles(thread: int, token: Token | None) -> bool:
    """Whether a thread is in an `except`, `finally` or `__exit__` because of this exception. Any thread."""
    handled: Any = sys._current_exceptions().get(thread)  # pyright: ignore[reportPrivateUsage]
    if isinstance(handled, tuple):  # on 3.11 it is (type, exception, traceback)
        handled = handled[1]  # pyright: ignore[reportUnknownVariableType]
    return leads_to(handled, token)  # pyright: ignore[reportUnknownArgumentType]


def came_by_signal(error: BaseException) -> bool:
    """Whether a signal handler has raised an exception, rather than what it went through.

    A handler is told which frame it has interrupted: that is the one before its own. Ctrl-C's, in C, has none: what it raises
    comes out of nowhere, which is seen where that is a line of ours.
    """
    trace, before = error.__traceback__, None
    while trace is not None:
        if before is not None and _is_told(trace.tb_frame, before):
            return True
        before, trace = trace.tb_frame, trace.tb_next
    is_in_ours = before is not None and before.f_code.co_filename.startswith(OURS)
    return is_in_ours and isinstance(error, KeyboardInterrupt)


def _is_told(frame: FrameType, interrupted: FrameType) -> bool:
    """Whether a frame was called with another one as an argument."""
    code, variables = frame.f_code, frame.f_locals
    told: list[Any] = [variables.get(name) for name in code.co_varnames[: code.co_argcount]]
    if code.co_flags & VARARGS:
        told += variables.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount], ())
    return any(each is interrupted for each in told)


class Pulse:
    """Whether an exception is alive."""

    __slots__ = ("_token",)

    def __init__(self) -> None:
        self._token: weakref.ref[Token] | None = None

    def follow(self, token: Token) -> None:
        """Watch this one from now on."""
        import weakref

        self._token = weakref.ref(token)

    @property
    def beats(self) -> bool:
        """Whether it is alive."""
        token = self._token
        return token is not None and token() is not None

    def is_of(self, token: object) -> bool:
        """Whether this is the token that is watched."""
        return token is not None and self._token is not None and self._token() is token

    def is_handled_in(self, thread: int) -> bool:
        """Whether a thread is in an `except`, `finally` or `__exit__` because of it. Any thread."""
        token = None if self._token is None else self._token()
        return token is not None and handles(thread, token)
