"""Random histories of real guards against a small model: what runs, in which order, what is raised, what guards say."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cleanup_guard import CleanupError, Guard, SignalExit
from cleanup_guard._process.process import REGISTRY
from cleanup_guard._stop.state import State


class Failed(Exception):
    """What a failing callback raises."""


class Twin:
    """A guard and what the model knows of it."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.pending: list[tuple[int, str]] = []  # callbacks that are registered: number and kind
        self.done = False


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
        self.shields: list[object] = []

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

        return callback

    def _some(self, data: st.DataObject) -> Twin:
        return data.draw(st.sampled_from(self.entered + self.popped))

    @precondition(lambda self: len(self.entered) < 4 and not self.stopped)
    @rule(takes_signals=st.booleans())
    def enter(self, takes_signals: bool) -> None:
        """Enter a guard inside those that are entered."""
        guard = Guard(interrupt=False, hooks=(), grace=30, signals=None if takes_signals else ())
        assert guard.state == "new"
        with_guard = guard.__enter__()
        assert with_guard is guard
        self.entered.append(Twin(guard))

    @precondition(lambda self: self.entered or self.popped)
    @rule(data=st.data(), kind=st.sampled_from(["works", "works", "works", "fails"]))
    def register(self, data: st.DataObject, kind: str) -> None:
        """Register a callback that works or fails."""
        twin, number = self._some(data), self._number()
        twin.guard.callback(self._function(number, kind))
        twin.pending.append((number, kind))

    @precondition(lambda self: self.entered)
    @rule()
    def register_one_that_hangs(self) -> None:
        """Register a callback that does not return, with a short timeout, on a guard whose thread can be interrupted."""
        twin = self.entered[-1]
        taken = any(
            each.guard._stay is not None and each.guard._stay.signums for each in self.entered
        )  # without a signal a blocking call cannot be ended
        if not taken or any(kind == "hangs" for _, kind in twin.pending):
            return
        number = self._number()
        twin.guard.options(timeout=0.02, name="hangs").callback(self._function(number, "hangs"))
        twin.pending.append((number, "hangs"))

    @precondition(lambda self: self.entered or self.popped)
    @rule(data=st.data(), suppresses=st.booleans())
    def push(self, data: st.DataObject, suppresses: bool) -> None:
        """Push an exit function; on a normal exit there is nothing to suppress but failures of callbacks."""
        twin, number = self._some(data), self._number()

        def leave(kind: object, error: object, trace: object) -> bool:
            self.ran.append(number)
            return suppresses

        assert twin.guard.push(leave) is leave
        twin.pending.append((number, "works"))

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
        if any(kind == "hangs" for _, kind in twin.pending):
            return  # it might be closed when no guard takes signals any more, and a blocking call then outlasts its timeout
        moved = Twin(twin.guard.pop_all())
        moved.pending, twin.pending = twin.pending, []
        self.popped.append(moved)

    # -- shields and the stop -------------------------------------------------------------------------------------------

    @precondition(lambda self: self.entered and len(self.shields) < 3)
    @rule()
    def shield(self) -> None:
        """Begin a critical section."""
        shield = self.entered[-1].guard.shield()
        shield.__enter__()
        self.shields.append(shield)

    @precondition(lambda self: self.shields)
    @rule()
    def unshield(self) -> None:
        """End one: for a main that is not interrupted that changes nothing."""
        self.shields.pop().__exit__(None, None, None)  # type: ignore[attr-defined]

    @precondition(lambda self: self.entered)
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        """Ask for a stop: only the first one counts."""
        twin = data.draw(st.sampled_from(self.entered))
        assert twin.guard.request_stop("enough", status=5) is not self.stopped
        self.stopped = True

    # -- leaving --------------------------------------------------------------------------------------------------------

    def _expect_end(self, twin: Twin, end: Callable[[], object], *, raises_stop: bool) -> None:
        wanted = [number for number, _ in reversed(twin.pending)]
        failed = [(number, kind) for number, kind in reversed(twin.pending) if kind != "works"]
        self.ran.clear()
        caught: BaseException | None = None
        try:
            end()
        except (CleanupError, SignalExit) as error:
            caught = error
        assert self.ran == wanted, "exactly once, last registered first"
        if raises_stop:
            assert isinstance(caught, SignalExit), caught
            assert (caught.code, caught.reason, caught.signum) == (5, "enough", None)
        elif failed:
            assert isinstance(caught, CleanupError), caught
            kinds = [Failed if kind == "fails" else TimeoutError for _, kind in failed]
            assert [type(each) for each in caught.exceptions] == kinds
        else:
            assert caught is None
        twin.pending, twin.done = [], True
        assert twin.guard.state == "done"

    @precondition(lambda self: self.entered)
    @rule()
    def leave(self) -> None:
        """Leave the innermost guard: its callbacks run, and a stop goes on upwards."""
        while self.shields:
            self.unshield()
        twin = self.entered.pop()
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
            self._expect_end(twin, twin.guard.close, raises_stop=False) if not any(
                kind != "works" for _, kind in twin.pending
            ) else self._close_failing(twin)
        self.popped.clear()
        process = REGISTRY.process
        if process is not None and process.state is State.DONE:
            process.forget()
        self.stopped = False

    def _close_failing(self, twin: Twin) -> None:
        self.ran.clear()
        wanted = [number for number, _ in reversed(twin.pending)]
        try:
            twin.guard.close()
        except (CleanupError, SignalExit):
            pass
        assert self.ran == wanted

    # -- always ---------------------------------------------------------------------------------------------------------

    @invariant()
    def guards_say_what_is_true(self) -> None:
        """`state`, `stopping`, `pending`, `len` and `remaining` agree with the model."""
        for twin in self.entered:
            assert twin.guard.stopping is self.stopped
            assert twin.guard.state in (("stopping", "unwinding") if self.stopped else ("running",))
            assert len(twin.guard.pending) == len(twin.pending)
            assert (twin.guard.remaining() is None) is not self.stopped
            assert twin.guard.wait(0) is self.stopped
            assert twin.guard.reason == ("enough" if self.stopped else None)

    def teardown(self) -> None:
        """Leave everything; handlers and threads are what they were."""
        for twin in self.popped[::-1]:
            self._close_failing(twin)
        self.popped.clear()
        while self.entered:
            self.leave()
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == self.before
        assert not set(threading.enumerate()) - self.threads
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
