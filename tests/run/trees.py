"""Fake processes on a fake clock: a whole tree of them, which catch, pass on, read and end as their plan says."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf

from cleanup_guard._supervise._child import Child
from cleanup_guard._supervise._policy import Policy
from cleanup_guard._supervise._tree import TICKS, Process

US = 1
SIGKILL, SIGTERM, SIGCONT, SIGQUIT = 9, 15, 18, 3
EVERYTHING = (1 << 64) - 1


@dataclass(eq=False, repr=False)
class Fake:
    """One process.

    Attributes:
        parent: its position among the others; None for a main process.
        takes: seconds from being told to its end, if it catches the stop; infinity: it ignores that it was told.
        catches: whether it does; if not it dies of it.
        forwards: whether it tells its children, and then waits for them. A shell tells none in the foreground.
        in_turns: whether it tells its children one after the other, the last one first.
        busy: whether it runs all the time, and not only when something happens.
        session: whether it has left for a process group of its own.
        reads: the position of the one whose output it reads to the end, and then ends by itself.
        by_itself: when it ends without being told.
        name: what it is called.
        in_background: whether its shell started it with `&`.
        deafens: whether it ignores the stop from the moment on at which it catches it.
        daemon: whether it has left its parent, too, before anybody looked.
    """

    parent: int | None = None
    takes: float = 0.0
    catches: bool = True
    forwards: bool = False
    in_turns: bool = False
    busy: bool = False
    session: bool = False
    reads: int | None = None
    by_itself: float = inf
    name: str = "program"
    in_background: bool = False
    deafens: bool = False
    daemon: bool = False

    pid: int = 0
    above: int = US
    group: int = 0
    started: float = 0.0
    told_at: list[float] = field(default_factory=list)
    told_by: list[int] = field(default_factory=list)
    killed_at: float = inf
    ended_at: float = inf
    ends_at: float = inf
    wakes: int = 0
    status: int = 0

    def __repr__(self) -> str:
        told = {name: value for name, value in vars(self).items() if value != getattr(type(self), name, [])}
        return f"Fake({', '.join(f'{name}={value!r}' for name, value in told.items())})"

    @property
    def alive(self) -> bool:
        return self.ended_at == inf


class Trees:
    """`World`, and what happens in it.

    Args:
        plan: the processes, parents before children.
        blind: whether nobody can be looked at.
    """

    def __init__(self, plan: Sequence[Fake], *, blind: bool = False) -> None:
        self.now = 100.0
        self.blind = blind
        self.news = False
        self.cost = 0.0
        self.behind: list[str] = []
        self.fakes = list(plan)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        for number, fake in enumerate(self.fakes):
            fake.pid = 1000 + number
            fake.ends_at = fake.by_itself
            mother = None if fake.parent is None else self.fakes[fake.parent]
            fake.above = US if mother is None or fake.daemon else mother.pid
            fake.group = fake.pid if mother is None or fake.session or fake.daemon else mother.group
        self.children = [Child(f"c{number}") for number, fake in enumerate(self.fakes) if fake.parent is None]
        for child, fake in zip(self.children, self.mains(), strict=True):
            child.pid = fake.pid

    def mains(self) -> list[Fake]:
        return [fake for fake in self.fakes if fake.parent is None]

    def _by_pid(self, pid: int) -> Fake:
        return self.fakes[pid - 1000]

    def _below(self, pid: int) -> list[Fake]:
        return [fake for fake in self.fakes if fake.above == pid and fake.alive]

    # -- World ----------------------------------------------------------------------------------------------------------

    def is_empty(self) -> bool:
        return not any(fake.alive for fake in self.fakes)

    def ticks(self) -> int:
        return int(self.now * TICKS)

    def hears_alone(self, child: Child, signum: int) -> bool:
        fake = self._by_pid(child.pid or 0)
        return fake.alive and self._seen(fake).hears(signum) and not self._below(fake.pid)

    def main(self, child: Child) -> Process | None:
        assert child.pid is not None
        fake = self._by_pid(child.pid)
        return self._seen(fake) if fake.alive else None

    def below(self, child: Child, seconds: float) -> list[Process]:
        return list(self._descend(child.pid or 0))

    def look(self) -> list[Process]:
        return [] if self.blind else list(self._descend(US))

    def _descend(self, pid: int) -> Iterator[Process]:
        for fake in self._below(pid):
            yield self._seen(fake)
            yield from self._descend(fake.pid)

    def _seen(self, fake: Fake) -> Process:
        seen = Process(
            fake.pid, fake.name, parent=fake.above, group=fake.group, started=int(fake.started * TICKS)
        )
        quits = 1 << (SIGQUIT - 1)
        seen.caught = EVERYTHING & ~quits if fake.catches else 0
        seen.ignored = quits if fake.in_background else 0
        if fake.deafens and fake.told_at:
            seen.caught, seen.ignored = 0, EVERYTHING
        seen.switches = int(self.now * 20) if fake.busy else fake.wakes
        return seen

    def pipes(self, process: Process) -> tuple[set[str], set[str]]:
        reads = self._by_pid(process.pid).reads
        return ({f"pipe:{1000 + reads}"} if reads is not None else set()), {f"pipe:{process.pid}"}

    def tell(self, process: Process, signum: int) -> None:
        if signum not in (SIGCONT, SIGKILL):
            self._tell(self._by_pid(process.pid), US)

    def signal(self, child: Child, signum: int, *, to_group: bool) -> None:
        for fake in self.fakes:
            if signum != SIGCONT and fake.alive and child.pid in (fake.group if to_group else 0, fake.pid):
                self._tell(fake, US)

    def kill(self, child: Child, rest: Sequence[Process]) -> None:
        pids = {process.pid for process in rest}
        for fake in self.fakes:
            if fake.group == child.pid or fake.pid in pids:
                self._kill(fake)

    def kill_everybody(self, rest: Sequence[Process]) -> None:
        for fake in self.fakes:
            self._kill(fake)

    def left_behind(self, child: Child, rest: Sequence[Process], *, stays: bool) -> None:
        self.behind.append(child.name)

    # -- what they do ---------------------------------------------------------------------------------------------------

    def _tell(self, fake: Fake, by: int) -> None:
        if not fake.alive:
            return
        fake.told_at.append(self.now)
        fake.told_by.append(by)
        fake.wakes += 1
        if not fake.catches:
            self._end(fake, -SIGTERM)
        elif len(fake.told_at) == 1:
            below = self._below(fake.pid) if fake.forwards else []
            for child in below[-1:] if fake.in_turns else below:
                if fake.name != "sh" or child.in_background or child.group != fake.group:
                    self._tell(child, fake.pid)
            self._finish(fake)

    def _finish(self, fake: Fake) -> None:
        """A catcher that has been told goes on with its cleanup; who has told others waits for them first."""
        if fake.alive and not (fake.forwards and self._below(fake.pid)):
            fake.ends_at = min(fake.ends_at, self.now + fake.takes)

    def _kill(self, fake: Fake) -> None:
        if fake.alive:
            fake.killed_at = self.now
            self._end(fake, -SIGKILL)

    def _end(self, fake: Fake, status: int) -> None:
        fake.ended_at = self.now
        fake.status = status
        self.news = True
        for child in self.fakes:
            if child.above == fake.pid:
                child.above = US
            if child.reads is not None and self.fakes[child.reads] is fake and child.alive:
                child.ends_at = min(child.ends_at, self.now + 0.1)
        if fake.above != US and (mother := self._by_pid(fake.above)).alive and mother.told_at:
            untold = [each for each in self._below(mother.pid) if not each.told_at]
            for each in untold[-1:] if mother.in_turns else ():
                self._tell(each, mother.pid)
            self._finish(mother)

    def next_end(self) -> float:
        return min((fake.ends_at for fake in self.fakes if fake.alive), default=inf)

    def pass_time(self) -> None:
        while due := [fake for fake in self.fakes if fake.alive and fake.ends_at <= self.now]:
            for fake in due:
                self._end(fake, 0)


def play(policy: Policy, world: Trees, stop_at: float, *, forward: Sequence[tuple[float, int]] = ()) -> float:
    """Run a policy over a plan until it is done. Returns when that was."""
    todo = [(stop_at, SIGTERM), *forward]
    heapq.heapify(todo)
    for _ in range(10_000):
        world.pass_time()
        while todo and todo[0][0] <= world.now:
            policy.signal(heapq.heappop(todo)[1], world.now)
        for child in world.children:
            main = world.fakes[(child.pid or 0) - 1000]
            if child.running and not main.alive:
                policy.ended(child, main.status, world.now)
        due = policy.step(world.now)
        if policy.done:
            return world.now
        assert due > world.now, "busy waiting"
        mains = [world.fakes[(child.pid or 0) - 1000] for child in world.children if child.running]
        if all(main.alive for main in mains):  # else there is news at once
            moments = [due, world.next_end(), *([todo[0][0]] if todo else [])]
            world.now = min(moment for moment in moments if moment > world.now)
        assert world.now < 1000, "never done"
    raise AssertionError("it goes on and on")
