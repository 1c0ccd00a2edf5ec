"""Finds in a shell script the line that has started a program, and changes it.

Not a shell: it only has to see where simple commands begin and end, and which of them no compound command is around. What it
does not understand it says nothing about, and what it has changed is tried before anybody is told to do the same.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from os.path import basename
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

OPENS = {"if", "for", "while", "until", "case", "select", "{"}
CLOSES = {"fi": {"if"}, "done": {"for", "while", "until", "select"}, "esac": {"case"}, "}": {"{"}}
CONTINUES = {"then", "elif", "else", "do", "!", "time", "in"}
OPERATOR = re.compile(r"&&|\|\||;;&|;;|;&|\|&|[;&|()\n]")
REDIRECTION = re.compile(r"<<<|<<-|<<|<&|<>|>>|>&|>\||<|>|&>>|&>")
BLANK = re.compile(r"[ \t\r]|\\\n")
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")
SAME_AS_END = re.compile(r"exit(\s+\"?\$\?\"?)?$")
WAITS = re.compile(r"wait(\s|$)")


class NotUnderstood(Exception):
    """This is not a script, or one beyond us."""


@dataclass
class Simple:
    """A simple command; a compound one has no words.

    Attributes:
        words: beginning and end of each word, redirections aside.
        start: where it begins.
        end: where it ends, redirections included.
        before: the operator before it: `;` for a new line, empty for the beginning.
        after: the operator behind it; empty for the end.
        depth: compound commands around it.
    """

    start: int
    before: str
    depth: int
    end: int = 0
    after: str = ""
    words: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])


class Token(NamedTuple):
    """A word, an operator, or the target of a redirection."""

    kind: str
    start: int
    end: int


class Edit(NamedTuple):
    """A changed script.

    Attributes:
        text: all of it.
        line: the line that is new.
        number: of that line.
    """

    text: str
    line: str
    number: int


# -- words ------------------------------------------------------------------------------------------------------------


def _skip_quoted(text: str, at: int) -> int:
    """From an opening quote to behind the closing one."""
    quote = text[at]
    at += 1
    while at < len(text):
        if text[at] == quote:
            return at + 1
        if quote == '"' and text[at] in "$`":
            at = _skip_expansion(text, at)
        elif quote != "'" and text[at] == "\\":
            at += 2
        else:
            at += 1
    raise NotUnderstood


def _skip_expansion(text: str, at: int) -> int:
    """From a dollar sign or a backquote to behind what it expands."""
    if text[at] == "`":
        return _skip_quoted(text, at)
    if text.startswith(("$(", "${"), at):
        return _skip_brackets(text, at + 1)
    return at + 1


def _skip_brackets(text: str, at: int) -> int:
    """From an opening bracket to behind the closing one."""
    pairs = {"(": ")", "{": "}"}
    expected = [pairs[text[at]]]
    at += 1
    while at < len(text):
        each = text[at]
        if each in "'\"":
            at = _skip_quoted(text, at)
        elif each in "$`":
            at = _skip_expansion(text, at)
        elif each == "\\":
            at += 2
        else:
            at += 1
            if each == expected[-1]:
                expected.pop()
                if not expected:
                    return at
            elif each == "(" and expected[-1] == ")":
                expected.append(")")
    raise NotUnderstood


def _skip_word(text: str, at: int) -> int:
    while at < len(text):
        each = text[at]
        if each in " \t\n;&|()<>":
            return at
        if each in "'\"":
            at = _skip_quoted(text, at)
        elif each in "$`":
            at = _skip_expansion(text, at)
        elif each == "\\":
            at += 2
        else:
            at += 1
    return min(at, len(text))


def _tokens(text: str) -> Iterator[Token]:
    at, documents = 0, list[tuple[str, bool]]()
    while at < len(text):
        each = text[at]
        if blank := BLANK.match(text, at):
            at = blank.end()
        elif each == "#":
            at = (text.find("\n", at) + len(text) + 1) % (len(text) + 1)
        elif (found := REDIRECTION.match(text, at)) and found[0] != "":
            start, at = at, found.end()
            target = at + len(text[at:]) - len(text[at:].lstrip(" \t"))
            at = _skip_target(text, target)
            if found[0] in {"<<", "<<-"}:
                documents.append((_unquoted(text[target:at]), found[0] == "<<-"))
            yield Token("redirection", start, at)
        elif operator := OPERATOR.match(text, at):
            yield Token("operator", at, operator.end())
            at = operator.end()
            if operator[0] == "\n":
                at = _skip_documents(text, at, documents)
                documents.clear()
        else:
            start, at = at, _skip_word(text, at)
            numbered = text[start:at].isdigit() and text[at : at + 1] in {"<", ">"}
            if not numbered:
                yield Token("word", start, at)


def _skip_target(text: str, at: int) -> int:
    return _skip_brackets(text, at) if text.startswith("(", at) else _skip_word(text, at)


def _skip_documents(text: str, at: int, documents: list[tuple[str, bool]]) -> int:
    for word, indented in documents:
        at = _skip_document(text, at, word, indented=indented)
    return at


def _skip_document(text: str, at: int, word: str, *, indented: bool) -> int:
    while at < len(text):
        end = (text.find("\n", at) + len(text) + 1) % (len(text) + 1)
        line, at = text[at:end], end + 1
        if (line.lstrip("\t") if indented else line) == word:
            break
    return min(at, len(text))


def _unquoted(word: str) -> str:
    try:
        return "".join(shlex.split(word))
    except ValueError:
        return word


# -- commands ---------------------------------------------------------------------------------------------------------


class _Reader:
    """Puts simple commands together."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.found: list[Simple] = []
        self._opened: list[str] = []
        self._before = ""
        self._current: Simple | None = None
        self._closed = False

    def read(self) -> list[Simple]:
        """All of them."""
        for token in _tokens(self.text):
            word = self.text[token.start : token.end]
            if token.kind == "operator":
                self._operator(word, token.start)
            elif token.kind == "redirection":
                if self._current is not None:
                    self._current.end = token.end
            elif self._current is None or (not self._current.words and not self._closed):
                self._first_word(word, token)
            elif not self._closed:
                self._current.words.append((token.start, token.end))
                self._current.end = token.end
        self._finish("")
        if self._opened:
            raise NotUnderstood
        return self.found

    def _first_word(self, word: str, token: Token) -> None:
        if word in OPENS:
            self._opened.append(word)
        elif word in CLOSES:
            if not self._opened or self._opened.pop() not in CLOSES[word]:
                raise NotUnderstood
            self._compound(token.end)
        elif word not in CONTINUES and word != "function":
            self._current = Simple(token.start, self._before, len(self._opened), token.end)
            self._current.words.append((token.start, token.end))

    def _compound(self, end: int) -> None:
        """One ends here: it has a place in the sequence, but no words."""
        self._current = Simple(end, self._before, len(self._opened), end)
        self._closed = True

    def _operator(self, word: str, at: int) -> None:
        if word == "(":
            is_function = self._current is not None and bool(self._current.words)
            self._current, self._closed = None, False
            self._opened.append("()" if is_function else "(")
        elif word == ")":
            if not self._opened:
                raise NotUnderstood
            if self._opened[-1] == "case":
                self._current = None  # a pattern
                return
            if self._opened[-1] == "()":  # its body comes next
                self._opened.pop()
                return
            if self._opened[-1] != "(":
                raise NotUnderstood
            self._finish(")")
            self._opened.pop()
            self._compound(at + 1)
        else:
            self._finish(";" if word == "\n" else word)

    def _finish(self, operator: str) -> None:
        if self._current is not None:
            self._current.after = operator
            self.found.append(self._current)
            self._before = operator
        self._current, self._closed = None, False


