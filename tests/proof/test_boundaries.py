"""A stop at every bytecode boundary: each callback whose registration returned runs exactly once, in order, every time.

`boundaries.py` is the engine and says how; `scenarios.py` has the programs. The runs are made in children, several at a time,
because tracing, signals and threads are process-wide. All boundaries of the first scenario are tried in every run of the suite,
every 67th of the others, every 201st of those that wait much; the nightly run tries all of all, and more pairs. The full square
of pairs is about ten million runs for a single scenario, so pairs are drawn from a seed, which the environment variable
CLEANUP_GUARD_SEED sets.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest
from proof.boundaries import Plan, Summary
from proof.scenarios import SCENARIOS
from support import _default_signals

pytestmark = pytest.mark.two_pythons

TESTS = Path(__file__).parent.parent
SIGNALS = (signal.SIGTERM, signal.SIGINT)
SEED = int(os.environ.get("CLEANUP_GUARD_SEED", "1"))
OTHERS = sorted(SCENARIOS.keys() - {"decorated"})
WAITS = {"drain", "work", "group", "tasks_at_work"}
"""Many boundaries of these are all the same: main looks again and again whether something is over."""
LIMIT = 1200.0
SHARDS = 2


def explore(plan: Plan, folder: Path) -> Summary:
    """Have one child try what the plan says."""
    progress = folder / f"{plan.scenario}-{plan.signum}-{plan.second}-{plan.start}"
    arguments = [sys.executable, "-m", "proof.boundaries", json.dumps(asdict(plan)), str(progress)]
    ended = subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        cwd=TESTS,
        timeout=LIMIT,
        preexec_fn=_default_signals,
        check=False,
        env={**os.environ, "CLEANUP_GUARD_GRACE": ""},
    )
    where = f"{plan}, last tried: {progress.read_text() if progress.exists() else 'nothing'}"
    assert ended.returncode == 0, f"ended with {ended.returncode}: {where}\n{ended.stderr[-4000:]}"
    return Summary(**json.loads(ended.stdout.splitlines()[-1]))


def explore_all(plans: Sequence[Plan], folder: Path, capsys: pytest.CaptureFixture[str]) -> Summary:
    """Have children try what the plans say, and print the sum."""
    with ThreadPoolExecutor(SHARDS) as executor:
        summaries = list(executor.map(lambda plan: explore(plan, folder), plans))
    total = Summary(
        boundaries=max(each.boundaries for each in summaries),
        tried=sum(each.tried for each in summaries),
        injected=sum(each.injected for each in summaries),
        raised=sum(each.raised for each in summaries),
        skipped=sum(each.skipped for each in summaries),
        failures=[failure for each in summaries for failure in each.failures],
    )
    kind = "pairs" if plans[0].second else "boundaries"
    with capsys.disabled():
        print(
            f"\n  {plans[0].scenario}: {total.tried} {kind} tried (a run has {total.boundaries}), {total.injected} signals met "
            f"the guard, {total.raised} raised at once, {total.skipped} left to the exit net, {len(total.failures)} failures ",
            end="",
        )
    assert not total.failures, "\n".join(total.failures)
    return total


def singles(scenario: str, step: int) -> Iterator[Plan]:
    """Plans that try every `step`th boundary, for both signals, in shards."""
    for signum in SIGNALS:
        for shard in range(SHARDS):
            yield Plan(scenario, signum, start=1 + shard * step, step=step * SHARDS)


def pairs(scenario: str, number: int) -> Iterator[Plan]:
    """Plans that draw so many pairs, for all combinations of the two signals, and with presses that insist."""
    combinations = [(first, second, False) for first in SIGNALS for second in SIGNALS]
    # `handler` presses Ctrl-C itself, and the third press ends the process.
    combinations.append((signal.SIGINT, signal.SIGINT, scenario != "handler"))
    for index, (first, second, insist) in enumerate(combinations):
        share = max(1, number // len(combinations))
        yield Plan(scenario, first, second, start=index, pairs=share, seed=SEED * 100 + index, insist=insist)


def test_every_boundary_of_a_guarded_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A stop at any instruction of enter, registration, main, callbacks and exit: three callbacks run once, in LIFO order."""
    total = explore_all(list(singles("decorated", 1)), tmp_path, capsys)
    assert total.boundaries > 2000
    assert total.tried > 2 * 2000
    assert total.injected > total.tried / 2


@pytest.mark.parametrize("scenario", OTHERS)
def test_boundaries_of_every_feature(
    scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stop at a sample of the instructions of each feature: no callback is lost, doubled or out of order."""
    total = explore_all(list(singles(scenario, 201 if scenario in WAITS else 67)), tmp_path, capsys)
    assert total.boundaries > 1000
    assert total.tried > 25
    assert total.injected > 10


STOPS_ITSELF = {"requested", "handler"}


@pytest.mark.parametrize("scenario", sorted(SCENARIOS.keys() - STOPS_ITSELF))
def test_a_stop_that_is_somebody_elses_at_any_boundary(
    scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their handler hears of it once, nothing is raised in main, and the callbacks run when main ends by itself."""
    step = 393 if scenario in WAITS else 131
    plans = [Plan(scenario, signum, start=3, step=step, theirs=True) for signum in SIGNALS]
    total = explore_all(plans, tmp_path, capsys)
    assert total.raised == 0
    assert total.injected > 10


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_a_second_signal_at_any_later_boundary(
    scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second signal at any instruction after the first changes nothing, nor does a second press lose a callback."""
    number = 20 if scenario in WAITS else 50
    total = explore_all(list(pairs(scenario, number)), tmp_path, capsys)
    assert total.tried == number


@pytest.mark.nightly
@pytest.mark.parametrize("scenario", OTHERS)
def test_every_boundary_of_every_feature(
    scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stop at every instruction of each feature: no callback is lost, doubled or out of order."""
    total = explore_all(list(singles(scenario, 1)), tmp_path, capsys)
    assert total.tried > 2 * 1000


@pytest.mark.nightly
@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_many_pairs(scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the sample of pairs, with 5000 of them for each scenario."""
    total = explore_all(list(pairs(scenario, 5000)), tmp_path, capsys)
    assert total.tried == 5000
