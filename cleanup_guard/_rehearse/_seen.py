"""What a rehearsal saw. As JSON it is documented and stable: fields are added, never changed or removed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

Handling = Literal["catches", "ignores", "blocks", "default", "unknown"]
"""What a process does with the stop signal; one that waits for it with sigwait(3) or by a signalfd(2) catches it. Unknown:
the processes of the container may not be looked at."""

How = Literal["exited", "signal", "killed", "torn-down", "unknown"]
"""How a process ended: by itself; by a signal from one of its own; by SIGKILL at the end of the grace period; by SIGKILL from
the kernel, because PID 1 of its namespace had left (pid_namespaces(7)). Unknown: it was not there any more when PID 1 had
left a container whose processes may not be watched."""

Isolation = Literal["pid-namespace", "simulated", "container"]


@dataclass(frozen=True)
class Heard:
    """A signal that reached a process, whatever the process did with it.

    Attributes:
        at: seconds after the stop; for one that still waited at the end of the grace period, blocked for example, that moment.
        name: SIGTERM, for example.
        sender: the pid of who sent it; None for the platform or the kernel.

    Example:
        >>> Heard(at=0.01, name="SIGTERM", sender=None).name
        'SIGTERM'
    """

    at: float
    name: str
    sender: int | None


@dataclass(frozen=True)
class Possession:
    """What a process has at the stop, and must not lose when a line of ours is applied. Never shown: secrets are in it.

    Attributes:
        user: real, effective and saved ids of user and group, and the groups, as /proc/PID/status has them.
        nice: its priority.
        environ: its environment when it was executed.
        file: the program that it executes.
        path: of the script that it runs, if it is an interpreter of one.
        text: of that script, where it could be read.
        catches: the signals that a handler of it is called for.
    """

    user: tuple[str, ...] = ()
    nice: int = 0
    environ: dict[str, str] = field(default_factory=dict[str, str])
    file: str = ""
    path: str = ""
    text: str | None = None
    catches: frozenset[int] = frozenset()


@dataclass
class Seen:
    """A process that lived at the stop, or was started after it.

    Attributes:
        pid: as the program sees it: 1 for the first in a namespace of its own.
        parent: the pid of its parent when it was first seen; 0 for the first process.
        argv: its command line; of the last program that it executed.
        handling: what it did with the stop signal when that was sent (when it ended, if it was born later).
        born: seconds after the stop when it was started; negative before it.
        ended: seconds after the stop when it ended.
        how: how it ended.
        status: its exit status, if it exited; else the number of the signal that ended it.
        heard: the signals that reached it after the stop, SIGCHLD and the like aside.
        stopped: whether it was stopped, as SIGSTOP does it, at the end of the grace period.
        later: what it did with the stop signal at the end of the grace period, if it was still there then.
        executed: the command lines that it executed, the first one first; a title that it gave itself is in `argv` only.
        raised: whether it sent the stop signal to itself, not caught, as programs do to die of it.
        hurried: whether a stop signal was still on its way to it when one of its own killed it.
        has: what it has at the stop; not in the JSON.

    Example:
        >>> Seen(pid=7, parent=1, argv=["python", "app.py"], how="killed").was_killed
        True
    """

    pid: int
    parent: int
    argv: list[str]
    handling: Handling = "default"
    born: float = 0.0
    ended: float = 0.0
    how: How = "exited"
    status: int = 0
    heard: list[Heard] = field(default_factory=list[Heard])
    stopped: bool = False
    later: Handling | None = None
    executed: list[list[str]] = field(default_factory=list[list[str]])
    raised: bool = False
    hurried: bool = False
    has: Possession | None = field(default=None, repr=False, compare=False)

    @property
    def was_killed(self) -> bool:
        """Whether it ended by a SIGKILL, ours or the kernel's."""
        return self.how in {"killed", "torn-down"}


@dataclass(frozen=True)
class Requests:
    """What became of requests to a server.

    Attributes:
        in_flight: how many had been sent, and not answered, when the stop was sent.
        answered: how many of those got their answer.
        lost: how many of those did not.
        refused: how many new connections were refused after the stop, or answered with 503: who asks tries elsewhere.
        dropped: how many new connections were accepted after the stop, and then not answered.
        served: how many were accepted after the stop, and answered.

    Example:
        >>> Requests(in_flight=2, answered=2).lost
        0
    """

    in_flight: int = 0
    answered: int = 0
    lost: int = 0
    refused: int = 0
    dropped: int = 0
    served: int = 0


