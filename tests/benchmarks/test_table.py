"""What the library costs, row by row, beside the alternative and the peers that are installed, all measured in one run.

Figures are ratios; none is asserted, because machines differ. `make bench` prints the rows and writes them, as JSON, to
`dist/benchmarks.json`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from benchmarks.alone import GUARD, HAND, THREAD
from benchmarks.rows import (
    BARE,
    CALLS,
    LEAST,
    LEAST_COLD,
    OURS,
    PEERS,
    STOPPED,
    WAITS,
    Row,
    Stops,
    cpu_of_programs,
    growth,
    installed,
    private_kb,
    program,
    stops_of,
    wall_of,
)
from support import COMPILED

from cleanup_guard import run

pytestmark = pytest.mark.benchmark

JSON = Path(__file__).parents[2] / "dist" / "benchmarks.json"

ALONE = Path(__file__).parent / "alone.py"

COMMAND = str(Path(sys.executable).parent / "cleanup-guard")

ROUNDS = 11


@pytest.fixture(scope="module")
def table() -> Iterator[list[Row]]:
    """The rows, which are written when all have been measured."""
    rows: list[Row] = []
    yield rows
    JSON.parent.mkdir(exist_ok=True)
    JSON.write_text(json.dumps([row.as_json() for row in rows], indent=1) + "\n")
    print(f"\nwritten to {JSON}")


@pytest.fixture
def show(table: list[Row]) -> Callable[[Row], None]:
    """Print a row, and keep it."""

    def print_it(row: Row) -> None:
        table.append(row)
        print("\n" + "\n".join(row.lines()))

    return print_it


Show = Callable[[Row], None]


# -- while nothing happens ------------------------------------------------------------------------------------------------


EMPTY = "the same, after importing as many empty files"


def empty_files(folder: Path, *names: str) -> str:
    """Make a package of these modules, with nothing in any of its files. Returns the code that imports them."""
    for name in names:
        module = folder.joinpath("ours", *name.split("."))
        module.parent.mkdir(parents=True, exist_ok=True)
        for each in (
            module.with_suffix(".py"),
            module.parent / "__init__.py",
            folder / "ours" / "__init__.py",
        ):
            each.touch()
    return f"import sys; sys.path.insert(0, {str(folder)!r}); import {', '.join(f'ours.{name}' for name in names)}"


def test_importing(show: Show, tmp_path: Path) -> None:
    """Processor time, over that of the four modules that no such library can do without."""
    base = "import signal, os, threading, contextlib"
    found, absent = installed(["pyterminate", "safe_exit", "aiorun"])
    codes = {base: base, GUARD: f"{base}\nfrom cleanup_guard import guard, on_exit"}
    files = (
        "guard.guard",
        "guard.decorate",
        "guard.in_sight",
        "guard.options",
        "guard.on_exit",
        "ground.once",
        "stop.stack",
    )
    codes |= {EMPTY: f"{base}\n{empty_files(tmp_path, *files)}"}
    codes |= {name: f"{base}\nimport {name}" for name in found}
    figures = cpu_of_programs({name: [sys.executable, "-c", code] for name, code in codes.items()}, 30)
    added = {name: figure - figures[base] for name, figure in figures.items()}
    show(
        Row(
            "importing `guard` and `on_exit`",
            "ms of processor time for a whole process",
            figures,
            beside=base,
            aim="2.5 ms more",
            grows=f"not at all; it adds {added[GUARD]:.1f} ms, of which empty files are {added[EMPTY]:.1f}",
            absent=absent,
        )
    )


def alone(*words: str, times: int = 1) -> dict[str, float]:
    """What `alone.py` measures; the least of each figure, if it is to do so several times."""
    told = [
        json.loads(
            subprocess.run(
                [sys.executable, str(ALONE), *words], check=True, env=COMPILED, stdout=subprocess.PIPE
            ).stdout
        )
        for _ in range(times)
    ]
    return {name: min(each[name] for each in told) for name in told[0]}


def test_a_guarded_call(show: Show) -> None:
    """Alone: signals taken, a thread that watches, and all given back. First and repeated."""
    first: dict[str, float] = {}
    for name in (HAND, THREAD, GUARD):
        first |= alone("first", name, times=ROUNDS)
    limit = (
        "no watcher can be there without a thread, whose start and end is among the figures and more than the aim by itself; "
        "above it are a pipe, and two signals that are taken and given back with none lost"
    )
    unit, grows = "µs of processor time", "with its callbacks, which have rows of their own"
    show(Row("a guarded call, the first of a process", unit, first, HAND, "150 µs", grows, limit))
    limit = (
        "one thread serves guards that follow each other within 50 ms; the C calls that take two signals and give them back "
        "are among the figures; above them is Python: whose each signal was and is, who else is guarded, what came meanwhile"
    )
    show(Row("a guarded call, repeated", unit, alone("repeated"), HAND, "4x", grows, limit))


def test_a_guard_inside_a_guard(show: Show) -> None:
    """Nothing is taken and nobody is woken."""
    figures = alone("nested")
    grown = growth(figures.pop("20"), figures.pop("200"), 10)
    grows = f"with their number: {grown}, one inside the other"
    show(Row("a guard inside a guard", "µs of processor time", figures, HAND, "1.2x", grows))


def test_callbacks(show: Show) -> None:
    """Entering and leaving included, inside another guard."""
    counts = (100, 10_000, 1_000_000)
    taken = {count: alone("callbacks", str(count)) | alone("at_exit", str(count)) for count in counts}
    grown = ", ".join(
        f"{name}'s {taken[1_000_000][name] / taken[100][name]:.2f} times as dear"
        for name in (GUARD, "ExitStack")
    )
    grows = f"with their number; of 1,000,000 each is, beside one of 100: {grown}"
    limit = (
        "ours are claimed and called by one C call each, so that none is lost or called twice wherever a signal interrupts "
        "the program, which is among the figures; the rest registers them, and the guard itself; ExitStack does not claim"
    )
    for count, aim in ((100, "1.0x"), (10_000, "0.86x"), (1_000_000, "0.43x")):
        what = f"{count:,} callbacks, each"
        show(Row(what, "µs of processor time", taken[count], "ExitStack", aim, grows, limit))
    figures = alone("async_callbacks", "10000")
    limit = (
        "each is awaited in a task of its own, so that no cancellation of the guarded one reaches it; such a task is among the "
        "figures, as is one that takes its first step at once (from 3.12 on), which ours does, too; the rest is exactly once, "
        "wherever a signal interrupts the program, and tells the watcher what is being awaited"
    )
    what = "10,000 async callbacks, each"
    show(Row(what, "µs of processor time", figures, "AsyncExitStack", "no more", "with their number", limit))


def test_a_busy_main(show: Show) -> None:
    """While nothing happens a guard costs main nothing."""
    grows = "not at all: the watcher sleeps in the kernel until a signal comes"
    what, unit = "a busy main under a guard", "µs of processor time for one loop"
    show(Row(what, unit, alone("busy"), "without", "no difference", grows))


def test_many_tasks(show: Show) -> None:
    """Guarded tasks, entered and left, all at once."""
    few, many = (alone("tasks", str(count), times=3) for count in (500, 4000))
    grown = growth(500 * few[GUARD], 4000 * many[GUARD], 8)
    figures = {name: many[name] for name in ("plain tasks", GUARD)}
    what, unit = "4,000 guarded tasks, each", "µs of processor time"
    show(Row(what, unit, figures, "plain tasks", "5x", f"with their number: {grown}"))
    figures = {name: max(1.0, many[f"{name}, bytes"]) for name in figures}
    grown = growth(500 * max(1.0, few[f"{GUARD}, bytes"]), 4000 * figures[GUARD], 8)
    show(Row(what, "bytes of memory", figures, "plain tasks", "2 KB", f"with their number: {grown}"))


# -- at a stop ------------------------------------------------------------------------------------------------------------


def python(code: str) -> list[str]:
    """A program."""
    return [sys.executable, "-c", code]


AIMS = {
    "asleep": "2x",
    "busy": "2x",
    "in Event.wait": "2 ms",
    "in Queue.get": "2 ms",
    "in a lock": "2 ms",
    "asleep, a second thread busy": "1.3x",
}

TIMED = "the same, timed and told"
COLD = f"the same, with {CALLS} calls of short methods"

LIMITS = {
    "asleep": f"a stop has to be timed and told before the first callback; a handler that does only that, in a program that "
    f"has imported us, is {TIMED!r}; above it are some {CALLS} calls of Python, nearly all for the first time, of which the "
    "shortest are in the last figure: whose stop it is, where main is, who is to be told, and which callback is next",
    "asleep, a second thread busy": "whoever wants the GIL from a busy thread waits for CPython's switch interval of 5 ms, "
    "which is the other figure; from then on it is shorter",
}
LIMITS["busy"] = LIMITS["asleep"]

MANY_GUARDS = OURS.replace(
    "        wait()",
    "        import contextlib\n        with contextlib.ExitStack() as stack:\n"
    "            for _ in range(100): stack.enter_context(guard())\n            wait()",
)


@pytest.mark.parametrize("waits", WAITS)
def test_from_the_signal_to_the_first_callback(waits: str, show: Show) -> None:
    """SIGTERM to a real process, beside a bare handler that raises."""
    found, absent = installed(name for name in PEERS if waits == "asleep" or name != "aiorun")
    bodies = {"a bare handler that raises": BARE, TIMED: LEAST, GUARD: OURS} | {
        name: PEERS[name] for name in found
    }
    many = "100 guards"
    if waits in ("asleep", "busy"):
        bodies[COLD] = LEAST_COLD
    if waits == "asleep":
        bodies[many] = MANY_GUARDS
    commands = {name: python(STOPPED.replace("{wait}", WAITS[waits]) + body) for name, body in bodies.items()}
    stops = stops_of(commands, ROUNDS)
    grows = "not with the program; one stop is for all guards"
    if waits == "asleep":
        grows = f"with the guards that are left before it: {growth(stops.first[GUARD], stops.first.pop(many), 100)}"
        for each in (many, COLD):
            stops.gone.pop(each)
        show_gone(stops, absent, show)
    show(
        Row(
            f"from the signal to the first callback, main {waits}",
            "ms",
            stops.first,
            "a bare handler that raises",
            AIMS[waits],
            grows,
            LIMITS.get(waits, ""),
            absent,
        )
    )


def show_gone(stops: Stops, absent: list[str], show: Show) -> None:
    """The same stops, until the process is gone."""
    show(
        Row(
            "from the signal to the end of the process, main asleep",
            "ms",
            stops.gone,
            "a bare handler that raises",
            "1.15x",
            "with what the interpreter has to take apart, as without us",
            f"what has been imported is taken apart at the end: {TIMED!r} has all that we have",
            absent=absent,
        )
    )


# -- the command ----------------------------------------------------------------------------------------------------------

CHILD = """
import os, signal, sys, time
out = os.open(sys.argv[1], os.O_WRONLY) if len(sys.argv) > 1 else 1
def told(*_):
    os.write(out, b"%d\\n" % time.monotonic_ns())
    os._exit(0)
