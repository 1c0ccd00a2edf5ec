"""What is to be said about a stop: a verdict, and what is behind it. What to do about it is found, and tried, elsewhere."""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cleanup_guard._ground.names import name_of, number_of
from cleanup_guard._rehearse import _kinds
from cleanup_guard._rehearse._kinds import STOPS
from cleanup_guard._rehearse._seen import Advice, Rehearsal, Seen

if TYPE_CHECKING:
    from collections.abc import Collection

NAMED = 3
"""Processes that a sentence names; the others are counted."""

CLOSE = 0.8
"""The share of the grace period from which a stop is said to be close."""

EVEN = 0.05
"""Seconds that a hook may take, and still be said to have taken none."""

FALLS_BACK = 2
"""The status of runtimes that raise the stop again to die of it, and find themselves alive, as PID 1 "
"does: Go's, for example."""

CODES = (
    "blocked", "child-failed", "children-killed", "close", "crashed", "does-not-forward", "exited", "failed", "hook-failed",
    "hoped-for",
    "ignored", "init-leaves-early", "killed-by-its-own", "killed-in-a-hurry", "never-caught", "never-ends", "never-told",
    "no-cleanup", "not-seen", "out-of-memory", "raises-it-again", "requests-dropped", "requests-lost", "resource-tracker",
    "shell-does-not-forward", "shell-waits", "sigpipe", "sometimes-hangs", "start-up-race", "still-there", "stopped",
    "told-too-much", "told-twice", "too-many", "too-slow", "traced-too-slow", "workers-told",
)  # fmt: skip
"""Each thing that can be said about a stop; `exited` is followed by a number."""


@dataclass(frozen=True)
class Finding:
    """Something to say about a stop.

    Attributes:
        code: a stable name for it.
        text: what was seen, without a full stop.
        hint: what to do about it, where no line is known that does.
        fault: whether it makes the stop unclean.
        subject: the process that it is about, if it is one.
        others: those who were left behind by it.
    """

    code: str
    text: str
    hint: str = ""
    fault: bool = True
    subject: Seen | None = None
    others: list[Seen] = field(default_factory=list[Seen])

    def advice(
        self, hint: str | None = None, line: str = "", tried: float | None = None, where: str = ""
    ) -> Advice:
        """As it is shown, with what helps: a hint, a line, and how long the stop took with that."""
        hint = self.hint if hint is None else hint
        return Advice(self.code, f"{self.text}{hint and ': '}{hint}.", line, self.fault, tried, where)


def judge(rehearsal: Rehearsal, allowed: Collection[str] = ()) -> list[Finding]:
    """Fill in verdict, clean and advice. Doing it twice changes nothing.

    Args:
        rehearsal: what was seen.
        allowed: codes that are no faults here.

    Returns:
        What the advice is about, in the same order.
    """
    found = sorted(_find(rehearsal, allowed), key=lambda each: not each.fault)
    settle(rehearsal, [each.advice() for each in found])
    return found


def settle(rehearsal: Rehearsal, advice: list[Advice]) -> None:
    """This is the advice; the verdict follows from it."""
    rehearsal.advice = advice
    rehearsal.clean = not any(each.fault for each in advice)
    rehearsal.verdict = _verdict(rehearsal)


def start_up_race(rehearsal: Rehearsal) -> Finding:
    """The program stops well when it is ready: where a handler was missing, it was missing only yet."""
    first = rehearsal.processes[0]
    return Finding(
        "start-up-race",
        f"The stop came {rehearsal.readied:.2f} s after the start, before {short(first)} caught {rehearsal.signal}, and PID 1 "
        "does not get what it does not catch",
        "have a parent as PID 1 that keeps it, or say that it is ready later",
        subject=first,
    )


RACES = {"never-caught", "shell-does-not-forward"}
"""What a stop that comes too early looks like."""


def short(seen: Seen) -> str:
    """A process by its name and pid, for a sentence."""
    return f"`{_kinds.name(seen.argv)}` (PID {seen.pid})"


