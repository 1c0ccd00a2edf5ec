"""The boundary proof's engine: run a scenario once for every place in it, and let a signal arrive there.

`python -m proof.boundaries '{"scenario": "decorated", "signum": 15}'` prints what came of it as one line of JSON; see `Plan`.

How a signal is injected: a trace function counts opcodes, in the frames of the scenario and of cleanup_guard. At the chosen
one it does what CPython does when a signal arrives there: it writes the signal's number to the wakeup fd and calls the handler
with that frame. What the handler raises propagates into the frame, at that opcode. This is more than CPython does, which looks
for signals only at calls, at loop ends and at the start of functions: there is no place that it knows and we leave out.

Things that don't work:
- `signal.raise_signal` in the trace function: the handler would run in the trace function's own frame.
- Counting on after the trace function has raised: CPython then removes it. A profile function, which it keeps, puts it back at
  the next call or return, and no opcode before that one is a place where CPython looks for signals.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any

from proof import scenarios
from proof.scenarios import GROUP, SCENARIOS, World

from cleanup_guard import CleanupError, Finished, SignalExit, StopReceived
from cleanup_guard._process import signals
from cleanup_guard._process.last_word import LastWord, unhush_traceback
from cleanup_guard._process.moment import Moment
from cleanup_guard._process.nets import early_net
from cleanup_guard._process.process import REGISTRY
from cleanup_guard._process.receiver import Receiver
from cleanup_guard._stop.delivery import Presses
from cleanup_guard._stop.owner import LOOPS
from cleanup_guard._stop.state import State
from cleanup_guard._stop.token import OURS, is_ours

TOO_LATE = 3.0
"""Seconds after which a run that should take milliseconds has failed."""

ENOUGH = 5
"""Failures after which looking for more is a waste of time."""


@dataclass(frozen=True)
class Plan:
    """Which boundaries to try.

    Attributes:
        scenario: a name in SCENARIOS.
        signum: the signal.
        second: the second signal of a pair, or 0 for single signals.
        start: the first boundary.
        step: from one to the next; 1 tries every one.
        pairs: how many pairs to draw; 0 tries all of them, in steps.
        seed: for drawing.
        insist: a second SIGINT is a person's second press however soon it comes, and interrupts the callback in progress.
        theirs: the program's own handlers make the stop theirs: nothing is raised, and they hear of every signal.
    """

    scenario: str
    signum: int
    second: int = 0
    start: int = 1
    step: int = 1
    pairs: int = 0
    seed: int = 0
    insist: bool = False
    theirs: bool = False


@dataclass
class Summary:
    """What came of it.

    Attributes:
        boundaries: how many opcodes an undisturbed run has.
        tried: runs.
        injected: signals that met a handler of ours; the others came before or after it was there.
        raised: signals whose handler raised at once; the others were held back.
        skipped: runs in which an exit was jumped over, and the exit net ran what was left.
        failures: what went wrong, with the boundary.
    """

    boundaries: int = 0
    tried: int = 0
    injected: int = 0
    raised: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)


def _look_through_us() -> None:
    """Have a real signal that arrives inside the trace function count as one for the frame that is traced."""
    is_right = Moment.is_right

    def look_through(self: Moment, frame: FrameType | None, waiting_since: float | None) -> bool:
        while frame is not None and frame.f_code.co_filename == __file__:
            frame = frame.f_back
        return is_right(self, frame, waiting_since)

    Moment.is_right = look_through  # type: ignore[method-assign]


class Injector:
    """Traces one run and injects signals at the chosen opcodes."""

    def __init__(self, targets: Iterable[tuple[int, int]], world: World, *, theirs: bool = False) -> None:
        self.world = world
        self.theirs = theirs
        self.count = 0
        self.injected = 0
        self.raised = 0
        self.must_stop = False  # a signal arrived while a guard was there to be stopped
        self.places: list[str] = []
        self.missed = False  # a chosen opcode was never reached
        self._targets: Iterator[tuple[int, int]] = iter(targets)
        self._at, self._signum = next(self._targets, (0, 0))
        self._local = self._make_local()

    def trace(self, frame: FrameType, event: str, argument: object) -> Any:
        """The trace function for new frames."""
        filename = frame.f_code.co_filename
        if filename == scenarios.__file__ or filename.startswith(OURS):
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
            return self._local
        return None

    def _make_local(self) -> Callable[[FrameType, str, object], Any]:
        def local(frame: FrameType, event: str, argument: object) -> Any:
            if event == "opcode":
                self.count += 1
                if self.count == self._at:
                    self._inject(frame)
            return local

        return local

    def _inject(self, frame: FrameType) -> None:
        signum = self._signum
        self._at, self._signum = next(self._targets, (0, 0))
        if not self._at:
            sys.settrace(None)
        handler = signal.getsignal(signum)
        receiver = getattr(handler, "__self__", None)
        self.places.append(f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno} +{frame.f_lasti}")
        if not isinstance(receiver, Receiver):
            return
        process = REGISTRY.get()
        if not self.injected:
            self.world.injected = not self.theirs
        self.injected += 1
        self.must_stop = self.must_stop or not (process.state is State.IDLE or process.ballot.closed)
        post = process.watch.post
        if post is not None and post.pipe.wired:
            os.write(post.pipe._writer, bytes([signum]))
        try:
            receiver.on_signal(signum, frame)
        except BaseException:
            self.raised += 1
            if self._at:
                sys.setprofile(self._trace_again)
            raise

    def _trace_again(self, frame: FrameType, event: str, argument: object) -> None:
        sys.setprofile(None)
        each: FrameType | None = frame
        while each is not None:
            if self.trace(each, "call", None) is not None:
                each.f_trace = self._local
            each = each.f_back
        sys.settrace(self.trace)

    def run(self, function: Callable[[], object]) -> None:
        """Run a function under the trace."""
        sys.settrace(self.trace)
        try:
            function()
        finally:
            sys.settrace(None)
            sys.setprofile(None)
            self.missed = self._at != 0


class Outside:
    """The program's own handlers before and after the guard: they count what the guard hands on to them.

    They pass for an event loop's own way with Ctrl-C: in front of any other Python handler the stop would not be the guard's.
    """

    def __init__(self, *, theirs: bool) -> None:
        self.calls: list[int] = []
        if not theirs:
            self.__module__ = LOOPS[0]

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.calls.append(signum)


class Attempt:
    """One run of a scenario, and the look at what is left of it."""

    def __init__(
        self,
        scenario: str,
        signum: int,
        targets: Iterable[tuple[int, int]],
        *,
        insist: bool = False,
        theirs: bool = False,
    ) -> None:
        self.scenario = scenario
        self.theirs = theirs
        self.insist = insist
        self.world = World(signum)
        self.injector = Injector(targets, self.world, theirs=theirs)
        self.outside = Outside(theirs=theirs)
        self.ended: BaseException | None = None
        self.skipped = False
        self.seconds = 0.0
        self.faults: list[str] = []

    def run(self) -> None:
        """Run it, then the exit net as the interpreter would, and put everything back."""
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self.outside)
        hook = sys.excepthook
        began = time.monotonic()
        try:
            self.injector.run(self._scenario)
        except (
            BaseException
        ) as error:  # the stop's exception is kept alive: letting go of it would be swallowing it
            self.ended = error
        self._net()
        for thread in self.world.threads:
            thread.join()
        self.seconds = time.monotonic() - began
        self._check()
        self._put_back()
        self._check_leftovers()
        sys.excepthook = hook

    def _scenario(self) -> None:
        SCENARIOS[self.scenario](self.world)

    def _net(self) -> None:
        while (process := REGISTRY.process) is not None and (process.roster.main or process.roster.popped):
            self.skipped = True
            try:
                early_net()
            except BaseException as error:
                self.ended = error
        stop = None if process is None else process.stop
        if self.skipped and self.ended is None and stop is not None and stop.theirs is None:
            self.ended = SystemExit(stop.status)

    def _put_back(self) -> None:
        process = REGISTRY.process
        if process is not None:
            state = process.state
            if state not in (State.DONE, State.IDLE):
                self.faults.append(f"the process object is left in state {state}")
            if state is State.DONE:
                process.forget()
            REGISTRY.process = None
        LastWord.take_back()
        unhush_traceback()

    # -- what must be true ----------------------------------------------------------------------------------------------

    def _expect(self, fact: bool, what: str) -> None:
        if not fact:
            self.faults.append(what)

    def _check(self) -> None:
        world, began = self.world, self.world.began
        self._expect(len(set(began)) == len(began), f"a callback ran twice: {began}")
        lost = set(world.acknowledged) - set(began)
        # What is in progress is what a second press interrupts, perhaps before its first line: a callback, or a group.
        at_once = len(GROUP) if set(GROUP) & set(world.acknowledged) else 1
        spared = at_once if self.insist else 0
        self._expect(len(lost) <= spared, f"acknowledged and never run: {sorted(lost)}, ran: {began}")
        ranks = [_rank(number) for number in began]
        wanted = [_rank(number) for number in _lifo(self.scenario, began)]
        self._expect(ranks == wanted, f"not last in, first out: {began}")
        if not self.insist:  # which cuts callbacks short, and the wait for work of other threads
            self._expect(
                sorted(world.finished) == sorted(began),
                f"cut short: began {began}, finished {world.finished}",
            )
            beside = [number for number in began if number not in (*world.alone, *GROUP)]
            self._expect(not beside, f"began before others were over: {beside} of {began}")
            self._expect(not world.during_work, f"began while work was in flight: {world.during_work}")
        open_to_the_end = len(world.entered) - len(world.left)
        left = [each for each in world.entered[::-1] if each in world.left]
        self._expect(
            world.left == left and open_to_the_end <= spared, f"entered {world.entered}, left {world.left}"
        )
        begun, ended = world.critical.count("begin"), world.critical.count("end")
        self._expect(begun == ended, f"cut short: {world.critical}")
        self._expect(world.hooked == [1, 2][: len(world.hooked)], f"on_stop callbacks: {world.hooked}")
        self._expect(not world.ready_at_stop, "ready, and being stopped")
        self._expect(not world.waited_in_vain, "the stop never reached main")
        self._expect(self.seconds < TOO_LATE, f"took {self.seconds:.1f} s")
        self._check_end()
        self._check_events()

    def _check_end(self) -> None:
        """A signal that our handler has seen ends main, or reaches the program's own handler when there is nothing to stop."""
        injected, ended = self.injector.injected, self.ended
        stopped = isinstance(ended, (SignalExit, KeyboardInterrupt, SystemExit))
        if self.theirs:
            heard = len(self.outside.calls)
            self._expect(heard == injected, f"{injected} signals, of which their handler heard {heard}")
            self._expect(not stopped, f"stopped by what is theirs: {ended!r}")
        elif injected and not stopped:
            # The program's handler is called at a stop as well, so its calls alone do not excuse a main that was not stopped.
            excused = bool(self.outside.calls) and not self.injector.must_stop
            self._expect(excused, f"the stop is lost: ended with {ended!r}")
        if not injected and self.scenario not in ("requested", "handler"):
            self._expect(not stopped, f"stopped by nothing: {ended!r}")
        if not stopped:
            failing = {"main_raises": ArithmeticError, "callback_fails": CleanupError, "group": CleanupError}
            wanted = failing.get(self.scenario, type(None))
            self._expect(isinstance(ended, wanted), f"ended with {ended!r}")
        if isinstance(ended, (SignalExit, KeyboardInterrupt)):
            self._expect(is_ours(ended), f"not an exception of ours: {ended!r}")

    def _check_events(self) -> None:
        events = self.world.events
        received = sum(isinstance(event, StopReceived) for event in events)
        self._expect(received <= 1, f"StopReceived was told {received} times")
        finished = sum(isinstance(event, Finished) and event.reason is not None for event in events)
        self._expect(finished <= 1, f"Finished was told {finished} times")

    def _check_leftovers(self) -> None:
        for signum in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(signum)
            self._expect(handler is self.outside, f"{signum.name} is left with {handler!r}")
        fd = signal.set_wakeup_fd(-1)
        self._expect(fd == -1, f"the wakeup fd is left at {fd}")
        self._expect(not signal.pthread_sigmask(signal.SIG_BLOCK, []), "signals are left blocked")
        limit = time.monotonic() + TOO_LATE
        while (threads := threading.enumerate()[1:]) and time.monotonic() < limit:
            threads[0].join(0.01)  # a reporter thread ends by itself once it has nothing to tell
        self._expect(not threads, f"threads are left: {threads}")


