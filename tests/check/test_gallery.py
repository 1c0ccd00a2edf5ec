"""The gallery is judged as it should be, and what is advised helps."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from dataclasses import replace

import pytest
from check.gallery import GALLERY, Exhibit
from check.rehearsed import Told, check, described

AT_ONCE = 4
"""Rehearsals at a time: most of what they do is wait."""

Rehearsed = Callable[[Exhibit], Told]


@pytest.fixture(scope="module")
def rehearsed(request: pytest.FixtureRequest) -> Iterator[Rehearsed]:
    """What a rehearsal of an exhibit says. All that the selected tests need are begun with the first."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        told: dict[str, Future[Told]] = {}
        for item in request.session.items:
            exhibit = getattr(item, "callspec", None) and item.callspec.params.get("exhibit")
            if isinstance(exhibit, Exhibit) and not exhibit.missing and exhibit.name not in told:
                told[exhibit.name] = pool.submit(check, *exhibit.words, files=exhibit.files)
        yield lambda exhibit: told[exhibit.name].result()
        pool.shutdown(cancel_futures=True)


def parametrized(exhibits: list[Exhibit]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("exhibit", exhibits, ids=lambda exhibit: exhibit.name.replace(" ", "-"))


@parametrized(GALLERY)
def test_each_program_is_judged_as_it_should_be(exhibit: Exhibit, rehearsed: Rehearsed) -> None:
    """Verdict, ends and advice are what they must be, and there is nothing beside."""
    if exhibit.missing:
        pytest.skip(f"{exhibit.needs} is not installed")
    found = rehearsed(exhibit).rehearsal
    seen = (
        ", ".join(map(described, found.processes)),
        [each.code for each in found.advice if each.code not in exhibit.perhaps],
        found.clean,
        found.status,
    )
    assert seen == (exhibit.ends, exhibit.advice, exhibit.clean, exhibit.status), found


CURED = [(exhibit, code) for exhibit in GALLERY for code in exhibit.cures]


@pytest.mark.parametrize(
    ("exhibit", "code"), CURED, ids=[f"{exhibit.name}-{code}".replace(" ", "-") for exhibit, code in CURED]
)
def test_the_line_that_is_advised_helps(exhibit: Exhibit, code: str, rehearsed: Rehearsed) -> None:
    """Who does what the advice says, as often as it says so, gets a clean rehearsal, and that advice no more."""
    if exhibit.missing:
        pytest.skip(f"{exhibit.needs} is not installed")
    found = rehearsed(exhibit).rehearsal
    for _ in range(3):
        line = next(each.line for each in found.advice if each.code == code)
        exhibit = applied(line, exhibit)
        found = check(*exhibit.words, files=exhibit.files).rehearsal
        if code not in {each.code for each in found.advice}:
            break
    assert found.clean, found
    assert code not in {each.code for each in found.advice}, found


def applied(line: str, exhibit: Exhibit) -> Exhibit:
    """The program as a user would have it who does as advised."""
    line, _, remark = line.partition("   # ")
    words = shlex.split(line)
    if line.startswith("@guard"):
        old = next((old for old in ("@guard\n", "def main") if old in exhibit.files["app.py"]), "def stop")
        new = f"from cleanup_guard import guard\n{line}\n{'' if old.startswith('@') else old}"
        app = exhibit.files["app.py"].replace(old, new)
        program = [word for word in exhibit.program if word not in {"-I", "-S"}]
        return replace(exhibit, program=program, files={**exhibit.files, "app.py": app})
    if line.startswith("docker stop"):
        return replace(exhibit, options=["--grace", words[words.index("-t") + 1]])
    if line.startswith("trap"):
        started = remark.removeprefix("after: ")
        return in_script(exhibit, started.partition(" &")[0], f"{started}\n{line}", rest=" *&")
    if line.startswith("exec "):
        return in_script(exhibit, line.removeprefix("exec "), line)
    if "| (trap" in line:
        return in_script(exhibit, "./writer.sh", line, rest=r" \| cat")
    if words[:2] == ["cleanup-guard", "exec"] and "inner.sh" in exhibit.files:
        return in_script(exhibit, "./inner.sh", line)
    return replace(exhibit, program=words)


def in_script(exhibit: Exhibit, command: str, line: str, rest: str = "") -> Exhibit:
    """Put a line in place of the one that starts this command, in the script that does."""
    command = command.removeprefix("/bin/sh ").removeprefix("sh ")  # as the kernel executes a script
    found = re.compile(f"{re.escape(command)}{rest}(?=[ \n])")
    files: Mapping[str, str] = {
        name: found.sub(lambda _: line, text) if name.endswith(".sh") else text
        for name, text in exhibit.files.items()
    }
    assert files != exhibit.files, f"{command!r} stands in no script of {exhibit}"
    return replace(exhibit, files=files)
