"""README and the pages beside the examples say only what is true: what can be run is run, what can be looked up is looked up.

A block of Python is part of an example, which has a test of its own, or is played here with a stage around it. A command is
run, with stand-ins for the programs that it starts. A block of any other kind is named here with the test that knows it.
"""

from __future__ import annotations

import ast
import json
import os
import pwd
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import CLEAN, PATIENCE, run

import cleanup_guard
from cleanup_guard._cli import PURPOSES
from cleanup_guard._ground.clock import Budget
from cleanup_guard._stop.state import diagram

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = sorted([README, *ROOT.glob("README.*.md"), *(ROOT / "examples").rglob("*.md")])
"""Whose blocks are run."""

ABOUT = sorted(
    [*PAGES, *ROOT.glob("CHANGELOG.md"), *(ROOT / ".github").rglob("*.md"), *(ROOT / "tests").glob("*.md")]
)
"""Whose links and names are looked up."""

MOST_WORDS = 900


@dataclass(frozen=True)
class Block:
    """What is between two fences.

    Attributes:
        page: the page's path from the root.
        kind: the word behind the fence.
        text: what is between them.
        line: where it begins.
    """

    page: str
    kind: str
    text: str
    line: int

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*kinds: str) -> Iterator[Block]:
    """Those of these kinds, on all pages."""
    for page in PAGES:
        text = page.read_text()
        for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            if not kinds or found[1] in kinds:
                line = text.count("\n", 0, found.start()) + 1
                yield Block(str(page.relative_to(ROOT)), found[1], found[2], line)


def prose(page: Path) -> str:
    """A page without its blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def code(page: Path) -> list[str]:
    """What is in backticks."""
    return re.findall(r"`([^`\n]+)`", prose(page))


# -- the first page ------------------------------------------------------------------------------------------------------


def test_the_readme_is_short() -> None:
    """At most 900 words, blocks of code aside: the newcomer reads it to the end."""
    assert len(prose(README).split()) <= MOST_WORDS


def test_the_readme_keeps_its_order() -> None:
    """What the pain is, which part is needed, the smallest program, what happens, recipes, commands, limits, links."""
    headings = re.findall(r"^## (\w+)", README.read_text(), re.MULTILINE)
    assert headings == ["Which", "The", "What", "Recipes", "exec", "run", "check", "Limits", "More"]


@pytest.mark.parametrize("page", sorted(ROOT.glob("README.*.md")), ids=lambda page: page.name)
def test_a_translation_is_the_same_page(page: Path) -> None:
    """Its blocks are those of the original, and it leads to the same pages; what is new may not be translated yet."""
    own, original = page.read_text(), README.read_text()
    fences, pages = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE), re.compile(r"\]\(([^)]+)\)")
    assert fences.findall(own) == fences.findall(original)
    assert {*pages.findall(own)} <= {*pages.findall(original)}
    assert len(re.findall(r"^## ", own, re.MULTILINE)) == len(re.findall(r"^## ", original, re.MULTILINE))


def test_the_picture_of_a_stop_shows_everywhere() -> None:
    """It is text, with the seconds that the budget has for a grace period of ten."""
    budget = Budget(10, 0)
    picture = next(block.text for block in blocks("") if block.page == "README.md")
    assert picture.startswith("docker stop ──SIGTERM──▶")
    seconds = [float(number) for number in re.findall(r"│ ([\d.]+) s", picture)]
    assert seconds == pytest.approx(
        [0, budget.sure(budget.STUCK), budget.sure(budget.INTERRUPT), budget.end, 10]
    )


def test_the_diagram_is_drawn_from_the_table() -> None:
    """The picture of the states is what the transition table gives today."""
    assert f"{diagram()}\n" in [block.text for block in blocks("mermaid")]


# -- Python --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Play:
    """How a block is played that is no part of an example.

    Attributes:
        stage: what stands before it.
        out: what it prints when SIGTERM has met it.
    """

    stage: str
    out: tuple[str, ...]


PLAYS = {
    "    on_exit(db.close)  #": Play(
        """
class connect:
    def close(self): print("closed", flush=True)
def work_forever(db): ready(); time.sleep(60)
""",
        ("closed",),
    ),
    "    on_exit(db.aclose)  #": Play(
        """
class Connection:
    async def aclose(self): print("closed", flush=True)
