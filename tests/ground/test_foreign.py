"""A foreign word can neither forge a line nor reach the terminal, whatever is in it."""

from __future__ import annotations

import ast
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanup_guard._ground.foreign import LONGEST, quoted, shown

anything = st.one_of(
    st.text(alphabet=st.characters(exclude_categories=[])),  # lone surrogates, too
    st.binary(),
    st.text(alphabet="\x00\x07\x1b[]\\'\"\n\r\x85\u2028\u202e\udcff\N{BOM}a "),
)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("plain", "plain"),
        ("größer", "größer"),
        ("two words", "two words"),
        ("a\nkilled: nobody", "a\\nkilled: nobody"),
        ("a\r\tb", "a\\r\\tb"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202efdp.exe", "\\u202efdp.exe"),
        ("a\u2028b", "a\\u2028b"),
        (b"caf\xe9", "caf\\xe9"),
        (b"caf\xc3\xa9", "café"),
        ("caf\udce9", "caf\\xe9"),
        ("", ""),
    ],
)
def test_what_cannot_be_seen_is_written_as_python_would(word: str | bytes, expected: str) -> None:
    """Newlines, escape sequences, changes of direction and bytes that are no text are visible, everything else is itself."""
    assert shown(word) == expected


def test_a_quoted_word_has_one_end() -> None:
    """Quotes and backslashes inside are escaped where they could be taken for ours."""
    assert quoted("a b") == "'a b'"
    assert quoted("it's") == '"it\'s"'
    assert quoted("""it's "it\"""") == """'it\\'s "it"'"""
    assert quoted("back\\slash") == "'back\\\\slash'"


def test_a_tab_may_be_kept() -> None:
    """A line of output keeps its tabs."""
    assert shown("a\tb\x1b", keep="\t") == "a\tb\\x1b"


@given(anything)
def test_no_word_can_forge_a_line(word: str | bytes) -> None:
    """Whatever it is: one line, nothing that moves a cursor or changes direction, and it can be written."""
    for text in (
        shown(word),
        quoted(word),
        shown(word, limit=5),
        quoted(word, limit=5),
        shown(word, limit=None),
    ):
        assert len(text.splitlines()) <= 1
        assert text.isprintable()
        assert not any(
            unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for character in text
        )
        text.encode("utf-8")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_a_quoted_word_can_be_read_back(word: str) -> None:
    """Nothing is lost or doubtful: Python reads it back as it was."""
    assert ast.literal_eval(quoted(word, limit=None)) == word


@given(anything, st.integers(0, 50))
def test_a_long_word_is_cut(word: str | bytes, limit: int) -> None:
    """At most `limit` characters of it are shown, each as one escape of at most ten."""
    assert len(shown(word, limit=limit)) <= 10 * limit + 3


def test_a_megabyte_is_cut_to_its_ends() -> None:
    """What an argument of a megabyte begins and ends with is told."""
    for word in ("x" * 1_000_000 + "the end", b"x" * 1_000_000 + b"the end"):
        assert len(shown(word)) == LONGEST + 3
        assert shown(word).endswith("xthe end")
