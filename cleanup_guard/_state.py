"""The life of a stop, as data: every state, every move, and what each move leads to.

The table is the specification. The code fires moves, the tests walk the table, and the diagram in the README is drawn from
it (`python -m cleanup_guard._state`). A move that the table does not list raises `IllegalMove` and changes nothing.
"""

from __future__ import annotations

from collections import deque
from enum import Enum


class State(Enum):
    """Where a process stands. The value is what a person reads in a log line."""

    IDLE = "idle"
    RUNNING = "running"
    LEAVING = "leaving"
    STOPPING = "stopping"
    UNWINDING = "unwinding"
    CLEANING = "cleaning up"
    DONE = "done"


class Move(Enum):
    """What can happen to a process."""

    ENTER = "a guard is entered"
    STOP = "a stop arrives"
    RAISE = "the stop is raised in main"
    SWALLOW = "main swallowed the stop"
    LEAVE = "main leaves a guard"
    TAKE_OVER = "the watcher takes over from a stuck main"
    NEXT = "a guard is clean, one around it remains"
    FINISH = "the last guard is clean"
    FORGET = "the program goes on after the stop"


TABLE: dict[State, dict[Move, State]] = {
    # No guard is active. A signal that still reaches our handler is handed back once the old handler is in place.
    State.IDLE: {
        Move.ENTER: State.RUNNING,
        Move.STOP: State.IDLE,
    },
    State.RUNNING: {
        Move.ENTER: State.RUNNING,
        Move.STOP: State.STOPPING,
        Move.LEAVE: State.LEAVING,
    },
    # Callbacks run because main returned or raised, not because of a stop.
    State.LEAVING: {
        Move.ENTER: State.LEAVING,
        Move.STOP: State.CLEANING,
        Move.LEAVE: State.LEAVING,
        Move.NEXT: State.RUNNING,
        Move.FINISH: State.IDLE,
    },
    # A stop is recorded and main does not know yet: on_stop hooks, a shield, a cooperative main, main stuck in C.
    State.STOPPING: {
        Move.ENTER: State.STOPPING,
        Move.STOP: State.STOPPING,
        Move.RAISE: State.UNWINDING,
        Move.LEAVE: State.CLEANING,
        Move.TAKE_OVER: State.CLEANING,
    },
    # The exception is on its way through main's `finally` and `with` blocks.
    State.UNWINDING: {
        Move.ENTER: State.UNWINDING,
        Move.STOP: State.UNWINDING,
        Move.RAISE: State.UNWINDING,
        Move.SWALLOW: State.STOPPING,
        Move.LEAVE: State.CLEANING,
        Move.TAKE_OVER: State.CLEANING,
    },
    # Callbacks run because of a stop: nothing cuts them short, nothing runs them twice.
    State.CLEANING: {
        Move.ENTER: State.CLEANING,
        Move.STOP: State.CLEANING,
        Move.RAISE: State.CLEANING,
        Move.SWALLOW: State.CLEANING,  # the handler decided it while the watcher took over
        Move.LEAVE: State.CLEANING,
        Move.TAKE_OVER: State.CLEANING,
        Move.NEXT: State.UNWINDING,
        Move.FINISH: State.DONE,
    },
    # Everything ran. Repeats of the signal are absorbed until the process is gone.
    State.DONE: {
        Move.ENTER: State.RUNNING,
        Move.STOP: State.DONE,
        Move.TAKE_OVER: State.DONE,  # the watcher decided it while main came back and cleaned up
        Move.FORGET: State.IDLE,
    },
}


class IllegalMove(RuntimeError):
    """A move that the table does not list: a bug in cleanup_guard, never in the program that uses it."""

    def __init__(self, state: State, move: Move) -> None:
        super().__init__(f"{move.name} ({move.value}) is not a move from {state.name} ({state.value})")
        self.state: State = state
        self.move: Move = move


class Machine:
    """The current state. `fire` may be called from a signal handler that interrupted `fire`, and from any thread.

    A lock would deadlock in the handler, so moves queue in a deque (one atomic append) and whoever is already inside `fire`
    makes them: a move is never computed from a state that another one is about to replace.
    """

    __slots__ = ("_busy", "_moves", "state")

    def __init__(self) -> None:
        self.state: State = State.IDLE
        self._moves: deque[Move] = deque()
        self._busy = [None]

    def fire(self, move: Move) -> None:
        """Make a move, now or as soon as the move in progress is made.

        Raises:
            IllegalMove: the table does not list it; the state is as before.
        """
        self._moves.append(move)
        while self._moves:
            try:
                self._busy.pop()
            except IndexError:
                return  # someone is in the loop below, and looks at the queue again after leaving it
            try:
                self._step()
            finally:
                self._busy.append(None)

    def _step(self) -> None:
        try:
            move = self._moves.popleft()
        except IndexError:
            return  # taken by the one who was here before
        target = TABLE[self.state].get(move)
        if target is None:
            raise IllegalMove(self.state, move)
        self.state = target


def diagram() -> str:
    """The table as a Mermaid state diagram, moves that change nothing left out."""
    lines = ["stateDiagram-v2", "    [*] --> idle"]
    for state, moves in TABLE.items():
        for move, target in moves.items():
            if target is not state:
                lines.append(f"    {_identifier(state)} --> {_identifier(target)}: {move.value}")
    lines.append(f"    {_identifier(State.DONE)} --> [*]")
    return "\n".join(lines)


def _identifier(state: State) -> str:
    return state.value.replace(" ", "_")


if __name__ == "__main__":
    print(diagram())
