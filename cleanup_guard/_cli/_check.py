"""`cleanup-guard check`: the command line of the rehearsal."""

from __future__ import annotations

import json
import os
import random
import shlex
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from cleanup_guard._cli._words import Mistake, Usage, complain, say
from cleanup_guard._ground.clock import DEFAULT_GRACE, GRACE_VARIABLE, grace_from_environment
from cleanup_guard._ground.foreign import quoted, shown
from cleanup_guard._ground.names import UNCATCHABLE, name_of, number_of

assert sys.platform == "linux"

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cleanup_guard._cli._words import Given
    from cleanup_guard._rehearse._course import Course
    from cleanup_guard._rehearse._deployment import Deployment
    from cleanup_guard._rehearse._plan import Image, Plan
    from cleanup_guard._rehearse._platforms import Way
    from cleanup_guard._rehearse._ready import Wish
    from cleanup_guard._rehearse._seen import Rehearsal

    T = TypeVar("T")

CLEAN, UNCLEAN, NOT_RUN = 0, 1, 3

JSON_VERSION = 1
STREAMS = 3

USAGE = Usage(
    "check",
    (
        "[options] [--] PROGRAM [ARGUMENT ...]",
        "[options] --image NAME [ARGUMENT ...]",
        "[options] --compose FILE SERVICE [options] [-- COMMAND ...]",
        "[options] --kubernetes FILE [-- ARGUMENT ...]",
    ),
    "Rehearses `docker stop`: starts the program as PID 1 of a PID namespace, sends it the stop\n"
    "signal as a platform would, watches every process, sends SIGKILL at the end of the grace\n"
    "period, and says who cleaned up, who was killed, and what to do about it. Each line that it\n"
    "advises has been tried in a rehearsal of its own, unless the report does not say so.",
    {
        "The stop": {
            "--signal SIG": "the stop signal: TERM, or what the image or the file names",
            "--grace SECONDS": "from the stop to SIGKILL: 10, or what the file or the platform says",
            "--platform NAME": "stop it as this platform does (signals, whom it tells, when it kills), and show it what "
            "it would see there; kubernetes, for example. An unknown name lists all",
            "--ready TEXT": "stop when this is in its output",
            "--ready-tcp PORT": "stop when somebody listens on this port",
            "--ready-file PATH": "stop when this file is written",
            "--after SECONDS": "stop after this long",
            "--timeout SECONDS": "how long to wait until it is ready: 60",
            "--pre-stop COMMAND": "run this beside the program before the stop signal, inside the grace period, as a "
            "preStop hook",
            "--repeat N": "rehearse N stops, all but the first at random moments",
            "--seed NUMBER": "for the same random moments again",
            "--request URL": "keep requests in flight, and count what becomes of them",
        },
        "What is stopped": {
            "--image NAME": "a container image, with docker or podman",
            "--run-options OPTIONS": "for docker run: '--env A=B --memory 1g'",
            "--compose FILE": "a service of a compose file: image, command, stop signal, grace period",
            "--kubernetes FILE": "a container of a manifest: the same, its preStop hook, which counts "
            "against the grace period, and --platform kubernetes",
            "--container NAME": "which container of a manifest; the first, if it is not said",
        },
        "What is told": {
            "--no-try": "do not try the lines that are advised",
            "--allow CODE": "do not take this for a fault; repeatable. The report names the codes (see --json)",
            "--json": "print what was seen as JSON",
            "--svg FILE": "draw the timeline into this file",
            "--junit FILE": "write a JUnit report into this file",
            "--show-output": "show what was printed after the stop",
        },
    },
    "Without any of --ready, --ready-tcp, --ready-file and --after, the stop comes when no process has\n"
    "worked for half a second. With several, all must be true.\n"
    "Exit status: 0 clean, 1 not clean, 2 wrong usage, 3 there was no stop to rehearse (the program did\n"
    "not start, ended before, or was not ready in time), or the report could not be written; 128+n when\n"
    "signal n ended the rehearsal, with all that it had started.",
)


