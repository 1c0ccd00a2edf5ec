"""Whom to tell that it is to stop: everybody once, by whoever is nearest, and in an order that costs nobody's cleanup.

Pure: what processes are and do is told by looks (`_tree`), and who is to be told now is the answer.

Rules:
1. Who lives below a process that has caught the signal is that one's to tell: wrappers (sudo, timeout, uv), supervisors and
   shells with a trap pass it on, and a handler that is told twice is raised out of its cleanup. Who is left without such an
   ancestor is told then, once. (Once a catcher, always: many ignore the signal as soon as they have caught it.)
2. A shell with a trap does not run it before its foreground program has ended, so it cannot pass anything on to that one:
   below it we tell. (What it has put into the background was started with SIGINT and SIGQUIT ignored; who has one of them at
   its default is not that.)
3. A catcher that passes nothing on leaves the others untold. Whoever has not run at all since before the stop has been told
   by nobody for certain, and is told at half time, if that gives it a chance to clean up.
4. Who does not catch the signal dies of it, so it is told when those who do are gone: somebody may need it for the cleanup,
   or write to it. Its death ends nothing but what it does now, so nothing is lost by the wait. But for those above them,
   shells above all: a script that outlives its program would go on with the next line.
5. Who reads what a catcher writes is last, even if it is above: the reader of a pipe, and `tail -f` of a log. It has time to
   read to the end, and usually ends by itself there. Whose the catcher is makes no difference: a daemon's descent is known to
   nobody, and another program may write the log.
6. Who was started after the stop is somebody's cleanup: it is told late, if nobody is left above it.
7. Who has just been forked is told a moment later: CPython forgets a signal that reaches a child in its fork (H40).
"""

from __future__ import annotations

from cleanup_guard._ground.clock import inf
from cleanup_guard._supervise._tree import SHELLS, SUSPENDED, TICKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from cleanup_guard._supervise._child import Child
    from cleanup_guard._supervise._tree import Key, Process

    Pipes = Callable[[Process], tuple[set[str], set[str]]]

SIGINT, SIGQUIT = 2, 3

HALF, IN_TURNS = 0.5, 0.75
"""The share of the time after which those are told whom the catcher above has told nothing; and if it has told others."""

NEWBORN = 0.1
"""Seconds for which a fork may still miss what it is told."""

EXPECTED = 0.3
"""How often a process may be expected to have run by itself, for the fact that it has run to mean that it was told."""

LINGER = 1.2
"""Seconds for who follows a file to show what was written last.

BusyBox's `tail -f` looks once a second, and GNU's, too, on filesystems whose events it does not trust: overlayfs is one.
"""

READING = 5.0
"""Seconds for the reader of a pipe to come to its end, if there is no limit of which it might have half."""

HARMLESS = frozenset({17, 18, 20, 21, 22, 23, 28})
"""Signals that do not end who does not catch them: CHLD, CONT, TSTP, TTIN, TTOU, URG, WINCH."""


class Kin:
    """The processes of one look, parents before children, and whose they are."""

    def __init__(self, processes: Sequence[Process], roots: dict[Key, Child]) -> None:
        self.processes = [process for process in processes if process.alive]
        self._by_pid = {process.pid: process for process in self.processes}
        self._of: dict[Child | None, list[Process]] = {}
        for process in self.processes:
            self._of.setdefault(roots.get(process.key), []).append(process)

    def of(self, child: Child | None) -> list[Process]:
        """Those who belong to a child; to None, those who have left and whose descent is not known any more."""
        return self._of.get(child, [])

    def main(self, child: Child) -> Process | None:
        """A child's main process."""
        return self._by_pid.get(child.pid or -1)

    def line(self, process: Process) -> Iterator[tuple[Process, Process]]:
        """Its ancestors below us, nearest first, each with the one of its children that the line comes through."""
        below = process
        seen = {process.pid}
        while (above := self._by_pid.get(below.parent)) is not None and above.pid not in seen:
            seen.add(above.pid)
            yield above, below
            below = above

    def is_anothers(
        self,
        process: Process,
        catches: Callable[[Process], bool],
        *,
        leader: int | None = None,
        began: int | None = None,
    ) -> bool:
        """Whether an ancestor is to pass a signal on to it.

        Args:
            process: whom this is about.
            catches: says whether a process catches the signal, or has caught it.
            leader: the pid of a main process that is asked alone.
            began: when the stop began, in ticks; None for a signal that is no stop.
        """
        return any(
            above.pid == leader or (catches(above) and not _waits_for(above, below, began))
            for above, below in self.line(process)
        )

    def is_above(self, process: Process, others: Iterable[Process]) -> bool:
        """Whether one of the others descends from it."""
        return any(above is process for other in others for above, _ in self.line(other))


