"""What is to be said about a stop: a verdict, and advice that is specific to what was seen."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import sys

from cleanup_guard._ground.names import name_of, number_of
from cleanup_guard._rehearse._seen import Advice, Rehearsal, Seen

assert sys.platform == "linux"

SHELLS = {"sh", "ash", "bash", "busybox", "dash", "ksh", "ksh93", "mksh", "zsh"}
INITS = {"catatonit", "docker-init", "dumb-init", "tini", "tini-static"}
STOPS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
"""Signals that programs tell each other to stop with."""

NAMED = 3
"""Processes that a sentence names; the others are counted."""

CLOSE = 0.8
"""The share of the grace period from which a stop is said to be close."""


def judge(rehearsal: Rehearsal) -> None:
    """Fill in verdict, clean and advice. Doing it twice changes nothing."""
    rehearsal.advice = sorted(_advise(rehearsal), key=lambda each: not each.fault)
    rehearsal.clean = not any(each.fault for each in rehearsal.advice)
    rehearsal.verdict = _verdict(rehearsal)


def blame_the_start(rehearsal: Rehearsal) -> None:
    """The same program stops well when it is ready: where a handler was missing here, it was missing only yet."""
    for number, each in enumerate(rehearsal.advice):
        if each.code in {"never-caught", "shell-does-not-forward"}:
            rehearsal.advice[number] = Advice(
                "start-up-race",
                f"The stop came {rehearsal.readied:.2f} s after the start, before {short(rehearsal.processes[0])} caught "
                f"{rehearsal.signal}, and PID 1 does not get what it does not catch: have a parent as PID 1 that keeps it.",
                f"env --block-signal={rehearsal.signal.removeprefix('SIG')} {_under_run(rehearsal)}",
                fault=True,
            )


def short(seen: Seen) -> str:
    """A process by its name and pid, for a sentence."""
    return f"`{_name(seen)}` (PID {seen.pid})"


def _verdict(rehearsal: Rehearsal) -> str:
    everybody = len(rehearsal.processes)
    killed = [seen for seen in rehearsal.processes if seen.was_killed]
    if rehearsal.clean:
        who = {1: "it", 2: "both processes"}.get(everybody, f"all {everybody} processes")
        clean = "clean"
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


def _advise(rehearsal: Rehearsal) -> list[Advice]:
    found = [*_about_the_end(rehearsal), *_about_the_teardown(rehearsal)]
    found += [*_about_the_ends(rehearsal), *_about_being_told_twice(rehearsal)]
    found += _about_a_container(rehearsal)
    found += _about_the_status(rehearsal)
    if not any(each.fault for each in found) and rehearsal.seconds > CLOSE * rehearsal.grace:
        found.append(
            Advice(
                "close",
                f"It took {rehearsal.seconds:.1f} s of {rehearsal.grace:g} s, too close for a loaded machine: give it more.",
                _longer(rehearsal.seconds),
                fault=False,
            )
        )
    return found


# -- killed at the end of the grace period ------------------------------------------------------------------------


def _about_the_end(rehearsal: Rehearsal) -> list[Advice]:
    killed = [seen for seen in rehearsal.processes if seen.how == "killed"]
    found: list[Advice] = []
    for seen in killed:
        is_first = seen is rehearsal.processes[0]
        left = [each for each in killed if each.parent == seen.pid and each is not seen]
        if not is_first and not _was_told(seen, rehearsal) and not seen.stopped:
            continue  # its parent's matter
        if seen.handling == "catches" and any(_was_told(each, rehearsal) or each.stopped for each in left):
            continue  # it waits for those, and they are the matter
        unknown = seen.handling == "unknown"
        found.append(_guess_why(rehearsal, seen) if unknown else _why_not(rehearsal, seen, left))
    if killed and not found:
        found.append(_nobody_was_told(rehearsal, killed))
    return found


def _was_told(seen: Seen, rehearsal: Rehearsal) -> bool:
    return any(heard.name == rehearsal.signal or number_of(heard.name) in STOPS for heard in seen.heard)


def _why_not(  # noqa: PLR0911 - a table, in the order of the questions
    rehearsal: Rehearsal, seen: Seen, left: list[Seen]
) -> Advice:
    """Why this one, who was told to stop, was still there."""
    stop, shell = rehearsal.signal, _name(seen) in SHELLS
    if seen.stopped:
        return Advice(
            "stopped",
            f"{short(seen)} was stopped, as by SIGSTOP, and who is stopped takes {stop} only when continued: send "
            "SIGCONT after it.",
            _under_run(rehearsal),
            fault=True,
        )
    if seen.handling == "default" and shell and left:
        what, line = _instead_of_shell(rehearsal, seen, left)
        return Advice(
            "shell-does-not-forward",
            f"{short(seen)} does not catch {stop}, so the kernel keeps it from PID 1, and does not forward it to "
            f"{_names(left)}: {what}.",
            line,
            fault=True,
        )
    if seen.handling == "default":
        return Advice(
            "never-caught",
            f"{short(seen)} does not catch {stop}, and the kernel keeps from PID 1 what it does not catch: "
            f"{'have main() guarded' if _is_python(seen) else 'give it a parent that is PID 1'}.",
            _guard(rehearsal) if _is_python(seen) else _under_run(rehearsal),
            fault=True,
        )
    if seen.handling in {"ignores", "blocks"}:
        how = {"ignores": "ignored", "blocks": "blocked"}[seen.handling]
        return Advice(
            how,
            f"{short(seen)} {seen.handling} {stop}. If that is not in its own code, it was inherited "
            f"({'trap with an empty command, nohup' if how == 'ignored' else 'a signal mask'}), which an exec "
            f"keeps: start it with a clean slate.",
            _line(rehearsal, ["cleanup-guard", "exec", "--", *seen.argv]),
            fault=True,
        )
    were = "was" if len(left) == 1 else "were"
    if shell and left:
        what, line = _instead_of_shell(rehearsal, seen, left)
        return Advice(
            "shell-waits",
            f"{short(seen)} catches {stop}, but a shell runs its trap only when the foreground command has ended, and "
            f"{_names(left)} {were} never told: {what}.",
            line,
            fault=True,
        )
    if left:
        return Advice(
            "does-not-forward",
            f"{short(seen)} catches {stop}, but {_names(left)} {were} never told, and {were} there to the end: "
            "tell everybody.",
            _under_run(rehearsal),
            fault=True,
        )
    return _too_slow(rehearsal, seen)


def _too_slow(rehearsal: Rehearsal, seen: Seen) -> Advice:
    caught = f"{short(seen)} caught {rehearsal.signal} but was not done after {rehearsal.grace:g} s"
    if rehearsal.tried is not None and rehearsal.needed is None:
        python = _is_python(seen)
        how = (
            "have main() guarded, which shows where it hangs, and ends it in time"
            if python
            else "look at where it hangs"
        )
        return Advice(
            "never-ends",
            f"{caught}, nor after {rehearsal.tried:g} s when it was allowed to: {how}.",
            _guard(rehearsal) if python else f"gdb --batch -ex 'thread apply all backtrace' -p {seen.pid}",
            fault=True,
        )
    needs = (
        "its cleanup takes longer" if rehearsal.needed is None else f"it would need {rehearsal.needed:.1f} s"
    )
    return Advice(
        "too-slow",
        f"{caught}: {needs}. Give it more time, or less to do.",
        _longer(rehearsal.needed or 2 * rehearsal.grace),
        fault=True,
    )


def _guess_why(rehearsal: Rehearsal, seen: Seen) -> Advice:
    """Why this one was still there, when neither what it does with the signal nor its children's end could be seen."""
    stop, was_there = rehearsal.signal, f"{short(seen)} was still there after {rehearsal.grace:g} s"
    left = [each for each in rehearsal.processes if each.parent == seen.pid and each is not seen]
    if _name(seen) in SHELLS and left:
        what, line = _instead_of_shell(rehearsal, seen, left)
        return Advice(
            "shell-does-not-forward",
            f"{was_there}, for a shell does not forward {stop} to what it waits for, {_names(left)}: {what}.",
            line,
            fault=True,
        )
    how = "have main() guarded" if _is_python(seen) else "give it a parent that is PID 1"
    return Advice(
        "still-there",
        f"{was_there}, and whether it catches {stop} could not be seen: if not, {how}; if so, give it more time.",
        _guard(rehearsal) if _is_python(seen) else _under_run(rehearsal),
        fault=True,
    )