def _verdict(rehearsal: Rehearsal) -> str:
    everybody = len(rehearsal.processes)
    killed = [seen for seen in rehearsal.processes if seen.was_killed]
    everybody += rehearsal.uncounted
    if rehearsal.clean:
        who = {1: "it", 2: "both processes"}.get(everybody, f"all {everybody} processes")
        clean = "clean"
        if killed:  # and yet it is no fault
            alone = _in_seconds(rehearsal.untraced or 0)
            return f"clean when nobody looks: it then ended within {alone} of {rehearsal.grace:g} s"
        if any(seen.how == "unknown" for seen in rehearsal.processes):
            clean, who = "clean, as far as is known", short(rehearsal.processes[0])
        return (
            f"{clean}: {who} ended within {_in_seconds(rehearsal.seconds)} of {rehearsal.grace:g} s; "
            f"exit status {rehearsal.status}"
        )
    if killed and everybody == 1:
        return f"not clean: it was killed; exit status {rehearsal.status}"
    if killed:
        were = "was" if len(killed) == 1 else "were"
        return (
            f"not clean: {len(killed)} of {everybody} processes {were} killed; exit status {rehearsal.status}"
        )
    return f"not clean: nobody was killed by the platform, but see below; exit status {rehearsal.status}"


def _find(rehearsal: Rehearsal, allowed: Collection[str]) -> list[Finding]:
    found = [*_about_the_end(rehearsal), *_about_the_teardown(rehearsal)]
    found += [*_about_the_ends(rehearsal), *_about_workers(rehearsal), *_about_being_told_twice(rehearsal)]
    found += [*_about_a_container(rehearsal), *_about_requests(rehearsal), *_about_the_status(rehearsal)]
    found += _about_looking(rehearsal)
    found = [replace(each, fault=False) if each.code in allowed else each for each in found]
    if not any(each.fault for each in found) and rehearsal.seconds > CLOSE * rehearsal.grace:
        text = f"It took {rehearsal.seconds:.1f} s of {rehearsal.grace:g} s, too close for a loaded machine"
        found.append(Finding("close", text, "give it more", fault=False))
    return found + _about_numbers(rehearsal)


def _about_numbers(rehearsal: Rehearsal) -> list[Finding]:
    """What it needed, and what it was told, against what the platform gives."""
    found: list[Finding] = []
    sure, took = rehearsal.sure, rehearsal.seconds - rehearsal.hook
    if (
        sure is not None
        and sure < rehearsal.grace
        and took > CLOSE * sure
        and rehearsal.seconds < rehearsal.grace
    ):
        text = (
            f"It took {_in_seconds(took)}, and only {sure:g} s are sure on {rehearsal.platform}: on some days it kills "
            f"sooner than after {rehearsal.grace:g} s"
        )
        found.append(Finding("hoped-for", text, "need less, or make sure of it", fault=False))
    left = rehearsal.grace - rehearsal.hook
    if rehearsal.told is not None and rehearsal.told > left + EVEN:
        hook = f" less {_in_seconds(rehearsal.hook)} of the hook before the signal" if rehearsal.hook else ""
        text = (
            f"CLEANUP_GUARD_GRACE says that there are {rehearsal.told:g} s, but there are {rehearsal.grace:g} s{hook}, so its "
            "rescues come too late"
        )
        found.append(Finding("told-too-much", text, "tell it"))
    return found


# -- killed at the end of the grace period ------------------------------------------------------------------------


def _about_the_end(rehearsal: Rehearsal) -> list[Finding]:
    killed = [seen for seen in rehearsal.processes if seen.how == "killed"]
    found = [each for seen in killed for each in _about_one_killed(rehearsal, seen, killed)]
    if killed and not found:
        told = f"{rehearsal.signal} never reached {_names(killed)}"
        found.append(Finding("never-told", told, "tell everybody", others=killed))
    return found


def _about_one_killed(rehearsal: Rehearsal, seen: Seen, killed: list[Seen]) -> list[Finding]:
    """Why it was still there, unless that is the matter of its parent, or of its children."""
    is_first = seen is rehearsal.processes[0]
    left = [each for each in killed if each.parent == seen.pid and each is not seen]
    if not is_first and not _was_told(seen, rehearsal) and not seen.stopped:
        return []  # its parent's matter
    if seen.handling == "catches" and any(_was_told(each, rehearsal) or each.stopped for each in left):
        return []  # it waits for those, and they are the matter
    unknown = seen.handling == "unknown"
    return [_guess_why(rehearsal, seen) if unknown else _why_not(rehearsal, seen, left)]


