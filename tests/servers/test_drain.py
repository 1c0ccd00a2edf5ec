"""A server under steady requests is stopped with a drain: no request is lost, and none refused while it was ready."""

from __future__ import annotations

import pytest
from servers.load import SERVERS, stop_under_load


@pytest.mark.one_python
@pytest.mark.parametrize("kind", SERVERS)
def test_no_request_is_lost(kind: str) -> None:
    """Everything that was asked before the clients had heard of the stop is answered, with what callbacks close still open."""
    check(kind)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", SERVERS)
def test_no_request_is_lost_in_fifty_stops(kind: str) -> None:
    """The same again and again: the stop comes at a random moment of the requests."""
    for _ in range(50):
        check(kind)


def check(kind: str) -> None:
    """One stop."""
    ended, load = stop_under_load(kind)
    assert load.lost == []
    assert load.not_ready is not None
    assert ended.out == ["closed"]
    assert ended.status == 143
    assert "serving on for 3 s" in ended.err
    assert "no longer" not in ended.err