def _nobody_was_told(rehearsal: Rehearsal, killed: list[Seen]) -> Advice:
    return Advice(
        "never-told",
        f"{rehearsal.signal} never reached {_names(killed)}: tell everybody.",
        _under_run(rehearsal),
        fault=True,
    )


# -- killed because PID 1 left -----------------------------------------------------------------------------------


def _about_the_teardown(rehearsal: Rehearsal) -> list[Advice]:
    torn = [seen for seen in rehearsal.processes if seen.how == "torn-down"]
    if not torn:
        return []
    first = rehearsal.processes[0]
    told = [seen for seen in torn if _was_told(seen, rehearsal)]
    were = "was" if len(torn) == 1 else "were"
    if len(told) == len(torn):
        how = f"{were} told to stop, but not waited for"
    elif told:
        how = f"{were} not all told to stop, and not waited for"
    else:
        how = f"{were} never told to stop"
    line = _under_run(rehearsal)
    if (
        _name(first) in SHELLS
        and len(torn) == 1
        and torn[0].parent == first.pid
        and torn[0].argv != first.argv
    ):
        line = (
            'trap \'kill -TERM "$child"; wait "$child"\' TERM   # after: '
            f"{shlex.join(torn[0].argv)} & child=$!"
        )
    return [
        Advice(
            "init-leaves-early" if _name(first) in INITS else "children-killed",
            f"{short(first)} left after {_in_seconds(first.ended)}, and the kernel then killed {_names(torn)}, which {how}: "
            "wait for every descendant.",
            line,
            fault=True,
        )
    ]