def _was_told(seen: Seen, rehearsal: Rehearsal) -> bool:
    return any(heard.name == rehearsal.signal or number_of(heard.name) in STOPS for heard in seen.heard)


def _why_not(rehearsal: Rehearsal, seen: Seen, left: list[Seen]) -> Finding:
    """Why this one, who was told to stop, was still there."""
    stop = rehearsal.signal
    if seen.stopped:
        text = (
            f"{short(seen)} was stopped, as by SIGSTOP, and who is stopped takes {stop} only when continued"
        )
        return Finding("stopped", text, "send SIGCONT after it", subject=seen)
    if seen.handling != "catches" and seen.later == "catches" and seen is rehearsal.processes[0]:
        return start_up_race(rehearsal)
    if seen.handling == "ignores" or (seen.handling == "blocks" and seen.later in {None, "blocks"}):
        code = {"ignores": "ignored", "blocks": "blocked"}[seen.handling]
        inherited = "trap with an empty command, nohup" if code == "ignored" else "a signal mask"
        text = (
            f"{short(seen)} {seen.handling} {stop}. If that is not in its own code, it was inherited ({inherited}), "
            "which an exec keeps"
        )
        return Finding(code, text, "start it with a clean slate", subject=seen)
    if seen.handling in {"default", "blocks"}:  # the latter for a moment only, as a shell does while it forks
        return _why_deaf(rehearsal, seen, left)
    if seen.raised or seen.later == "default":
        text = (
            f"{short(seen)} caught {stop}, and then raised it again to die of it, which the kernel keeps from PID 1: "
            "it was there "
            "to the end, with nothing left to do"
        )
        return Finding("raises-it-again", text, "give it a parent that is PID 1", subject=seen)
    return _why_slow(rehearsal, seen, left)


def _why_deaf(rehearsal: Rehearsal, seen: Seen, left: list[Seen]) -> Finding:
    stop = rehearsal.signal
    if _kinds.is_shell(seen.argv) and left:
        text = (
            f"{short(seen)} does not catch {stop}, so the kernel keeps it from PID 1, and does not forward it to "
            f"{_names(left)}"
        )
        return Finding(
            "shell-does-not-forward", text, "let a supervisor tell everybody", subject=seen, others=left
        )
    text = f"{short(seen)} does not catch {stop}, and the kernel keeps from PID 1 what it does not catch"
    hint = "have main() guarded" if _kinds.is_python(seen.argv) else "give it a parent that is PID 1"
    return Finding("never-caught", text, hint, subject=seen, others=left)


def _why_slow(rehearsal: Rehearsal, seen: Seen, left: list[Seen]) -> Finding:
    """It catches the signal, and was there all the same."""
    stop = rehearsal.signal
    if left and rehearsal.needed is not None:
        return _too_slow(rehearsal, seen)  # it waits for those, and they end
    were = "was" if len(left) == 1 else "were"
    if left and _kinds.is_shell(seen.argv):
        text = (
            f"{short(seen)} catches {stop}, but a shell runs its trap only when the foreground command has ended, and "
            f"{_names(left)} {were} never told"
        )
        return Finding("shell-waits", text, "let a supervisor tell everybody", subject=seen, others=left)
    if left:
        text = (
            f"{short(seen)} catches {stop}, but {_names(left)} {were} never told, and {were} there to the end"
        )
        return Finding("does-not-forward", text, "tell everybody", subject=seen, others=left)
    return _too_slow(rehearsal, seen)


def _too_slow(rehearsal: Rehearsal, seen: Seen) -> Finding:
    caught = f"{short(seen)} caught {rehearsal.signal} but was not done after {rehearsal.grace:g} s"
    if rehearsal.untraced is not None and rehearsal.untraced < rehearsal.grace:
        text = (
            f"{caught}, for it was held up {rehearsal.events} times to be looked at: by itself it needs "
            f"{rehearsal.untraced:.1f} s"
        )
        return Finding("traced-too-slow", text, fault=False, subject=seen)
    if rehearsal.tried is not None and rehearsal.needed is None:
        how = "look at where it hangs, with a debugger for example"
        if _kinds.is_python(seen.argv):
            how = "have main() guarded, which shows where it hangs, and ends it in time"
        return Finding(
            "never-ends",
            f"{caught}, nor after {rehearsal.tried:g} s when it was allowed to",
            how,
            subject=seen,
        )
    if rehearsal.needed is not None and rehearsal.needed < CLOSE * rehearsal.grace:
        text = f"{caught}, and in a second rehearsal it needed only {_in_seconds(rehearsal.needed)}: it hangs sometimes"
        return Finding("sometimes-hangs", text, "--repeat shows how often, a debugger where", subject=seen)
    needs = (
        "its cleanup takes longer" if rehearsal.needed is None else f"it would need {rehearsal.needed:.1f} s"
    )
    return Finding("too-slow", f"{caught}: {needs}", "give it more time, or less to do", subject=seen)