def main(argv: list[str]) -> int:
    """Run `cleanup-guard check` with these arguments. Returns the exit status."""
    from cleanup_guard._ground.environment import undo_coercion

    undo_coercion()
    _fill_closed_streams()
    try:
        return USAGE.main(argv, _check)
    except Exception as error:  # whatever is wrong with us, the program is not to be blamed
        return complain(
            f"this is a defect of cleanup-guard: {type(error).__name__}: {error}", NOT_RUN, "check"
        )


def _fill_closed_streams() -> None:
    """Where stdin, stdout or stderr is closed, no descriptor of ours may take its place."""
    while (fd := os.open(os.devnull, os.O_RDWR)) < STREAMS:
        os.set_inheritable(fd, True)  # noqa: FBT003 - has no keyword
    os.close(fd)


def _check(given: Given, words: list[str]) -> int:
    options = understand(given, words)
    if sys.stdout is None:
        return complain("stdout is closed, and there is nowhere to tell what was seen", NOT_RUN, "check")
    from cleanup_guard._rehearse._course import Course
    from cleanup_guard._rehearse._engine import CannotRehearse, Interrupted, Waker
    from cleanup_guard._rehearse._progress import Progress

    progress = Progress.on_stderr()
    try:
        waker = Waker(progress)
        course = Course(waker, options.plan(), tries=options.tries, allowed=options.allowed)
        try:
            rehearsals = rehearse(course, options)
        except CannotRehearse as error:
            return _not_rehearsed(course, error)
        finally:
            progress.clear()
        return _report(options, rehearsals)
    except CannotRehearse as error:
        return _complain_at_length(str(error))
    except Interrupted as error:
        progress.clear()
        return complain(f"interrupted by {error}; nobody is left", 128 + error.signum, "check")


def _not_rehearsed(course: Course, error: Exception) -> int:
    from cleanup_guard._rehearse._engine import CannotRehearse

    assert isinstance(error, CannotRehearse)
    more = course.explain(error)
    return _complain_at_length("\n".join(filter(None, [str(error), more])))


