"""The language of templates: what each form comes to, what is told when it cannot be, and that size costs no more than size."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanup_guard._exec.placeholders import Unclear, fill

ENV = {"A": "1", "EMPTY": "", "DOLLAR": "$A", "_x9": "low"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("no dollar } {", "no dollar } {"),
        ("$A ${A} $$A $_x9", "1 1 $A low"),
        ("${A}B $A.b ${EMPTY}", "1B 1.b "),
        ("$DOLLAR ${DOLLAR:-x}", "$A $A"),
        ("${A:-x} ${A-x} ${NO:-x} ${NO-x} ${EMPTY:-x} ${EMPTY-x}", "1 1 x x x "),
        ("${A:+x} ${A+x} ${NO:+x} ${NO+x} ${EMPTY:+x} ${EMPTY+x}", "x x    x"),
        ("${A:?x} ${A?x} ${EMPTY?x}", "1 1 "),
        ("${NO:-} ${NO:-$A} ${NO:-${A}} ${NO:-${NO:-deep $A}}.", " 1 1 deep 1."),
        ("${NO:-a$$b} ${NO:-{} }", "a$b { }"),
        ("${NO:-/etc/x:y?z+-}", "/etc/x:y?z+-"),
        ("${A:-$NO} ${A:-${NO?why}} ${NO:+$NO}", "1 1 "),
        ("a\r\n\0$A\udcff\n", "a\r\n\x001\udcff\n"),
    ],
)
def test_what_a_placeholder_comes_to(text: str, expected: str) -> None:
    """As a shell does it. A value is not looked into, and what is not used may be missing."""
    assert fill(text, ENV) == (expected, [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A $host ${host} $$ $ ${ $1 ^$", "1 $host ${host} $$ $ ${ $1 ^$"),
        ("$$A ${A}", "$1 1"),
        ("${host:-$A} ${A:-x}", "${host:-1} 1"),
        ("${NO:-${host}} ${NO:-$host} ${NO:-${host:-$A}}", "${host} $host ${host:-1}"),
        ("${A:+${host}$x}", "${host}$x"),
        ("${NO:+${host}$A}", ""),
        ("$AB ${AB}", "$AB ${AB}"),
    ],
)
def test_with_a_list_of_names_all_else_stays(text: str, expected: str) -> None:
    """Nginx's own variables, regular expressions and price tags, as with envsubst."""
    assert fill(text, ENV, {"A", "NO"}) == (expected, [])


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("ok\ncost: 5$", 2, "begins no name"),
        ("$1", 1, "begins no name"),
        ("$\u017f", 1, "begins no name"),
        ("${}", 1, "begins no name"),
        ("${:-x}", 1, "begins no name"),
        ("\n\n${A", 3, "after ${A there is neither"),
        ("${A x}", 1, "after ${A there is neither"),
        ("${A:x}", 1, "after ${A there is neither"),
        ("\n${A:-\n$A\n", 2, "not closed"),
        ("${A:-\n${NO:-x}", 1, "not closed"),
    ],
)
def test_a_dollar_sign_that_makes_no_sense_is_told_with_its_line(text: str, line: int, what: str) -> None:
    """What it is, and how to have a plain one."""
    with pytest.raises(Unclear) as caught:
        fill(text, ENV)
    assert str(caught.value).startswith(f"line {line}: ")
    assert what in str(caught.value)


def test_all_that_is_missing_is_told_with_line_and_message() -> None:
    """The message is the template's text: what it names is not filled in, because that may be a secret."""
    _, missing = fill("$NO\n\n${GONE} ${A:+$LOST}\n${NO:?see $A}${EMPTY:?}${EMPTY?no}", ENV)
    told = [(each.name, each.line, each.message) for each in missing]
    assert told == [("NO", 1, ""), ("GONE", 3, ""), ("LOST", 3, ""), ("NO", 4, "see $A"), ("EMPTY", 4, "")]


PIECES = [
    "$A",
    "${A}",
    "$$",
    "$",
    "${",
    "}",
    "${NO:-",
    "${NO:+",
    "${A:-",
    "${A?",
    "\n",
    "x",
    "$NO",
    "$_x9",
    ":",
    "\u017f",
]


@settings(deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text()), max_size=20).map("".join), st.booleans())
def test_any_text_is_filled_or_unclear(text: str, listed: bool) -> None:
    """Nothing else is raised, whatever it is; with an empty list of names nothing changes."""
    try:
        filled, missing = fill(text, ENV, {"A", "NO"} if listed else None)
    except Unclear:
        pass
    else:
        assert missing or listed or "$" in text or filled == text
    assert fill(text, ENV, ()) == (text, [])


@settings(deadline=None)
@given(st.lists(st.sampled_from(["$A", "${A}", "$$", "${_x9}", " ", "}", "{", "ü", "\n"])).map("".join))
def test_the_simple_forms_agree_with_a_regular_expression(text: str) -> None:
    """A model in one line."""
    expected = re.sub(
        r"\$(?:(\$)|\{(\w+)\}|([A-Za-z_]\w*))",
        lambda m: "$" if m[1] else ENV.get(m[2] or m[3], ""),
        text,
        flags=re.ASCII,
    )
    assert fill(text, ENV)[0] == expected


@pytest.mark.parametrize(
    "pattern",
    [
        "some text $NAME{number} and more of it ",
        "${{NO:-",
        "${{NAME0:-x}}",
        "$NAME{number}\n",
        "${{NO:-a}}}}",
        "${{A?{{",
    ],
)
def test_the_time_is_linear_in_the_size(pattern: str) -> None:
    """Many names, deep braces, and all of them missing: ten times as much takes about ten times as long."""

    def seconds(pieces: int) -> float:
        text = (
            "".join(pattern.format(number=number) for number in range(pieces)) + "}" * pieces + " " * pieces
        )
        began = time.process_time()
        try:
            fill(text, {"NAME0": "x"})
        except Unclear:
            pass
        return time.process_time() - began

    assert min(seconds(30_000) for _ in range(3)) < 30 * max(min(seconds(3_000) for _ in range(3)), 0.001)