def _guess_why(rehearsal: Rehearsal, seen: Seen) -> Finding:
    """Why this one was still there, when neither what it does with the signal nor its children's end could be seen."""
    stop, was_there = rehearsal.signal, f"{short(seen)} was still there after {rehearsal.grace:g} s"
    left = [each for each in rehearsal.processes if each.parent == seen.pid and each is not seen]
    if _kinds.is_shell(seen.argv) and left:
        text = f"{was_there}, for a shell does not forward {stop} to what it waits for, {_names(left)}"
        return Finding(
            "shell-does-not-forward", text, "let a supervisor tell everybody", subject=seen, others=left
        )
    how = "have main() guarded" if _kinds.is_python(seen.argv) else "give it a parent that is PID 1"
    text = f"{was_there}, and whether it catches {stop} could not be seen"
    return Finding("still-there", text, f"if not, {how}; if so, give it more time", subject=seen)


# -- killed because PID 1 left -----------------------------------------------------------------------------------


def _about_the_teardown(rehearsal: Rehearsal) -> list[Finding]:
    torn = [seen for seen in rehearsal.processes if seen.how == "torn-down"]
    helpers = [seen for seen in torn if _kinds.is_helper(seen.argv)]
    torn = [seen for seen in torn if seen not in helpers]
    found: list[Finding] = []
    first = rehearsal.processes[0]
    if helpers:
        text = (
            f"{_names(helpers)} of multiprocessing ended with PID 1: such a process waits for its parent's end, and "
            "loses nothing by it"
        )
        found.append(Finding("resource-tracker", text, fault=False, subject=first))
    if torn:
        code = "init-leaves-early" if _kinds.is_init(first.argv) else "children-killed"
        text = (
            f"{short(first)} left after {_in_seconds(first.ended)}, and the kernel then killed {_names(torn)}, which "
            f"{_how_told(rehearsal, torn)}"
        )
        found.append(Finding(code, text, "wait for every descendant", subject=first, others=torn))
    return found


def _how_told(rehearsal: Rehearsal, torn: list[Seen]) -> str:
    told = [seen for seen in torn if _was_told(seen, rehearsal)]
    were = "was" if len(torn) == 1 else "were"
    if len(told) == len(torn):
        return f"{were} told to stop, but not waited for"
    return f"{were} not all told to stop, and not waited for" if told else f"{were} never told to stop"


# -- of a container ----------------------------------------------------------------------------------------------


def _about_a_container(rehearsal: Rehearsal) -> list[Finding]:
    found: list[Finding] = []
    if rehearsal.out_of_memory:
        text = "The container had used up its memory, and the kernel killed for it"
        found.append(
            Finding(
                "out-of-memory",
                text,
                "give it more (docker run --memory, resources: limits: memory), or less to do",
            )
        )
    unseen = [seen for seen in rehearsal.processes if seen.how == "unknown"]
    if unseen and not rehearsal.processes[0].was_killed:
        text = (
            f"What became of {_names(unseen)} could not be seen, for it may not be traced (who is made with "
            "CLONE_UNTRACED never "
            "is), and the kernel kills whoever is left when PID 1 leaves"
        )
        found.append(Finding("not-seen", text, fault=False))
    if rehearsal.hook_status:
        text = f"The hook before the stop ended with status {rehearsal.hook_status} after {_in_seconds(rehearsal.hook)}"
        found.append(
            Finding(
                "hook-failed", text, "its command may not be there, or may not do what it should", fault=False
            )
        )
    return found