def _waits_for(shell: Process, program: Process, began: int | None) -> bool:
    """Whether the second is the first one's foreground program, which keeps it from running its trap.

    What was started after the stop began is part of the trap.
    """
    return (
        shell.name in SHELLS
        and shell.sleeps_in != SUSPENDED  # which is how dash waits for the background
        and program.group == shell.group
        and not (began is not None and program.started > began)
        and not (program.ignores(SIGINT) or program.ignores(SIGQUIT))
        and not (program.hears(SIGINT) and program.hears(SIGQUIT))
    )


class Telling:
    """Who has been told in this stop, and what is known about the others. See the rules of this module."""

    def __init__(self) -> None:
        self.began: int | None = None  # in ticks: who was started later is young
        self._began_at = inf
        self._told: set[Key] = set()
        self._catchers: set[Key] = set()
        self._before: dict[Key, tuple[int, float]] = {}  # switches, and the seconds it had lived
        self._below_catcher: set[Key] = set()
        self._sampled: dict[Child, set[Key]] = {}
        self._readers: dict[Key, bool] = {}  # of pipes, that is, of what has an end
        self._held: dict[Key, float] = {}  # until when who reads what others write has to wait for them
        self._quiet_since: dict[Child | None, float] = {}
        self._roots: dict[Key, Child] = {}

    def begin(self, ticks: int, now: float) -> None:
        """The stop begins, unless it has begun."""
        if self.began is None:
            self.began = ticks
            self._began_at = now

    # -- what was seen --------------------------------------------------------------------------------------------------

    def kin(self, processes: Sequence[Process], children: Iterable[Child]) -> Kin:
        """Say whose these processes are: by their group, else as their parents, else as was known before."""
        mains = {child.pid: child for child in children if child.pid is not None and not child.gone}
        by_pid: dict[int, Child] = {}
        roots: dict[Key, Child] = {}
        for process in processes:
            root = mains.get(process.group) or by_pid.get(process.parent) or self._roots.get(process.key)
            if root is not None:
                by_pid[process.pid] = roots[process.key] = root
        self._roots = roots
        self._below_catcher.intersection_update(process.key for process in processes)
        return Kin(processes, roots)

    def sample(self, child: Child, processes: Iterable[Process], signum: int, ticks: int) -> None:
        """Remember how often each had run before the stop, and who catches it.

        They are below the child's main process, which is told alone.
        """
        sampled = self._sampled.setdefault(child, set())
        for process in processes:
            self.catches(process, signum)
            sampled.add(process.key)
            lived = max(1, ticks - process.started) / TICKS
            self._before.setdefault(process.key, (process.switches, lived))
            self._below_catcher.add(process.key)

    def catches(self, process: Process, signum: int) -> bool:
        """Whether it catches the stop, or has caught it."""
        if process.hears(signum):
            self._catchers.add(process.key)
        return process.key in self._catchers

    def note(self, processes: Iterable[Process]) -> None:
        """These are being told now."""
        self._told.update(process.key for process in processes)

    def note_catcher(self, process: Process | None) -> None:
        """This one was told when it caught the stop, which it may not any more; None if it has gone."""
        if process is not None:
            self._catchers.add(process.key)
            self._told.add(process.key)

    def forget(self, processes: Iterable[Process]) -> None:
        """These may not have been told, after all."""
        self._told.difference_update(process.key for process in processes)

    def note_group(self, processes: Iterable[Process], child: Child) -> None:
        """All of a child's process group have been told, but for who has come since."""
        self.note(
            process
            for process in processes
            if process.group == child.pid and (self.began is None or process.started <= self.began)
        )

    # -- who is due -----------------------------------------------------------------------------------------------------

    def due(
        self,
        kin: Kin,
        child: Child | None,
        signum: int,
        *,
        now: float,
        ticks: int,
        over: float,
        end: float,
        others: Mapping[Child | None, int],
        pipes: Pipes,
    ) -> list[Process]:
        """Who is to be told now, in this order.

        Args:
            kin: what the last look has seen.
            child: whose processes this is about.
            signum: what they would be told with.
            now, ticks: the time, on both clocks.
            over: the share of the time that is over.
            end: when all of it is.
            others: whose processes are being stopped, too, and with which signal.
            pipes: what a process reads and writes.
        """
        late = over >= HALF

        def catches(process: Process) -> bool:
            return self.catches(process, signum)

        everybody = kin.of(child) if child is not None else kin.processes
        catchers = [each for each in everybody if catches(each)]
        mine = [each for each in kin.of(child) if each.key not in self._told and not each.ignores(signum)]
        anothers = self._anothers(kin, child, mine, catches, late=late)
        self._below_catcher |= anothers
        free = [each for each in mine if each.key not in anothers]
        ready = [each for each in free if self._may_be_told(each, signum, now=now, ticks=ticks, late=late)]
        left = self._see_who_reads(catchers, free, signum, pipes)
        self._hold(kin, left, others, now, pipes)
        since = self._quiet_from(child, now, quiet=not catchers)
        due = [
            each
            for each in ready
            if each.hears(signum) or self._is_its_turn(kin, each, catchers, since=since, now=now, end=end)
        ]
        if over >= (IN_TURNS if self._tells_in_turns(kin, child, now) else HALF):
            due += self._untold([each for each in mine if each.key in anothers], signum)
        return due

    def forwarded(self, kin: Kin, child: Child | None, signum: int, *, caught: bool = False) -> list[Process]:
        """To whom a signal that is no stop is passed on: to all whom no catcher above sees to.

        Who would only die of it is spared, if anybody of the child catches it.

        Args:
            kin: what the last look has seen.
            child: whose processes this is about.
            signum: the signal.
            caught: whether the main process was seen to catch it, before it got it. It may be busy with it in the last look.
        """
        main = child.pid if caught and child is not None else None
        leader = _leader(child)
        mine = [each for each in kin.of(child) if not each.ignores(signum)]
        free = [
            each
            for each in mine
            if not kin.is_anothers(
                each, lambda above: above.hears(signum) or above.pid == main, leader=leader
            )
        ]
        catchers = [each for each in free if each.hears(signum)]
        return catchers if catchers and signum not in HARMLESS else free

    def _may_be_told(self, process: Process, signum: int, *, now: float, ticks: int, late: bool) -> bool:
        if not process.executed and ticks - process.started <= NEWBORN * TICKS:
            return False
        if late:
            return True
        if self.began is not None and process.started > self.began:
            return False
        return not (process.hears(signum) and self._seems_told(process, now))

    def _anothers(
        self,
        kin: Kin,
        child: Child | None,
        processes: Iterable[Process],
        catches: Callable[[Process], bool],
        *,
        late: bool,
    ) -> set[Key]:
        """Those of these whom an ancestor is to tell."""
        leader = _leader(child)
        group = child.pid if late and child is not None and child.scope == "main-then-group" else None
        return {
            each.key
            for each in processes
            if not (group is not None and each.group == group)
            and kin.is_anothers(each, catches, leader=leader, began=self.began)
        }

    def _quiet_from(self, child: Child | None, now: float, *, quiet: bool) -> float:
        """Since when nobody has been there who catches the signal."""
        if quiet:
            return self._quiet_since.setdefault(child, now)
        self._quiet_since.pop(child, None)
        return inf

    def _untold(self, processes: Iterable[Process], signum: int) -> Iterator[Process]:
        """Those of these who catch the signal, and have for certain not been told by the catcher above them."""
        for each in processes:
            before = self._before.get(each.key)
            if each.hears(signum) and before is not None and before[0] == each.switches:
                yield each

    def _tells_in_turns(self, kin: Kin, child: Child | None, now: float) -> bool:
        """Whether somebody below a main process that was told alone has ended since, or was told by a catcher."""
        if child is None or child not in self._sampled:
            return False
        alive = {each.key: each for each in kin.processes}
        return any(
            key not in alive or self._seems_told(alive[key], now)
            for key in self._sampled[child]
            if key not in self._told
        )

    def _seems_told(self, process: Process, now: float) -> bool:
        """Whether the catcher above it told it before it went: it has run, and would hardly have by itself."""
        before = self._before.get(process.key)
        if process.key not in self._below_catcher or before is None or before[0] == process.switches:
            return False
        return before[0] / before[1] * (now - self._began_at) < EXPECTED

    def _see_who_reads(
        self, catchers: list[Process], processes: list[Process], signum: int, pipes: Pipes
    ) -> list[Process]:
        """Find who reads what catchers write. Returns those of these who do not catch the signal: they may."""
        left = [each for each in processes if not each.hears(signum)]
        unknown = [each for each in left if each.key not in self._readers]
        self._readers |= _find_readers(catchers, unknown, pipes)
        return left

    def _hold(
        self, kin: Kin, processes: list[Process], others: Mapping[Child | None, int], now: float, pipes: Pipes
    ) -> None:
        """Keep those of these waiting who read what somebody else's catchers write."""
        if not processes:
            return
        writers: list[Process] = []
        between: list[Process] = []
        for other, signum in others.items():
            for each in kin.of(other):
                if self.catches(each, signum):
                    writers.append(each)
                elif not each.ignores(signum):
                    between.append(each)
        found = _find_readers(writers, processes + between, pipes)
        for each in processes:
            if each.key in found:
                self._readers.setdefault(each.key, found[each.key])
                self._held[each.key] = inf
            elif self._held.get(each.key) == inf:
                self._held[each.key] = now

    def only_reads(self, kin: Kin, child: Child) -> bool:
        """Whether nobody of a child is left but who waits for what others write."""
        mine = kin.of(child)
        return bool(mine) and all(self._held.get(each.key) == inf for each in mine)

    def _is_its_turn(
        self, kin: Kin, process: Process, catchers: list[Process], *, since: float, now: float, end: float
    ) -> bool:
        """Whether who does not catch the signal is due."""
        reads = self._readers.get(process.key)
        if catchers:
            above = {each.key for each, _ in kin.line(process)}
            others = [each for each in catchers if each.key not in above]
            return not others or (reads is None and kin.is_above(process, others))
        since = max(since, self._held.get(process.key, since))
        if reads is None or since == inf:
            return reads is None
        patience = LINGER if not reads else READING if end == inf else (end - since) / 2
        return now >= since + patience


def _find_readers(writers: list[Process], processes: list[Process], pipes: Pipes) -> dict[Key, bool]:
    """Who of these reads what writers write, or what other readers write in turn: whether that has an end, as a pipe has."""
    if not writers or not processes:
        return {}
    written = set[str]().union(*(pipes(each)[1] for each in writers))
    open_files = {each.key: pipes(each) for each in processes}
    readers: dict[Key, bool] = {}
    found = True
    while found:
        found = False
        for key, (reads, writes) in open_files.items():
            if key not in readers and reads & written:
                readers[key] = any(name.startswith("pipe:") for name in reads & written)
                written |= writes
                found = True
    return readers


def _leader(child: Child | None) -> int | None:
    """The pid of the main process, where that is asked alone."""
    alone = child is not None and child.running and child.scope in ("main", "main-then-group")
    return child.pid if child is not None and alone else None
