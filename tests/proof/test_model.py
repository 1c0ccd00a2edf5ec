"""Random histories of real guards against a small model: what runs, in which order, what is raised, what guards say."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import groupby
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cleanup_guard import CleanupError, Guard, SignalExit
from cleanup_guard._process.process import REGISTRY
from cleanup_guard._stop.state import State

IN_GROUPS = ("works", "works", "fails", "hangs beside")


class Failed(Exception):
    """What a failing callback raises."""


class Registered(NamedTuple):
    """A callback that is registered.

    Attributes:
        number: what it notes when it runs.
        kind: "works", "fails", "hangs" or, where it runs beside others, "hangs beside".
        group: the word that it shares with those that run at the same time.
    """

    number: int
    kind: str
    group: str | None = None


class Job:
    """Work in flight in a thread of its own. It has begun when this is made.

    Args:
        guard: what waits for it.
        number: what it notes when it is over.
        ran: where.
    """

    def __init__(self, guard: Guard, number: int, ran: list[int]) -> None:
        self.number = number
        self.released = threading.Event()
        begun = threading.Event()

        def work() -> None:
            with guard.work():
                begun.set()
                self.released.wait(60)
                time.sleep(0.002)  # whoever does not wait for it is faster
                ran.append(number)

        self.thread = threading.Thread(target=work)
        self.thread.start()
        assert begun.wait(60)


class Twin:
    """A guard and what the model knows of it."""

    def __init__(self, guard: Guard, drain: float | None = None) -> None:
        self.guard = guard
        self.drain = drain
        self.pending: list[Registered] = []
        self.jobs: list[Job] = []
        self.done = False

    @property
    def failures(self) -> list[type[BaseException]]:
        """What its callbacks will raise, in their order: in a group, too."""
        raises = {"fails": Failed, "hangs": TimeoutError, "hangs beside": TimeoutError}
        return [raises[each.kind] for each in reversed(self.pending) if each.kind in raises]

    def check(self, ran: list[int]) -> None:
        """Work comes first, then the callbacks, last registered first; neighbours of one group in any order.

        One that hangs may be interrupted before its first line; that it had its turn is seen by its failure.
        """
        pieces = [{each.number for each in self.jobs}]
        for _, members in groupby(reversed(self.pending), key=lambda each: each.group or each.number):
            pieces.append({each.number for each in members if each.number in ran or "hangs" not in each.kind})
        left = list(ran)
        for piece in pieces:
            assert sorted(left[: len(piece)]) == sorted(piece), f"exactly once, in order: {ran}, not {pieces}"
            del left[: len(piece)]
        assert not left, f"{ran}, not {pieces}"
        for job in self.jobs:
            job.thread.join()


class GuardsAgainstModel(RuleBasedStateMachine):
    """Guards are entered inside each other in the main thread; a stop is a `request_stop`, which raises nothing here."""

    def __init__(self) -> None:
        super().__init__()
        gc.collect()
        gc.disable()  # what interrupts a hanging callback would be raised in what hypothesis does for each collection, and lost
        self.before = (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
        self.threads = set(threading.enumerate())
        self.entered: list[Twin] = []  # outermost first
        self.popped: list[Twin] = []
        self.fresh = 0
        self.ran: list[int] = []
        self.stopped = False
        self.draining = False
        self.ready = False
        self.sections: list[AbstractContextManager[object]] = []  # critical ones and work, of main

    # -- registering ----------------------------------------------------------------------------------------------------

    def _number(self) -> int:
        self.fresh += 1
        return self.fresh

    def _function(self, number: int, kind: str) -> Callable[[], None]:
        def callback() -> None:
            self.ran.append(number)
            if kind == "fails":
                raise Failed(number)
            if kind == "hangs":
                threading.Event().wait(30)
            while kind == "hangs beside":
                time.sleep(0.002)

        return callback

    def _some(self, data: st.DataObject) -> Twin:
        return data.draw(st.sampled_from(self.entered + self.popped))

    @precondition(lambda self: len(self.entered) < 4 and not self.stopped)
    @rule(takes_signals=st.booleans(), drain=st.sampled_from([None, None, 0, 200]))
    def enter(self, takes_signals: bool, drain: float | None) -> None:
        """Enter a guard inside those that are entered."""
        signals = None if takes_signals else ()
        guard = Guard(interrupt=False, hooks=(), grace=600, signals=signals, drain=drain)
        assert guard.state == "new"
        with_guard = guard.__enter__()
        assert with_guard is guard
        self.entered.append(Twin(guard, drain))

    @precondition(lambda self: self.entered or self.popped)
    @rule(data=st.data(), kind=st.sampled_from(["works", "works", "works", "fails"]))
    def register(self, data: st.DataObject, kind: str) -> None:
        """Register a callback that works or fails."""
        twin, number = self._some(data), self._number()
        twin.guard.callback(self._function(number, kind))
        twin.pending.append(Registered(number, kind))

    @precondition(lambda self: self.entered or self.popped)
    @rule(
        data=st.data(), group=st.sampled_from("aab"), kinds=st.lists(st.sampled_from(IN_GROUPS), max_size=3)
    )
    def register_group(self, data: st.DataObject, group: str, kinds: list[str]) -> None:
        """Register callbacks that run at once, and together with those of the same word that were registered right before."""
        twin = self._some(data)
        for kind in kinds:
            number = self._number()
            timeout = 0.02 if kind == "hangs beside" else None
            registrar = twin.guard.options(parallel=group, timeout=timeout)
            registrar.callback(self._function(number, kind))
            twin.pending.append(Registered(number, kind, group))

    @precondition(lambda self: self.entered)
    @rule()
    def register_one_that_hangs(self) -> None:
        """Register a callback that does not return, with a short timeout, on a guard whose thread can be interrupted."""
        twin = self.entered[-1]
        taken = any(
            each.guard._stay is not None and each.guard._stay.signums for each in self.entered
        )  # without a signal a blocking call cannot be ended
        if not taken or any(each.kind == "hangs" for each in twin.pending):
            return
        number = self._number()
        twin.guard.options(timeout=0.02, name="hangs").callback(self._function(number, "hangs"))
        twin.pending.append(Registered(number, "hangs"))

    @precondition(lambda self: self.entered or self.popped)
    @rule(data=st.data(), suppresses=st.booleans())
    def push(self, data: st.DataObject, suppresses: bool) -> None:
        """Push an exit function; on a normal exit there is nothing to suppress but failures of callbacks."""
        twin, number = self._some(data), self._number()

        def leave(kind: object, error: object, trace: object) -> bool:
            self.ran.append(number)
            return suppresses

        assert twin.guard.push(leave) is leave
        twin.pending.append(Registered(number, "works"))

    @precondition(lambda self: self.entered or self.popped)
    @rule(data=st.data())
    def register_and_unregister(self, data: st.DataObject) -> None:
        """What is unregistered does not run; unregistering again removes nothing."""
        twin = self._some(data)
        function = self._function(-1, "works")
        twin.guard.callback(function)
        assert twin.guard.unregister(function) == 1
        assert twin.guard.unregister(function) == 0

    @precondition(lambda self: self.entered and len(self.popped) < 3)
    @rule(data=st.data())
    def pop_all(self, data: st.DataObject) -> None:
        """Move all callbacks of a guard to a new one."""
        twin = data.draw(st.sampled_from(self.entered))
        if any(each.kind == "hangs" for each in twin.pending):
            return  # it might be closed when no guard takes signals any more, and a blocking call then outlasts its timeout
        moved = Twin(twin.guard.pop_all())
        moved.pending, twin.pending = twin.pending, []
        self.popped.append(moved)

    # -- sections, work, readiness and the stop -------------------------------------------------------------------------

    @precondition(lambda self: self.entered and len(self.sections) < 3)
    @rule(data=st.data(), works=st.booleans())
    def begin_section(self, data: st.DataObject, works: bool) -> None:
        """Begin a critical section of main, or work."""
        guard = data.draw(st.sampled_from(self.entered)).guard
        section: AbstractContextManager[object] = guard.work() if works else guard.shield()
        section.__enter__()
        self.sections.append(section)

    @precondition(lambda self: self.sections)
    @rule()
    def end_section(self) -> None:
        """End one: for a main that is not interrupted that changes nothing."""
        self.sections.pop().__exit__(None, None, None)

    @precondition(lambda self: self.entered)
    @rule(data=st.data())
    def begin_job(self, data: st.DataObject) -> None:
        """Begin work in a thread."""
        twin = data.draw(st.sampled_from(self.entered))
        if len(twin.jobs) < 2:
            twin.jobs.append(Job(twin.guard, self._number(), self.ran))

    @precondition(lambda self: any(twin.jobs for twin in self.entered))
    @rule(data=st.data())
    def end_job(self, data: st.DataObject) -> None:
        """It is over before anybody waits for it."""
        twin = data.draw(st.sampled_from([twin for twin in self.entered if twin.jobs]))
        job = twin.jobs.pop()
        job.released.set()
        job.thread.join()

    @precondition(lambda self: self.entered)
    @rule(data=st.data())
    def say_ready(self, data: st.DataObject) -> None:
        """The program takes work, if there is no stop."""
        data.draw(st.sampled_from(self.entered)).guard.ready()
        self.ready = not self.stopped

    @precondition(lambda self: self.entered)
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        """Ask for a stop: only the first one counts. If the outermost guard that says so wants it, main serves on."""
        twin = data.draw(st.sampled_from(self.entered))
        assert twin.guard.request_stop("enough", status=5) is not self.stopped
        if not self.stopped:
            self.draining = bool(next((each.drain for each in self.entered if each.drain is not None), None))
        self.stopped, self.ready = True, False

    # -- leaving --------------------------------------------------------------------------------------------------------

    def _expect_end(self, twin: Twin, end: Callable[[], object], *, raises_stop: bool) -> None:
        self.ran.clear()
        for job in twin.jobs:
            job.released.set()
        caught: BaseException | None = None
        try:
            end()
        except (CleanupError, SignalExit) as error:
            caught = error
        twin.check(self.ran)
        if raises_stop:
            assert isinstance(caught, SignalExit), caught
            assert (caught.code, caught.reason, caught.signum) == (5, "enough", None)
        elif twin.failures:
            assert isinstance(caught, CleanupError), caught
            assert [type(each) for each in caught.exceptions] == twin.failures
        else:
            assert caught is None
        twin.pending, twin.done = [], True
        assert twin.guard.state == "done"

    @precondition(lambda self: self.entered)
    @rule()
    def leave(self) -> None:
        """Leave the innermost guard: its callbacks run, and a stop goes on upwards. Nobody serves on any longer."""
        while self.sections:
            self.end_section()
        twin = self.entered.pop()
        self.draining = False
        self.ready = self.ready and bool(self.entered)
        self._expect_end(twin, lambda: twin.guard.__exit__(None, None, None), raises_stop=self.stopped)
        self._refuses(twin)
        twin.guard.close()  # again: nothing
        if not self.entered and self.stopped:
            self._after_the_stop()

    @precondition(lambda self: self.popped and not self.stopped)
    @rule(data=st.data())
    def close_popped(self, data: st.DataObject) -> None:
        """Close a guard that pop_all made."""
        twin = data.draw(st.sampled_from(self.popped))
        self.popped.remove(twin)
        self._expect_end(twin, twin.guard.close, raises_stop=False)
        self._refuses(twin)

    def _refuses(self, twin: Twin) -> None:
        for use in (
            lambda: twin.guard.callback(print),
            lambda: twin.guard.push(lambda *_: None),
            twin.guard.__enter__,
            twin.guard.request_stop,
        ):
            try:
                use()
            except RuntimeError:
                continue
            raise AssertionError("a guard that is done must refuse")

    def _after_the_stop(self) -> None:
        for twin in self.popped[::-1]:
            self._close_failing(twin) if twin.failures else self._expect_end(
                twin, twin.guard.close, raises_stop=False
            )
        self.popped.clear()
        process = REGISTRY.process
        if process is not None and process.state is State.DONE:
            process.forget()
        self.stopped = False

    def _close_failing(self, twin: Twin) -> None:
        self.ran.clear()
        try:
            twin.guard.close()
        except (CleanupError, SignalExit):
            pass
        twin.check(self.ran)

    # -- always ---------------------------------------------------------------------------------------------------------

    @invariant()
    def guards_say_what_is_true(self) -> None:
        """`state`, `stopping`, `pending`, `len` and `remaining` agree with the model."""
        for twin in self.entered:
            stopping = self.stopped and not self.draining
            assert twin.guard.stopping is stopping
            states = (
                ("draining",) if self.draining else ("stopping", "unwinding") if stopping else ("running",)
            )
            assert twin.guard.state in states
            assert twin.guard.is_ready is self.ready
            assert len(twin.guard.pending) == len(twin.pending)
            assert (twin.guard.remaining() is None) is not self.stopped
            assert twin.guard.wait(0) is stopping
            assert twin.guard.reason == ("enough" if self.stopped else None)

    def teardown(self) -> None:
        """Leave everything; handlers and threads are what they were."""
        for twin in self.popped[::-1]:
            self._close_failing(twin)
        self.popped.clear()
        while self.entered:
            self.leave()
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == self.before
        limit = time.monotonic() + 30
        while (
            new := set(threading.enumerate()) - self.threads
        ):  # one of a group that is over ends a moment later
            assert time.monotonic() < limit, new
            time.sleep(0.001)
        assert REGISTRY.process is None or REGISTRY.process.roster.empty
        gc.enable()


GuardsAgainstModel.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestGuardsAgainstModel = GuardsAgainstModel.TestCase


class LongHistories(GuardsAgainstModel):
    """The same machine, for more and longer histories."""


LongHistories.TestCase.settings = settings(
    GuardsAgainstModel.TestCase.settings, max_examples=1500, stateful_step_count=50
)
TestLongHistories = pytest.mark.nightly(LongHistories.TestCase)
