"""Callbacks of one group run beside each other, each exactly once, whatever happens on the way: a model, in a fake world."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanup_guard._stop.running import Aside, Outcome, run_all
from cleanup_guard._stop.stack import AsyncCallback, Callback, CallbackStack, GroupedCallback


class Observer:
    """Of a whole run, or a branch of one: who has begun, and who is over, in this order."""

    def __init__(self, heard: list[tuple[str, str]]) -> None:
        self.heard = heard
        self.hangs = False
        self.joined = 0
        self.callback: Callback | None = None

    def began(self, callback: Callback) -> None:
        """Note the beginning."""
        self.callback = callback
        self.heard.append(("began", callback.name))

    def ended(self, callback: Callback, error: BaseException | None) -> BaseException | None:
        """Note the end, once."""
        if self.callback is None:
            return None
        self.callback = None
        self.heard.append(("over", callback.name))
        return error

    def branch(self) -> Observer:
        """One for a member of a group."""
        return Observer(self.heard)

    def join(self, branch: object) -> None:
        """Count it."""
        self.joined += 1

    def leave(self, callback: Callback) -> BaseException | None:
        """It hangs."""
        return self.ended(callback, TimeoutError(callback.name))

    def close(self) -> None:
        """Nothing is open here."""


def grouped(
    function: Callable[[], Any], name: str, group: str | None, kind: type[GroupedCallback] = GroupedCallback
) -> Callback:
    """A callback of a group, or of none."""
    made = kind(function, (), {}, label=name)
    made.group = group
    return made


class Alarm(BaseException):
    """Somebody's signal handler raises this between two lines."""


class World:
    """A loop and threads in which everything happens when the test says so.

    Attributes:
        tasks: steps that go on, with what the callback that they await is to lead to.
    """

    def __init__(self, stack: CallbackStack) -> None:
        self.stack = stack
        self.heard: list[tuple[str, str]] = []
        self.outcome = Outcome(None)
        self.observer = Observer(self.heard)
        self.tasks: list[tuple[Iterator[Any], Aside]] = []
        self.fails: set[str] = set()

    def run(self, data: st.DataObject) -> None:
        """Take the steps to their end. Cut short by an alarm they are begun again, as main, the watcher and the nets do."""
        alarms = data.draw(st.integers(0, 2))
        while True:
            try:
                self._take(run_all(self.stack, self.outcome, self.observer), data, alarms)
                break
            except Alarm:
                alarms -= 1
        while self.tasks:  # those that were left behind come back
            self._go_on(len(self.tasks) - 1)

    def _take(self, steps: Any, data: st.DataObject, alarms: int) -> None:
        sent: Any = None
        while True:
            try:
                pending = steps.send(sent)
            except StopIteration:
                return
            sent = None
            if alarms and data.draw(st.booleans()):
                steps.throw(Alarm())
            if isinstance(pending, Aside):
                self.tasks.append((pending.steps(), pending))
            elif isinstance(pending, AsyncCallback):
                pending.land()
            else:
                while not pending():
                    self._something_happens(data)

    def _something_happens(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.tasks) - 1))
        aside = self.tasks[place][1]
        branch: Any = aside.branch
        if branch is not None and branch.callback is not None and data.draw(st.integers(0, 3)) == 0:
            branch.hangs = True
        else:
            self._go_on(place)

    def _go_on(self, place: int) -> None:
        steps, aside = self.tasks[place]
        try:
            pending: Any = next(steps)
            if aside.callback.name in self.fails:
                pending.take_awaitable()
                steps.throw(Alarm(aside.callback.name))  # type: ignore[attr-defined]
        except StopIteration:
            del self.tasks[place]
        else:
            pending.land()


def run_of(callbacks: list[Callback], name: str) -> set[str]:
    """The neighbours that may be under way at the same time as this one, with itself."""
    names = [each.name for each in callbacks]
    place = low = high = names.index(name)
    group = callbacks[place].group
    if group is None:
        return {name}
    while low and callbacks[low - 1].group == group:
        low -= 1
    while high + 1 < len(callbacks) and callbacks[high + 1].group == group:
        high += 1
    return set(names[low : high + 1])


