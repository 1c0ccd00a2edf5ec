"""Options, help and sentences are the same for all commands, and nothing in a sentence reaches the terminal."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cleanup_guard
from cleanup_guard._cli._words import Mistake, Usage

COMMAND = [sys.executable, "-m", "cleanup_guard"]
USAGE = Usage(
    "try",
    ("[options] PROGRAM", "[options] --file FILE"),
    "Tries.",
    {"Some": {"--flag": "a flag", "--env NAME=VALUE": "a variable", "--env OTHER=VALUE": "the same"}},
    "The end.",
)


@pytest.mark.parametrize(
    ("words", "options", "rest"),
    [
        ("prog -x --env A=1", [], ["prog", "-x", "--env", "A=1"]),
        ("-- prog --help", [], ["prog", "--help"]),
        ("--env A=1 -- -- x", [("--env", "A=1")], ["--", "x"]),
        ("--env=A=1 --flag --env B=-x prog", [("--env", "A=1"), ("--flag", ""), ("--env", "B=-x")], ["prog"]),
        ("--env= -", [("--env", "")], ["-"]),
        ("--env -- x", [("--env", "--")], ["x"]),
        ("-h x", [("--help", "")], ["x"]),
    ],
)
def test_options_end_at_the_first_word_that_is_none(
    words: str, options: list[tuple[str, str]], rest: list[str]
) -> None:
    """`--` is needed only before a program whose name begins with a dash."""
    assert USAGE.split(words.split()) == (options, rest)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--bogus=hunter2 x", "there is no option '--bogus'; see cleanup-guard try --help"),
        ("--en=hunter2 x", "there is no option '--en'; see cleanup-guard try --help"),
        ("-x", "there is no option '-x'; see cleanup-guard try --help"),
        ("--flag=hunter2 x", "--flag takes no value"),
        ("--env", "--env needs a value: --env NAME=VALUE"),
    ],
)
def test_a_mistake_names_the_option_and_never_its_value(words: str, sentence: str) -> None:
    """A value may be a secret."""
    with pytest.raises(Mistake) as caught:
        USAGE.split(words.split())
    assert str(caught.value) == sentence


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.text(), st.sampled_from(["--env", "--env=", "--flag", "--", "-", "--help", "="])))
)
def test_any_words_are_understood_or_are_a_mistake(words: list[str]) -> None:
    """No word is lost, and nothing but a Mistake is raised."""
    try:
        options, rest = USAGE.split(words)
    except Mistake:
        return
    assert words[len(words) - len(rest) :] == rest
    assert all(option in ("--env", "--flag", "--help", "--version") for option, _ in options)


def test_help_is_the_table() -> None:
    """Every form, heading and option, in 79 columns."""
    lines = USAGE.help().splitlines()
    assert lines[:2] == [
        "usage: cleanup-guard try [options] PROGRAM",
        "       cleanup-guard try [options] --file FILE",
    ]
    assert "  --env NAME=VALUE           a variable" in lines
    assert "  --env OTHER=VALUE          the same" in lines
    assert "  --version                  print the version" in lines
    assert lines[-1] == "The end."
    assert max(map(len, lines)) < 80


@pytest.mark.parametrize("words", [["--version"], ["exec", "--version"]])
def test_the_version_is_that_of_the_package(words: list[str]) -> None:
    """One place says it; the metadata are made from that."""
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=True)
    assert done.stdout == f"cleanup-guard {cleanup_guard.__version__}\n"
    assert cleanup_guard.__version__ == importlib.metadata.version("cleanup-guard")


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["exec", "--help"], ["exec", "--version"], []])
@pytest.mark.parametrize("how", ["closed", "/dev/full", "a pipe without a reader"])
def test_stdout_that_takes_nothing_is_a_sentence(words: list[str], how: str) -> None:
    """Status 2, no traceback, and nothing more when Python ends."""
    if how == "/dev/full" and not Path(how).exists():
        pytest.skip("there is no /dev/full")
    reader, writer = os.pipe()
    os.close(reader)
    if how == "/dev/full":
        os.close(writer)
        writer = os.open(how, os.O_WRONLY)
    shell = ["sh", "-c", 'exec "$@" >&-', "sh"] if how == "closed" else []
    done = subprocess.run(
        [*shell, *COMMAND, *words], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert done.returncode == 2
    assert done.stderr.startswith("cleanup-guard")
    assert "stdout cannot be written: " in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("how", [">&-", ">/dev/full"])
def test_stderr_that_takes_nothing_changes_no_status(how: str) -> None:
    """And the sentence does not land in another file instead."""
    if "full" in how and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    shell = ["sh", "-c", f'exec "$@" 2{how}', "sh"]
    for words in (["bogus"], ["exec", "--bogus"], ["exec"]):
        done = subprocess.run([*shell, *COMMAND, *words], stdout=subprocess.PIPE, check=False)
        assert (done.returncode, done.stdout) == (2, b"")


def test_a_foreign_word_forges_no_line_and_reaches_no_terminal() -> None:
    """An escape sequence, a newline and a byte that is no UTF-8, in a command's and a program's name."""
    for words in ([b"a\nb\x1b[31m\xff"], ["exec", b"a\nb\x1b[31m\xff"], ["exec", b"--a\nb\x1b[31m\xff"]):
        done = subprocess.run([*COMMAND, *words], stderr=subprocess.PIPE, text=True, check=False)
        assert done.stderr.count("\n") == 1
        assert r"a\nb\x1b[31m\xff" in done.stderr
