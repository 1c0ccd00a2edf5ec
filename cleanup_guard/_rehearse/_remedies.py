"""What may help against something that was seen: changes of what is rehearsed, the one that loses least first.

Nothing here is known to help. Each remedy is another plan, and a rehearsal of that decides.

Rules:
1. A line is made of what stands in the user's file, or of the command that was given: processes give themselves other names.
2. It keeps what was there: other commands, the script's own trap, the user, the environment.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cleanup_guard._ground.names import name_of, number_of
from cleanup_guard._rehearse import _kinds, _proc, _python, _script
from cleanup_guard._supervise._spawn import CannotStart, find

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cleanup_guard._rehearse._plan import Plan
    from cleanup_guard._rehearse._seen import Possession, Rehearsal, Seen
    from cleanup_guard._rehearse._verdict import Finding

OUR_STOPS = (signal.SIGTERM, signal.SIGINT)
"""What `guard` and `cleanup-guard run` listen to if they are not told."""


@dataclass(frozen=True)
class Remedy:
    """Something that may help.

    Attributes:
        hint: what it is, for the end of a sentence.
        line: what is to be written, or typed.
        plan: the same for a rehearsal.
        where: the file, and the number of the line in it.
        needs_us: whether this package must be in the image.
    """

    hint: str
    line: str
    plan: Plan
    where: str = ""
    needs_us: bool = False


@dataclass(frozen=True)
class Case:
    """What was found, in what was seen, of what was asked for."""

    finding: Finding
    rehearsal: Rehearsal
    plan: Plan

    @property
    def first(self) -> Seen:
        """The process that got the stop."""
        return self.rehearsal.processes[0]

    @property
    def subject(self) -> Seen:
        """The process that it is about."""
        return self.finding.subject or self.first

    @property
    def signal(self) -> str:
        """The stop signal's name, without SIG."""
        return self.rehearsal.signal.removeprefix("SIG")


def remedies(case: Case) -> Iterator[Remedy]:
    """All that may help, the best first. None of them is what runs already."""
    code = case.finding.code
    known = REMEDIES.get("exited" if code.startswith("exited-") else code, [])
    seen = [case.plan]
    for each in known:
        for remedy in each(case):
            if remedy.plan not in seen:
                seen.append(remedy.plan)
                yield remedy


# -- a line of a script ---------------------------------------------------------------------------------------------------


def _started(case: Case) -> list[str]:
    """The command line by which a shell has started whom it left behind; empty if that is not clear."""
    others = [seen for seen in case.finding.others if seen.parent == case.subject.pid]
    if len(others) != 1:
        return []
    found = (others[0].executed or [others[0].argv])[0]
    subshell = not others[0].executed and others[0].argv == case.subject.argv
    return [] if subshell or not _proc.is_whole(found) else found


def _become(case: Case) -> Iterator[Remedy]:
    """The shell becomes the program, which must catch the signal: as PID 1 nobody dies of it."""
    started = _started(case)
    others = [seen for seen in case.finding.others if seen.parent == case.subject.pid]
    program = _last(case, others[0]) if others else case.subject
    if started and (program.later or program.handling) not in {"default", "ignores"}:
        yield from _in_script(
            case, "let the shell become the program", lambda text: _script.with_exec(text, started)
        )


def _become_ours(case: Case) -> Iterator[Remedy]:
    """The shell becomes `cleanup-guard run`, for a program that is deaf as PID 1, where the shell is not all that runs."""
    started = _started(case)
    prefix = "exec cleanup-guard run -- "
    if started:
        hint = "let the shell become a supervisor of the program"
        yield from _in_script(case, hint, lambda text: _script.with_exec(text, started, prefix))


def _last(case: Case, seen: Seen) -> Seen:
    """Whom a program has started in its own place, as gosu and env do not but setpriv with a fork does; itself if nobody."""
    below = [each for each in case.rehearsal.processes if each.parent == seen.pid]
    return below[0] if len(below) == 1 and _kinds.is_init(seen.argv) else seen


def _in_script(case: Case, hint: str, change: Callable[[str], _script.Edit | None]) -> Iterator[Remedy]:
    """A change of the subject's script, be it in a file or in the command line."""
    argv = (case.subject.executed or [case.subject.argv])[-1]
    at = _kinds.inline(argv)
    if at is not None:
        edit = change(argv[at]) if case.subject is case.first else None
        if edit is not None:
            yield _inline(case, hint, argv, at, edit.text)
        return
    has = case.subject.has
    edit = change(has.text) if has is not None and has.text is not None else None
    if edit is not None and has is not None:
        name = os.path.basename(has.path)
        files = {**case.plan.files, has.path: edit.text}
        where = f"{_relative(has.path)}:{edit.number}"
        yield Remedy(f"{hint}, in {name}", edit.line, replace(case.plan, files=files), where)


