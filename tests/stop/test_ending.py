"""With which status, or by which signal, the process ends: the table of events is the test, row by row."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cleanup_guard._ground.clock import Budget
from cleanup_guard._stop.ending import Ending, ending_of
from cleanup_guard._stop.stop import Stop

if TYPE_CHECKING:
    from cleanup_guard._stop.stop import ExitStatus

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
GUARD = (ROOT / "examples" / "guard.md").read_text()
SIGTERM, SIGINT, SIGHUP = int(signal.SIGTERM), int(signal.SIGINT), int(signal.SIGHUP)


def of_signal(signum: int) -> Stop:
    """A stop by a signal."""
    return Stop(signum, signal.Signals(signum).name, status=128 + signum, budget=Budget(10.0, 0.0))


def requested(status: int) -> Stop:
    """A stop that the program has asked for."""
    return Stop(None, "lease lost", status=status, budget=Budget(10.0, 0.0))


ENDINGS: dict[str, tuple[Stop, ExitStatus, int | None, int]] = {
    # what happens: the stop, what the guards want, the signal that the process dies of, its exit status (as PID 1)
    "SIGTERM": (of_signal(SIGTERM), None, None, 143),
    "SIGTERM, exit_status=0": (of_signal(SIGTERM), 0, None, 0),
    "SIGTERM, exit_status=7": (of_signal(SIGTERM), 7, None, 7),
    'SIGTERM, exit_status="signal"': (of_signal(SIGTERM), "signal", SIGTERM, 143),
    "Ctrl-C": (of_signal(SIGINT), None, SIGINT, 130),
    "Ctrl-C, exit_status=0": (of_signal(SIGINT), 0, None, 0),
    'Ctrl-C, exit_status="signal"': (of_signal(SIGINT), "signal", SIGINT, 130),
    "SIGHUP": (of_signal(SIGHUP), None, None, 129),
    'SIGHUP, exit_status="signal"': (of_signal(SIGHUP), "signal", SIGHUP, 129),
    "request_stop": (requested(1), None, None, 1),
    "request_stop, status=0": (requested(0), None, None, 0),
    "request_stop, exit_status=7": (requested(1), 7, None, 7),
    'request_stop, exit_status="signal"': (requested(1), "signal", None, 1),
}


@pytest.mark.parametrize(("stop", "wanted", "signum", "status"), ENDINGS.values(), ids=ENDINGS)
def test_how_it_ends(stop: Stop, wanted: ExitStatus, signum: int | None, status: int) -> None:
    """A status, or a death by signal and the status of PID 1, which survives its own signals."""
    ending = ending_of(stop, wanted)
    assert (ending.signum, ending.status) == (signum, status)


@pytest.mark.parametrize(
    ("signum", "by_exception", "last_word"),
    [(None, False, False), (SIGINT, True, False), (SIGTERM, False, True), (SIGHUP, False, True)],
)
def test_what_brings_it_about(signum: int | None, by_exception: bool, last_word: bool) -> None:
    """Only a plain KeyboardInterrupt makes Python die of SIGINT; every other death needs a last word."""
    ending = Ending(signum, 1)
    assert ending.is_keyboard_interrupt is by_exception
    assert ending.needs_last_word is last_word


# -- the pages ----------------------------------------------------------------------------------------------------------


def rows(page: str, heading: str) -> list[list[str]]:
    """The rows of the first table after a heading: their cells."""
    table = page[page.index(heading) :].split("\n\n")
    lines = next(block for block in table if block.startswith("|")).splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


EVENTS = {event: status for event, _, status in rows(README, "## What happens")}

STOPS = {
    "SIGTERM": of_signal(SIGTERM),
    "Ctrl-C (SIGINT)": of_signal(SIGINT),
}
"""The rows that begin a stop."""

NO_STOP = {
    "main returns": "0",
    "main raises": "traceback, 1",
    "`sys.exit(n)`": "n",
    "SIGKILL, `os._exit`, a segfault": "",
}
"""The rows in which Python, or the kernel, decides, and not we."""


def test_the_readme_says_how_a_stop_ends() -> None:
    """143 for SIGTERM; for Ctrl-C death by SIGINT, and 130 as PID 1."""
    for event, stop in STOPS.items():
        ending, said = ending_of(stop, None), EVENTS[event]
        assert str(ending.status) in re.findall(r"\d+", said), event
        assert ("death by SIGINT" in said) is (ending.signum == SIGINT), event


def test_every_row_of_the_readme_has_its_test() -> None:
    """A row that tells a status is one of those above, or says that it ends as the signal does."""
    for event, said in EVENTS.items():
        if event in STOPS:
            continue
        if event in NO_STOP:
            assert said == NO_STOP[event]
            continue
        numbers = re.findall(r"\d+", said)
        if numbers:  # a failing callback: 1, unless there is a stop
            assert event == "a callback raises"
            assert numbers == ["1"]
        assert not said or said.startswith("as for the ") or "signal" in said or "they" in said, (event, said)


def test_the_page_says_how_to_choose_another_status() -> None:
    """`exit_status=0`, "signal", and the status of `request_stop`."""
    says = {what: how for what, how in rows(GUARD, "| you want | write |")}  # noqa: C416  # of two cells each
    assert "guard(exit_status=0)" in says["exit status 0 on SIGTERM"]
    assert '"signal"' in says["exit status 0 on SIGTERM"]
    found = re.search(r"request_stop\(.*status=(\d+)\)", says["to stop from inside"])
    assert found is not None
    assert ending_of(requested(int(found[1])), None).status == int(found[1])
