"""The policy on fake processes and a fake clock: whatever happens, the budget holds and nobody is wronged."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st

from cleanup_guard._supervise._policy import Child, Policy

GRACE = 10.0
KILL_AT = 0.7 * 9.0


@dataclass
class Fake:
    """A process that ends some time after being asked (infinity: ignores that), or by itself."""

    takes: float
    by_itself: float = inf
    rest: float = -1.0  # how long the rest of its group takes after being told; negative: there is none
    after: int | None = None
    asked_at: float = inf
    killed_at: float = inf
    rest_told_at: float = inf
    rest_killed_at: float = inf
    child: Child = field(default_factory=lambda: Child("x"))

    @property
    def ends_at(self) -> float:
        return min(self.by_itself, self.asked_at + self.takes, self.killed_at)

    @property
    def rest_ends_at(self) -> float:
        return min(self.rest_told_at + self.rest, self.rest_killed_at) if self.rest >= 0 else -inf


class FakeWorld:
    """Processes that do as their plan says."""

    def __init__(self, fakes: list[Fake]) -> None:
        self.now = 0.0
        self.fakes = {id(fake.child): fake for fake in fakes}

    def send(self, child: Child, signum: int, *, to_group: bool) -> None:
        assert signum in (2, 15)
        fake = self.fakes[id(child)]
        assert fake.asked_at == inf, "asked twice"
        fake.asked_at = self.now
        if to_group:
            fake.rest_told_at = min(fake.rest_told_at, self.now)

    def tell_rest(self, child: Child, signum: int, *, young: bool) -> None:
        fake = self.fakes[id(child)]
        fake.rest_told_at = min(fake.rest_told_at, self.now)

    def tell_strays(self, signum: int, *, young: bool) -> None:
        raise AssertionError("there are none")

    def remind(self) -> None:
        pass

    def kill(self, child: Child) -> None:
        fake = self.fakes[id(child)]
        fake.killed_at = min(fake.killed_at, self.now)
        fake.rest_killed_at = min(fake.rest_killed_at, self.now)

    def kill_strays(self) -> None:
        raise AssertionError("there are none")

    def has_group(self, child: Child) -> bool:
        fake = self.fakes[id(child)]
        return fake.rest >= 0 and fake.rest_ends_at > self.now

    def has_strays(self) -> bool:
        return False


times = st.floats(0, 15)
fakes = st.builds(
    Fake,
    takes=st.one_of(times, st.just(inf)),
    by_itself=st.one_of(times, st.just(inf)),
    rest=st.one_of(st.just(-1.0), times),
)


def play(plan: list[Fake], stop_at: float, when: str, scope: str) -> tuple[Policy, FakeWorld, float]:
    """Run the policy over a plan. Returns it, the world, and when it was done."""
    for number, fake in enumerate(plan):
        after = [plan[fake.after].child] if fake.after is not None and fake.after < number else []
        fake.child = Child(f"c{number}", after=after, scope=scope)  # type: ignore[arg-type]
        fake.child.pid = 1000 + number
    world = FakeWorld(plan)
    policy = Policy([f.child for f in plan], world, grace=GRACE, callbacks=True, when_one_exits=when)  # type: ignore[arg-type]
    stopped = False
    while True:
        if not stopped and world.now >= stop_at:
            stopped = True
            policy.signal(15, world.now)
        for fake in plan:
            if fake.child.running and fake.ends_at <= world.now:
                policy.ended(fake.child, -9 if fake.killed_at <= world.now else 0, world.now)
        due = policy.step(world.now)
        if policy.done:
            return policy, world, world.now
        assert due > world.now, "busy waiting"
        moments = [due] + [f.ends_at for f in plan if f.child.running] + [f.rest_ends_at for f in plan]
        moments += [] if stopped else [stop_at]
        world.now = heapq.nsmallest(1, (m for m in moments if m > world.now))[0]
        assert world.now < 100, "never done"


@settings(max_examples=300, deadline=None)
@given(
    st.lists(fakes, min_size=1, max_size=5),
    st.lists(st.one_of(st.none(), st.integers(0, 4)), min_size=5, max_size=5),
    times,
    st.sampled_from(["stop", "wait"]),
    st.sampled_from(["group", "main", "main-then-group"]),
)
def test_the_budget_holds_and_nobody_is_wronged(
    plan: list[Fake], after: list[int | None], stop_at: float, when: str, scope: str
) -> None:
    """All are gone in the budget, all are asked before they are killed, none is killed who would have ended in time."""
    for fake, before in zip(plan, after, strict=False):
        fake.after = before
    policy, world, done_at = play(plan, stop_at, when, scope)
    assert policy.budget is not None
    began = policy.budget.began
    assert done_at <= began + KILL_AT + 0.3
    for fake in plan:
        assert not fake.child.running
        assert not world.has_group(fake.child)
        if fake.killed_at < inf:
            own = fake.rest_told_at + GRACE
            assert fake.killed_at >= min(began + KILL_AT, own) - 1e-6
    assert (policy.status == 137) == any(fake.killed_at < inf for fake in plan)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 2), min_size=2, max_size=4))
def test_who_comes_after_is_gone_before_the_other_is_asked(takes: list[float]) -> None:
    """A chain of children that all end in time is stopped strictly in reverse."""
    plan = [Fake(takes=each / len(takes)) for each in takes]
    for number, fake in enumerate(plan):
        fake.after = number - 1 if number else None
    play(plan, 1.0, "stop", "group")
    for earlier, later in pairwise(plan):
        assert earlier.asked_at >= later.ends_at
