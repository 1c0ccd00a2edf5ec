"""The second path: a thread that sees each signal even while main is stuck in C, and keeps the time.

It tells `Delivery` the facts, and does what that decides. It never blocks: it writes no buffered stream, takes no lock of the
program, and calls no hook. It cannot be the last deadline, because it needs the GIL; that is `LastResort`.

Its life has one owner, `Watch`: the thread and its pipe are there while anybody needs them, that is while signals are taken, a
callback has a time limit, or a stop is under way, and for a moment longer (see `post.py`). `need` and `release` decide that
under one lock; handlers only `wake` it.
"""

from __future__ import annotations

import _thread
import os
from collections import deque
from functools import partial

from cleanup_guard._ground.clock import inf
from cleanup_guard._ground.events import Draining, TookOver
from cleanup_guard._ground.names import SIGINT, SIGTERM, STOPS
from cleanup_guard._ground.once import Once
from cleanup_guard._ground.stderr import write_line
from cleanup_guard._process import ends, native
from cleanup_guard._process.haste import HASTE
from cleanup_guard._process.moment import where_is
from cleanup_guard._process.native import in_main
from cleanup_guard._process.post import Post
from cleanup_guard._process.report import say
from cleanup_guard._process.signals import MARK, let_signals_in, make_wakeup, poke
from cleanup_guard._process.tally import Nudges, Tally
from cleanup_guard._stop.delivery import DEAD_FOR, EAGER, IMPATIENT, QUICK, SLOW_POKE, Facts, Presses
from cleanup_guard._stop.history import STOPPING
from cleanup_guard._stop.state import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from cleanup_guard._ground.events import Event
    from cleanup_guard._process.roster import ProcessView, Turn
    from cleanup_guard._process.signals import WakeupPipe
    from cleanup_guard._stop.stop import Stop

HEAD_START = 0.002
"""Seconds that main has for its handler before the watcher does what that would."""

GLANCE, PAUSE = 0.0005, 0.0003
"""Seconds between two looks, meanwhile, at whether main looks for the right moment, and between two pokes if it does."""

IDLE = 0.05
"""Seconds for which nothing must have happened before what a stop needs is loaded: a short guard is not to pay for it."""

LOCK = native.make_rlock()
"""Held while the watcher's thread comes or goes, which a fork in any thread makes it do, too. Never taken in a handler."""