def _about_requests(rehearsal: Rehearsal) -> list[Finding]:
    found: list[Finding] = []
    counted = rehearsal.requests
    if counted is None:
        return found
    if counted.lost:
        text = f"{counted.lost} of {counted.in_flight} requests that were in flight at the stop got no answer"
        found.append(Finding("requests-lost", text, "finish what was accepted before leaving"))
    if counted.dropped:
        text = (
            f"{counted.dropped} connections were accepted after the stop, and then dropped without an answer"
        )
        found.append(
            Finding(
                "requests-dropped",
                text,
                "close the listening socket first, so that they are refused",
                fault=False,
            )
        )
    return found


def _about_looking(rehearsal: Rehearsal) -> list[Finding]:
    found: list[Finding] = []
    if rehearsal.uncounted:
        text = f"{rehearsal.uncounted} more processes came and went than are shown"
        found.append(Finding("too-many", text, fault=False))
    return found


# -- how each ended ----------------------------------------------------------------------------------------------


def _about_the_ends(rehearsal: Rehearsal) -> list[Finding]:
    """About those who were not killed by the platform; about all that ended alike in one sentence."""
    alike: dict[tuple[int, bool], list[Seen]] = {}
    for seen in rehearsal.processes:
        if seen.how == "signal":
            alike.setdefault((seen.status, seen.hurried), []).append(seen)
    found = [
        each
        for (signum, hurried), some in alike.items()
        for each in _about_a_signal(rehearsal, signum, some, hurried=hurried)
    ]
    failed = [
        seen
        for seen in rehearsal.processes[1:]
        if seen.how == "exited" and seen.status not in _fine(rehearsal)
    ]
    if failed:
        same = len({seen.status for seen in failed}) == 1
        with_status = f"status {failed[0].status}" if same else "a status other than 0"
        text = f"{_names(failed)} exited with {with_status}"
        found.append(Finding("child-failed", text, "the output may say why (--show-output)", fault=False))
    return found


def _about_workers(rehearsal: Rehearsal) -> list[Finding]:
    """A supervisor of its own workers that catches the stop, and an init that has told the workers over its head."""
    first = rehearsal.processes[0]
    by_pid = {seen.pid: seen for seen in rehearsal.processes}
    told: dict[int, list[Seen]] = {}
    for seen in rehearsal.processes[1:]:
        parent = by_pid.get(seen.parent)
        if parent is None or parent is first or not _died_when_told_by(first, seen):
            continue
        if parent.handling == "catches" and parent.ended >= seen.ended and _is_worker(seen, parent):
            told.setdefault(parent.pid, []).append(seen)
    return [
        Finding(
            "workers-told",
            f"{short(by_pid[pid])} catches {rehearsal.signal} and looks after its workers itself, but {_names(workers)} "
            f"{'was' if len(workers) == 1 else 'were'} told by {short(first)}, too, and died of it in the middle of the work",
            "tell only the main process",
            subject=by_pid[pid],
            others=workers,
        )
        for pid, workers in told.items()
    ]


def _died_when_told_by(first: Seen, seen: Seen) -> bool:
    told = any(heard.sender == first.pid and number_of(heard.name) in STOPS for heard in seen.heard)
    return told and seen.how == "signal" and seen.handling == "default" and seen.status in STOPS


def _is_worker(seen: Seen, parent: Seen) -> bool:
    """Whether it is a part of the same program, forked to work for it, and not a program of its own."""
    same = seen.has is not None and parent.has is not None and seen.has.file == parent.has.file
    return same and not seen.executed and not _kinds.is_shell(parent.argv)


def _about_being_told_twice(rehearsal: Rehearsal) -> list[Finding]:
    stops = {short(seen): names for seen in rehearsal.processes if len(names := _stops_heard(seen)) > 1}
    if not stops:
        return []
    name, told = max(stops.items(), key=lambda item: len(item[1]))
    others = len(stops) - 1
    too = f", and so {'was 1 other' if others == 1 else f'were {others} others'}" if others else ""
    text = (
        f"{name} was told to stop {len(told)} times ({', '.join(told[:4])}){too}, which makes many programs give "
        "up their cleanup"
    )
    return [Finding("told-twice", text, "tell each process once", fault=False)]


def _stops_heard(seen: Seen) -> list[str]:
    """The stops that one was told; what platforms send again, or after another, is theirs to know."""
    stops = [heard for heard in seen.heard if number_of(heard.name) in STOPS]
    first = next((heard for heard in stops if heard.sender is None), None)
    return [heard.name for heard in stops if heard.sender is not None or heard is first]


