"""The gallery is judged as it should be, and what is advised helps."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal, get_args

import pytest
from check.gallery import GALLERY, Exhibit
from check.rehearsed import SIMULATED, UNPRIVILEGED, check, described

from cleanup_guard._rehearse._seen import Advice, Rehearsal

AT_ONCE = 6
"""Rehearsals at a time: most of what they do is wait."""

Where = Literal["pid-namespace", "user-namespace", "simulated"]
WRAPPERS: dict[Where, list[str]] = {"user-namespace": UNPRIVILEGED, "simulated": SIMULATED}


class Curator:
    """Begins rehearsals in the background, and each only once."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._begun: dict[tuple[str, str], Future[Rehearsal]] = {}

    def begin(self, exhibit: Exhibit, kind: str) -> Future[Rehearsal]:
        """Rehearse it somewhere, or do as an advice of such a code says, and rehearse it then."""
        key = (exhibit.name, kind)
        if key not in self._begun:
            begin = self._rehearse if kind in get_args(Where) else self._cure
            self._begun[key] = begin(exhibit, kind)
        return self._begun[key]

    def _rehearse(self, exhibit: Exhibit, kind: str) -> Future[Rehearsal]:
        wrapper = WRAPPERS.get(kind, [])  # type: ignore[call-overload]
        return self._pool.submit(
            lambda: check("--no-try", *exhibit.words, files=exhibit.files, wrapper=wrapper).rehearsal
        )

    def _cure(self, exhibit: Exhibit, code: str) -> Future[Rehearsal]:
        return self._pool.submit(lambda: cured(exhibit, code))


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
    ends = [end for end in map(described, found.processes[: exhibit.only_first]) if end != "sleep exited 0"]
    codes = [each.code for each in found.advice if each.code not in exhibit.perhaps]
    seen = (", ".join(ends), codes, found.clean, found.status)
    assert seen == (exhibit.ends, exhibit.advice, exhibit.clean, exhibit.status), found
    assert found.isolation == ("simulated" if kind == "simulated" else "pid-namespace")
    assert bool(found.remark) == (kind != "pid-namespace")


@chosen(*((exhibit, code) for exhibit in GALLERY for code in exhibit.cures))
def test_the_line_that_is_advised_helps(exhibit: Exhibit, kind: str, curator: Curator) -> None:
    """Who does what the advice says gets a clean rehearsal, as promised, and that advice no more."""
    if exhibit.missing:
        pytest.skip(f"{exhibit.needs} is not installed")
    found = curator.begin(exhibit, kind).result()
    assert found.clean, found
    assert kind not in {each.code for each in found.advice}, found


def cured(exhibit: Exhibit, code: str) -> Rehearsal:
    """The rehearsal of a program that was changed as advised."""
    found = check(*exhibit.words, files=exhibit.files).rehearsal
    advice = next(each for each in found.advice if each.code == code)
    assert advice.tried is not None, f"nothing was promised: {found}"
    changed = applied(advice, exhibit)
    return check("--no-try", *changed.words, files=changed.files).rehearsal


def applied(advice: Advice, exhibit: Exhibit) -> Exhibit:
    """The program as a user would have it who does as advised."""
    first, _, rest = advice.line.partition("\n")
    first, _, remark = first.partition("   # ")
    words = shlex.split(rest or first)
    if advice.where:
        exhibit = in_file(exhibit, advice.where, first, remark)
        if first.startswith("@"):
            program = [word for word in exhibit.program if word not in {"-I", "-S"}]
            return replace(exhibit, program=program)
        return replace(exhibit, program=words) if rest else exhibit
    if words[:2] == ["docker", "stop"]:
        return replace(exhibit, options=[*exhibit.options, "--grace", words[words.index("-t") + 1]])
    if words[0] == "STOPSIGNAL":
        return replace(exhibit, options=[*exhibit.options, "--signal", words[1]])
    return replace(exhibit, program=words)


def in_file(exhibit: Exhibit, where: str, line: str, remark: str) -> Exhibit:
    """Put a line in place of the one that is named; what is to stand above it is put there."""
    name, number = where.split(":")
    lines = exhibit.files[name].split("\n")
    at = int(number) - 1
    needed = [each.removeprefix("above def main(); ") for each in remark.split("; ") if "import" in each]
    inserted = line.startswith("trap : ") or (line.startswith("@") and not lines[at].startswith("@guard"))
    lines[at : at if inserted else at + 1] = [line]
    if needed:
        lines[at:at] = needed
    return replace(exhibit, files={**exhibit.files, name: "\n".join(lines)})