# -- of a container ----------------------------------------------------------------------------------------------


def _about_a_container(rehearsal: Rehearsal) -> list[Advice]:
    found: list[Advice] = []
    if rehearsal.out_of_memory:
        found.append(
            Advice(
                "out-of-memory",
                "The container had used up its memory, and the kernel killed for it: give it more, or less to do.",
                "docker run --memory 1g ...   # Kubernetes: resources: limits: memory",
                fault=True,
            )
        )
    unseen = [seen for seen in rehearsal.processes if seen.how == "unknown"]
    if unseen and not rehearsal.processes[0].was_killed:
        found.append(
            Advice(
                "not-seen",
                f"What became of {_names(unseen)} could not be seen, and the kernel kills whoever is left when PID 1 leaves: "
                "rehearse it as root, on the machine of the engine.",
                "",
                fault=False,
            )
        )
    return found


# -- how each ended ----------------------------------------------------------------------------------------------


def _about_the_ends(rehearsal: Rehearsal) -> list[Advice]:
    """About those who were not killed by the platform; about all that ended alike in one sentence."""
    alike: dict[int, list[Seen]] = {}
    for seen in rehearsal.processes:
        if seen.how == "signal":
            alike.setdefault(seen.status, []).append(seen)
    found = [each for signum, some in alike.items() for each in _about_a_signal(rehearsal, signum, some)]
    failed = [
        seen
        for seen in rehearsal.processes[1:]
        if seen.how == "exited" and seen.status not in _fine(rehearsal)
    ]
    if failed:
        with_status = (
            f"status {failed[0].status}"
            if len({seen.status for seen in failed}) == 1
            else "a status other than 0"
        )
        found.append(
            Advice(
                "child-failed",
                f"{_names(failed)} exited with {with_status}: the output may say why.",
                "cleanup-guard check --show-output ...",
                fault=False,
            )
        )
    return found