def _about_a_signal(rehearsal: Rehearsal, signum: int, some: list[Seen], *, hurried: bool) -> list[Finding]:
    name = name_of(signum)
    were = "was" if len(some) == 1 else "were"
    late = _in_seconds(max(seen.ended for seen in some))
    if signum == signal.SIGPIPE:
        text = f"{_names(some)} {were} killed by SIGPIPE: whoever read the output had gone first"
        return [Finding("sigpipe", text, "let the reader outlive the writer", subject=some[0])]
    if signum == signal.SIGKILL and hurried:
        text = (
            f"{_names(some)} {were} killed by one of its own while a stop signal was on its way. To be traced takes "
            "time, so this may "
            "be no fault of the program"
        )
        return [Finding("killed-in-a-hurry", text, fault=False)]
    if signum == signal.SIGKILL:
        text = (
            f"{_names(some)} {were} killed by SIGKILL after {late}, not by the platform but by one of its own (or for "
            "lack of memory)"
        )
        return [
            Finding(
                "killed-by-its-own", text, "who stops others must give them the time that their cleanup takes"
            )
        ]
    if signum in STOPS or name == rehearsal.signal:
        return _about_no_cleanup(name, some)
    text = f"{_names(some)} {were} ended by {name} {late} after the stop"
    return [Finding("crashed", text, "the output may say why (--show-output)")]


def _about_no_cleanup(name: str, some: list[Seen]) -> list[Finding]:
    """Who is no Python program may catch it when it owes something; and KeyboardInterrupt unwinds."""
    some = [
        seen
        for seen in some
        if _kinds.is_python(seen.argv) and seen.handling == "default" and not seen.raised
    ]
    if not some or name == "SIGINT":
        return []
    catch = "does not catch it" if len(some) == 1 else "do not catch it"
    text = f"{_names(some)} ended by {name} without running `finally` or atexit, for it {catch}"
    return [
        Finding("no-cleanup", text, "have main() guarded, if it owes a cleanup", fault=False, subject=some[0])
    ]


def _fine(rehearsal: Rehearsal) -> set[int]:
    return {0, *(128 + signum for signum in (*STOPS, number_of(rehearsal.signal)))}


def _about_the_status(rehearsal: Rehearsal) -> list[Finding]:
    first = rehearsal.processes[0]
    if first.how != "exited" or first.status == 0:
        return []
    if first.status in _fine(rehearsal):
        text = (
            f"The exit status is {first.status}, which says that it was told to stop. Where the platform takes that "
            "for a failure"
        )
        return [Finding(f"exited-{first.status}", text, "let it be 0", fault=False, subject=first)]
    if first.raised or _is_makes(rehearsal):
        text = (
            f"The exit status is {first.status}, which is how {short(first)} says that {rehearsal.signal} has ended "
            "it: it has cleaned "
            "up nothing"
        )
        return [
            Finding(
                f"exited-{first.status}",
                text,
                "catch the signal, if it owes a cleanup",
                fault=False,
                subject=first,
            )
        ]
    text = f"{short(first)} exited with status {first.status}, so its cleanup may have failed"
    return [Finding("failed", text, "its output may say why (--show-output)")]


def _is_makes(rehearsal: Rehearsal) -> bool:
    """Whether it is make, which exits with 2 when what it runs was told to stop."""
    first, *others = rehearsal.processes
    told = any(seen.how == "signal" and seen.status in STOPS for seen in others)
    return (
        _kinds.base(first.argv) in {"make", "gmake"}
        and first.status == FALLS_BACK
        and (told or _was_told(first, rehearsal))
    )


# -- words -------------------------------------------------------------------------------------------------------


def _in_seconds(seconds: float) -> str:
    """At least so many: nobody reads more than hundredths."""
    return f"{math.ceil(seconds * 100) / 100:.3g} s"


def _names(some: list[Seen]) -> str:
    *but_last, last = [short(seen) for seen in some[:NAMED]]
    if len(some) > NAMED:
        but_last, last = [*but_last, last], f"{len(some) - NAMED} more"
    return f"{', '.join(but_last)} and {last}" if but_last else last