def _inline(case: Case, hint: str, argv: list[str], at: int, text: str) -> Remedy:
    words = [*argv[:at], text, *argv[at + 1 :]]
    if case.plan.image is None:
        return Remedy(hint, shlex.join(words), replace(case.plan, program=words))
    # What is rehearsed begins with an entrypoint: the words are given as that, whichever it was.
    line = f"CMD {text}" if not case.rehearsal.entrypoint else f"ENTRYPOINT {text}"
    if words[:-1] not in (["/bin/sh", "-c"], ["sh", "-c"]):
        line = f"{line.partition(' ')[0]} {json.dumps(words, ensure_ascii=False)}"
    return Remedy(hint, line, _as_entrypoint(case.plan, words))


def _relative(path: str) -> str:
    """As somebody would say it who stands where we do."""
    try:
        found = os.path.relpath(path)
    except (OSError, ValueError):
        return path
    return path if found.startswith("..") else found


def _last_reader(case: Case) -> Iterator[Remedy]:
    """The reader of a pipeline ignores the stop, and ends when its writers have."""
    first = case.first
    told = (seen for seen in case.rehearsal.processes if seen.how == "signal" and seen.status in _kinds.STOPS)
    reader = next(told, None)
    if reader is not None:
        started = (reader.executed or [reader.argv])[0]
        shell = replace(case, finding=replace(case.finding, subject=first))
        hint = "let the reader outlive the writer"
        yield from _in_script(shell, hint, lambda text: _script.with_word(text, started, _deaf))


def _deaf(command: str) -> str:
    return f"(trap '' TERM INT; exec {command})"


# -- a parent that is PID 1 -----------------------------------------------------------------------------------------------


def _under_run(case: Case, *options: str, hint: str = "") -> Iterator[Remedy]:
    hint = hint or "let a supervisor tell everybody, and wait for them"
    listens = [] if number_of(case.rehearsal.signal) in OUR_STOPS else ["--stop-on", case.signal]
    yield _wrapped(case, hint, ["cleanup-guard", "run", *listens, *options])


def _wrapped(case: Case, hint: str, wrapper: list[str]) -> Remedy:
    """The program behind a command of ours; where it is behind one already, with the options of both."""
    words = _kinds.without_init(list(case.rehearsal.program))
    running = _kinds.ours(words)
    entry = case.rehearsal.entrypoint
    if running is not None and running[0] == "run" and wrapper[:2] == ["cleanup-guard", "run"]:
        start = len(words) - len(running[1])
        changed = [*words[:start], *wrapper[2:], *_without_options(running[1], wrapper[2:])]
        entry = [*changed[: len(changed) - len(words) + len(entry)]] if entry else []
    else:
        changed = [*wrapper, "--", *words]
        entry = [*wrapper, "--", *_kinds.without_init(entry)] if entry else []
    if case.plan.image is None:
        return Remedy(hint, shlex.join(changed), replace(case.plan, program=_found(changed)))
    return Remedy(hint, _as_dockerfile(changed, entry), _as_entrypoint(case.plan, changed), needs_us=True)


def _without_options(words: list[str], others: list[str]) -> list[str]:
    """A command line of `run` without those options that are among others, which come before it."""
    replaced = {word for word in others if word.startswith("--")}
    if words[:1] and words[0].partition("=")[0] in replaced:
        return _without_options(words[1 if "=" in words[0] else 2 :], others)
    if words[:1] and words[0].startswith("--") and words[0] != "--":
        return [words[0], *_without_options(words[1:], others)]
    return words


def _as_dockerfile(words: list[str], entry: list[str]) -> str:
    """What stands in a Dockerfile: the old CMD stays what follows an ENTRYPOINT, and is not to be told twice."""
    command = words[len(entry) :]
    if not entry:
        entry, command = words, []
    return (
        f"ENTRYPOINT {json.dumps(entry, ensure_ascii=False)}\nCMD {json.dumps(command, ensure_ascii=False)}"
    )