def commands(text: str) -> list[Simple] | None:
    """The commands of a script in the order of their text; None if it is not understood."""
    try:
        return _Reader(text).read()
    except NotUnderstood:
        return None


def has_trap(text: str) -> bool:
    """Whether a script says what is to be done at a signal, or at its end; if it is not understood, it may."""
    found = commands(text)
    return found is None or any(_word(text, each, 0) == "trap" for each in found)


def _word(text: str, command: Simple, number: int) -> str:
    if number >= len(command.words):
        return ""
    start, end = command.words[number]
    return text[start:end]


def _program(text: str, command: Simple) -> int:
    """The number of the word that names the program: behind the assignments."""
    return next(
        (at for at in range(len(command.words)) if not ASSIGNMENT.match(_word(text, command, at))),
        len(command.words),
    )


def _fits(text: str, command: Simple, argv: Sequence[str]) -> int:
    """Whether this command may have started that command line: 2 for sure, 1 perhaps, 0 not."""
    word = _word(text, command, _program(text, command))
    if not word:
        return 0
    if "$" in word or "`" in word:
        return 1
    literal = _unquoted(word)
    # The kernel puts the interpreter of a script, and what is behind #!, before its name.
    return 2 * any(literal == each or basename(literal) == basename(each) for each in argv[:4] if each)


