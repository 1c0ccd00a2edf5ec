"""Short turns at the GIL while a program is being stopped, and at no other time."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator

import pytest
from support import run

from cleanup_guard._process.haste import INTERVAL, Haste

PYTHONS = 0.005


@pytest.fixture(autouse=True)
def _interval() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(PYTHONS)
    yield
    sys.setswitchinterval(before)


def test_it_is_put_back() -> None:
    """However often it was begun and ended."""
    haste = Haste()
    for _ in range(2):
        haste.begin()
        haste.begin()
        assert sys.getswitchinterval() == pytest.approx(INTERVAL)
        haste.end()
        haste.end()
        assert sys.getswitchinterval() == pytest.approx(PYTHONS)


def test_what_somebody_else_has_set_stays() -> None:
    """Be it shorter from the beginning, or longer afterwards."""
    haste = Haste()
    sys.setswitchinterval(INTERVAL / 2)
    haste.begin()
    haste.end()
    assert sys.getswitchinterval() == pytest.approx(INTERVAL / 2)
    sys.setswitchinterval(PYTHONS)
    haste.begin()
    sys.setswitchinterval(2 * PYTHONS)
    haste.end()
    assert sys.getswitchinterval() == pytest.approx(2 * PYTHONS)


PROGRAM = """
ready()
def interval(): return round(1e6 * sys.getswitchinterval())
def handler(signum, frame): print("theirs", interval())
{before}
for _ in range(2):
    try:
        with guard(grace=30, hooks=[]) as g:
            g.callback(lambda: print("callback", interval()))
            print("guarded", interval())
            signal.raise_signal(signal.SIGTERM)
            time.sleep({sleeps})
    except SystemExit:
        pass
with guard(signals=(), hooks=[]):
    print("after", interval(), flush=True)
pid = os.fork()
if pid == 0:
    print("child", interval(), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""


def test_a_stop_has_it_until_the_program_goes_on() -> None:
    """Callbacks run in haste; a program that goes on after its stop does not, nor does a child that was forked in between."""
    ended = run(PROGRAM.format(before="", sleeps=60))
    stop = ["guarded 5000", f"callback {round(1e6 * INTERVAL)}"]
    assert ended.out == [*stop, *stop, "after 5000", "child 5000"], ended.err


def test_a_child_that_a_callback_forks_has_none() -> None:
    """It is not being stopped."""
    ended = run(
        """
def callback():
    pid = os.fork()
    if pid == 0:
        print("child", round(1e6 * sys.getswitchinterval()), flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
@guard(grace=30)
def main():
    on_exit(callback)
    ready()
    time.sleep(60)
main()
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["child 5000"], 143), ended.err


def test_somebody_elses_stop_has_none() -> None:
    """He ends the program in his own way, at his own pace."""
    ended = run(PROGRAM.format(before="signal.signal(signal.SIGTERM, handler)", sleeps=0.2))
    stop = ["guarded 5000", "theirs 5000", "callback 5000"]
    assert ended.out == [*stop, *stop, "after 5000", "child 5000"], ended.err
