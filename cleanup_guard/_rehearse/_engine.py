"""One rehearsal: start, wait until it is ready, stop, watch, kill who is left, and tell.

Belongs to a process of its own, whose signals and children are all ours: `cleanup-guard check`.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import sys
import tempfile
import time
from functools import partial
from typing import TYPE_CHECKING, Self

if sys.platform != "linux":
    raise NotImplementedError("rehearsing a stop needs Linux")

from cleanup_guard._ground.clock import GRACE_VARIABLE, grace_from_environment
from cleanup_guard._ground.foreign import quoted, shown
from cleanup_guard._ground.names import name_of
from cleanup_guard._rehearse import _proc, _ready
from cleanup_guard._rehearse._hook import Beside
from cleanup_guard._rehearse._onlooker import Onlooker
from cleanup_guard._rehearse._platforms import clean
from cleanup_guard._rehearse._requests import Requester
from cleanup_guard._rehearse._seen import Rehearsal, Seen
from cleanup_guard._rehearse._start import Starter
from cleanup_guard._supervise._spawn import CannotStart, become_subreaper, find, keep_fds_to_ourselves

if TYPE_CHECKING:
    from types import FrameType

    from cleanup_guard._rehearse._plan import Plan
    from cleanup_guard._rehearse._progress import Progress
    from cleanup_guard._rehearse._ready import Wish
    from cleanup_guard._rehearse._seen import Requests

TURN = 0.05
"""Seconds between two looks at what nobody wakes us for: a port, a file, the processor time."""

KEPT = 1 << 20
"""Bytes of output that are kept."""

READS = 16
"""Times that we read before we look at anything else; what is read then is not more than what is kept."""

LAST_LINES = 20
TAB = "\t"

LONGEST_LINE = 2000
"""Characters that are shown of a line that the program printed."""

SPARE = 2.0
"""Seconds that a platform gives to a program after a hook that has used up the grace period, as the kubelet does."""


class CannotRehearse(Exception):
    """There was no stop to rehearse; the message says why."""


class Ended(CannotRehearse):
    """The program was gone before it could be stopped.

    Args:
        message: says so.
        status: with which it ended.
        orphans: who was left of it, and died with it.
    """

    def __init__(self, message: str, status: int, orphans: list[Seen]) -> None:
        super().__init__(message)
        self.status = status
        self.orphans = orphans


class NotReady(CannotRehearse):
    """The program was not ready in time."""


class Unfit(Exception):
    """A PID namespace is to be had here, but not a whole one; the message says why."""


class Interrupted(Exception):
    """We were told to stop ourselves."""

    def __init__(self, signum: int) -> None:
        super().__init__(name_of(signum))
        self.signum = signum


class Waker:
    """Signals to this process as something to wait for together with descriptors.

    Args:
        progress: where it is said what takes so long.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.reader, self._writer = os.pipe()
        for fd in (self.reader, self._writer):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._interrupt: int | None = None
        signal.signal(signal.SIGCHLD, _ignore)  # not SIG_IGN: nothing would wake us
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, self._note)

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        self._interrupt = signum

    def drain(self) -> None:
        """Forget that there was a signal.

        Raises:
            Interrupted: it was for us.
        """
        try:
            os.read(self.reader, 4096)
        except BlockingIOError:
            pass
        interrupt, self._interrupt = self._interrupt, None
        if interrupt is not None:
            raise Interrupted(interrupt)


def _ignore(_signum: int, _frame: FrameType | None) -> None:
    pass


