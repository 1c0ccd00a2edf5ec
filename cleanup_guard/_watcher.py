"""The second path: a thread that sees each signal even while main is stuck in C, and keeps the time.

Main is told of a stop by an exception; everything that can go wrong with that is the watcher's: main does not notice (the
kernel chose another thread, main is in C), swallows it, hides behind a shield, or hangs in a callback. The watcher never
blocks: it writes no buffered stream, takes no lock of the program, and calls no hook.

It cannot be the last deadline, because it needs the GIL; that is `Process.arm_last_resort`.
"""

from __future__ import annotations

import gc
import os
import threading
from math import inf

from cleanup_guard import _signals
from cleanup_guard._ground.clock import DEFAULT_GRACE
from cleanup_guard._ground.events import DeadlineReached, StopRedelivered, TookOver
from cleanup_guard._state import Move, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cleanup_guard._process import Process, Stop
    from cleanup_guard._run import Run

DUPLICATE = 0.5
"""Seconds within which several SIGINTs are one press of Ctrl-C."""

DEAD_FOR = 0.05
"""Seconds after the death of its exception at which a stop counts as swallowed."""

FORGET_AFTER = 0.5
"""Seconds after which a program that goes on after its stop is believed to mean it."""

IMPATIENT, QUICK, SLOW_POKE = 0.1, 0.005, 0.05
"""For how many seconds pokes are quick, and the seconds between two pokes, then and later."""

BLOCKED = 1.0
"""Seconds of a grace period of 10 for which an event loop may leave a stop unanswered."""

CHANCES = 5
"""The looks at an event loop that find no answer before it counts as blocked."""

INSISTS = 2
"""The press of Ctrl-C that interrupts what is in progress; the next one ends the process."""