class Watch:
    """The watcher's life.

    Attributes:
        post: where it stands, or stood a moment ago.
        pokes: signals that were sent to main only to have it look, by signal; written by the watcher alone.
        answers: how often main was called by one; written by main alone.
        hooks: whether the on_stop callbacks were begun.
        hooks_ended: they are over.
    """

    def __init__(self, process: ProcessView) -> None:
        self._process = process
        self.post: Post | None = None
        self.pokes: dict[int, int] = {}
        self.answers: int = 0
        self.poked_at: float = -inf
        self.hooks: Once = Once()
        self.hooks_ended: bool = False
        self.hook: str | None = None  # the one that is running
        self.resume_due: bool = False  # main's handler is to do it

    # -- for everybody --

    @property
    def running(self) -> bool:
        """Whether there is a thread that watches."""
        post = self.post
        return post is not None and post.thread is not None and post.on_duty

    @property
    def parked(self) -> bool:
        """Whether a thread that nobody needs is still there, or was a moment ago."""
        post = self.post
        return post is not None and not post.on_duty

    def has(self, watcher: Watcher) -> bool:
        """Whether this one watches. Any thread."""
        post = self.post
        return post is not None and post.watcher is watcher

    @property
    def hears(self) -> bool:
        """Whether it watches, and hears signals, and there is nothing new to see: nobody needs to call `need`."""
        post = self.post
        return post is not None and post.pipe.wired and post.thread is not None and self._process.stop is None

    @property
    def hooks_are_over(self) -> bool:
        """Whether no on_stop callback is left to run before main may be told."""
        if self.hooks_ended or not self.running:
            return True
        for member in self._process.roster.everybody():  # noqa: SIM110  # asked in the handler: no generator
            if member.stop_hooks:
                return False
        return True

    def wake(self) -> None:
        """Have it look. Any thread, any handler."""
        post = self.post
        if post is not None and post.on_duty:
            post.pipe.wake()

    def poke(self, *, spares_theirs: bool = False) -> None:
        """Have main run our handler: with any signal of ours but SIGINT if there is one, because SIGINTs are counted.

        Without any, main is asked to look when it next runs a line of Python.

        Args:
            spares_theirs: not with one that somebody else deals with: his, if it came just before, would be taken for the poke.
        """
        process, now = self._process, self._process.clock()
        main = native.main_ident()
        if main is None or os.getpid() != process.pid or now - self.poked_at < EAGER:
            return
        with process.signals.fence:
            ours = process.signals.ours()
            if not ours:
                process.ask_main()
                return
            signum = _least_meant(ours, process)
            if spares_theirs and process.signals.before(signum) is not None:
                return
            self.pokes[signum] = self.pokes.get(signum, 0) + 1
            self.poked_at = now
            poke(main, signum)

    # -- come and go --

    def need(self) -> None:
        """See to it that it watches, and hears signals if there are any to hear. Not in a handler.

        Where no descriptor is free it is as where no thread can be started: main's handler has to do. It is woken only if there
        is something new to see: a guard inside another one costs no look, nor does one that takes over what was parked.
        """
        with LOCK:
            post = self.post
            is_parked = post is not None and not post.on_duty
            if is_parked:
                post = self._take_over()
            if post is None:
                post = self._make()
            if post is not None:
                self._equip(post, was_parked=is_parked)

    def _take_over(self) -> Post | None:
        """Have what was parked on duty again. Returns it, if it is."""
        post = self.post
        if post is not None and post.take():
            watcher = post.watcher
            if watcher.prepares_at != inf:
                watcher.prepares_at = self._process.clock() + IDLE
            if watcher.tally.untouched:
                return post
            self.post = None
            post.close()
        self.post = None
        return None

    def _make(self) -> Post | None:
        try:
            pipe = make_wakeup()
        except OSError:
            return None
        self.post = post = Post(Watcher(self._process, self, pipe), pipe)
        return post

    def _equip(self, post: Post, *, was_parked: bool) -> None:
        """Have it hear signals, and give it a thread, or have the one that it has look."""
        process = self._process
        wires = not post.pipe.wired and process.signals.previous and in_main()
        if wires:
            post.pipe.wire()
        if post.thread is None:
            post.start(0.0 if process.stop is not None or process.roster.turns else IDLE)
        elif process.stop is not None or (wires and not was_parked):
            # Looked up after it is on duty: who brings a stop before that cannot wake it.
            post.pipe.wake()

    def pause(self) -> None:
        """End the thread, if there is one; what it knows stays, unless it is parked. `resume` goes on where it was."""
        post = self.post
        if post is None:
            return
        if post.on_duty:
            if post.thread is not None:
                post.end()
                post.thread = None
            return
        if post.take():
            post.close()
        else:
            post.wait_for_end()
        self.post = None

    @property
    def paused(self) -> bool:
        """Whether there is something to resume."""
        post = self.post
        return post is not None and post.thread is None

    def resume(self) -> None:
        """Undo `pause`, if there was anything to pause."""
        self.resume_due = False
        post = self.post
        if post is not None and self.paused:
            post.start()

    def resume_later(self, signums: list[int]) -> partial[None] | None:
        """Have main resume, and call the handlers of somebody else that are due, by a signal, which counts as a poke.

        Returns:
            What trips it: C code. None if all signals are somebody else's: his would be taken for the poke.
        """
        self.resume_due = True
        signum = _least_meant(signums, self._process)
        if self._process.signals.before(signum) is not None:
            return None
        self.pokes[signum] = self.pokes.get(signum, 0) + 1
        self.poked_at = self._process.clock()
        interrupt: Callable[[int], None] = _thread.interrupt_main  # type: ignore[assignment]
        return partial(interrupt, signum)

    def release(self, *, in_handler: bool = False) -> None:
        """Give back what nobody needs any more: the wakeup fd if main takes no signals, the thread if nobody is in.

        Args:
            in_handler: where no lock may be taken and nobody waited for; the thread then ends a moment later.
        """
        if in_handler:
            self._release(wait=False)
        else:
            with LOCK:
                self._release(wait=True)

    def _release(self, *, wait: bool) -> None:
        post, process = self.post, self._process
        if post is None or process.stop is not None:
            return
        heard = post.pipe.wired
        if not process.signals.previous and in_main():
            post.pipe.unwire()
        if post.pipe.wired or not process.roster.empty:
            return
        # Not where it has heard no signals: a subinterpreter must have no thread when it ends, and hears none.
        if not (heard and wait and not process.exiting and post.park()):
            self._end(post, wait=wait)

    def _end(self, post: Post, *, wait: bool) -> None:
        if post.take():
            post.send_off()
        self.post = None
        if not post.on_duty:
            return
        if wait or post.thread is None:
            post.close()
        else:
            native.Thread(post.close, "cleanup_guard closing", bare=True, brief=True).start()

    def forget(self) -> None:
        """There is no stop any more."""
        self.hooks.give_back()
        self.hooks_ended = False
        self.begin_anew()

    def begin_anew(self, signums: Collection[int] | None = None) -> None:
        """What signals there were up to now is history, and not to be taken for a stop.

        Args:
            signums: only of these, which are about to be taken: whoever had them before has dealt with them. Main thread only.
        """
        post = self.post
        if post is None or not post.on_duty:
            return
        watcher = post.watcher
        if not in_main():
            watcher.begin_anew()
            return
        with self._process.signals.fence:  # no poke is being sent
            let_signals_in()
            past, marked = (dict(self.pokes), signums), False
            try:
                watcher.pasts.append(past)
                marked = post.pipe.mark()
            finally:  # a Ctrl-C may be Python's yet
                if not marked and past in watcher.pasts:
                    watcher.pasts.remove(past)

    def disown(self) -> None:
        """In a fork child: there is no thread, and the pipe is the parent's."""
        post, self.post = self.post, None
        if post is not None:
            post.pipe.unwire()
            post.pipe.close()


