"""Secrets in command lines are not shown; what is none is."""

from __future__ import annotations

import time

import pytest
from check.rehearsals import rehearsals
from hypothesis import given, settings

from cleanup_guard._rehearse import _secrets
from cleanup_guard._rehearse._seen import Rehearsal

HIDDEN = [
    (["app", "--password=hunter2"], ["app", "--password=***"]),
    (["app", "--password", "hunter2", "x"], ["app", "--password", "***", "x"]),
    (["app", "--db-password", "a b"], ["app", "--db-password", "***"]),
    (["app", "--password=a b 'c"], ["app", "--password=***"]),
    (["app", "API_KEY=x", "SECRET_KEY_BASE=y"], ["app", "API_KEY=***", "SECRET_KEY_BASE=***"]),
    (["psql", "postgres://u:p@h/db?sslpassword=z&x=1"], ["psql", "postgres://***@h/db?sslpassword=***&x=1"]),
    (["redis://:pw@h:6379/0"], ["redis://***@h:6379/0"]),
    (["x", "https://ghp_0123456789abcdef0123@github.com/x"], ["x", "https://***@github.com/x"]),
    (
        ["sh", "-c", "PGPASSWORD=foo app --token abc && redis-server --requirepass 'a b'"],
        ["sh", "-c", "PGPASSWORD=*** app --token *** && redis-server --requirepass ***"],
    ),
    (["curl", "-H", "Authorization: Bearer abcdefgh"], ["curl", "-H", "Authorization: Bearer ***"]),
    (["app", '{"password": "abc"}'], ["app", '{"password": ***}']),
    (["app", "AKIAIOSFODNN7EXAMPLE"], ["app", "***"]),
]
SHOWN = [
    ["app", "--user", "bob", "--author", "joe", "--compass=3", "--bypass", "x"],
    ["app", "--no-password", "go", "--passive", "x", "--tokens-file-format"],
    ["http://host:8080/path", "me@example.org", "http://joe@host/"],
    ["python", "app.py", "--keys=7", "authority=x"],
]


@pytest.mark.parametrize(("argv", "shown"), HIDDEN)
def test_what_is_a_secret(argv: list[str], shown: list[str]) -> None:
    """The value is gone, its place is not; once is enough."""
    assert _secrets.words(argv) == shown
    assert _secrets.words(shown) == shown


@pytest.mark.parametrize("argv", SHOWN)
def test_what_is_none(argv: list[str]) -> None:
    """It is shown as it is."""
    assert _secrets.words(argv) == argv


HOSTILE = [
    "a-",
    "pass_",
    "x",
    "://",
    "-",
    "=:",
    " ",
    "sk-",
    "eyJ-",
    "'a=",
    '"',
    "a=\"' ",
    "basic ",
    "password= ",
    "-a -a ",
]


@pytest.mark.parametrize("part", HOSTILE)
def test_it_takes_no_time(part: str) -> None:
    """Whatever a program calls itself: eight kilobytes in a moment (it was half a minute)."""
    began = time.process_time()
    _secrets.words([part * (8192 // len(part)), "x"])
    assert time.process_time() - began < 2


@settings(max_examples=20, deadline=None)
@given(rehearsals)
def test_all_of_a_rehearsal_is_masked(rehearsal: Rehearsal) -> None:
    """Processes, program and advised lines; nothing else is another."""
    rehearsal.program.append("--password=hunter2")
    for seen in rehearsal.processes:
        seen.argv.append("--password=hunter2")
        seen.executed.append(["--password=hunter2"])
    found = _secrets.masked(rehearsal)
    assert "hunter2" not in str(found.as_json())
    assert len(found.processes) == len(rehearsal.processes)
    assert (found.verdict, found.grace) == (rehearsal.verdict, rehearsal.grace)