def _about_being_told_twice(rehearsal: Rehearsal) -> list[Advice]:
    stops = {
        short(seen): names
        for seen in rehearsal.processes
        if len(names := [heard.name for heard in seen.heard if number_of(heard.name) in STOPS]) > 1
    }
    if not stops:
        return []
    name, told = max(stops.items(), key=lambda item: len(item[1]))
    others = len(stops) - 1
    too = f", and so {'was 1 other' if others == 1 else f'were {others} others'}" if others else ""
    return [
        Advice(
            "told-twice",
            f"{name} was told to stop {len(told)} times ({', '.join(told[:4])}){too}, which makes many programs give up "
            "their cleanup: tell each process once.",
            _under_run(rehearsal),
            fault=False,
        )
    ]


def _about_a_signal(rehearsal: Rehearsal, signum: int, some: list[Seen]) -> list[Advice]:
    name = name_of(signum)
    were = "was" if len(some) == 1 else "were"
    if signum == signal.SIGPIPE:
        return [
            Advice(
                "sigpipe",
                f"{_names(some)} {were} killed by SIGPIPE: whoever read the output had gone first. Let the reader outlive "
                "the writer.",
                f"{_writer(rehearsal, some[0])} 2>&1 | (trap '' TERM INT; exec tee log)",
                fault=True,
            )
        ]
    late = _in_seconds(max(seen.ended for seen in some))
    if signum == signal.SIGKILL:
        return [
            Advice(
                "killed-by-its-own",
                f"{_names(some)} {were} killed by SIGKILL after {late}, not by the platform but by one of its own (or for lack "
                "of memory): who stops others must give them the time that their cleanup takes.",
                "child.terminate(); child.wait()   # in place of child.kill()"
                if _is_python(rehearsal.processes[0])
                else "",
                fault=True,
            )
        ]
    if signum in STOPS or name == rehearsal.signal:
        some = [seen for seen in some if _is_python(seen)]
        if not some or signum == signal.SIGINT:
            return []  # who is no Python program may catch it when it owes something; and KeyboardInterrupt unwinds
        catch = "does not catch it" if len(some) == 1 else "do not catch it"
        return [
            Advice(
                "no-cleanup",
                f"{_names(some)} ended by {name} without running `finally` or atexit, for it {catch}: have main() guarded, "
                "if it owes a cleanup.",
                _guard(rehearsal),
                fault=False,
            )
        ]
    return [
        Advice(
            "crashed",
            f"{_names(some)} {were} ended by {name} {late} after the stop: the output may say why.",
            "cleanup-guard check --show-output ...",
            fault=True,
        ),
    ]


def _fine(rehearsal: Rehearsal) -> set[int]:
    return {0, *(128 + signum for signum in (*STOPS, number_of(rehearsal.signal)))}


def _about_the_status(rehearsal: Rehearsal) -> list[Advice]:
    first = rehearsal.processes[0]
    if first.how != "exited" or first.status == 0:
        return []
    if first.status in _fine(rehearsal):
        line = _under_run(rehearsal, f"--map-exit {first.status}:0 ")
        if _is_python(first) and not _is_ours(first):
            line = _guard(rehearsal, "exit_status=0, ")
        return [
            Advice(
                f"exited-{first.status}",
                f"The exit status is {first.status}, which says that it was told to stop. Where the platform takes that for "
                "a failure, let it be 0.",
                line,
                fault=False,
            )
        ]
    return [
        Advice(
            "failed",
            f"{short(first)} exited with status {first.status}, so its cleanup may have failed: its output may say why.",
            "cleanup-guard check --show-output ...",
            fault=True,
        )
    ]


# -- words -------------------------------------------------------------------------------------------------------