class Engine:
    """Rehearses one stop of something; what it is, how it starts and how it is stopped is told by a subclass.

    Args:
        waker: of this process.
        plan: what is asked for.
        onlooker: nobody is watched yet.
        result: what is known before the start.
    """

    def __init__(self, waker: Waker, plan: Plan, onlooker: Onlooker, result: Rehearsal) -> None:
        self.result = result
        self._plan = plan
        self._waker = waker
        self._onlooker = onlooker
        self._doing = "starting it"
        if plan.way is not None:
            result.platform, result.sure = plan.way.name, plan.way.sure
        grace = grace_from_environment({GRACE_VARIABLE: plan.told or ""})
        result.told = None if grace is None else grace.hope
        self._limit: float | None = plan.wish.timeout
        self._heard = bytearray()
        self._known: _ready.Stamp = None
        self._beside: list[Beside] = []
        self._selector = selectors.DefaultSelector()
        self._output, self._writer = os.pipe()
        os.set_blocking(self._output, False)
        self._selector.register(waker.reader, selectors.EVENT_READ, waker.drain)
        self._selector.register(self._output, selectors.EVENT_READ, self._read)
        waker.progress.begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Nobody of the program is left after this, whatever happened."""
        try:
            self._clear_away()
        finally:
            self._selector.close()
            os.close(self._output)
            os.close(self._writer)

    def run(self) -> Rehearsal:
        """Do it all. What is to be said about it is left to others.

        Raises:
            CannotRehearse: there was nothing to stop.
            Interrupted: we were told to stop ourselves.
        """
        wish = self._plan.wish
        self._start(wish)
        self._await_ready(wish)
        self.result.readied = self._onlooker.clock
        self._onlooker.look()
        self._check_that_it_lives()
        requester = self._begin_requests()
        self._read()
        self._heard.clear()
        self._onlooker.stop()
        self._doing, self._limit = "stopped, waiting for its end", self.result.grace
        if requester is not None:
            requester.tell_stopped()
        self._run_hook()
        self._stop()
        if requester is not None:
            self.result.requests = self._finish_requests(requester)
        return self._finish()

    # -- parts of it ------------------------------------------------------------------------------------------

    def _start(self, wish: Wish) -> None:
        """Start it, and have the first process watched.

        Raises:
            CannotRehearse: that cannot be done, or not before the time that it may take to be ready is over.
        """
        raise NotImplementedError

    def _stop(self) -> None:
        """Stop it as a platform does, and return when nobody is left."""
        raise NotImplementedError

    def _run_hook(self) -> None:
        """What the platform does before the stop signal; its time is part of the grace period."""
        hook = self._plan.hook
        if hook is None:
            return
        beside = self._start_beside(hook.command) if hook.command else None
        until = self.result.grace if beside is not None else min(hook.seconds, self.result.grace)
        while self._onlooker.clock < until and not self._onlooker.over:
            if beside is not None and beside.pid in self._onlooker.others:
                break
            self._turn(min(TURN, until - self._onlooker.clock))
        self.result.hook = self._onlooker.clock
        if beside is not None:
            self.result.hook_status = self._onlooker.others.get(beside.pid)

    def _start_beside(self, command: list[str]) -> Beside:
        """Start a command in the program's namespaces, or in its container."""
        raise NotImplementedError

    def _begin_requests(self) -> Requester | None:
        """Have requests in flight when the stop comes.

        Raises:
            CannotRehearse: there are no answers.
        """
        if self._plan.url is None:
            return None
        requester = Requester(self._plan.url)
        self._beside.append(requester)
        self._onlooker.helpers.add(requester.pid)
        deadline = time.monotonic() + self._plan.wish.timeout
        while not requester.begun:
            self._turn(TURN)
            self._check_that_it_lives()
            if requester.pid in self._onlooker.others or time.monotonic() > deadline:
                raise NotReady(self._with_output(requester.complaint))
        return requester

    def _finish_requests(self, requester: Requester) -> Requests:
        requester.tell_over()
        limit = time.monotonic() + _ready.SETTLED
        while requester.pid not in self._onlooker.others and time.monotonic() < limit:
            self._turn(TURN)
        return requester.found

    def _clear_away(self) -> None:
        """Have nobody left, whatever happened."""
        for beside in self._beside:
            beside.close(ended=beside.pid in self._onlooker.others)
        while not self._onlooker.over:
            self._onlooker.kill_everybody()
            self._turn_regardless()

    def _turn_regardless(self) -> None:
        try:
            self._turn(TURN)
        except Interrupted:
            self._onlooker.look()  # we are at it

    def _await_ready(self, wish: Wish) -> None:
        quiet = _ready.Quiet()
        self._doing, self._limit = "waiting until it is ready", wish.timeout
        while True:
            self._turn(TURN)
            self._check_that_it_lives()
            seconds = self._onlooker.clock
            if wish.anything:
                # 0: it is not to be seen from here, and nothing was wished for that would need it.
                missing = wish.missing(
                    seconds, bytes(self._heard), self._onlooker.target.first or 0, self._known
                )
            else:
                settled = quiet.look(self._living()) or seconds > _ready.SETTLED
                missing = "" if settled else "did not settle"
            if not missing:
                return
            if seconds > wish.timeout:
                raise NotReady(self._with_output(f"the program {missing} within {wish.timeout:g} s"))

    def _living(self) -> list[int]:
        return self._onlooker.living

    def _check_that_it_lives(self) -> None:
        status = self._onlooker.status
        if status is not None:
            raise self._ended_before(status)

    def _ended_before(self, status: int) -> CannotRehearse:
        sentence = self._with_output(f"the program ended, with status {status}, before it could be stopped")
        orphans = [seen for seen in self._onlooker.processes if seen.how == "torn-down"]
        return Ended(sentence, status, orphans)

    def _await_end(self, limit: float | None) -> None:
        while not self._onlooker.over:
            left = None if limit is None else limit - self._onlooker.clock
            if left is not None and left <= 0:
                return
            self._turn(left)

    def _turn(self, seconds: float | None) -> None:
        """Wait for something to happen, and take note of it."""
        longest = 3600.0 if not self._waker.progress.shown else 0.5
        seconds = longest if seconds is None else max(0.0, min(seconds, longest))
        for key, _ in self._selector.select(0 if self._onlooker.busy else seconds):
            key.data()
        self._onlooker.look()
        self._waker.progress.say(self._doing, self._onlooker.clock, self._limit)

    def _read(self) -> None:
        """Take what has been printed. There is no end of it: we, and who knows who else, hold the pipe."""
        try:
            for _ in range(READS):  # it may print faster than we read, and there are other things to see to
                self._heard += os.read(self._output, 65536)
                del self._heard[:-KEPT]
        except BlockingIOError:
            pass

    def _finish(self) -> Rehearsal:
        result = self.result
        self._read()
        result.output = self._text()
        result.processes = _in_order(self._onlooker.processes)
        result.uncounted = self._onlooker.register.uncounted
        result.events = self._onlooker.events
        result.seconds = max(seen.ended for seen in result.processes)
        assert self._onlooker.status is not None
        result.status = self._onlooker.status
        return result

    def _text(self) -> str:
        return self._heard.decode("utf-8", "replace")

    def _with_output(self, message: str) -> str:
        self._read()
        lines = self._text().splitlines()[-LAST_LINES:]
        return "\n".join([message, *(f"  {shown(line, limit=LONGEST_LINE, keep=TAB)}" for line in lines)])


