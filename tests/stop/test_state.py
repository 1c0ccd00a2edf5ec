"""The life of a stop: the facts that a move changes make the state that the table says, in every cell and on every way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cleanup_guard._stop.state import TABLE, Move, State, diagram, state_of

STOPPED = {State.STOPPING, State.UNWINDING, State.CLEANING, State.DONE}
"""The states in which there is a stop."""


@dataclass(frozen=True)
class Facts:
    """What is true of a process: how many guards main is in, how many of them it is leaving, and what has come of a stop."""

    entered: int = 0
    leaving: int = 0
    stopped: bool = False
    told: bool = False
    taken_over: bool = False
    finished: bool = False

    @property
    def state(self) -> State:
        """The state that these facts make."""
        return state_of(
            entered=self.entered > 0,
            leaving=self.leaving > 0,
            stopped=self.stopped,
            told=self.told,
            taken_over=self.taken_over,
            finished=self.finished and not self.entered,
        )


def leave_one(facts: Facts, *, finished: bool) -> Facts:
    """Main has left a guard; after a stop the exception goes on upwards from there."""
    return replace(
        facts,
        entered=facts.entered - 1,
        leaving=facts.leaving - 1,
        told=facts.told or facts.stopped,
        finished=facts.stopped and (finished or facts.finished),
    )


CHANGES: dict[Move, Callable[[Facts], Facts]] = {
    Move.ENTER: lambda facts: replace(facts, entered=facts.entered + 1),
    # A signal of which nobody is to be told is handed back.
    Move.STOP: lambda facts: replace(facts, stopped=facts.stopped or facts.entered > 0),
    Move.RAISE: lambda facts: replace(facts, told=True),
    Move.SWALLOW: lambda facts: replace(facts, told=False),
    Move.LEAVE: lambda facts: replace(facts, leaving=facts.leaving + 1),
    Move.TAKE_OVER: lambda facts: replace(facts, taken_over=True),
    Move.NEXT: lambda facts: leave_one(facts, finished=False),
    Move.FINISH: lambda facts: leave_one(facts, finished=True),
    Move.FORGET: lambda facts: Facts(),
}
"""What each move changes."""

BEFORE: dict[State, Facts] = {
    State.IDLE: Facts(),
    State.RUNNING: Facts(entered=2),
    State.LEAVING: Facts(entered=2, leaving=1),
    State.STOPPING: Facts(entered=2, stopped=True),
    State.UNWINDING: Facts(entered=2, stopped=True, told=True),
    State.CLEANING: Facts(entered=2, leaving=1, stopped=True, told=True),
    State.DONE: Facts(stopped=True, told=True, finished=True),
}
"""A process in each state, two guards deep where it is in any."""

CELLS = [(state, move) for state, moves in TABLE.items() for move in moves]


def test_the_table_has_a_row_for_every_state() -> None:
    """No state is without a row, and the facts of each make it."""
    assert set(TABLE) == set(State)
    assert {state: facts.state for state, facts in BEFORE.items()} == {state: state for state in State}


@pytest.mark.parametrize(("state", "move"), CELLS)
def test_every_cell(state: State, move: Move) -> None:
    """The facts that a move changes make the state that the table says."""
    before = BEFORE[state]
    if move is Move.FINISH:
        before = replace(before, entered=1)
    assert CHANGES[move](before).state is TABLE[state][move]


@pytest.mark.parametrize("state", State)
def test_a_stop_may_arrive_in_any_state(state: State) -> None:
    """A signal chooses its moment itself: STOP is a move everywhere."""
    assert Move.STOP in TABLE[state]


def test_every_state_can_be_reached() -> None:
    """From idle, moves lead to every state, and from each of them there is a way to idle."""
    reached = {State.IDLE}
    for _ in State:
        reached |= {target for state in reached for target in TABLE[state].values()}
    assert reached == set(State)
    home = {State.IDLE}
    for _ in State:
        home |= {state for state in State if home & set(TABLE[state].values())}
    assert home == set(State)


@pytest.mark.parametrize("state", [state for state in State if state in STOPPED])
def test_no_way_leads_back_from_a_stop(state: State) -> None:
    """Once a stop has arrived only DONE leads to a state in which it has not, and only by FORGET."""
    back = {move for move, target in TABLE[state].items() if target not in STOPPED}
    assert back == ({Move.FORGET} if state is State.DONE else set())


@pytest.mark.parametrize("entered", [False, True])
@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("finished", [False, True])
def test_who_has_been_taken_over_from_is_told_no_more(entered: bool, told: bool, finished: bool) -> None:
    """When the watcher's thread runs the callbacks they are cut short by nothing that main does, until main is out."""
    state = state_of(
        entered=entered, leaving=False, stopped=True, told=told, taken_over=True, finished=finished
    )
    assert state is (State.DONE if finished else State.CLEANING)


def test_a_stop_that_no_guard_of_mains_has_heard_waits_for_main() -> None:
    """A guard in another thread asks for a stop while main is in none: it is there, and main is told once it is in."""
    facts = Facts(stopped=True)
    assert facts.state is State.STOPPING
    assert CHANGES[Move.ENTER](facts).state is State.STOPPING


class Walk(RuleBasedStateMachine):
    """Random moves, each of those that the table has for the state; the facts lead where the table does."""

    def __init__(self) -> None:
        super().__init__()
        self.facts = Facts()
        self.state = State.IDLE
        self.inner = 0  # guards that were entered in a callback

    def move(self, move: Move) -> None:
        """Make it, in the table and in the facts."""
        self.state, self.facts = TABLE[self.state][move], CHANGES[move](self.facts)

    def _may(self, move: Move) -> bool:
        if move not in TABLE[self.state]:
            return False
        if move is Move.LEAVE:
            return self.facts.leaving == 0
        if move in (Move.NEXT, Move.FINISH):
            # Whoever is taken over from leaves its guards without callbacks: no state changes before the last.
            is_last = self.facts.entered == 1 and not self.inner
            return self.facts.leaving == 1 and not self.inner and (move is Move.FINISH) is is_last
        if move is Move.ENTER and self.facts.entered < 5:
            return not (self.facts.taken_over and self.state is State.DONE)
        return move is not Move.ENTER

    @rule(data=st.data())
    def any_move(self, data: st.DataObject) -> None:
        """Draw one."""
        move = data.draw(st.sampled_from([move for move in Move if self._may(move)]))
        if move is Move.NEXT and self.facts.taken_over:
            self.facts = replace(self.facts, entered=self.facts.entered - 1, leaving=0)
            return
        if move is Move.ENTER and self.facts.leaving:
            self.inner += 1
        self.move(move)

    @precondition(lambda self: self.inner)
    @rule()
    def leave_inner(self) -> None:
        """A guard that was entered in a callback comes and goes within it: that is no move."""
        self.inner -= 1
        self.facts = replace(self.facts, entered=self.facts.entered - 1)

    @invariant()
    def the_facts_make_the_state(self) -> None:
        """Nothing is stored that could contradict them."""
        assert self.facts.state is self.state, (self.facts, self.state)


Walk.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None, database=None)
TestWalk = Walk.TestCase


def test_the_diagram_is_drawn_from_the_table() -> None:
    """The picture has every change of state that the table has, and no other."""
    lines = set(diagram().splitlines()[2:-1])
    names = {state: state.value.replace(" ", "_") for state in State}
    assert lines == {
        f"    {names[state]} --> {names[target]}: {move.value}"
        for state, moves in TABLE.items()
        for move, target in moves.items()
        if target is not state
    }