def _lifo(scenario: str, began: list[int]) -> list[int]:
    """The order in which these callbacks should have run."""
    if scenario == "nested":  # 2 and 3 are the first inner guard's, 4 the second's; 1 and 5 the outer one's
        return [each for each in (3, 2, 4, 5, 1) if each in began]
    return sorted(began, reverse=True)


def _rank(number: int) -> int:
    """The number, or that of the whole group: among its members there is no order."""
    return GROUP[0] if number in GROUP else number


class Leftovers:
    """File descriptors before and after: a leak of one per run shows at the end."""

    def __init__(self) -> None:
        self.fds = self._open()

    @staticmethod
    def _open() -> set[str]:
        return set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()

    def new(self) -> set[str]:
        """What was opened and not closed."""
        return self._open() - self.fds


def targets(plan: Plan, boundaries: int) -> Iterator[list[tuple[int, int]]]:
    """The opcodes at which to inject, run by run."""
    if not plan.second:
        for at in range(plan.start, boundaries + 1, plan.step):
            yield [(at, plan.signum)]
    elif plan.pairs:
        chance = random.Random(plan.seed)
        for _ in range(plan.pairs):
            at = chance.randint(1, boundaries)
            yield [(at, plan.signum), (at + chance.randint(1, boundaries), plan.second)]
    else:
        for at in range(plan.start, boundaries + 1, plan.step):
            for gap in range(1, boundaries, plan.step):
                yield [(at, plan.signum), (at + gap, plan.second)]