class Program(Engine):
    """A program of this machine.

    Args:
        waker: of this process.
        plan: what to start, and how to stop it.
        simulate: do without a PID namespace.
    """

    def __init__(self, waker: Waker, plan: Plan, *, simulate: bool = False) -> None:
        signum = signal.SIGTERM if plan.signum is None else plan.signum
        result = Rehearsal(plan.program, None, name_of(signum), plan.grace, "pid-namespace")
        super().__init__(waker, plan, Onlooker(signum, simulate=simulate), result)
        self._simulate = simulate
        self._starter: Starter | None = None
        self._folder: str | None = None

    def _clear_away(self) -> None:
        try:
            super()._clear_away()
        finally:
            if self._starter is not None:
                self._starter.close()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)

    def _turn_regardless(self) -> None:
        # Who was made with CLONE_UNTRACED is not known to the onlooker, and left to us where no namespace ends with its PID 1.
        for pid in set(_proc.descendants(os.getpid())) - set(self._onlooker.living):
            if not _proc.is_traced_by_us(pid):
                _proc.send(pid, signal.SIGKILL)
        super()._turn_regardless()

    def _start(self, wish: Wish) -> None:
        if wish.tcp is not None and _ready.listens(wish.tcp):
            raise CannotRehearse(f"somebody else listens on port {wish.tcp} already")
        self._known = None if wish.file is None else _ready.stamp(wish.file, os.getpid())
        starter = self._starter = self._launch()
        self._await_start(starter, time.monotonic() + wish.timeout)

    def _stop(self) -> None:
        way = self._plan.way
        everybody = way is not None and way.everybody
        self._onlooker.send(self._onlooker.target.signum, everybody=everybody)
        for at, signum in () if way is None else way.later:
            self._await_end(min(at, self.result.grace))
            self._onlooker.send(signum, everybody=everybody)
        spent = self._plan.hook is not None and self._onlooker.clock + SPARE > self.result.grace
        self._await_end(self._onlooker.clock + SPARE if spent else self.result.grace)
        if not self._onlooker.over:
            self._onlooker.kill()
            self._await_end(None)

    def _finish(self) -> Rehearsal:
        result = super()._finish()
        if _went_by_itself(result.processes[0], self._onlooker.target.signum):
            raise self._ended_before(result.processes[0].status)
        return result

    def _launch(self) -> Starter:
        program = self.result.program
        try:
            file = find(program[0], os.environ.get("PATH"))
        except CannotStart as error:
            raise CannotRehearse(str(error)) from None
        copies = self._copies()
        environ = dict(os.environ) if self._plan.way is None else clean(os.environ, self._plan.way)
        if self._plan.told is not None:
            environ[GRACE_VARIABLE] = self._plan.told
        starter = Starter(
            file, program, self._writer, alone=not self._simulate, copies=copies, environ=environ
        )
        self._trace(starter)
        self._selector.register(starter.news, selectors.EVENT_READ, partial(self._read_news, starter))
        starter.go()
        return starter

    def _trace(self, starter: Starter) -> None:
        """Have it watched, before it does anything.

        Raises:
            CannotRehearse: it may not be.
        """
        try:
            self._onlooker.begin(starter.pid, ours=True)
        except OSError as error:
            starter.close()  # which it does not survive
            os.waitpid(starter.pid, 0)
            raise CannotRehearse(
                f"its processes cannot be watched, for ptrace(2) is not allowed here ({error.strerror}): "
                "allow it (docker run --cap-add SYS_PTRACE), or rehearse an image with --image from outside"
            ) from None
        self._onlooker.holds_programs = True

    def _copies(self) -> dict[str, str]:
        """The files that are tried in place of others, by the path of those.

        Raises:
            CannotRehearse: they could not be made.
        """
        copies: dict[str, str] = {}
        if self._plan.files:
            self._folder = tempfile.mkdtemp(prefix="cleanup-guard-")
            os.chmod(self._folder, 0o711)  # noqa: S103 - who runs the program must come to the copy; no more than that
        for number, (path, text) in enumerate(self._plan.files.items()):
            copy = copies[path] = f"{self._folder}/{number}"
            try:
                with open(copy, "x", encoding="utf-8", opener=_private) as file:
                    file.write(text)
                was = os.stat(path)
                os.chown(copy, was.st_uid, was.st_gid)
                os.chmod(copy, was.st_mode & 0o777)
            except OSError as error:
                raise CannotRehearse(f"no copy of {quoted(path)} could be made: {error.strerror}") from None
        return copies

    def _start_beside(self, command: list[str]) -> Beside:
        beside = Beside.inside(
            self._onlooker.target.first or 0, command, alone=not self._onlooker.target.simulate
        )
        self._beside.append(beside)
        self._onlooker.helpers.add(beside.pid)
        return beside

    def _read_news(self, starter: Starter) -> None:
        if starter.read_news():
            self._selector.unregister(starter.news)

    def _await_start(self, starter: Starter, deadline: float) -> None:
        while starter.news in self._selector.get_map():
            self._turn(deadline - time.monotonic())
            if time.monotonic() > deadline:
                raise CannotRehearse("the program did not start in time (--timeout)")
        told = starter.told
        if "unfit" in told:
            raise Unfit(told["unfit"])
        if "failed" in told:
            raise CannotRehearse(told["failed"])
        if "first" not in told:
            raise CannotRehearse("something killed the process that was to become the program before it did")
        self._is_first(starter, int(told["first"]))
        if "user" in told:
            self.result.remark = "it ran in a user namespace, where no other user than you exists"

    def _is_first(self, starter: Starter, pid: int) -> None:
        self._onlooker.is_first(pid)
        if starter.pid == pid:
            self._onlooker.target.simulate = True
            self.result.isolation = "simulated"
            self.result.remark = (
                "no PID namespace is to be had here, so the program was not PID 1: that the kernel keeps from PID 1 the "
                "signals that it does not catch, and kills everybody when it leaves, was simulated"
            )


