"""What came of each signal, told apart from the watcher's own pokes."""

from __future__ import annotations

from cleanup_guard._process.tally import Tally

TERM, INT = 15, 2


def test_pokes_are_no_signals() -> None:
    """Those that were sent before it began do not count, nor do those that come."""
    pokes = {TERM: 3}
    tally = Tally(pokes)
    assert tally.new(TERM) == tally.real(TERM) == 0
    pokes[TERM] += 1
    tally.count(TERM)
    assert tally.new(TERM) == 0
    tally.count(TERM)
    assert (tally.new(TERM), tally.real(TERM), tally.new(INT)) == (1, 1, 0)


def test_what_was_dealt_with_is_not_new() -> None:
    """One signal is not two stops."""
    tally = Tally({})
    tally.count(TERM)
    tally.count(TERM)
    tally.deal_with(tally.new(TERM), TERM)
    assert (tally.new(TERM), tally.real(TERM)) == (0, 2)
    tally.count(TERM)
    assert tally.new(TERM) == 1


def test_a_poke_that_was_merged_is_made_up_for() -> None:
    """It would hide the next signal."""
    pokes = {TERM: 0}
    tally = Tally(pokes)
    pokes[TERM] = 2
    tally.count(TERM)
    assert tally.new(TERM) == -1
    tally.make_up(TERM)
    assert tally.new(TERM) == 0
    tally.count(TERM)
    assert tally.new(TERM) == 1


def test_what_is_history_is_not_new() -> None:
    """Of some signals, or of all; a poke that was sent later is still expected."""
    pokes = {TERM: 0, INT: 0}
    tally = Tally(pokes)
    for signum in (TERM, INT):
        tally.count(signum)
    past = dict(pokes)
    pokes[TERM] = 1
    tally.forget(past, (TERM,))
    assert (tally.new(TERM), tally.new(INT)) == (-1, 1)
    tally.count(TERM)
    assert tally.new(TERM) == 0
    tally.forget(pokes, None)
    assert (tally.new(TERM), tally.new(INT)) == (0, 0)
