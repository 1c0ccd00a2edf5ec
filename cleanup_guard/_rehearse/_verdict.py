"""What is to be said about a stop: a verdict, and advice that is specific to what was seen."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal

from cleanup_guard._rehearse._seen import Advice, Rehearsal, Seen
from cleanup_guard._supervise._names import name_of, number_of

SHELLS = {"sh", "ash", "bash", "busybox", "dash", "ksh", "mksh", "zsh"}
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


def short(seen: Seen) -> str:
    """A process by its name and pid, for a sentence."""
    return f"`{_name(seen)}` (PID {seen.pid})"


def _verdict(rehearsal: Rehearsal) -> str:
    everybody = len(rehearsal.processes)
    killed = [seen for seen in rehearsal.processes if seen.was_killed]
    if rehearsal.clean:
        if any(seen.how == "unknown" for seen in rehearsal.processes):
            who = f"{short(rehearsal.processes[0])}, and whoever is seen no more,"
        else:
            who = "it" if everybody == 1 else f"all {everybody} processes"
        within = f"{rehearsal.seconds:.2g} s of {rehearsal.grace:g} s"
        return f"clean: {who} ended within {within}; exit status {rehearsal.status}"
    if killed:
        were = "was" if len(killed) == 1 else "were"
        return (
            f"not clean: {len(killed)} of {everybody} process{'es' if everybody > 1 else ''} {were} killed; "
            f"exit status {rehearsal.status}"
        )
    return f"not clean: nobody was killed by the platform, but see below; exit status {rehearsal.status}"


def _advise(rehearsal: Rehearsal) -> list[Advice]:
    found = [*_about_the_end(rehearsal), *_about_the_teardown(rehearsal), *_about_the_unseen(rehearsal)]
    if rehearsal.out_of_memory:
        found.insert(0, _out_of_memory())
    for seen in rehearsal.processes:
        found += _about_one(rehearsal, seen)
    found += _about_the_status(rehearsal)
    if not any(each.fault for each in found) and rehearsal.seconds > CLOSE * rehearsal.grace:
        found.append(
            Advice(
                "close",
                f"It took {rehearsal.seconds:.1f} s of {rehearsal.grace:g} s, which a loaded machine may not allow: give it more.",
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
        if not is_first and not _was_told(seen, rehearsal):
            continue  # its parent's matter
        if seen.handling == "catches" and any(_was_told(each, rehearsal) for each in left):
            continue  # it waits for those, and they are the matter
        unknown = seen.handling == "unknown"
        found.append(_guess_why(rehearsal, seen) if unknown else _why_not(rehearsal, seen, left))
    return found or [_nobody_was_told(rehearsal, killed)] * bool(killed)


def _was_told(seen: Seen, rehearsal: Rehearsal) -> bool:
    return any(heard.name == rehearsal.signal or number_of(heard.name) in STOPS for heard in seen.heard)


def _why_not(rehearsal: Rehearsal, seen: Seen, left: list[Seen]) -> Advice:
    """Why this one, who was told to stop, was still there."""
    stop, shell = rehearsal.signal, _name(seen) in SHELLS
    if seen.handling == "default" and shell and left:
        return Advice(
            "shell-does-not-forward",
            f"{short(seen)} does not catch {stop}, so the kernel keeps it from PID 1, and does not forward it to "
            f"{_names(left)}: let the shell become the program{_in_script(seen)}.",
            _instead_of_shell(rehearsal, left),
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
    if shell and left:
        return Advice(
            "shell-waits",
            f"{short(seen)} catches {stop}, but a shell runs its trap only when the foreground command has ended, and "
            f"{_names(left)} was never told: let the shell become the program{_in_script(seen)}.",
            _instead_of_shell(rehearsal, left),
            fault=True,
        )
    if left:
        return Advice(
            "does-not-forward",
            f"{short(seen)} catches {stop}, but {_names(left)} was never told, and was waited for to the end: "
            "tell everybody.",
            _under_run(rehearsal),
            fault=True,
        )
    needs = f"it would need {rehearsal.needed:.1f} s" if rehearsal.needed else "its cleanup takes longer"
    return Advice(
        "too-slow",
        f"{short(seen)} caught {stop} but was not done after {rehearsal.grace:g} s: {needs}. Give it more time, or less to do.",
        _longer(rehearsal.needed or 2 * rehearsal.grace),
        fault=True,
    )


def _guess_why(rehearsal: Rehearsal, seen: Seen) -> Advice:
    """Why this one was still there, whose handling of the signal and whose children's end could not be seen."""
    stop = rehearsal.signal
    left = [each for each in rehearsal.processes if each.parent == seen.pid and each is not seen]
    if _name(seen) in SHELLS and left:
        return Advice(
            "shell-does-not-forward",
            f"{short(seen)} was still there after {rehearsal.grace:g} s: a shell does not forward {stop} to what it waits for, "
            f"{_names(left)}: let the shell become the program{_in_script(seen)}.",
            _instead_of_shell(rehearsal, left),
            fault=True,
        )
    return Advice(
        "still-there",
        f"{short(seen)} was still there after {rehearsal.grace:g} s, and whether it catches {stop} could not be seen: if not, "
        f"{'have main() guarded' if _is_python(seen) else 'give it a parent that is PID 1'}; if so, give it more time.",
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
    if _name(first) in SHELLS and len(torn) == 1:
        line = (
            'trap \'kill -TERM "$child"; wait "$child"\' TERM   # after: '
             f"{shlex.join(torn[0].argv)} & child=$!"
        )
    return [
        Advice(
            "init-leaves-early" if _name(first) in INITS else "children-killed",
            f"{short(first)} left after {first.ended:.2g} s, and the kernel then killed {_names(torn)}, which {how}: wait for "
            "every descendant.",
            line,
            fault=True,
        )
    ]


def _about_the_unseen(rehearsal: Rehearsal) -> list[Advice]:
    unseen = [seen for seen in rehearsal.processes if seen.how == "unknown"]
    if not unseen or rehearsal.processes[0].was_killed:
        return []
    return [
        Advice(
            "not-seen",
            f"What became of {_names(unseen)} could not be seen, and the kernel kills whoever is left when PID 1 leaves: "
            "rehearse it as root, on the machine of the engine.",
            "",
            fault=False,
        )
    ]


def _out_of_memory() -> Advice:
    return Advice(
        "out-of-memory",
        "The container had used up its memory, and the kernel killed for it: give it more, or less to do.",
        "docker run --memory ...   # Kubernetes: resources: limits: memory",
        fault=True,
    )


# -- how each ended ----------------------------------------------------------------------------------------------


def _about_one(rehearsal: Rehearsal, seen: Seen) -> list[Advice]:
    found: list[Advice] = []
    if seen.how == "signal":
        found += _about_a_signal(rehearsal, seen)
    elif seen.how == "exited" and seen.status not in _fine(rehearsal) and seen is not rehearsal.processes[0]:
        found.append(
            Advice(
                "child-failed",
                f"{short(seen)} exited with status {seen.status}: its output may say why.",
                "cleanup-guard check --show-output ...",
                fault=False,
            )
        )
    stops = [
        heard.name for heard in seen.heard if number_of(heard.name) in STOPS and heard.sender is not None
    ]
    if len(stops) > 1:
        found.append(
            Advice(
                "told-twice",
                f"{short(seen)} was told to stop {len(stops)} times ({', '.join(stops[:4])}), which makes many programs "
                "give up their cleanup: tell each process once.",
                _under_run(rehearsal),
                fault=False,
            )
        )
    return found


def _about_a_signal(rehearsal: Rehearsal, seen: Seen) -> list[Advice]:
    name = name_of(seen.status)
    if seen.status == signal.SIGPIPE:
        return [
            Advice(
                "sigpipe",
                f"{short(seen)} was killed by SIGPIPE: whoever read its output had gone first. Let the reader outlive the writer.",
                f"{shlex.join(seen.argv)} 2>&1 | (trap '' TERM INT; exec tee log)",
                fault=True,
            )
        ]
    if seen.status == signal.SIGKILL:
        return [
            Advice(
                "killed-by-its-own",
                f"{short(seen)} was killed by SIGKILL after {seen.ended:.1f} s, not by the platform but by one of its own (or "
                "for lack of memory): a supervisor's limit must be longer than the cleanup takes.",
                _line(
                    rehearsal, ["cleanup-guard", "run", "--grace", f"{rehearsal.grace:g}", "--", *seen.argv]
                ),
                fault=True,
            )
        ]
    if seen.status in STOPS or name == rehearsal.signal:
        if not _is_python(seen):
            return []
        return [
            Advice(
                "no-cleanup",
                f"{short(seen)} ended by {name} without running `finally` or atexit, for it does not catch it: have main() "
                "guarded, if it owes a cleanup.",
                _guard(rehearsal),
                fault=False,
            )
        ]
    return [
        Advice("crashed", f"{short(seen)} was ended by {name} after {seen.ended:.2g} s.", "", fault=True),
    ]


def _fine(rehearsal: Rehearsal) -> set[int]:
    return {0, *(128 + signum for signum in (*STOPS, number_of(rehearsal.signal)))}


def _about_the_status(rehearsal: Rehearsal) -> list[Advice]:
    first = rehearsal.processes[0]
    if first.how != "exited" or first.status == 0:
        return []
    if first.status in _fine(rehearsal):
        line = _under_run(rehearsal, f"--map-exit {first.status}:0 ")
        if _is_python(first) and "cleanup-guard" not in " ".join(first.argv):
            line = "@guard(exit_status=0)"
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


def _name(seen: Seen) -> str:
    if not seen.argv:
        return "?"
    name = os.path.basename(seen.argv[0]).removeprefix("-") or "?"
    script = next((word for word in seen.argv[1:] if not word.startswith("-")), "")
    if name.startswith("python") and len(seen.argv) > 1 and script == seen.argv[1]:
        return os.path.basename(script)
    return name


def _is_python(seen: Seen) -> bool:
    return bool(seen.argv) and os.path.basename(seen.argv[0]).startswith("python")


def _names(some: list[Seen]) -> str:
    named = ", ".join(short(seen) for seen in some[:NAMED])
    return named if len(some) <= NAMED else f"{named} and {len(some) - NAMED} more"


def _in_script(shell: Seen) -> str:
    script = next((word for word in shell.argv[1:] if not word.startswith("-")), "")
    is_file = script and not {" ", ";", "\n"} & set(script)
    return f", in {os.path.basename(script)}" if is_file else ""


def _instead_of_shell(rehearsal: Rehearsal, left: list[Seen]) -> str:
    if len(left) > 1:
        return _under_run(rehearsal)
    if rehearsal.image is not None and not _in_script(rehearsal.processes[0]):  # sh -c: no file to change
        return _line(rehearsal, left[0].argv)
    return f"exec {shlex.join(left[0].argv)}"


def _under_run(rehearsal: Rehearsal, options: str = "") -> str:
    words = rehearsal.program
    if os.path.basename(words[0]) == "cleanup-guard" and words[1:2] == ["run"]:
        return _line(rehearsal, ["cleanup-guard", "run", *options.split(), *words[2:]])
    return _line(rehearsal, ["cleanup-guard", "run", *options.split(), "--", *words])


def _line(rehearsal: Rehearsal, words: list[str]) -> str:
    """A command as it stands where the program is named: in a Dockerfile, for an image."""
    if rehearsal.image is not None:
        return f"ENTRYPOINT {json.dumps(words, ensure_ascii=False)}"
    return shlex.join(words)


def _guard(rehearsal: Rehearsal) -> str:
    return f"@guard(grace={rehearsal.grace:g})   # above def main(); from cleanup_guard import guard"


def _longer(seconds: float) -> str:
    enough = math.ceil(seconds * 1.25 + 0.5)
    return f"docker stop -t {enough} ...   # Kubernetes: terminationGracePeriodSeconds: {enough}"