def _went_by_itself(first: Seen, signum: int) -> bool:
    """Whether it was on its way out when the stop was sent: it never got it, though it would have been seen to."""
    seen_to = first.handling == "default" or (first.has is not None and signum in first.has.catches)
    return first.how == "exited" and seen_to and not first.heard


def _in_order(processes: list[Seen]) -> list[Seen]:
    """The first process first, parents before their children, brothers by pid: who is noticed first is chance."""
    children: dict[int, list[Seen]] = {}
    for seen in [processes[0], *sorted(processes[1:], key=lambda each: each.pid)]:
        children.setdefault(seen.parent if seen is not processes[0] else -1, []).append(seen)
    pids = {seen.pid for seen in processes}
    stack = [seen for parent, seen_of in children.items() if parent not in pids for seen in seen_of][::-1]
    found: list[Seen] = []
    while stack:
        seen = stack.pop()
        found.append(seen)
        stack += children.pop(seen.pid, [])[::-1]
    return found


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def rehearse(waker: Waker, plan: Plan) -> Rehearsal:
    """Rehearse one stop of one program, in a PID namespace if there is one to be had.

    Raises:
        CannotRehearse: there was nothing to stop.
        Interrupted: we were told to stop ourselves.
    """
    become_subreaper()
    keep_fds_to_ourselves()
    try:
        with Program(waker, plan) as engine:
            return engine.run()
    except Unfit:
        with Program(waker, plan, simulate=True) as engine:
            return engine.run()