async def connect(): return Connection()
async def work_forever(db): ready(); await asyncio.sleep(60)
""",
        ("closed",),
    ),
}
"""By a line of the block. Each is a program that SIGTERM ends with status 143."""

ELSEWHERE = ("with Supervisor(grace=10) as s:", "def test_the_app_cleans_up(rehearse):")
"""Played by tests of their own, below."""


def play_of(block: Block) -> Play | None:
    """How a block is played here, if it is."""
    return next((play for line, play in PLAYS.items() if line in block.text), None)


def is_in_an_example(block: Block) -> bool:
    """Whether a file beside the page, or among the numbered examples, has the block in it, line by line."""
    beside = (ROOT / block.page).parent
    files = [*beside.rglob("*.py"), *(ROOT / "examples").glob("*.py")]
    return any(block.text in file.read_text() for file in files)


@pytest.mark.parametrize("block", list(blocks("python")), ids=str)
def test_no_python_is_left_out(block: Block) -> None:
    """Each block is part of an example, or is played."""
    played = play_of(block) is not None or any(line in block.text for line in ELSEWHERE)
    assert played or is_in_an_example(block), f"{block} is run by nobody"
    ast.parse(
        block.text if played else f"if True:\n{block.text}" if block.text.startswith(" ") else block.text
    )


@pytest.mark.parametrize("block", [each for each in blocks("python") if play_of(each)], ids=str)
def test_a_program_does_what_it_says(block: Block) -> None:
    """It cleans up on SIGTERM, and ends with status 143."""
    play = play_of(block)
    assert play is not None
    ended = run(play.stage + block.text, signal.SIGTERM)
    assert (ended.status, tuple(ended.out)) == (143, play.out), ended.err


def block_with(line: str) -> str:
    """The text of the block that has this line."""
    return next(block.text for block in blocks("python") if line in block.text)


@pytest.mark.skipif(sys.platform != "linux", reason="Supervisor needs Linux")
def test_the_supervisor_starts_them_in_order(stand_ins: StandIns) -> None:
    """The database is ready before the server starts, and the one-off program runs behind them."""
    stand_ins.program("postgres", "echo postgres; touch postgres.ready; sleep 60")
    text = block_with(ELSEWHERE[0]).replace("tcp:5432", "file:postgres.ready")
    stand_ins.program("gunicorn", "echo gunicorn")
    stand_ins.program("pg_dump", "echo pg_dump")
    done = stand_ins.run([sys.executable, "-c", text])
    assert (done.returncode, done.stdout.split()) == (0, ["postgres", "gunicorn", "pg_dump"]), done.stderr


APP = """\
import time
from cleanup_guard import on_exit
on_exit(print, "saved")
print("started", flush=True)
time.sleep(60)
"""
"""A program that cleans up when it is stopped, and says when it has started."""


@pytest.mark.skipif(sys.platform != "linux", reason="check needs Linux")
def test_the_test_of_an_app_passes(tmp_path: Path) -> None:
    """What the page shows for a test suite, in pytest's own runner."""
    (tmp_path / "test_app.py").write_text(block_with(ELSEWHERE[1]).replace('"python"', repr(sys.executable)))
    (tmp_path / "app.py").write_text(APP)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:anyio",
        "test_app.py",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, env=CLEAN, check=False
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


# -- commands ------------------------------------------------------------------------------------------------------------


