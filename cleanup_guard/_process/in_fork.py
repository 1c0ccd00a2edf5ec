"""Whether main is in a hook of a fork, where an exception would be printed and lost, and the hook left undone.

Hooks that were registered after ours, such as `logging`'s, come after the signals are let in again (see `forks.py`).
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

    from cleanup_guard._process.moment import TraceFunction


def in_our_hook(frame: FrameType | None) -> bool:
    """Whether this is in a hook of ours."""
    while frame is not None:
        if frame.f_globals.get("__name__") == "cleanup_guard._process.forks":
            return True
        frame = frame.f_back
    return False


class InFork:
    """Main in a fork.

    Args:
        look: is called at the first instruction after the hooks, if there was something to look at in one.
        ask: asks for that where somebody traces main.
    """

    def __init__(self, look: Callable[[FrameType], object], ask: Callable[[], object]) -> None:
        self._look = look
        self._ask = ask
        # Where main forks: a frame, by number so as not to keep it, its code, and the instruction. What that calls is hooks.
        self._place: tuple[int, CodeType, int] | None = None
        self._trace: TraceFunction | None = None

    def begins(self, caller: FrameType) -> None:
        """Main forks.

        Args:
            caller: the frame that called what forks.
        """
        self._place = (id(caller), caller.f_code, caller.f_lasti)

    def is_in_hook(self, frame: FrameType | None) -> bool:
        """Whether this is in a hook. If it is one that comes after ours, main looks once more when it is out of them."""
        caller = frame
        while caller is not None and (id(caller), caller.f_code, caller.f_lasti) != self._place:
            caller = caller.f_back
        if in_our_hook(frame):
            return True
        if caller is None or caller is frame:
            return False
        self._look_after(caller)
        return True

    def _look_after(self, caller: FrameType) -> None:
        if sys.gettrace() is not None:
            if sys.gettrace() is not self._trace:
                self._ask()  # a debugger's is not replaced
            return

        def trace(frame: FrameType, event: str, arg: object) -> TraceFunction | None:  # noqa: ARG001
            if frame is caller and event == "opcode":
                caller.f_trace_opcodes = False
                caller.f_trace = self._trace = None
                sys.settrace(None)
                self._look(caller)
            return None

        caller.f_trace = trace
        caller.f_trace_opcodes = True
        self._trace = trace
        sys.settrace(trace)
