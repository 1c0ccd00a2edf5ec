"""The stop as a table: every cell, illegal moves, and moves that come from handlers and threads."""

from __future__ import annotations

import re
import signal
import threading
from types import FrameType

import pytest
from cleanup_guard._state import TABLE, IllegalMove, Machine, Move, State, diagram

CELLS = [(state, move) for state in State for move in Move]


def machine_in(state: State) -> Machine:
    """A machine in this state."""
    machine = Machine()
    machine.state = state
    return machine


def test_a_machine_begins_idle() -> None:
    """A process without a guard is idle."""
    assert Machine().state is State.IDLE


def test_the_table_has_a_row_for_every_state() -> None:
    """No state is without a row."""
    assert set(TABLE) == set(State)


@pytest.mark.parametrize(("state", "move"), CELLS)
def test_every_cell(state: State, move: Move) -> None:
    """A move that the table lists leads where it says; any other raises, names both, and changes nothing."""
    machine = machine_in(state)
    if move in TABLE[state]:
        machine.fire(move)
        assert machine.state is TABLE[state][move]
        return
    with pytest.raises(IllegalMove, match=re.escape(f"{move.name} ({move.value})")) as caught:
        machine.fire(move)
    assert (caught.value.state, caught.value.move) == (state, move)
    assert state.name in str(caught.value)
    assert machine.state is state


def test_a_machine_works_after_an_illegal_move() -> None:
    """An illegal move does not jam the machine or stay in its queue."""
    machine = Machine()
    for _ in range(3):
        with pytest.raises(IllegalMove):
            machine.fire(Move.FINISH)
    machine.fire(Move.ENTER)
    assert machine.state is State.RUNNING


@pytest.mark.parametrize("state", State)
def test_a_stop_may_arrive_in_any_state(state: State) -> None:
    """A signal chooses its moment itself: STOP is legal everywhere."""
    assert Move.STOP in TABLE[state]


def test_every_state_can_be_reached() -> None:
    """From idle, moves lead to every state, and from each of them to the end or back."""
    reached = {State.IDLE}
    for _ in State:
        reached |= {target for state in reached for target in TABLE[state].values()}
    assert reached == set(State)


@pytest.mark.parametrize("state", [State.STOPPING, State.UNWINDING, State.CLEANING, State.DONE])
def test_no_way_leads_back_from_a_stop(state: State) -> None:
    """Once a stop has arrived only DONE leads to a state in which it has not: by FORGET, or a new guard."""
    targets = set(TABLE[state].values()) & {State.IDLE, State.RUNNING, State.LEAVING}
    assert not targets or state is State.DONE


def test_a_move_from_a_handler_that_interrupted_a_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """A move that a handler fires in the middle of another one is made after it, not lost and not mixed with it."""
    machine = machine_in(State.RUNNING)
    seen: list[State] = []
    step = Machine._step

    def interrupted(self: Machine) -> None:
        if not seen:
            seen.append(self.state)
            self.fire(Move.STOP)  # as a signal's handler does
            seen.append(self.state)
        step(self)

    monkeypatch.setattr(Machine, "_step", interrupted)
    machine.fire(Move.LEAVE)
    assert seen == [State.RUNNING, State.RUNNING]  # queued, not made in between
    assert machine.state is State.CLEANING  # LEAVE, then STOP


def test_a_real_signal_at_any_moment_of_a_move() -> None:
    """Signals that interrupt `fire` wherever they like leave the machine as if they had come before or after."""
    machine = Machine()
    calls = 0

    def handler(signum: int, frame: FrameType | None) -> None:
        nonlocal calls
        calls += 1
        machine.fire(Move.STOP)

    machine.fire(Move.ENTER)
    previous = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    try:
        while calls < 200:
            machine.fire(Move.ENTER)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert machine.state.name == "STOPPING"
    machine.fire(Move.RAISE)
    assert machine.state.name == "UNWINDING"  # nothing is left in the queue


def test_moves_from_many_threads_are_all_made() -> None:
    """Moves that threads fire at once are made one after another, each exactly once."""
    threads, rounds = 4, 500
    for _ in range(10):
        machine = machine_in(State.RUNNING)
        made: list[Move] = []
        barrier = threading.Barrier(threads)

        class Counting(Machine):
            """Notes each move it makes."""

            __slots__ = ()

            def _step(self) -> None:
                before = len(self._moves)
                super()._step()
                if before:
                    made.append(Move.ENTER)  # noqa: B023 - used before the next round begins

        machine = Counting()

        def work(machine: Machine = machine, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            for _ in range(rounds):
                machine.fire(Move.ENTER)

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert machine.state.name == "RUNNING"
        assert not machine._moves
        assert len(made) == threads * rounds
        machine.fire(Move.STOP)
        assert machine.state.name == "STOPPING"


def test_the_diagram_is_drawn_from_the_table() -> None:
    """The README's picture has every change of state that the table has, and no other."""
    lines = set(diagram().splitlines()[2:-1])
    names = {state: state.value.replace(" ", "_") for state in State}
    assert lines == {
        f"    {names[state]} --> {names[target]}: {move.value}"
        for state, moves in TABLE.items()
        for move, target in moves.items()
        if target is not state
    }