class Watcher:
    """One thread per process, while a guard that takes signals is entered."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.pipe: _signals.WakeupPipe = _signals.WakeupPipe()
        self.swallow_confirmed: bool = False
        self.forget_confirmed: bool = False
        self._thread: threading.Thread | None = None
        self._leave = False
        self._told = False
        self._hooks: threading.Thread | None = None
        self.took_over: bool = False
        self._gave_up = False
        self._prepared = False
        self._seen: dict[int, int] = {}
        self._forwarded: set[int] = set()
        self._presses = 0
        self._last_press = -inf
        self._dead_since: float | None = None
        self._next_poke = 0.0
        self._own_pokes: dict[int, int] = {}
        self._poked_at = -inf
        self._presses_seen = 0
        self._next_collection = -inf
        self._collections = 0

    # -- the thread --

    def start(self) -> None:
        """Start the thread."""
        self._leave = False
        self._thread = threading.Thread(target=self._watch, name="cleanup_guard watcher", daemon=True)
        try:
            self._thread.start()
        except (
            RuntimeError
        ):  # the interpreter is shutting down: signals still work, only the second path is missing
            self._thread = None

    def pause(self) -> None:
        """Stop the thread and wait until it is gone; what it knows stays. `start` goes on where it was."""
        thread, self._thread = self._thread, None
        if thread is None or thread is threading.current_thread():
            return
        self._leave = True
        self.pipe.wake()
        thread.join()

    def close(self) -> None:
        """Stop the thread and give everything back."""
        self.pause()
        self.pipe.unwire()
        self.pipe.close()

    def _watch(self) -> None:
        _signals.block_all()
        timeout: float | None = 0.0
        while not self._leave:
            for signum in self.pipe.wait(timeout):
                self._seen[signum] = self._seen.get(signum, 0) + 1
                self._forward(signum)
            if self._leave:
                return
            due = self.step(self.process.clock())
            timeout = None if due == inf else max(0.0, due - self.process.clock())

    def _forward(self, signum: int) -> None:
        """Tell an event loop's own handler of its signals: of ours once, as any handler that was there before, of no poke."""
        if signum in self.process.handlers.previous:
            if signum in self._forwarded or self._seen[signum] <= self._own_pokes.get(signum, 0):
                return
            self._forwarded.add(signum)
        self.pipe.forward(signum)

    # -- one look --

    def step(self, now: float) -> float:
        """Do what is due; return when to look again."""
        self._notice_signals(now)
        due = min((self._look_at_run(run, now) for run in self.process.runs[:]), default=inf)
        stop = self.process.stop
        if stop is not None:
            due = min(due, self._look_at_stop(stop, now))
        return due

    def _notice_signals(self, now: float) -> None:
        """Count what the C handler wrote: the Python handler runs late or never while main is in C, and coalesces (H24)."""
        process = self.process
        for signum in process.handlers.previous.copy():
            seen, pokes = self._seen.get(signum, 0), self._own_pokes.get(signum, 0)
            if (
                now - self._poked_at > 1.0
            ):  # a poke that the kernel merged with another one is not to hide a signal for ever
                self._own_pokes[signum] = pokes = min(pokes, seen)
                process.poked.pop(signum, None)
            if seen > pokes and process.stop is None and process.machine.state is not State.IDLE:
                if process.handlers.lost(signum):
                    # Whoever took it from us stops the program in a way of his own; we step in when he is late.
                    process.handed_over = True
                    process.tell_replaced(signum)
                process.claim_signal(signum)
        self._count_presses(now)

    def _count_presses(self, now: float) -> None:
        process = self.process
        sigint = _signals.SIGINT
        seen = max(self._seen.get(sigint, 0), process.calls.get(sigint, 0)) - self._own_pokes.get(sigint, 0)
        if seen <= self._presses_seen:
            return
        self._presses_seen = seen
        if now - self._last_press < DUPLICATE:
            return
        self._last_press = now
        self._presses += 1
        if process.stop is not None and self._presses == INSISTS:
            self._insist(now)
        elif process.stop is not None and self._presses > INSISTS:
            self._give_up(now)

    def _insist(self, now: float) -> None:
        """A person presses Ctrl-C again: interrupt what is in progress, be it a callback or main's own `finally`."""
        process = self.process
        runs = [run for run in process.runs if run.current is not None]
        for run in runs:
            self._interrupt(run, now, "Ctrl-C was pressed again")
        if not runs and process.machine.state in (State.STOPPING, State.UNWINDING):
            process.insisted = True
            self._poke()

    # -- callbacks --

    def _look_at_run(self, run: Run, now: float) -> float:
        due = run.due()
        if run.wants_interrupt:
            if run.interruptible:
                self._interrupt(run, now, run.why)
            return now + (QUICK if now - run.sent_at < IMPATIENT else SLOW_POKE)
        if due <= now and run.current is not None:
            self._interrupt(run, now, self._why(run))
            return now + QUICK
        return due

    def _why(self, run: Run) -> str:
        callback = run.current
        timeout = callback.timeout if callback is not None else None
        if timeout is not None and self.process.clock() - run.started >= timeout:
            return f"its timeout of {timeout:g} s is over"
        return (
            "the grace period is nearly over"
            if self.process.stop is not None
            else "the time limit for a normal exit is over"
        )

    def _interrupt(self, run: Run, now: float, why: str) -> None:
        run.why = why
        if not run.wants_interrupt:
            run.sent_at = now
            run.wants_interrupt = True
        callback = run.current
        if callback is None:
            return
        if callback.flight is not None:
            callback.flight.cancel()
            if now - run.sent_at < IMPATIENT or not callback.flight.holds_thread():
                return
        if run.in_main:
            self._poke()
        else:
            run.interrupt_thread(callback)

    # -- the stop --

    def _look_at_stop(self, stop: Stop, now: float) -> float:
        process, budget = self.process, stop.budget
        if not self._told:
            self._told = True
            self._begin()
        if now >= budget.end and not self._gave_up:
            self._give_up(now)
        if not process.announced:
            process.announced = now >= budget.at(budget.HOOKS) or not (self._hooks and self._hooks.is_alive())
        if now >= budget.at(budget.TAKE_OVER) and not self._prepared:
            from cleanup_guard._exits import prepare_death

            self._prepared = True
            prepare_death(process, stop)
        process.forced = process.forced or now >= budget.at(budget.FORCE)
        due = min((at for at in map(budget.at, _INSTANTS) if at > now), default=inf)
        if process.released:
            for host in process.hosts:
                host.ask(now)
        state = process.machine.state
        if state is State.STOPPING:
            return min(due, self._urge(now))
        if state is State.UNWINDING:
            return min(due, self._look_for_swallowing(now))
        if state is State.DONE:
            return min(due, self._look_for_survival(now))
        return due

    def _begin(self) -> None:
        """Announce the stop, and start the on_stop callbacks."""
        process = self.process
        process.arm_last_resort()
        process.announce()
        hooks = [
            (hook, guard) for guard in (*process.guards, *process.elsewhere) for hook in guard.stop_hooks
        ]
        if hooks:
            self._hooks = threading.Thread(
                target=self._run_hooks, args=(hooks,), name="cleanup_guard on_stop", daemon=True
            )
            self._hooks.start()

    def _run_hooks(self, hooks: list[tuple[Callback, Guard]]) -> None:
        from cleanup_guard._exits import run_stop_hooks

        run_stop_hooks(self.process, hooks)
        self.process.announced = True
        self.pipe.wake()

    def hooks_are_over(self) -> bool:
        """Whether the on_stop callbacks have ended, or used up the time that they are allowed."""
        process, stop = self.process, self.process.stop
        return stop is None or process.announced or process.clock() >= stop.budget.at(stop.budget.HOOKS)

    def _urge(self, now: float) -> float:
        """Main should raise the stop and has not: it is in C, or the signal went to another thread, or it was held back."""
        process, stop = self.process, self.process.stop
        assert stop is not None
        budget = stop.budget
        if now >= budget.at(budget.TAKE_OVER) or (not process.noticed and now >= budget.at(budget.STUCK)):
            self._take_over(stop, now)
            return inf
        if process.noticed and not process.released:
            return now + SLOW_POKE if process.announced else inf
        if process.is_tasks:
            return self._ask_tasks(stop, now)
        return self._poke_regularly(stop, now)

    def _ask_tasks(self, stop: Stop, now: float) -> float:
        """Have the loop cancel the guarded tasks; if it does not answer, interrupt what blocks it."""
        process, budget = self.process, stop.budget
        patience = BLOCKED if budget.grace is None else BLOCKED * budget.grace / DEFAULT_GRACE
        for host in process.hosts:
            if host.in_main and not host.answered and host.asked_at < inf:
                host.unanswered += 1
                # A whole process that was frozen for a while has had no chance to answer.
                if now - host.asked_at >= patience and host.unanswered >= CHANCES:
                    process.blocked = True
        return self._poke_regularly(stop, now) if process.blocked else now + SLOW_POKE

    def _poke_regularly(self, stop: Stop, now: float) -> float:
        if now >= self._next_poke:
            self._poke()
            self._next_poke = now + (QUICK if now - stop.budget.began < IMPATIENT else SLOW_POKE)
        return self._next_poke

    def _look_for_swallowing(self, now: float) -> float:
        """A stop is in delivery while its exception is alive; a dead one and a main that runs on is a swallowed stop."""
        process, stop = self.process, self.process.stop
        assert stop is not None
        budget = stop.budget
        if now >= budget.at(budget.TAKE_OVER):
            self._take_over(stop, now)
            return inf
        if process.is_tasks:
            return self._look_at_tasks(stop, now)
        if process.insisted:
            return self._poke_regularly(stop, now)
        if not process.swallowed:
            self._dead_since = None
            self.swallow_confirmed = False
            return now + DEAD_FOR / 2
        if self._dead_since is None:
            self._dead_since = now
        if now - self._dead_since < DEAD_FOR:
            return now + DEAD_FOR / 2
        if not self.swallow_confirmed:
            self.swallow_confirmed = True
            process.reporter().emit(StopRedelivered(times=process.deliveries + 1))
        return self._poke_regularly(stop, now)

    def _look_at_tasks(self, stop: Stop, now: float) -> float:
        """The same for tasks."""
        process = self.process
        last_call = stop.budget.at(stop.budget.FORCE)
        again = process.insisted
        if process.blocked:
            # The exception that was raised in main is on its way out of the loop, or somebody has swallowed it.
            if not process.swallowed:
                return now + DEAD_FOR
            process.blocked, again = False, True
            process.reporter().emit(StopRedelivered(times=process.deliveries + 1))
        if again:
            process.insisted = False
            for host in process.hosts:
                host.insist()
        return min((host.look_for_swallowing(now, last_call) for host in process.hosts), default=inf)

    def _look_for_survival(self, now: float) -> float:
        """Cleanup is complete. If the exception is dead and the interpreter is not exiting, the program means to go on."""
        process = self.process
        if process.exiting or not process.swallowed:
            self._dead_since = None
            if process.ended_in_task and not process.exiting:
                self._collect_garbage(now)
            return now + DEAD_FOR
        if self._dead_since is None:
            self._dead_since = now
        if now - self._dead_since >= FORGET_AFTER:
            self.forget_confirmed = True
            self._poke()
        return now + DEAD_FOR

    def _collect_garbage(self, now: float) -> None:
        """Whether an exception in a reference cycle is alive shows only then. Finalizers may block, so not in this thread."""
        if now < self._next_collection:
            return
        self._next_collection = now + FORGET_AFTER * 2**self._collections
        self._collections += 1
        if self._collections > 1:  # the first time is the moment at which the loop has ended
            try:
                threading.Thread(target=gc.collect, name="cleanup_guard collection", daemon=True).start()
            except RuntimeError:
                pass  # the interpreter is shutting down

    def _take_over(self, stop: Stop, now: float) -> None:
        if self.took_over:
            return
        self.took_over = True
        from cleanup_guard._exits import run_everything

        process = self.process
        process.machine.fire(Move.TAKE_OVER)
        if process.machine.state is State.DONE:
            return  # main was quicker
        process.reporter().emit(TookOver(seconds=now - stop.budget.began))
        runner = threading.Thread(
            target=run_everything, args=(process,), name="cleanup_guard take-over", daemon=True
        )
        try:
            runner.start()
        except RuntimeError:
            run_everything(process)

    def _give_up(self, now: float) -> None:
        """Report and end the process, before the platform's SIGKILL would."""
        from cleanup_guard._exits import end_process

        self._gave_up = True
        process, stop = self.process, self.process.stop
        assert stop is not None
        names = [run.current.name for run in process.runs[:] if run.current is not None]
        skipped = [
            name for guard in reversed((*process.elsewhere, *process.guards)) for name in guard.pending
        ]
        event = DeadlineReached(
            seconds=now - stop.budget.began, running=", ".join(names) or None, skipped=tuple(skipped)
        )
        end_process(process, stop, event)

    # -- poking --

    def _poke(self) -> None:
        """Have main run the handler: with any signal of ours but SIGINT if there is one, because SIGINTs are counted."""
        process = self.process
        ours = [signum for signum in process.handlers.previous.copy() if not process.handlers.lost(signum)]
        now = process.clock()
        if not ours or os.getpid() != process.pid or now - self._poked_at < QUICK:
            return
        signum = max(ours, key=lambda each: (each != _signals.SIGINT, each == _signals.SIGTERM))
        process.poked[signum] = process.poked.get(signum, 0) + 1
        self._poked_at = now
        self._own_pokes[signum] = self._own_pokes.get(signum, 0) + 1
        main = threading.main_thread().ident
        assert main is not None
        _signals.poke(main, signum)


_INSTANTS = (0.2, 0.5, 0.7, 0.8, 0.9, 1.0)
"""The shares of the budget at which something is due: Budget.HOOKS, STUCK, FORCE, TAKE_OVER, INTERRUPT and the end."""

if TYPE_CHECKING:
    from cleanup_guard._guard import Guard
    from cleanup_guard._stack import Callback