def explore(plan: Plan, progress: Callable[[str], object]) -> Summary:
    """Try what the plan says."""
    if plan.insist:
        Presses.DUPLICATE = 0.0
    signals.is_of_ended_loop = lambda handler: False  # the stand-in for a loop's own handler belongs to none
    _look_through_us()
    # As a watcher that needs it does, at some moment; and a newer libffi keeps a descriptor for good.
    importlib.import_module("ctypes")
    summary = Summary()
    for _ in range(3):  # the first runs import modules, and on 3.12 the first does not count opcodes
        attempt = Attempt(plan.scenario, plan.signum, [(10**9, plan.signum)], theirs=plan.theirs)
        attempt.run()
        summary.failures += [f"undisturbed: {fault}" for fault in attempt.faults]
        summary.boundaries = attempt.injector.count
    leftovers = Leftovers()
    for chosen in targets(plan, summary.boundaries):
        progress(f"{chosen}")
        attempt = Attempt(plan.scenario, plan.signum, chosen, insist=plan.insist, theirs=plan.theirs)
        attempt.run()
        summary.tried += 1
        summary.injected += attempt.injector.injected
        summary.raised += attempt.injector.raised
        summary.skipped += attempt.skipped
        where = f"{plan.scenario} {chosen} at {attempt.injector.places}"
        summary.failures += [f"{where}: {fault}" for fault in attempt.faults]
        if len(summary.failures) >= ENOUGH:
            break
    limit = time.monotonic() + TOO_LATE
    while leftovers.new() and time.monotonic() < limit:
        time.sleep(0.01)  # a handler waits for nobody: what it gives back is closed in a thread
    if leftovers.new():
        summary.failures.append(f"file descriptors are left open: {leftovers.new()}")
    return summary


def main() -> None:
    """Run the plan given as the argument; what is under way goes to the file named by the second one."""
    plan = Plan(**json.loads(sys.argv[1]))
    fd = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    summary = explore(plan, lambda text: os.pwrite(fd, f"{text:60}\n".encode(), 0))
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps(asdict(summary)))


if __name__ == "__main__":
    main()
