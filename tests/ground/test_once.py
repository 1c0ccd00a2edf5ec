"""A claim that only one wins: of many threads, and of a handler that interrupts the claimant."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from cleanup_guard._ground.once import Once

THREADS, ROUNDS = 8, 200


def test_it_is_had_once() -> None:
    """The first has it, and everybody sees that."""
    once = Once()
    assert not once.claimed
    assert [once.claim() for _ in range(3)] == [True, False, False]
    assert once.claimed


def test_it_can_be_given_back() -> None:
    """Then one more may have it; giving back twice makes no two of it."""
    once = Once()
    once.claim()
    once.give_back()
    once.give_back()
    assert not once.claimed
    assert [once.claim() for _ in range(3)] == [True, False, False]


def test_one_of_many_threads_wins() -> None:
    """They all try at the same time."""
    for _ in range(ROUNDS):
        once, barrier, won = Once(), threading.Barrier(THREADS), list[bool]()

        def try_it(once: Once = once, barrier: threading.Barrier = barrier, won: list[bool] = won) -> None:
            barrier.wait()
            won.append(once.claim())

        threads = [threading.Thread(target=try_it) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(won) == [False] * (THREADS - 1) + [True]


def test_a_handler_wins_or_loses_as_a_thread_does() -> None:
    """A signal that arrives anywhere in a claim, and whose handler claims: together they have it once, however often."""
    once, won, calls = Once(), list[str](), list[int]()  # lists: a handler in a handler's `+=` would lose one

    def handler(signum: int, frame: FrameType | None) -> None:
        calls.append(signum)
        if once.claim():
            won.append("handler")

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    by_main = 0
    try:
        while len(calls) < 200:
            if once.claim():
                won.append("main")
                by_main += 1
            assert len(won) == 1
            won.clear()
            once.give_back()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert by_main
