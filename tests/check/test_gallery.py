"""The gallery is judged as it should be, and what is advised helps."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal, get_args

import pytest
from check.gallery import GALLERY, Exhibit
from check.rehearsed import SIMULATED, UNPRIVILEGED, check, described

from cleanup_guard._rehearse._seen import Rehearsal

AT_ONCE = 8
"""Rehearsals at a time: most of what they do is wait."""

Where = Literal["pid-namespace", "user-namespace", "simulated"]
WRAPPERS: dict[Where, list[str]] = {"user-namespace": UNPRIVILEGED, "simulated": SIMULATED}


class Curator:
    """Begins rehearsals in the background, and each only once."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._begun: dict[tuple[str, str], Future[Rehearsal]] = {}

    def begin(self, exhibit: Exhibit, kind: str) -> Future[Rehearsal]:
        """Rehearse it somewhere, or do as an advice of such a code says, as often as it says so, and rehearse it then."""
        key = (exhibit.name, kind)
        if key not in self._begun:
            begin = self._rehearse if kind in get_args(Where) else self._cure
            self._begun[key] = begin(exhibit, kind)
        return self._begun[key]

    def _rehearse(self, exhibit: Exhibit, kind: str) -> Future[Rehearsal]:
        wrapper = WRAPPERS.get(kind, [])  # type: ignore[call-overload]
        return self._pool.submit(
            lambda: check(*exhibit.words, files=exhibit.files, wrapper=wrapper).rehearsal
        )

    def _cure(self, exhibit: Exhibit, code: str) -> Future[Rehearsal]:
        first = self.begin(exhibit, "pid-namespace")
        return self._pool.submit(lambda: cured(exhibit, code, first.result()))


@pytest.fixture(scope="module")
def curator(request: pytest.FixtureRequest) -> Iterator[Curator]:
    """All that the selected tests will look at is begun at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        curator = Curator(pool)
        for item in request.session.items:
            params: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
            if "exhibit" in params and not params["exhibit"].missing:
                curator.begin(params["exhibit"], params["kind"])
        yield curator
        pool.shutdown(cancel_futures=True)


def chosen(*some: tuple[Exhibit, str]) -> pytest.MarkDecorator:
    names = [f"{exhibit.name}-{kind}".replace(" ", "-") for exhibit, kind in some]
    return pytest.mark.parametrize(("exhibit", "kind"), some, ids=names)


PLACES: list[tuple[Exhibit, str]] = [
    *((exhibit, "pid-namespace") for exhibit in GALLERY),
    *((exhibit, "simulated") for exhibit in GALLERY if exhibit.simulated),
    *((exhibit, "user-namespace") for exhibit in [each for each in GALLERY if each.simulated][::4]),
]


@chosen(*PLACES)
def test_each_program_is_judged_as_it_should_be(exhibit: Exhibit, kind: str, curator: Curator) -> None:
    """Verdict, ends and advice are what they must be, and there is nothing beside, wherever it is rehearsed."""
    if exhibit.missing:
        pytest.skip(f"{exhibit.needs} is not installed")
    found = curator.begin(exhibit, kind).result()
    ends = [end for end in map(described, found.processes) if end != "sleep exited 0"]
    codes = [each.code for each in found.advice if each.code not in exhibit.perhaps]
    seen = (", ".join(ends), codes, found.clean, found.status)
    assert seen == (exhibit.ends, exhibit.advice, exhibit.clean, exhibit.status), found
    assert found.isolation == ("simulated" if kind == "simulated" else "pid-namespace")
    assert bool(found.remark) == (kind != "pid-namespace")


@chosen(*((exhibit, code) for exhibit in GALLERY for code in exhibit.cures))
def test_the_line_that_is_advised_helps(exhibit: Exhibit, kind: str, curator: Curator) -> None:
    """Who does what the advice says, as often as it says so, gets a clean rehearsal, and that advice no more."""
    if exhibit.missing:
        pytest.skip(f"{exhibit.needs} is not installed")
    found = curator.begin(exhibit, kind).result()
    assert found.clean, found
    assert kind not in {each.code for each in found.advice}, found


def cured(exhibit: Exhibit, code: str, found: Rehearsal) -> Rehearsal:
    """The rehearsal of a program that was changed as advised; again, if that is advised again, but three times at most."""
    for _ in range(3):
        line = next((each.line for each in found.advice if each.code == code), None)
        if line is None:
            break
        exhibit = applied(line, exhibit)
        found = check(*exhibit.words, files=exhibit.files).rehearsal
    return found


def applied(line: str, exhibit: Exhibit) -> Exhibit:  # noqa: PLR0911 - one for each kind of line
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
        return in_script(exhibit, line.removeprefix("exec "), line, rest=r"( &\nwait)?")
    if "| (trap" in line:
        return in_script(exhibit, "python -I -S writer.py", line, rest=r" \| cat")
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
