"""`cleanup-guard check`: the command line of the rehearsal."""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from cleanup_guard._ground.names import number_of

assert sys.platform == "linux"

if TYPE_CHECKING:
    from cleanup_guard._rehearse._engine import Waker
    from cleanup_guard._rehearse._ready import Wish
    from cleanup_guard._rehearse._seen import Rehearsal

CLEAN, UNCLEAN, USAGE, NOT_RUN = 0, 1, 2, 3

DESCRIPTION = """\
Rehearses `docker stop`: starts the program as PID 1 of a PID namespace, sends it the stop signal as a
platform would, watches every process, sends SIGKILL at the end of the grace period, and says who cleaned
up, who was killed, and what to do about it."""

EPILOG = """\
Without any of --ready, --ready-tcp, --ready-file and --after, the stop comes when no process has worked for
half a second. With several, all must be true.
Exit status: 0 clean, 1 not clean, 2 wrong usage, 3 there was no stop to rehearse (the program did not start,
ended before, or was not ready in time); 128+n when signal n ended the rehearsal, with all that it had started."""

JSON_VERSION = 1


class Parser(argparse.ArgumentParser):
    """One sentence for what is wrong."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(USAGE)


def main(argv: list[str]) -> int:
    """Run `cleanup-guard check` with these arguments. Returns the exit status."""
    try:
        options = parse(argv)
    except SystemExit as leave:
        return int(leave.code or 0)
    from cleanup_guard._rehearse._engine import CannotRehearse, Interrupted, Waker

    waker = Waker()
    try:
        rehearsals = rehearse(waker, options)
        _report(options, rehearsals)
    except CannotRehearse as error:
        return _complain(str(error))
    except Interrupted as error:
        print(f"cleanup-guard check: interrupted by {error}; nobody is left", file=sys.stderr)
        return 128 + error.signum
    return CLEAN if all(each.clean for each in rehearsals) else UNCLEAN


def _complain(message: str) -> int:
    print(f"cleanup-guard check: {message}", file=sys.stderr)
    return NOT_RUN


# -- the command line -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    program: list[str]
    image: str | None
    run_options: list[str]
    signum: int | None
    grace: float
    wish: Wish
    repeat: int
    seed: int
    json: bool
    svg: str | None
    show_output: bool


def parse(argv: list[str]) -> Options:
    """Read the command line.

    Raises:
        SystemExit: it makes no sense (2), or help was asked for (0).
    """
    from cleanup_guard._rehearse._ready import Wish

    parser = Parser(
        prog="cleanup-guard check",
        usage="cleanup-guard check [options] [--] PROGRAM [ARGUMENT ...]\n"
        "       cleanup-guard check [options] --image NAME [ARGUMENT ...]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--signal", type=_signal, metavar="SIG", help="the stop signal: TERM, or what the image names")
    add("--grace", type=_positive, default=10.0, metavar="SECONDS", help="from the stop to SIGKILL: 10")
    add("--ready", metavar="TEXT", help="stop when this is in its output")
    add("--ready-tcp", type=_port, metavar="PORT", help="stop when somebody listens on this port")
    add("--ready-file", metavar="PATH", help="stop when this file is written")
    add("--after", type=_seconds, metavar="SECONDS", help="stop after this long")
    add(
        "--timeout",
        type=_positive,
        default=60.0,
        metavar="SECONDS",
        help="how long to wait until it is ready: 60",
    )
    add(
        "--repeat",
        type=_count,
        default=1,
        metavar="N",
        help="rehearse N stops, all but the first at random moments",
    )
    add("--seed", type=int, metavar="NUMBER", help="for the same random moments again")
    add("--image", metavar="NAME", help="rehearse a container image, with docker or podman")
    add(
        "--run-options",
        type=_words,
        default=[],
        metavar="OPTIONS",
        help="for docker run, with --image: '--env A=B --memory 1g'",
    )
    add("--json", action="store_true", help="print what was seen as JSON")
    add("--svg", metavar="FILE", help="draw the timeline into this file")
    add("--show-output", action="store_true", help="show what was printed after the stop")
    add("program", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    found = parser.parse_args(argv)
    program: list[str] = found.program[1:] if found.program[:1] == ["--"] else found.program
    if not program and found.image is None:
        parser.error("which program? It comes last: cleanup-guard check [options] -- PROGRAM [ARGUMENT ...]")
    if found.svg is not None and not os.path.isdir(os.path.dirname(found.svg) or "."):
        parser.error(f"--svg {found.svg!r}: there is no directory {os.path.dirname(found.svg)!r}")
    return Options(
        program=program,
        image=found.image,
        run_options=found.run_options,
        signum=found.signal,
        grace=found.grace,
        wish=Wish(found.ready, found.ready_tcp, found.ready_file, found.after, found.timeout),
        repeat=found.repeat,
        seed=random.SystemRandom().randrange(1 << 32) if found.seed is None else found.seed,
        json=found.json,
        svg=found.svg,
        show_output=found.show_output,
    )


def _signal(word: str) -> int:
    try:
        return number_of(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be split into words: {error}") from None


def _seconds(word: str) -> float:
    try:
        found = float(word)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise argparse.ArgumentTypeError(f"{word!r} is no number of seconds such as 10 or 0.5")
    return found


def _positive(word: str) -> float:
    found = _seconds(word)
    if not found:
        raise argparse.ArgumentTypeError("0 seconds are none: a platform gives 10, or 30")
    return found


def _port(word: str) -> int:
    if not (word.isascii() and word.isdecimal() and 0 < int(word) < 1 << 16):
        raise argparse.ArgumentTypeError(f"{word!r} is no port: a number from 1 to 65535")
    return int(word)


def _count(word: str) -> int:
    if not (word.isascii() and word.isdecimal() and int(word) > 0):
        raise argparse.ArgumentTypeError(f"{word!r} is no number of stops")
    return int(word)


# -- the rehearsals ---------------------------------------------------------------------------------------------------------


def rehearse(waker: Waker, options: Options) -> list[Rehearsal]:
    """All that the options ask for, judged.

    Raises:
        CannotRehearse: there was no stop to rehearse.
        Interrupted: we were told to stop ourselves.
    """
    from cleanup_guard._rehearse._engine import CannotRehearse
    from cleanup_guard._rehearse._verdict import blame_the_start

    first = _once(waker, options, options.wish)
    found = [first]
    moments = random.Random(options.seed)  # noqa: S311 - not for secrets
    while len(found) < options.repeat:
        wish = replace(options.wish, text=None, tcp=None, file=None, after=moments.uniform(0, first.readied))
        try:
            found.append(_once(waker, options, wish))
        except CannotRehearse as error:
            raise CannotRehearse(f"stop {len(found) + 1} of {options.repeat}: {error}") from None
    if first.clean:
        for each in found:
            blame_the_start(each)
    return found


def _once(waker: Waker, options: Options, wish: Wish) -> Rehearsal:
    from cleanup_guard._rehearse._engine import CannotRehearse
    from cleanup_guard._rehearse._verdict import judge

    found = _run(waker, options, wish, options.grace)
    judge(found)
    if any(each.code == "too-slow" for each in found.advice):
        tried = max(options.grace, options.wish.timeout)
        try:
            again = _run(waker, options, wish, tried)
        except CannotRehearse:
            return (
                found  # a second start failed: then it is not known, which is no reason to forget the first
            )
        found.tried = tried
        if not any(seen.was_killed for seen in again.processes):
            found.needed = again.seconds
        judge(found)
    return found


def _run(waker: Waker, options: Options, wish: Wish, grace: float) -> Rehearsal:
    from cleanup_guard._rehearse import _engine

    if options.image is not None:
        from cleanup_guard._rehearse import _image

        image = _image.Image(_image.find_engine(), options.image, options.program, options.run_options)
        return _image.rehearse(waker, image, options.signum, grace, wish)
    signum = number_of("TERM") if options.signum is None else options.signum
    return _engine.rehearse(waker, options.program, signum, grace, wish)


# -- what is printed --------------------------------------------------------------------------------------------------------


def _report(options: Options, rehearsals: list[Rehearsal]) -> None:
    shown = next((each for each in rehearsals if not each.clean), rehearsals[0])
    if options.svg is not None:
        from cleanup_guard._rehearse._svg import svg

        with open(options.svg, "w", encoding="utf-8") as file:
            file.write(svg(shown))
    if options.json:
        clean = all(each.clean for each in rehearsals)
        data = {
            "version": JSON_VERSION,
            "clean": clean,
            "rehearsals": [each.as_json() for each in rehearsals],
        }
        print(json.dumps(data, indent=2))
        return
    from cleanup_guard._rehearse._timeline import timeline

    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print(timeline(shown, colour=colour, unicode=encoding.startswith("utf")))
    if options.show_output:
        print("\nPrinted after the stop:" if shown.output else "\nNothing was printed after the stop.")
        print("".join(f"  {line}\n" for line in shown.output.splitlines()), end="")
    if len(rehearsals) > 1:
        _summarize(options, rehearsals)


def _summarize(options: Options, rehearsals: list[Rehearsal]) -> None:
    clean = sum(each.clean for each in rehearsals)
    print(
        f"\n{clean} of {len(rehearsals)} stops were clean (--seed {options.seed} for the same moments again):"
    )
    for each in sorted(rehearsals, key=lambda rehearsal: rehearsal.readied):
        faults = ", ".join(advice.code for advice in each.advice if advice.fault)
        print(f"  {each.readied:8.3f} s after the start: {'clean' if each.clean else f'not clean: {faults}'}")
