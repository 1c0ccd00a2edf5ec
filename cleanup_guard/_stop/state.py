"""The life of a stop, as data: every state, every move, and what each move leads to.

The table is the specification: the diagram in examples/guard.md is drawn from it (`python -m cleanup_guard._stop.state`), and
the tests check that the facts which a move changes make the state that the table says.
"""

from __future__ import annotations

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
        Move.SWALLOW: State.CLEANING,  # seen while the watcher took over
        Move.LEAVE: State.CLEANING,
        Move.TAKE_OVER: State.CLEANING,
        Move.NEXT: State.UNWINDING,
        Move.FINISH: State.DONE,
    },
    # Everything ran. Repeats of the signal are absorbed until the process is gone.
    State.DONE: {
        Move.ENTER: State.UNWINDING,  # in a `finally` around: the stop is still on its way
        Move.STOP: State.DONE,
        Move.TAKE_OVER: State.DONE,  # the watcher decided it while main came back and cleaned up
        Move.FORGET: State.IDLE,
    },
}


def state_of(
    *, entered: bool, leaving: bool, stopped: bool, told: bool, taken_over: bool, finished: bool
) -> State:
    """The state that these facts make.

    Nobody stores a state, so none can be stale or contradict another: each fact has one place, and is written by one C call.

    Args:
        entered: main is inside a guard.
        leaving: main is leaving one; its callbacks run.
        stopped: there is a stop.
        told: the stop has been raised in main, and main has not been seen to let go of it.
        taken_over: the watcher's thread runs the callbacks.
        finished: after the stop main has left its last guard.
    """
    if not stopped:
        return State.LEAVING if leaving else State.RUNNING if entered else State.IDLE
    if finished:
        return State.DONE
    if leaving or taken_over:
        return State.CLEANING
    return State.UNWINDING if told else State.STOPPING


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
