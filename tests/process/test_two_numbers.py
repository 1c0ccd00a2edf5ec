"""Rescues come in the time that is sure, permission lasts while there is hope: in real processes, on faked platforms."""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import ExitStack

import pytest
from support import Child, Ended, child, run

MAINS = {
    "asleep": "with guard() as g:\n    g.callback(saved); ready(); time.sleep(600)",
    "stuck in C": "with guard() as g:\n    g.callback(saved); ready(); os.system('trap : INT TERM; sleep 600')",
    "swallows": """with guard() as g:
    g.callback(saved); ready()
    while True:
        try:
            while True: time.sleep(0.05)
        except BaseException: pass""",
    "a callback hangs": """with guard() as g:
    g.callback(saved); g.callback(time.sleep, 600); ready(); time.sleep(600)""",
    "job": """with guard(interrupt=False) as g:
    g.callback(saved); ready()
    while g.sleep(1): pass
    time.sleep(JOB); print('job done', flush=True)""",
}
"""The five mains of platforms.md, at the moment of the stop."""

PREPARED = "JOB = {job}\ndef saved(): print('saved', flush=True)\n"

KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


def main(name: str, job: float = 12) -> str:
    """The program."""
    return PREPARED.format(job=job) + MAINS[name] + "\n"


def test_permission_lasts_longer_than_what_is_sure() -> None:
    """A cooperative job of four seconds is done where two are sure and a minute is hoped for."""
    ended = run(main("job", 4), signal.SIGTERM, env={"CLEANUP_GUARD_GRACE": "2..60"})
    assert (ended.status, ended.out) == (143, ["job done", "saved"])
    assert "interrupt" not in ended.err


@pytest.mark.parametrize("name", ["swallows", "stuck in C", "a callback hangs"])
def test_a_rescue_does_not_wait_for_hope(name: str) -> None:
    """Where two seconds are sure and ten minutes are hoped for, others have their turn in a moment."""
    with child(main(name), env={"CLEANUP_GUARD_GRACE": "2..600"}) as started:
        started.signal(signal.SIGTERM)
        started.wait_for_line("saved")
        assert time.monotonic() - started.began < 60
        if name == "a callback hangs":
            assert "others wait, and the 2 s that are sure are nearly over" in started.err


def test_the_last_callback_has_what_is_hoped_for() -> None:
    """Nobody waits for it; and it can ask what is left."""
    code = """
def last():
    print(g.remaining() > 40); time.sleep(4); print("done")
def first():
    print(g.remaining() < 2)
with guard() as g:
    g.callback(last); g.callback(first); ready(); time.sleep(60)
"""
    ended = run(code, signal.SIGTERM, env={"CLEANUP_GUARD_GRACE": "2..60"})
    assert (ended.status, ended.out) == (143, ["True", "True", "done"])


def test_what_is_given_to_the_guard_is_both() -> None:
    """`guard(grace=2)` on Kubernetes: the job is interrupted inside of it."""
    code = main("job", 60).replace("interrupt=False", "interrupt=False, grace=2")
    ended = run(code, signal.SIGTERM, env=KUBERNETES)
    assert ended.out == ["saved"]
    assert "on Kubernetes (KUBERNETES_SERVICE_HOST), 2 s to clean up: given by guard(grace=)" in ended.err


def stop(names: dict[str, Child], kill_at: float) -> dict[str, Ended]:
    """Stop them all as Kubernetes does, and kill them so much later."""
    for each in names.values():
        each.signal(signal.SIGTERM)
    for each in names.values():
        _wait(each, kill_at)
        each.process.kill()
    return {name: each.end() for name, each in names.items()}