signal.signal(signal.SIGTERM, told)
os.write(out, b"ready\\n")
while True: signal.pause()
"""


TINY = "the least init in Python"

LEAST_INIT = """
import os, sys, _signal
every = _signal.valid_signals()
_signal.pthread_sigmask(_signal.SIG_BLOCK, every)
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, setsigmask=[], setsigdef=every - {9, 19})
while (signum := _signal.sigwaitinfo(every).si_signo) != _signal.SIGCHLD:
    os.kill(child, signum)
os.waitpid(child, 0)
os._exit(0)
"""
"""One that sees to nobody but its child, and is started without what an installed command is started with."""


def inits(*words: str) -> tuple[dict[str, list[str]], list[str]]:
    """Our `run` and the inits that are there, each with a program; and those that are not there."""
    ways = {
        GUARD: [COMMAND, "run", "--"],
        TINY: [sys.executable, "-I", "-S", "-c", LEAST_INIT],
        "tini": ["tini", "-s", "--"],
        "dumb-init": ["dumb-init", "--"],
        "catatonit": ["catatonit", "--"],
    }
    found = {name: way for name, way in ways.items() if program(way[0])}
    return {name: [*way, *words] for name, way in found.items()}, [name for name in ways if name not in found]


def test_run_passes_a_stop_on(show: Show, tmp_path: Path) -> None:
    """SIGTERM to the init: until the child is told, and until all are gone."""
    child = tmp_path / "child.py"
    child.write_text(CHILD)
    words = [sys.executable, "-I", "-S", str(child), "said"]
    commands, absent = inits(*words)
    (tmp_path / "Procfile").write_text("child: " + " ".join(words) + "\n")
    (tmp_path / "supervisord.conf").write_text(
        "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\n"
        f"[program:child]\ncommand={' '.join(words)}\n"
    )
    others = {"honcho": ["start"], "supervisord": ["-c", "supervisord.conf"]}
    for name, arguments in others.items():
        found = program(name)
        if found is None:
            absent.append(name)
        else:
            commands[name] = [found, *arguments]
    commands["no init"] = words
    quiet = stops_of(commands, ROUNDS, tmp_path)
    sleepers = [subprocess.Popen(["sleep", "600"]) for _ in range(MANY_SLEEPERS)]
    try:
        crowded = stops_of({GUARD: commands[GUARD]}, ROUNDS, tmp_path)
    finally:
        for each in sleepers:
            each.kill()
            each.wait()
    limit = (
        f"{TINY} is among the figures; ours looks first, in two files of /proc, whether the program catches the stop and has "
        "nobody below it, because who is told by us and by a program above it is told twice"
    )
    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        limit += "; this kernel does not say whose children processes are (CONFIG_PROC_CHILDREN), so all of /proc is read"
    show(
        Row(
            "from SIGTERM to `run` to the child",
            "ms",
            quiet.first,
            "tini" if "tini" in commands else "no init",
            "0.4 ms",
            f"{crowded.first[GUARD] / quiet.first[GUARD]:.1f} times as much with {MANY_SLEEPERS} more processes on the machine",
            limit,
            absent,
        )
    )
    show(
        Row(
            "from SIGTERM to `run` until all are gone",
            "ms",
            quiet.gone,
            "tini" if "tini" in commands else "no init",
            "8 ms",
            f"{crowded.gone[GUARD] / quiet.gone[GUARD]:.1f} times as much with {MANY_SLEEPERS} more processes on the machine",
            "an interpreter has to be taken apart, and starts each of its looks cold; an init in C is not one",
            absent,
        )
    )


MANY_SLEEPERS = 200


def test_run_starts_a_child(show: Show) -> None:
    """From our start until the child has run and all have gone."""
    commands, absent = inits("true")
    commands |= {
        "no init": ["true"],
        "a bare interpreter": python("import os; os.spawnvp(0, 'true', ['true'])"),
    }
    taken = wall_of({name: _start(command) for name, command in commands.items()}, ROUNDS)
    over = {name: figure - taken["no init"] for name, figure in taken.items() if name != "no init"}
    show(
        Row(
            "starting a child under `run`, over none",
            "ms",
            over,
            "tini" if "tini" in over else "a bare interpreter",
            "22 ms",
            "with the number of programs, each of which is started by itself",
            f"a Python that only starts a program is among the figures, as is {TINY}; no installed command starts like that "
            "one, without `site`, because pip writes the first line of its script",
            absent,
        )
    )


def _start(command: list[str]) -> Callable[[], object]:
    return lambda: subprocess.run(command, check=True, env=COMPILED)


def test_exec(show: Show, tmp_path: Path) -> None:
    """What `cleanup-guard exec` adds to the start of a program."""
    least = "python -I -c execvp"
    execvp = "import os; os.execvp('true', ['true'])"
    files = empty_files(tmp_path, "cli.words", "cli.exec", "exec.target")
    commands = {
        least: [sys.executable, "-I", "-c", execvp],
        EMPTY: [sys.executable, "-I", "-c", f"{files}; {execvp}"],
        GUARD: [COMMAND, "exec", "true"],
        "python -m cleanup_guard": [sys.executable, "-m", "cleanup_guard", "exec", "true"],
    }
    limit = (
        "a command is a few files, and what as many empty ones cost is among the figures; above that "
        "are the table of options, and all that is checked before the exec and reset by it"
    )
    show(
        Row(
            "`exec -- true`",
            "ms of processor time for a whole process",
            cpu_of_programs(commands, 50),
            least,
            "1.08x",
            "with its templates and env files",
            limit,
        )
    )


def test_memory_of_run(show: Show) -> None:
    """With one child and nothing to do."""
    bare, waits, adopts = "a bare interpreter", "one that has imported nothing", "one that adopts orphans"
    commands, absent = inits("sleep", "600")
    commands[bare] = python("import signal; signal.pause()")
    commands[waits] = python("import _signal; _signal.pause()")
    commands[adopts] = python(ADOPTS)
    subprocess.run([COMMAND, "run", "--", "true"], check=True, env=COMPILED)
    figures: dict[str, float] = {}
    for name, command in commands.items():
        process = subprocess.Popen(command, env=COMPILED)
        try:
            time.sleep(0.5)
            figures[name] = private_kb(process.pid)
        finally:
            process.terminate()
            process.wait(60)
    show(
        Row(
            "`run` idle, private memory",
            "KB",
            figures,
            bare,
            "0.9x",
            "with the programs that it starts: an object, and an entry in a list, for each",
            f"an interpreter that waits and has not even imported `signal` is {figures[waits] / figures[bare]:.2f}x; where we "
            f"are not PID 1, prctl(2) is called to adopt orphans, through `_ctypes`: {figures[adopts]:.0f} KB with that alone; "
            f"and the code of our own modules is {figures[GUARD] - figures[adopts]:.0f} KB",
            absent,
        )
    )


ADOPTS = "import _signal; from cleanup_guard._ground.kernel import prctl; prctl(36, 1); _signal.pause()"


def test_running_a_program(show: Show, tmp_path: Path) -> None:
    """`run([...], cwd=)` in Python."""
    figures = wall_of(
        {
            "subprocess.run": lambda: subprocess.run(["true"], cwd=tmp_path, check=True),
            GUARD: lambda: run(["true"], cwd=tmp_path, check=True),
        },
        50,
    )
    show(
        Row(
            "`run([...], cwd=...)` in Python",
            "ms",
            figures,
            "subprocess.run",
            "1.5x",
            "with what the program writes, as there",
        )
    )