def _as_entrypoint(plan: Plan, words: list[str]) -> Plan:
    """Rehearse an image with this command line, whatever its own is."""
    assert plan.image is not None
    image = replace(plan.image, entrypoint=words[:1], options=_without_entrypoint(plan.image.options))
    return replace(plan, image=image, program=words[1:])


def _without_entrypoint(options: list[str]) -> list[str]:
    kept: list[str] = []
    left = list(options)
    while left:
        word = left.pop(0)
        if word == "--entrypoint":
            left = left[1:]
        elif not word.startswith("--entrypoint="):
            kept.append(word)
    return kept


def _found(words: list[str]) -> list[str]:
    """A command line of ours as it can be tried: where the command is not on PATH, by the Python that runs here."""
    if words[0] != _kinds.GUARD:
        return words
    try:
        find(words[0], os.environ.get("PATH"))
    except CannotStart:
        import sys

        return [sys.executable, "-P", "-m", "cleanup_guard", *words[1:]]
    return words


def _kept_on(case: Case) -> Iterator[Remedy]:
    """The shell lives on and does what comes after: a trap that does nothing is run when the program has ended."""
    started, has = _started(case), case.subject.has
    argv = (case.subject.executed or [case.subject.argv])[-1]
    if not started or case.plan.image is not None or case.subject is not case.first:
        return
    at, line = _kinds.inline(argv), f"trap : {case.signal}"
    text = _text_of_script(argv, at, has)
    if text is None or _script.has_trap(text) or not _script.comes_after(text, started):
        return
    hint = "let a supervisor tell everybody, and the shell live on to do what comes after"
    if at is not None:
        words = [*argv[:at], f"{line}; {text}", *argv[at + 1 :]]
        yield from _under_run(replace(case, rehearsal=replace(case.rehearsal, program=words)), hint=hint)
    elif has is not None:
        edit = _script.with_line_on_top(text, line)
        plan = replace(case.plan, files={**case.plan.files, has.path: edit.text})
        for remedy in _under_run(replace(case, plan=plan), hint=hint):
            shown = f"{line}   # on top of {os.path.basename(has.path)}\n{remedy.line}"
            yield replace(remedy, line=shown, where=f"{_relative(has.path)}:{edit.number}")


def _text_of_script(argv: list[str], at: int | None, has: Possession | None) -> str | None:
    """What a shell runs: the word of its command line that is its script, or a file."""
    if at is not None:
        return argv[at]
    return None if has is None else has.text


def _all_at_once(case: Case) -> Iterator[Remedy]:
    """For who catches the stop and does not pass it on: `run` leaves it to him, unless it is told not to."""
    hint = "let a supervisor tell everybody at once, and wait for them"
    yield from _under_run(case, "--signal-to", "group", hint=hint)


def _only_main(case: Case) -> Iterator[Remedy]:
    yield from _under_run(case, "--signal-to", "main", hint="tell only the main process")


def _with_init(case: Case) -> Iterator[Remedy]:
    """For images in which nothing of ours is: what the engine itself puts before a program."""
    image = case.plan.image
    if image is not None and "--init" not in image.options:
        plan = replace(case.plan, image=replace(image, options=[*image.options, "--init"]))
        line = f"{os.path.basename(image.engine[0])} run --init ...   # compose: init: true"
        yield Remedy("have an init as PID 1", line, plan)


def _kept_for_it(case: Case) -> Iterator[Remedy]:
    """A signal that comes early is blocked, and so kept, until our supervisor has begun."""
    hint = "have a parent as PID 1 that keeps it"
    yield _wrapped(case, hint, ["env", f"--block-signal={case.signal}", "cleanup-guard", "run"])


def _other_exit(case: Case) -> Iterator[Remedy]:
    status = case.first.status
    yield from _under_run(case, "--map-exit", f"{status}:0", hint="let it be 0")


# -- a program of the user's own ------------------------------------------------------------------------------------------


def _guarded(case: Case, **options: str) -> Iterator[Remedy]:
    has = case.subject.has
    if has is None or has.text is None or not _kinds.is_python(case.subject.argv):
        return
    if not _python.is_the_users(has.path):
        return
    number = number_of(case.rehearsal.signal)
    if number not in OUR_STOPS:
        listened = [*(name_of(signum) for signum in OUR_STOPS), case.rehearsal.signal]
        options["signals"] = f"({', '.join(f'signal.{name}' for name in listened)})"
    elif _python.has_guard(has.text) and not options:
        return  # that one is not the matter
    edit = _python.guarded(has.text, options, {"grace": f"{case.plan.grace:g}"})
    if edit is not None:
        files = {**case.plan.files, has.path: edit.text}
        needs = "from cleanup_guard import guard" + ("; import signal" if "signals" in options else "")
        line = f"{edit.line}   # above def main(); {needs}"
        where = f"{_relative(has.path)}:{edit.number}"
        yield Remedy("have main() guarded", line, replace(case.plan, files=files), where)