def _least_meant(signums: list[int], process: ProcessView) -> int:
    """The signal that nobody takes for a real one: of somebody else's none if there is another, and SIGINTs are counted."""
    before = process.signals.before
    return max(signums, key=lambda each: (before(each) is None, each != SIGINT, each == SIGTERM))


def _may_be_a_stop(process: ProcessView, signum: int) -> bool:
    """Whether a signal is the stop, or starts the clock of one that has none."""
    stop = process.stop
    if stop is None:
        return process.roster.listens
    return signum != SIGINT and stop.theirs is None and stop.budget.period.by_hand


def _is_mains_turn(process: ProcessView, new: list[int]) -> bool:
    """Whether a stop has come a moment ago, or comes by one of these, of which main is told in its handler.

    Not one that is asked in another way: an event loop, or a main that looks for the stop itself.
    """
    stop, roster, signals = process.stop, process.roster, process.signals
    if roster.cooperates or roster.loops_in_main():
        return False
    if stop is not None:
        return stop.theirs is None and process.clock() - stop.budget.began < HEAD_START
    return roster.listens and any(each in signals.previous and signals.theirs(each) is None for each in new)


class Watcher:
    """What the thread does; one for each time that signals are taken. It is the world in which `Delivery` acts.

    Attributes:
        tally: what it has seen of signals.
        pasts: how many pokes there were at each mark in the pipe, and which signals it is about.
        prepares_at: when what a stop needs is loaded; never, once that was done.
    """

    def __init__(self, process: ProcessView, watch: Watch, pipe: WakeupPipe) -> None:
        self._process = process
        self._watch = watch
        self._pipe = pipe
        self.tally: Tally = Tally(watch.pokes)
        self.pasts: deque[tuple[dict[int, int], Collection[int] | None]] = (
            deque()
        )  # a mark's pokes and signals
        self._forwarded: set[int] = set()
        self._replaced = False  # when the stop came its signal had somebody else's handler
        self._told = Once()
        self._presses = Presses(0 if process.stop is not None else self._count_ctrl_c())
        self._nudges = Nudges(watch)
        self.prepares_at: float = process.clock() + IDLE

    # -- one look --

    def look_safely(self, signums: bytes) -> float | None:
        """As `look`. A mistake in it, of ours or of a hook, is told once, and does not end the watch."""
        try:
            return self.look(signums)
        except Exception as error:
            if self._told.claim():
                write_line(f"the watcher stumbled, and goes on: {say(error)}")
            return SLOW_POKE

    def look(self, signums: bytes) -> float | None:
        """Notice signals, and do what is due. Returns for how long nothing else is, in seconds."""
        process = self._process
        for signum in signums:
            if signum == MARK:
                self._forget_past(*self.pasts.popleft())
                continue
            self.tally.count(signum)
            self._forward(signum)
            if signum in STOPS and signum not in process.signals.previous:
                self._nudges.begin(process.clock())
        self._let_main_be_first(signums)
        if not self._watch.has(self):
            return None  # sent off in a handler: what has come is history, and the next guard's watcher may be there
        now = process.clock()
        ours = list(process.signals.previous)
        if not self.pasts:  # else it stands in the pipe, and is read at once, which of those seen are history
            self._notice_signals(ours, now)
        due = min(self._look_at_turns(now), self._nudges.look(now))
        stop = process.stop
        if stop is not None:
            due = min(due, process.delivery.look(now, stop, self._facts(stop), self))
            notify = process.roster.notify
            if notify is not None:
                due = min(due, notify.look(process, stop, now))
            if process.main_is_owed:
                self.poke()
                due = min(due, now + DEAD_FOR)
        elif now >= self.prepares_at:
            self.prepares_at = inf
            process.prepare()
        else:
            due = min(due, self.prepares_at)
        return None if due == inf else max(0.0, due - process.clock())

    def _facts(self, stop: Stop) -> Facts:
        process = self._process
        state, loops = process.state, process.roster.loops_in_main()
        looks = state in (State.UNWINDING, State.DONE)
        return Facts(
            state,
            announced=process.announced,
            may_tell=process.may_tell,
            noticed=process.noticed,
            held=process.roster.held,
            handling=not looks or process.handling or (stop.theirs is not None and state is not State.DONE),
            in_tasks=bool(loops),
            asked_at=min((host.asking.asked_at for host in loops), default=inf),
            exiting=process.exiting,
            hook=self._watch.hook,
            running=[
                (callback.name, each.started)
                for each in list(process.roster.turns)
                if (callback := each.current) is not None
            ],
        )

    def _forget_past(self, pokes: dict[int, int], signums: Collection[int] | None) -> None:
        """After so many pokes, what was seen before of these signals, or of all, is history, and begins no other stop."""
        self.tally.forget(pokes, signums)
        if signums is None:
            self.begin_anew()

    def _forward(self, signum: int) -> None:
        """Tell somebody else's wakeup fd, such as an event loop's: of his signals all, of ours the first, of pokes none."""
        process = self._process
        if signum in process.signals.previous:
            if self.tally.real(signum) <= 0:
                return
            if process.signals.theirs(signum) is None:
                if signum in self._forwarded:
                    return
                self._forwarded.add(signum)
        self._pipe.forward(signum)

    def _notice_signals(self, ours: list[int], now: float) -> None:
        """See whether there is a stop, or another Ctrl-C."""
        process = self._process
        for signum in ours:
            new = self.tally.new(signum)
            if new < 0 and now - self._watch.poked_at > 1.0 and not self._watch.resume_due:
                # One that is still to be tripped, after a fork, would pass for a stop if it were made up for.
                self.tally.make_up(signum)
            if new <= 0:
                continue
            if _may_be_a_stop(process, signum):
                self._replaced = process.signals.lost(signum)
                process.claim_signal(signum, None if process.insists else process.signals.theirs(signum))
            self.tally.deal_with(new, signum)  # one signal is not two stops
        stop = process.stop
        if stop is None:
            self._presses = Presses(
                self._count_ctrl_c()
            )  # those of which there came no stop were somebody else's
            return
        press = self._presses.count(self._count_ctrl_c(), now)
        if stop.theirs is not None:
            return
        if press == Presses.INSISTS:
            self._insist(now)
        elif press > Presses.INSISTS:
            process.delivery.over = True
            ends.give_up(process)

    def _let_main_be_first(self, signums: bytes) -> None:
        """Leave the GIL to a main that a signal has just woken: it does by itself all that comes before the first callback."""
        process = self._process
        new = [] if self.pasts else [each for each in signums if self.tally.new(each) > 0]
        if not (signums and _is_mains_turn(process, new)):
            return
        HASTE.begin()
        left = HEAD_START
        while left > 0:
            searching = process.receiver.moment.searching
            if searching:
                self.poke()
            pause = PAUSE if searching else GLANCE
            native.sleep(pause)
            left -= pause

    def _count_ctrl_c(self) -> int:
        """How many SIGINTs there were. Whoever has replaced our wakeup fd may have left us the handler."""
        return max(self.tally.real(SIGINT), self._process.receiver.calls.get(SIGINT, 0))

    def _insist(self, now: float) -> None:
        """A person presses Ctrl-C again: interrupt what is in progress, be it a callback or main's own `finally`."""
        process = self._process
        turns = [turn for turn in list(process.roster.turns) if turn.current is not None]
        for turn in turns:
            self._interrupt(turn, now, "Ctrl-C was pressed again")
        if turns:
            return
        cleaning = process.state is State.CLEANING  # main has left, and waits for the work of its tasks, too
        work = list(process.roster.work)
        process.roster.cut_work([each for each in work if cleaning or not each.in_main], now)
        if process.state in (State.STOPPING, State.UNWINDING):
            process.delivery.insisted = True
            self._watch.poke()

    # -- callbacks --

    def _look_at_turns(self, now: float) -> float:
        roster, due = self._process.roster, inf
        turns = list(roster.turns)
        others_wait = bool(turns) and self._process.stop is not None and roster.others_wait
        for turn in turns:
            turns_due, interrupt = turn.due(others_wait=others_wait), turn.interrupt
            if interrupt.wanted:
                if turn.interruptible:
                    self._interrupt(turn, now, interrupt.why)
                turns_due = now + (QUICK if now - interrupt.sent_at < IMPATIENT else SLOW_POKE)
            elif turns_due <= now and turn.current is not None:
                self._interrupt(turn, now, turn.why_due())
                turns_due = now + QUICK
            due = min(due, turns_due)
        return due

    def _interrupt(self, turn: Turn, now: float, why: str) -> None:
        turn.interrupt.ask(why, now)
        callback = turn.current
        if callback is None:
            return
        flight = callback.flight  # another thread ends it
        if flight is not None:
            flight.cancel()
            if now - turn.interrupt.sent_at < IMPATIENT or not flight.holds_thread():
                return
        if turn.in_main:
            self._watch.poke()
        else:
            turn.interrupt_thread(callback)

    # -- the world of a delivery --

    def begin(self) -> None:
        """Announce the stop, and be ready no more; if the program does not serve on, start the on_stop callbacks."""
        process, watch = self._process, self._watch
        process.announce()
        process.roster.withdraw()
        stop = process.stop
        if stop is not None and stop.drained:
            stop.history.enters(STOPPING, process.clock())
        elif stop is not None:
            process.roster.tell(Draining(seconds=stop.drain.seconds, asked=stop.drain.asked))
            return
        if not any(member.stop_hooks for member in process.roster.everybody()):
            watch.hooks_ended = True
            return

        def run() -> None:
            try:
                ends.run_stop_hooks(process, watch)
            finally:
                native.leaves()  # before main is told, which may fork at once: a fork waits for the end of this thread
                watch.hooks_ended = True
                watch.wake()

        if native.Thread(run, "cleanup_guard on_stop").start():
            return
        if process.exiting:
            run()  # CPython 3.12.0 to 3.12.3 start no thread any more, and main is on its way out already
        else:
            watch.hooks_ended = True  # main runs them on its way out

    def poke(self) -> None:
        """Have main look."""
        self._watch.poke()

    def nudge(self) -> None:
        """End a wait of main, so that it runs the handler of a signal that came just before.

        Not where somebody had replaced ours: when he puts it back and raises the signal again, that would pass for the poke.
        """
        if not self._replaced:
            self._watch.poke(spares_theirs=True)

    def ask_hosts(self) -> None:
        """Ask the loops to cancel their guarded tasks, once."""
        for host in list(self._process.roster.hosts.values()):
            host.asking.ask()

    def insist(self, *, everybody: bool) -> None:
        """Ask them again: everybody, or those who have let go of the stop."""
        for host in list(self._process.roster.hosts.values()):
            if everybody or not host.asking.handling:
                host.asking.insist()

    def lift_shields(self) -> None:
        """Critical sections of tasks hold the stop back no more, nor does work."""
        roster = self._process.roster
        for host in list(roster.hosts.values()):
            host.lift_shields()
        roster.cut_work(list(roster.work), self._process.clock())

    def prepare_death(self) -> None:
        """Load what dying of a signal needs."""
        ends.prepare_death(self._process)

    def take_over(self) -> None:
        """Run the callbacks in a thread of ours."""
        process = self._process
        stop = process.stop
        if stop is None or process.state is State.DONE:
            return  # main was quicker
        process.roster.tell(TookOver(seconds=process.clock() - stop.budget.began, where=self.where()))
        if not native.Thread(lambda: ends.run_everything(process), "cleanup_guard take-over").start():
            ends.run_everything(process)

    def give_up(self) -> None:
        """Report, and end the process."""
        ends.give_up(self._process)

    def forget(self) -> None:
        """The program goes on."""
        self._process.forget()

    def begin_anew(self) -> None:
        """There is no stop any more."""
        self.tally.served = True
        self._presses = Presses(self._count_ctrl_c())
        self._forwarded.clear()

    def where(self) -> str:
        """Where main is."""
        return where_is(native.main_ident())

    def tell(self, event: Event) -> None:
        """Tell all hooks."""
        self._process.roster.tell(event)