class StandIns:
    """A folder that plays the root of an image, and programs that play those which the pages name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("bin", "etc", "scratch", "persistent"):
            (root / folder).mkdir()
        (root / "app.conf.in").write_text("port = $PORT\n")
        for name in ("web", "worker", "beat", "gunicorn"):
            self.program(name, f"echo {name} started")
        (root / "app.py").write_text(APP)
        # `check` stops it, `run` waits for its end.
        self.program("entry.sh", 'test -z "$STAYS" || exec python app.py; echo started')
        (root / "entry.sh").symlink_to("bin/entry.sh")

    def program(self, name: str, body: str) -> None:
        """Put a program on PATH."""
        file = self.root / "bin" / name
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)

    def words(self, words: list[str]) -> list[str]:
        """A command's words, with our folder for the root, and our user for theirs."""
        inside = [re.sub(r"(^|[:= ])/(?=\w)", rf"\g<1>{self.root}/", word) for word in words]
        if "--user" in inside:
            inside[inside.index("--user") + 1] = pwd.getpwuid(os.geteuid()).pw_name
        return inside

    def run(self, words: list[str], **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command there."""
        path = f"{self.root / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            self.words(words) if is_ours(shlex.join(words)) else words,
            cwd=self.root,
            env={**CLEAN, "PATH": path, "PORT": "8000", **env},
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )


@pytest.fixture
def stand_ins(tmp_path: Path) -> StandIns:
    """The folder and its programs."""
    return StandIns(tmp_path)


def commands() -> Iterator[tuple[str, str]]:
    """Each command of a page: in a shell's block, an image's entrypoint, or a step of a pipeline."""
    for block in blocks("sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield block.page, shlex.join(words)
    for block in blocks("dockerfile"):
        for found in re.findall(r"^ENTRYPOINT (\[.*\])$", block.text, re.MULTILINE):
            yield block.page, shlex.join(json.loads(found))
    for block in blocks("yaml"):
        for found in re.findall(r"^ *- run: (.*)$", block.text, re.MULTILINE):
            yield block.page, found


COMMANDS = sorted(set(commands()))


def is_ours(line: str) -> bool:
    """Whether it is our command that is run."""
    return "cleanup-guard" in shlex.split(line)[0] or "cleanup_guard" in shlex.split(line)[:4]


@pytest.mark.skipif(sys.platform != "linux", reason="run and check need Linux")
@pytest.mark.parametrize("line", sorted({line for _, line in COMMANDS if is_ours(line)}))
def test_a_command_works(line: str, stand_ins: StandIns) -> None:
    """It does its work, and ends with status 0."""
    words = shlex.split(line)
    done = stand_ins.run(words, **({"STAYS": "yes"} if "check" in words else {}))
    assert done.returncode == 0, done.stdout + done.stderr
    if "--template" in words:
        assert (stand_ins.root / "etc" / "app.conf").read_text() == "port = 8000\n"


def extras() -> set[str]:
    """The optional parts that the package has."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return set(tomllib.load(file)["project"]["optional-dependencies"])


@pytest.mark.parametrize(("page", "line"), [each for each in COMMANDS if not is_ours(each[1])])
def test_another_command_is_right(page: str, line: str) -> None:
    """`make` has the target, `pip` finds the extra, Python finds the file."""
    words = shlex.split(line)
    if words[0] == "make":
        targets = re.findall(r"^([\w ]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in " ".join(targets).split()
    elif words[:2] == ["pip", "install"]:
        found = re.fullmatch(r"cleanup-guard(?:\[(\w+)\])?", words[2])
        assert found is not None
        assert found[1] is None or found[1] in extras()
    else:
        assert words[0] in STARTED, f"{page}: nobody runs {line!r}"
        assert STARTED[words[0]](words), f"{page}: {line!r}"


def _is_an_example(words: list[str]) -> bool:
    """Python runs a file of ours, which has a test of its own: `tests/test_examples.py` sees to that."""
    return (ROOT / words[1]).is_file()


STARTED = {"python": _is_an_example}
"""Other programs that pages start, and what has to be so."""


def test_no_kind_of_block_is_unknown() -> None:
    """Who writes a block of a new kind has a test to write."""
    known = {"python", "sh", "dockerfile", "yaml", "mermaid", ""}
    assert {block.kind for block in blocks()} <= known


# -- names and links -----------------------------------------------------------------------------------------------------


def options_of(command: str) -> set[str]:
    """The options that a subcommand's help names."""
    words = [
        sys.executable,
        "-m",
        "cleanup_guard",
        command,
        "--help",
    ]  # a process of its own: `run` blocks signals
    said = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
    return set(re.findall(r"--[a-z][\w-]*", said))


@pytest.mark.skipif(sys.platform != "linux", reason="run and check need Linux")
@pytest.mark.parametrize("command", PURPOSES)
def test_options_are_there(command: str) -> None:
    """What a page calls an option of the command is one."""
    page = ROOT / "examples" / f"{command}.md"
    named = {name for text in code(page) for name in re.findall(r"^(--[a-z][\w-]*)(?!.*=$)", text)}
    assert named
    assert named <= options_of(command)


@pytest.mark.parametrize("page", ABOUT, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_of_the_guard_exist(page: Path) -> None:
    """Methods and arguments that a page mentions are there."""
    guard = cleanup_guard.Guard
    for text in code(page):
        for name in re.findall(r"\bg\.(\w+)", text):
            assert hasattr(guard, name), f"{page}: g.{name}"
        for call in re.findall(r"\bguard(\((?:[^()]|\([^()]*\))+\))", text):
            arguments = ast.parse(f"f{call.replace('=...', '=0').replace('...', '')}", mode="eval").body
            assert isinstance(arguments, ast.Call)
            for keyword in arguments.keywords:
                known = {*guard.__init__.__annotations__, "run"}
                assert keyword.arg in known, f"{page}: guard({keyword.arg}=)"


def test_records_that_pages_mention_exist() -> None:
    """Names in capitals, as records and errors have, are those of the package, or Python's."""
    for name in ("StopReceived", "CallbackFailed", "Finished", "log_event"):
        assert name in (ROOT / "examples" / "guard.md").read_text()
        assert hasattr(cleanup_guard, name)


def anchor(heading: str) -> str:
    """What a heading is called in a link."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", ABOUT, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """To a file of the repository, and to a heading in it; each link and picture has words."""
    for text, target in re.findall(r"\[([^\]\n]*)\]\(([^)\s]+)\)", prose(page)):
        assert text, f"{page.name}: the link to {target} has no words"
        if target.startswith("https://"):
            continue
        name, _, heading = target.partition("#")
        file = (page.parent / name) if name else page
        assert file.exists(), f"{page.name}: there is no {target}"
        assert ROOT in file.resolve().parents
        if heading:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert heading in map(anchor, headings), f"{page.name}: {target}"