def _guarded_with_status_0(case: Case) -> Iterator[Remedy]:
    for remedy in _guarded(case, exit_status="0"):
        yield replace(remedy, hint="let it be 0")


# -- how it is stopped ----------------------------------------------------------------------------------------------------


def _longer(case: Case) -> Iterator[Remedy]:
    needed = case.rehearsal.needed
    enough = math.ceil((needed or max(case.rehearsal.seconds, case.rehearsal.grace)) * 1.25 + 0.5)
    line = f"docker stop -t {enough} ...   # Kubernetes: terminationGracePeriodSeconds: {enough}"
    yield Remedy("give it more time, or less to do", line, replace(case.plan, grace=float(enough)))


def _told_less(case: Case) -> Iterator[Remedy]:
    left = math.floor(case.rehearsal.grace - case.rehearsal.hook)
    if left >= 1:
        line = f"CLEANUP_GUARD_GRACE={left}   # terminationGracePeriodSeconds less what preStop takes"
        yield Remedy("tell it what there is", line, replace(case.plan, told=str(left)))


def _other_signal(case: Case) -> Iterator[Remedy]:
    """It does listen, but not to the unusual signal that was chosen for it."""
    has = case.subject.has
    chosen = case.subject is case.first and case.signal != "TERM"
    for signum in OUR_STOPS if has is not None and chosen else ():
        name = name_of(signum)
        if has is not None and signum in has.catches and name != case.rehearsal.signal:
            hint = f"it listens to {name}, so let the platform send that"
            line = f"STOPSIGNAL {name}   # in the Dockerfile; docker run --stop-signal {name}"
            yield Remedy(hint, line, replace(case.plan, signum=int(signum)))
            return


def _clean_slate(case: Case) -> Iterator[Remedy]:
    """What is ignored or blocked was inherited: from a script that has executed it, or from whoever starts all this."""
    hint = "start it with a clean slate"
    *before, last = case.subject.executed or [case.subject.argv]
    script = next((_kinds.script(words) for words in reversed(before) if _kinds.is_shell(words)), "")
    path = os.path.abspath(script)
    text = _read(path) if script and case.plan.image is None else None
    edit = None if text is None else _script.with_word(text, ["exec", *last], _behind_ours)
    if edit is not None:
        where = f"{_relative(path)}:{edit.number}"
        files = {**case.plan.files, path: edit.text}
        yield Remedy(
            f"{hint}, in {os.path.basename(path)}", edit.line, replace(case.plan, files=files), where
        )
    yield _wrapped(case, hint, ["cleanup-guard", "exec"])


def _behind_ours(old: str) -> str:
    first, _, rest = old.partition(" ")
    return f"exec cleanup-guard exec -- {rest}" if first == "exec" else f"cleanup-guard exec -- {old}"


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(_proc.MOST_SCRIPT)
    except (OSError, UnicodeDecodeError):
        return None


REMEDIES: dict[str, list[Callable[[Case], Iterator[Remedy]]]] = {
    "shell-does-not-forward": [_become, _kept_on, _under_run, _become_ours, _with_init],
    "shell-waits": [_under_run, _all_at_once],
    "never-caught": [_other_signal, _guarded, _under_run, _with_init],
    "start-up-race": [_kept_for_it],
    "raises-it-again": [_under_run, _with_init],
    "does-not-forward": [_under_run, _all_at_once],
    "still-there": [_guarded, _under_run, _with_init],
    "never-told": [_under_run, _all_at_once],
    "stopped": [_under_run],
    "ignored": [_clean_slate],
    "blocked": [_clean_slate],
    "too-slow": [_longer],
    "close": [_longer],
    "told-too-much": [_told_less],
    "never-ends": [_guarded],
    "children-killed": [_under_run, _all_at_once],
    "init-leaves-early": [_under_run],
    "workers-told": [_only_main],
    "told-twice": [_under_run],
    "sigpipe": [_last_reader],
    "no-cleanup": [_guarded],
    "exited": [_guarded_with_status_0, _other_exit],
}
"""By what was found."""
