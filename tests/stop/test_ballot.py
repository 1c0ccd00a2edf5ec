"""What came first, a stop or the end of the last guard: one of them, whoever proposes, and from wherever."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanup_guard._ground.clock import Budget
from cleanup_guard._stop.stop import Ballot, Stop

THREADS, ROUNDS = 4, 150


def a_stop(reason: str = "SIGTERM") -> Stop:
    """A stop."""
    return Stop(15, reason, status=143, budget=Budget(10.0, 0.0))


def test_the_first_stop_wins() -> None:
    """Later ones change nothing; the ballot cannot be closed any more."""
    ballot, first, second = Ballot(), a_stop("first"), a_stop("second")
    assert ballot.stop is None
    assert ballot.propose(first)
    assert not ballot.propose(second)
    assert ballot.propose(first)  # it still is
    assert ballot.stop is first
    assert not ballot.close()
    assert not ballot.closed


def test_a_closed_ballot_has_no_stop() -> None:
    """None can come on it any more."""
    ballot = Ballot()
    assert not ballot.closed
    assert ballot.close()
    assert ballot.close()
    assert ballot.closed
    assert not ballot.propose(a_stop())
    assert ballot.stop is None


@given(st.lists(st.sampled_from(["propose", "close"]), max_size=30))
def test_any_order(moves: list[str]) -> None:
    """Whatever is done in whatever order: who was first has won, and knows it."""
    ballot = Ballot()
    first: Stop | str | None = None
    for number, move in enumerate(moves):
        if move == "close":
            first = first or "close"
            assert ballot.close() is (first == "close")
        else:
            stop = a_stop(str(number))
            first = first or stop
            assert ballot.propose(stop) is (first is stop)
        assert ballot.closed is (first == "close")
        assert ballot.stop is (first if isinstance(first, Stop) else None)


def at_once(functions: list[Callable[[], object]]) -> None:
    """Run functions in threads that start together."""
    barrier = threading.Barrier(len(functions))

    def work(function: Callable[[], object]) -> None:
        barrier.wait()
        function()

    threads = [threading.Thread(target=work, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture
def _switches_often() -> object:  # it gives nothing
    """Threads take turns a thousand times as often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_switches_often")
def test_threads_agree_on_who_was_first() -> None:
    """Some propose, one closes: exactly one of them is told that he has won, and all see the same."""
    for _ in range(ROUNDS):
        ballot, won = Ballot(), list[object]()

        def propose(number: int, ballot: Ballot = ballot, won: list[object] = won) -> None:
            stop = a_stop(str(number))
            if ballot.propose(stop):
                won.append(stop)

        def close(ballot: Ballot = ballot, won: list[object] = won) -> None:
            if ballot.close():
                won.append(None)

        at_once(
            [*(lambda number=number, propose=propose: propose(number) for number in range(THREADS)), close]
        )
        assert len(won) == 1
        assert ballot.stop is won[0]
        assert ballot.closed is (won[0] is None)


def test_a_stop_that_is_somebody_elses_can_become_ours() -> None:
    """With the budget that counts from then on."""
    stop = Stop(15, "SIGTERM", status=143, budget=Budget(None, 0.0), theirs="a server")
    budget = Budget(10.0, 50.0)
    stop.becomes_ours(budget)
    assert (stop.theirs, stop.budget) == (None, budget)