def _wait(started: Child, seconds: float) -> None:
    """Wait for its end, at most so many seconds from its stop on."""
    try:
        started.process.wait(max(0.0, started.began + seconds - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass


LOST = {
    5: {"swallows", "a callback hangs", "job"},
    10: {"job"},
    15: set[str](),
    30: set[str](),
}
"""Who cannot be saved from a SIGKILL so many seconds after the stop, where Kubernetes' 10 and 30 are taken for granted."""


@pytest.mark.one_python
@pytest.mark.parametrize(
    "kill_at", [15, *(pytest.param(each, marks=pytest.mark.nightly) for each in (5, 10, 30))]
)
def test_the_five_mains_on_kubernetes(kill_at: int) -> None:
    """On a spot node, which kills after 15 s whatever was asked for, everybody is saved, and a job of 12 s is done."""
    with ExitStack() as stack:
        names = {name: stack.enter_context(child(main(name), env=KUBERNETES)) for name in MAINS}
        ended = stop(names, kill_at)
    saved = {name for name, each in ended.items() if "saved" in each.out}
    assert saved >= MAINS.keys() - LOST[kill_at]
    assert kill_at < 15 or ended["job"].out == ["job done", "saved"]


# -- CI ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.one_python
@pytest.mark.parametrize(
    "name",
    ["asleep", *(pytest.param(each, marks=pytest.mark.nightly) for each in ("swallows", "a callback hangs"))],
)
def test_github_actions_loses_nothing(name: str) -> None:
    """SIGINT, SIGTERM at 7.5 s, SIGKILL at 10: the second signal is the schedule's, and cuts nothing short."""
    with child(main(name), env={"GITHUB_ACTIONS": "true"}) as started:
        started.signal(signal.SIGINT)
        _wait(started, 7.5)
        started.process.send_signal(signal.SIGTERM)  # which does nothing if it has ended
        _wait(started, 10)
        started.process.kill()
        ended = started.end()
    assert "saved" in ended.out
    assert "on GitHub Actions (GITHUB_ACTIONS), 10 s to clean up: guessed" in ended.err
    assert "Ctrl-C was pressed again" not in ended.err


def test_a_sigterm_after_a_sigint_is_no_second_press() -> None:
    """Nor are two of them: a callback that takes its time is not interrupted, on Actions, LSF and JupyterHub."""
    code = "def slow():\n    print('in slow', flush=True); time.sleep(2); print('slow done')\n" + main(
        "asleep"
    ).replace("ready();", "g.callback(slow); ready();")
    with child(code, env={"GITHUB_ACTIONS": "true"}) as started:
        started.signal(signal.SIGINT)
        started.wait_for_line("in slow")
        for _ in range(2):
            started.process.send_signal(signal.SIGTERM)
            time.sleep(0.6)  # two signals within half a second would be one press
        ended = started.end()
    assert (ended.status, ended.out) == (-signal.SIGINT, ["in slow", "slow done", "saved"])


def test_a_framework_is_not_stepped_in_on_because_of_a_guess() -> None:
    """Somebody else's stop on a platform that is only recognised: he has all the time that he wants."""
    code = PREPARED.format(job=0) + (
        "signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "with guard() as g:\n    g.callback(saved); ready()\n    end = time.monotonic() + 3\n"
        "    while time.monotonic() < end: time.sleep(0.05)\n    print('drained', flush=True)\n"
    )
    ended = run(code, signal.SIGTERM, env={"AWS_LAMBDA_FUNCTION_NAME": "f"})
    assert (ended.status, ended.out) == (0, ["drained", "saved"])


def test_slurms_second_stop_an_hour_later_changes_nothing() -> None:
    """Preemption stops a job twice: a callback that takes what `grace=None` allows goes on after an hour."""
    code = """
from cleanup_guard._process.process import REGISTRY
def checkpoint():
    REGISTRY.process.clock = lambda: time.monotonic() + 3600
    for signum in (signal.SIGCONT, signal.SIGTERM): os.kill(os.getpid(), signum)
    time.sleep(1)
    print("written")
with guard(grace=None) as g:
    g.callback(checkpoint)
    ready()
    time.sleep(60)
"""
    ended = run(code, signal.SIGTERM, env={"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0"})
    assert (ended.status, ended.out) == (143, ["written"])
    assert ended.err.count("SIGTERM received in a Slurm job (SLURM_JOB_ID)") == 1