def _in_seconds(seconds: float) -> str:
    """At least so many: nobody reads more than hundredths."""
    return f"{math.ceil(seconds * 100) / 100:.3g} s"


def _name(seen: Seen) -> str:
    if not seen.argv:
        return "?"
    name = os.path.basename(seen.argv[0]).removeprefix("-") or "?"
    script = _script(seen) if name.startswith("python") else ""
    return os.path.basename(script) or name


def _script(seen: Seen) -> str:
    """The file that an interpreter reads its program from; empty if it does not."""
    words = seen.argv[2:] if os.path.basename(seen.argv[0]) == "busybox" else seen.argv[1:]
    while words:
        word, *words = words
        if not word.startswith(("-", "+")):
            return word
        if word[-1] in "cm" and not word.startswith("--"):
            return ""  # the program itself follows, or the name of a module
        if word in {"-X", "-W", "-o"}:
            words = words[1:]
    return ""


def _is_python(seen: Seen) -> bool:
    return bool(seen.argv) and os.path.basename(seen.argv[0]).startswith("python")


def _is_ours(seen: Seen) -> bool:
    return _is_python(seen) and ("cleanup_guard" in seen.argv or _name(seen) == "cleanup-guard")


def _names(some: list[Seen]) -> str:
    *but_last, last = [short(seen) for seen in some[:NAMED]]
    if len(some) > NAMED:
        but_last, last = [*but_last, last], f"{len(some) - NAMED} more"
    return f"{', '.join(but_last)} and {last}" if but_last else last


def _instead_of_shell(rehearsal: Rehearsal, shell: Seen, left: list[Seen]) -> tuple[str, str]:
    """What to do with a shell that these were left behind of, and the line that does it."""
    if len(left) > 1 or left[0].argv == shell.argv:  # which is a subshell, and no program to execute
        return "let a supervisor tell everybody, and wait for them", _under_run(rehearsal)
    script = _script(shell)
    if rehearsal.image is not None and not script:  # a SHELL form, of which there is no file to change
        return "let the program be the entrypoint", _line(rehearsal, left[0].argv)
    where = f", in {os.path.basename(script)}" if script else ""
    return f"let the shell become the program{where}", f"exec {shlex.join(left[0].argv)}"


def _writer(rehearsal: Rehearsal, seen: Seen) -> str:
    parents = [each.argv for each in rehearsal.processes if each.pid == seen.parent]
    return "..." if seen.argv in parents else shlex.join(seen.argv)  # a subshell has its parent's


def _under_run(rehearsal: Rehearsal, options: str = "") -> str:
    words = _without_init(rehearsal.program)
    if os.path.basename(words[0]) == "cleanup-guard" and words[1:2] == ["run"]:
        return _line(rehearsal, ["cleanup-guard", "run", *options.split(), *words[2:]])
    return _line(rehearsal, ["cleanup-guard", "run", *options.split(), "--", *words])


def _line(rehearsal: Rehearsal, words: list[str]) -> str:
    """A command as it stands where the program is named: in a Dockerfile, for an image."""
    if rehearsal.image is not None:
        return f"ENTRYPOINT {json.dumps(words, ensure_ascii=False)}"
    return shlex.join(words)


def _without_init(words: list[str]) -> list[str]:
    """What another init was to start: that one is not needed any more."""
    if os.path.basename(words[0]) not in INITS:
        return words
    if "--" in words:
        return words[words.index("--") + 1 :] or words
    return next((words[at:] for at, word in enumerate(words) if at and not word.startswith("-")), words)


def _guard(rehearsal: Rehearsal, options: str = "") -> str:
    return f"@guard({options}grace={rehearsal.grace:g})   # above def main(); from cleanup_guard import guard"


def _longer(seconds: float) -> str:
    enough = math.ceil(seconds * 1.25 + 0.5)
    return f"docker stop -t {enough} ...   # Kubernetes: terminationGracePeriodSeconds: {enough}"