def started_by(text: str, argv: Sequence[str]) -> tuple[list[Simple], int] | None:
    """The commands of a script, and which of them started this command line; None if that is not clear."""
    found = commands(text)
    if not found:
        return None
    fits = [_fits(text, each, argv) if each.words else 0 for each in found]
    best = max(fits)
    if best == 0 or (best == 1 and fits.count(1) > 1 and fits[-1] != 1):
        return None
    return found, len(fits) - 1 - fits[::-1].index(best)


def comes_after(text: str, argv: Sequence[str]) -> bool:
    """Whether the script has something to do when this program has ended."""
    where = started_by(text, argv)
    if where is None:
        return False
    found, at = where
    return any(not _is_nothing(text, found[at], each) for each in found[at + 1 :])


def _is_nothing(text: str, command: Simple, later: Simple) -> bool:
    """Whether an `exit` or a `wait` behind a command does what an exec does."""
    said = text[later.start : later.end]
    return bool(SAME_AS_END.match(said)) or (command.after == "&" and bool(WAITS.match(said)))


# -- changes ----------------------------------------------------------------------------------------------------------


def with_exec(text: str, argv: Sequence[str], prefix: str = "exec ") -> Edit | None:
    """Have the shell become the program, if it is the last thing that the script does.

    Args:
        text: of the script.
        argv: the command line that the script has started.
        prefix: what comes before the program.

    Returns:
        None if that cannot be, or would lose something: a trap, or what comes after.
    """
    where = started_by(text, argv)
    if where is None or has_trap(text):
        return None
    found, at = where
    command = found[at]
    is_last = all(_is_nothing(text, command, each) for each in found[at + 1 :])
    if command.depth or "|" in {command.before, command.after} or not is_last:
        return None
    if command.after == "&" and at + 1 == len(found):
        return None  # who is left in the background at the end of a script is another matter
    place = command.words[_program(text, command)][0]
    end = command.end
    rest = text[end:].replace("&", "", 1) if command.after == "&" else text[end:]
    return _edited(text, place, text[:place] + prefix + text[place:end] + rest)


def with_word(text: str, argv: Sequence[str], change: Callable[[str], str]) -> Edit | None:
    """Change the command that has started a command line, wherever it stands."""
    where = started_by(text, argv)
    if where is None:
        return None
    found, at = where
    command = found[at]
    place = command.words[_program(text, command)][0]
    changed = change(text[place : command.end])
    return _edited(text, place, text[:place] + changed + text[command.end :])


def with_line_on_top(text: str, line: str) -> Edit:
    """Put a line before the first command."""
    found = commands(text)
    place = found[0].start if found else 0
    place = text.rfind("\n", 0, place) + 1
    if text.startswith("#!") and place == 0:
        place = len(text.partition("\n")[0]) + 1
    return _edited(text, place, f"{text[:place]}{line}\n{text[place:]}")


def _edited(old: str, place: int, new: str) -> Edit:
    """The change, told by the line that it is in, with all lines that a backslash continues."""
    number = old.count("\n", 0, place)
    lines = new.split("\n")
    end = number
    while lines[end].endswith("\\") and end + 1 < len(lines):
        end += 1
    return Edit(new, "\n".join(lines[number : end + 1]).strip(), number + 1)
