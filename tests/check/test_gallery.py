"""The gallery is judged as it should be, and what is advised helps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

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
        [each.code for each in found.advice],
        found.clean,
        found.status,
    )
    assert seen == (exhibit.ends, exhibit.advice, exhibit.clean, exhibit.status), found