@dataclass(frozen=True)
class Advice:
    """What to do about something that was seen.

    Attributes:
        code: a stable name for it, such as `shell-does-not-forward`.
        text: one sentence: what was seen and what to do.
        line: the line that fixes it, as it would stand in a file; may be empty.
        fault: whether it makes the stop unclean; if not, it is a remark.
        tried: seconds from the stop to the end with that line, in a rehearsal that was clean; None: it was not tried.
        where: the file and the number of the line in it that is to be changed, as in `entry.sh:4`; may be empty.

    Example:
        >>> advice = Advice(code="never-caught", text="Nobody catches it.", line="exec app", fault=True, where="entry.sh:4")
        >>> advice.where, advice.line
        ('entry.sh:4', 'exec app')
    """

    code: str
    text: str
    line: str
    fault: bool
    tried: float | None = None
    where: str = ""


@dataclass
class Rehearsal:
    """One rehearsed stop.

    Attributes:
        program: what was started.
        image: the container image, if it was one.
        signal: the stop signal's name.
        grace: seconds between the stop and SIGKILL.
        isolation: `pid-namespace`; `simulated`, where none was to be had; `container`.
        remark: what differs from a real container, in one sentence; may be empty.
        readied: seconds from the start to the stop.
        seconds: from the stop until the last process was gone.
        needed: how long the same stop took with a longer grace period, if that was measured and was enough.
        tried: that longer grace period; None if it was not measured.
        status: what the platform shows as the exit status: 128 + n for signal n.
        processes: who was there, parents before children; the first is the one that the stop went to.
        output: what was printed after the stop.
        out_of_memory: whether a container had a process killed because its memory was full.
        clean: whether everybody ended by themselves in time, and well.
        verdict: the same, in one sentence.
        advice: what to do, most important first.
        entrypoint: of an image, with which `program` begins; empty if it has none.
        uncounted: processes that came and went beyond those that are kept.
        events: how often the program was held up to be looked at, from the stop on.
        untraced: how long the same stop took when nobody looked, if that was measured.
        hook: seconds that the platform's hook took before the stop signal.
        hook_status: its exit status; None if it was not awaited, or there was none.
        requests: what became of requests, if there were any.
        platform: whose way of stopping it was; empty for none in particular.
        sure: seconds that are sure on that platform, if that is known.
        told: seconds that the program was told that it has (CLEANUP_GUARD_GRACE); None if it was told nothing.
    """

    program: list[str]
    image: str | None
    signal: str
    grace: float
    isolation: Isolation
    remark: str = ""
    readied: float = 0.0
    seconds: float = 0.0
    needed: float | None = None
    tried: float | None = None
    status: int = 0
    processes: list[Seen] = field(default_factory=list[Seen])
    output: str = ""
    out_of_memory: bool = False
    clean: bool = False
    verdict: str = ""
    advice: list[Advice] = field(default_factory=list[Advice])
    entrypoint: list[str] = field(default_factory=list[str])
    uncounted: int = 0
    events: int = 0
    untraced: float | None = None
    hook: float = 0.0
    hook_status: int | None = None
    requests: Requests | None = None
    platform: str = ""
    sure: float | None = None
    told: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The fields above, for json.dumps; seconds are rounded to a millisecond."""
        plain = replace(self, processes=[replace(seen, has=None) for seen in self.processes])
        data: dict[str, Any] = json.loads(
            json.dumps(asdict(plain)), parse_float=lambda text: round(float(text), 3)
        )
        for each in data["processes"]:
            del each["has"]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `as_json`, up to the rounding."""
        found = cls(**data)
        found.processes = [Seen(**each) for each in data["processes"]]
        for seen, each in zip(found.processes, data["processes"], strict=True):
            seen.heard = [Heard(**heard) for heard in each["heard"]]
        found.advice = [Advice(**each) for each in data["advice"]]
        found.requests = None if found.requests is None else Requests(**data["requests"])
        return found