def _complain_at_length(message: str) -> int:
    """A sentence, and lines of the program's own behind it, which have been made safe to show."""
    sentence, *lines = message.split("\n")
    status = complain(sentence, NOT_RUN, "check")
    try:
        os.write(2, "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # there is nobody left to tell
    return status


# -- the command line -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    program: list[str]
    image: str | None
    run_options: list[str]
    deployment: Deployment | None
    hook: list[str] | None
    signum: int | None
    grace: float | None
    wish: Wish
    way: Way | None
    repeat: int
    seed: int
    url: str | None
    tries: bool
    allowed: frozenset[str]
    json: bool
    svg: str | None
    junit: str | None
    show_output: bool

    def plan(self) -> Plan:
        """What is to be rehearsed.

        Raises:
            CannotRehearse: there is no engine for an image.
        """
        from cleanup_guard._rehearse._plan import Hook, Plan

        found = self.deployment
        hook = Hook(self.hook) if self.hook else None if found is None else found.hook
        signum, way, image = self.signum, self.way, self._image()
        program = self.program
        if found is not None:
            signum = number_of(found.signal) if signum is None and found.signal is not None else signum
            program = program or found.command or []
        if signum is None and way is not None:
            signum = way.signum
        told = _told(os.environ if image is None else _environ_of(image.options))
        return Plan(
            program, self._grace, self.wish, signum, image, hook=hook, url=self.url, way=way, told=told
        )

    @property
    def _grace(self) -> float:
        found, way = self.deployment, self.way
        if self.grace is not None:
            return self.grace
        if found is not None:
            return max(found.grace, 0.001)
        if way is None:
            return DEFAULT_GRACE
        if way.grace is None:
            raise Mistake(
                f"{way.name} gives no time unless it is told to: say with --grace how much it is told"
            )
        return way.grace

    def _image(self) -> Image | None:
        from cleanup_guard._rehearse._image import find_engine
        from cleanup_guard._rehearse._plan import Image

        found, way = self.deployment, self.way
        seen = [] if way is None else [f"--env={name}={value}" for name, value in way.environ.items()]
        if found is not None:
            options = [
                *found.options,
                *(found.ports if self.url is not None else []),
                *seen,
                *self.run_options,
            ]
            return Image(find_engine(), self.image or found.image, options, found.entrypoint)
        return None if self.image is None else Image(find_engine(), self.image, [*seen, *self.run_options])


def _environ_of(options: list[str]) -> dict[str, str]:
    """The variables that options of `run` set."""
    words = [word.removeprefix("--env=") for word in options]
    return {name: value for name, equals, value in (word.partition("=") for word in words) if equals}


def _told(environ: Mapping[str, str]) -> str | None:
    """What a program is told that it has.

    Raises:
        Mistake: that makes no sense.
    """
    try:
        grace_from_environment(environ)
    except ValueError as error:
        raise Mistake(str(error)) from None
    return environ.get(GRACE_VARIABLE) or None


def understand(given: Given, words: list[str]) -> Options:
    """Make sense of the command line.

    Raises:
        Mistake: there is none.
    """
    from cleanup_guard._rehearse._ready import Wish

    last = dict(given)
    service = None
    if "--compose" in last:
        if not words:
            raise Mistake("--compose needs the name of a service behind the file: --compose FILE SERVICE")
        service, *behind = words
        more, words = USAGE.split(behind)
        given = [*given, *more]
        last = dict(given)
    wish = Wish(
        last.get("--ready"),
        _value(last, "--ready-tcp", _port),
        last.get("--ready-file"),
        _value(last, "--after", _seconds),
        _value(last, "--timeout", _positive) or 60.0,
    )
    deployment = _deployment(last, service)
    if not words and deployment is None and "--image" not in last:
        raise Mistake("which program? It comes last: cleanup-guard check [options] -- PROGRAM [ARGUMENT ...]")
    return Options(
        program=words,
        image=_value(last, "--image", _image_name),
        run_options=_value(last, "--run-options", _run_options) or [],
        hook=_value(last, "--pre-stop", _words_of),
        deployment=deployment,
        signum=_value(last, "--signal", _signal),
        grace=_value(last, "--grace", _positive),
        wish=wish,
        repeat=_value(last, "--repeat", _count) or 1,
        seed=_seed(last),
        url=_value(last, "--request", _url),
        way=_way(last),
        tries="--no-try" not in last,
        allowed=frozenset(_code(value) for option, value in given if option == "--allow"),
        json="--json" in last,
        svg=_value(last, "--svg", _file),
        junit=_value(last, "--junit", _file),
        show_output="--show-output" in last,
    )


def _value(given: dict[str, str], option: str, understood: Callable[[str], T]) -> T | None:
    """The value of an option.

    Raises:
        Mistake: it makes no sense; the message says why, and of which option.
    """
    if option not in given:
        return None
    try:
        return understood(given[option])
    except ValueError as error:
        raise Mistake(f"{option}: {error}") from None


def _deployment(given: dict[str, str], service: str | None) -> Deployment | None:
    from cleanup_guard._rehearse import _deployment

    asked = [name for name in ("--image", "--compose", "--kubernetes") if name in given]
    if len(asked) > 1:
        raise Mistake(f"{asked[0]} and {asked[1]} both say what is to be stopped: use one of them")
    try:
        if service is not None:
            return _deployment.from_compose(given["--compose"], service)
        if "--kubernetes" in given:
            return _deployment.from_kubernetes(given["--kubernetes"], given.get("--container"))
    except _deployment.Unreadable as error:
        raise Mistake(f"{asked[0]}: {error}") from None
    return None


def _signal(word: str) -> int:
    found = number_of(word)
    if found in UNCATCHABLE:
        raise ValueError(
            f"no program can do anything about {name_of(found)}, so there is nothing to rehearse"
        )
    return found


def _way(given: dict[str, str]) -> Way | None:
    from cleanup_guard._rehearse._platforms import WAYS

    name = given.get("--platform", "kubernetes" if "--kubernetes" in given else None)
    if name is None:
        return None
    if name not in WAYS:
        raise Mistake(f"--platform: there is no platform {quoted(name)}, but {', '.join(sorted(WAYS))}")
    way = WAYS[name]
    if (way.everybody or way.later) and {"--image", "--compose", "--kubernetes"} & given.keys():
        raise Mistake(
            f"--platform {name}: an engine cannot stop an image like that, so rehearse the program itself"
        )
    return way


def _image_name(word: str) -> str:
    if not word or word.startswith("-"):
        raise ValueError(f"{quoted(word)} is no name of an image")
    return word


OURS = {
    "--rm",
    "--detach",
    "-d",
    "--name",
    "--cidfile",
    "--detach=true",
    "--interactive",
    "-i",
    "--tty",
    "-t",
    "-it",
    "-ti",
}
"""Options of `run` that are the rehearsal's own business, and are left out."""


def _words_of(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(f"this cannot be split into words: {error}") from None


def _run_options(text: str) -> list[str]:
    kept: list[str] = []
    left = iter(_words_of(text))
    for word in left:
        if word in {"--name", "--cidfile"}:
            next(left, None)
        elif word.partition("=")[0] not in OURS:
            kept.append(word)
    return kept


def _seconds(word: str) -> float:
    try:
        found = float(word)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise ValueError(f"{quoted(word)} is no number of seconds such as 10 or 0.5")
    return found


def _positive(word: str) -> float:
    found = _seconds(word)
    if not found:
        raise ValueError("0 seconds are none: a platform gives 10, or 30")
    return found


def _port(word: str) -> int:
    if not (word.isascii() and word.isdecimal() and len(word) < 6 and 0 < int(word) < 1 << 16):  # noqa: PLR2004 - 65535
        raise ValueError(f"{quoted(word)} is no port: a number from 1 to 65535")
    return int(word)


def _count(word: str) -> int:
    if not (word.isascii() and word.isdecimal() and len(word) < 10 and int(word) > 0):  # noqa: PLR2004 - nobody waits for more
        raise ValueError(f"{quoted(word)} is no number of stops")
    return int(word)


def _seed(given: dict[str, str]) -> int:
    if "--seed" not in given:
        return random.SystemRandom().randrange(1 << 32)
    word = given["--seed"]
    if not (word.isascii() and word.removeprefix("-").isdecimal() and len(word) < 100):  # noqa: PLR2004 - digits
        raise Mistake(f"--seed: {quoted(word)} is no number")
    return int(word)


def _url(word: str) -> str:
    from urllib.parse import urlsplit

    parts = urlsplit(word)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError("this is no address such as http://localhost:8000/slow")
    if not word.isascii() or not word.isprintable() or " " in word:
        raise ValueError(
            "an address has no blanks and no letters beyond ASCII: write them as %20 and the like"
        )
    return word


def _code(word: str) -> str:
    from cleanup_guard._rehearse._verdict import CODES

    if word not in CODES and not word.startswith("exited-"):
        raise Mistake(f"--allow: there is no code {quoted(word)}, but {', '.join(CODES)}")
    return word


def _file(word: str) -> str:
    folder = os.path.dirname(word) or "."
    if not os.path.isdir(folder):
        raise ValueError(f"there is no directory {quoted(folder)}")
    if os.path.isdir(word):
        raise ValueError(f"{quoted(word)} is a directory")
    return word


# -- the rehearsals ---------------------------------------------------------------------------------------------------------


def rehearse(course: Course, options: Options) -> list[Rehearsal]:
    """All that the options ask for, judged; the one that is shown has been advised upon.

    Raises:
        CannotRehearse: there was no stop to rehearse.
        Interrupted: we were told to stop ourselves.
    """
    from cleanup_guard._rehearse._engine import CannotRehearse
    from cleanup_guard._rehearse._secrets import masked

    first = course.once()
    found = [first]
    moments = random.Random(options.seed)  # noqa: S311 - not for secrets
    while len(found) < options.repeat:
        moment = moments.uniform(0, first.readied)
        wish = replace(options.wish, text=None, tcp=None, file=None, after=moment)
        try:
            found.append(course.once(replace(course.plan, wish=wish)))
        except CannotRehearse as error:
            raise CannotRehearse(f"stop {len(found) + 1} of {options.repeat}: {error}") from None
    if first.clean:
        for each in found[1:]:
            course.blame_the_start(each)
    course.advise(_shown(found))
    return [masked(each) for each in found]


def _shown(rehearsals: list[Rehearsal]) -> Rehearsal:
    return next((each for each in rehearsals if not each.clean), rehearsals[0])


# -- what is printed --------------------------------------------------------------------------------------------------------


def _report(options: Options, rehearsals: list[Rehearsal]) -> int:
    """Tell it, wherever it is to be told. Returns the exit status."""
    clean = all(each.clean for each in rehearsals)
    try:
        _write_files(options, rehearsals)
        say(_as_json(rehearsals) if options.json else _as_text(options, rehearsals))
    except Mistake as mistake:
        return complain(str(mistake), NOT_RUN, "check")
    return CLEAN if clean else UNCLEAN


def _write_files(options: Options, rehearsals: list[Rehearsal]) -> None:
    if options.svg is not None:
        from cleanup_guard._rehearse._svg import svg

        _write(options.svg, svg(_shown(rehearsals)))
    if options.junit is not None:
        from cleanup_guard._rehearse._reports import junit

        _write(options.junit, junit(rehearsals))


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise Mistake(f"{quoted(path)} cannot be written: {error.strerror}") from None


def _as_json(rehearsals: list[Rehearsal]) -> str:
    data = {
        "version": JSON_VERSION,
        "clean": all(each.clean for each in rehearsals),
        "rehearsals": [each.as_json() for each in rehearsals],
    }
    return json.dumps(data, indent=2) + "\n"


def _as_text(options: Options, rehearsals: list[Rehearsal]) -> str:
    from cleanup_guard._rehearse._timeline import timeline

    shown_one = _shown(rehearsals)
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    terminal = sys.stdout.isatty()
    colour = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    text = timeline(
        shown_one, colour=colour, width=_width() if terminal else 80, unicode=encoding.startswith("utf")
    )
    if options.show_output:
        text += (
            "\n\nPrinted after the stop:" if shown_one.output else "\n\nNothing was printed after the stop."
        )
        lines = [shown(line, limit=None, keep="\t") for line in shown_one.output.splitlines()]
        text += "".join(f"\n  {line}" for line in lines)
    if len(rehearsals) > 1:
        text += _summary(options, rehearsals)
    return _with_annotations(text, shown_one) + "\n"


def _with_annotations(text: str, rehearsal: Rehearsal) -> str:
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return text
    from cleanup_guard._rehearse._reports import fenced, workflow_commands

    return "\n".join([fenced(text), *workflow_commands(rehearsal)])


def _width() -> int:
    import shutil

    return shutil.get_terminal_size().columns


def _summary(options: Options, rehearsals: list[Rehearsal]) -> str:
    clean = sum(each.clean for each in rehearsals)
    lines = [
        f"\n\n{clean} of {len(rehearsals)} stops were clean (--seed {options.seed} for the same moments again):"
    ]
    for each in sorted(rehearsals, key=lambda rehearsal: rehearsal.readied):
        faults = ", ".join(advice.code for advice in each.advice if advice.fault)
        lines.append(
            f"  {each.readied:8.3f} s after the start: {'clean' if each.clean else f'not clean: {faults}'}"
        )
    return "\n".join(lines)