@settings(max_examples=150, deadline=None, database=None)
@given(st.data())
def test_each_runs_once_after_those_that_were_registered_after_its_group(data: st.DataObject) -> None:
    """Plain and async ones, some that fail, hang or swallow their interrupt, and alarms between any two steps of the whole."""
    stack = CallbackStack()
    world = World(stack)
    ran: list[str] = []
    callbacks: list[Callback] = []
    for number in range(data.draw(st.integers(0, 8))):
        group = data.draw(st.sampled_from([None, "a", "a", "b"]))
        kind = data.draw(st.sampled_from([GroupedCallback, AsyncCallback]))
        name = str(number)
        if data.draw(st.integers(0, 3)) == 0 and kind is GroupedCallback:
            world.fails.add(name)

        def call(name: str = name) -> str:
            ran.append(name)
            if name in world.fails:
                raise Alarm(name)
            return name

        callbacks.append(grouped(call, name, group, kind))
        stack.push(callbacks[-1])
    names = [each.name for each in callbacks]
    world.run(data)
    assert sorted(ran) == sorted(names), "each exactly once"
    over: set[str] = set()
    for what, name in world.heard:
        if what == "over":
            over.add(name)
        else:
            later = set(names[names.index(name) + 1 :]) - run_of(callbacks, name)
            assert later <= over, f"{name} began before its time"
    assert over == set(names)
    assert stack.closed
    assert stack.take() is None
    told = [str(each) for each in world.outcome.failures]
    assert set(told) >= world.fails
    assert len(told) == len(set(told)), "each failure is told once"
    order = [names.index(each) for each in told]
    assert order == sorted(order, reverse=True), "in the order of the callbacks, whoever of them failed first"


def begun_together(callbacks: list[Callback]) -> list[str]:
    """The names of those that are begun before anybody is waited for."""
    steps = run_all(CallbackStack(callbacks), Outcome(None), Observer([]))
    begun: list[str] = []
    while isinstance(pending := next(steps), Aside):
        begun.append(pending.callback.name)
    steps.close()
    return begun


def test_neighbours_of_one_word_run_at_once() -> None:
    """The last registered one is begun first. Another word, and a callback without any, ends the group."""
    of = [grouped(int, name, group) for name, group in zip("12345", "babaa", strict=True)]
    assert begun_together(of) == ["5", "4"]
    assert begun_together([grouped(int, "1", "a"), grouped(int, "2", "a")]) == ["2", "1"]


def test_no_group_reaches_around_another_callback() -> None:
    """That one may need what was registered before it, and be needed by what was registered after it."""
    assert begun_together([grouped(int, "1", "a"), grouped(int, "2", None), grouped(int, "3", "a")]) == ["3"]


def test_what_is_registered_at_that_very_moment_comes_next() -> None:
    """Between the look at the neighbour and the grip somebody else registers: he is in the hand, but not of the group."""
    low, high, late = grouped(int, "low", "a"), grouped(int, "high", "a"), grouped(int, "late", None)

    class Pushy(CallbackStack):
        __slots__ = ()

        def _take_last(self) -> None:
            if self.hand and late not in self.hand:
                self.push(late)
            super()._take_last()

    stack = Pushy([low, high])
    stack.take()
    assert stack.take_neighbours() == [high]
    assert stack.names() == ["high", "late", "low"]
    stack.put_down()
    assert stack.take() is late
    stack.put_down()
    assert stack.take() is low


def test_what_has_begun_cannot_be_unregistered() -> None:
    """A group is in the hand; the callbacks below it are not."""
    stack = CallbackStack([grouped(int, "below", None), grouped(float, "1", "a"), grouped(float, "2", "a")])
    steps = run_all(stack, Outcome(None), Observer([]))
    next(steps)
    assert stack.discard(float) == 0
    assert stack.discard(int) == 1
    assert stack.names() == ["2", "1"]
    assert len(stack.disown()) == 2  # a fork child inherits both, and calls none
    assert stack.names() == []
    steps.close()


def test_the_failures_of_a_group_are_no_context_of_each_other() -> None:
    """They have nothing to do with each other, only with what came before."""

    def fail() -> None:
        raise OSError("full")

    before = ValueError("before")
    outcome, observer = Outcome(before), Observer([])
    for each in run_all(CallbackStack([grouped(fail, "1", "a"), grouped(fail, "2", "a")]), outcome, observer):
        if isinstance(each, Aside):
            assert list(each.steps()) == []
        else:
            assert callable(each)
            assert each()
    assert [type(each) for each in outcome.failures] == [OSError, OSError]
    assert [each.__context__ for each in outcome.failures] == [before, before]
    assert observer.joined == 2


def test_who_stumbles_for_good_is_told_and_waited_for_no_longer() -> None:
    """An observer that raises each time: there is no end of it, and others have their turn."""

    class Broken(Observer):
        def branch(self) -> Observer:
            raise MemoryError("no branch")

    aside = Aside(grouped(int, "1", "a"), None, Broken([]))
    with pytest.raises(MemoryError):
        list(aside.steps())
    aside.stumbled = MemoryError("no branch")
    aside.end()
    assert aside.is_over()
    assert str(aside.outcome.failures[0]) == "no branch"
