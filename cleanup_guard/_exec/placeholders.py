"""`$NAME` in a text, as shells and compose files have it. Pure, and linear in the size of the text.

    $NAME ${NAME}                           the value; missing is an error
    ${NAME-text} ${NAME:-text}              the text if it is missing; with the colon, also if it is empty
    ${NAME?message} ${NAME:?message}        an error with that message if it is missing, or empty
    ${NAME+text} ${NAME:+text}              the text if it is there, or not empty; else nothing
    $$                                      a dollar sign

Rules:
1. Texts may hold what is above again, as deep as one likes. What is not used may be missing.
2. A value is taken as it is: a dollar sign in it means nothing.
3. Where only some names are to be replaced, all else stays as it is, $$ too, as with envsubst: a `$host` is nginx's own.
4. No value is in any message; a message of the template's is what stands there, before anything in it is replaced.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

FIRST = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")
FOLLOWING = FIRST | frozenset("0123456789")
OPERATORS = "-?+"


class Unclear(Exception):
    """A dollar sign that is no placeholder. The message says in which line, and what to do."""


class Missing:
    """A variable that has no value. `message` is the template's own."""

    __slots__ = ("line", "message", "name")

    def __init__(self, name: str, line: int, message: str) -> None:
        self.name = name
        self.line = line
        self.message = message


def fill(text: str, env: Mapping[str, str], only: Collection[str] | None = None) -> tuple[str, list[Missing]]:
    """Replace what the text has of placeholders.

    Args:
        text: the template.
        env: the values.
        only: the names to replace; None for all.

    Returns:
        The text, and what was missing.

    Raises:
        Unclear: a dollar sign that begins no name, or a brace that is not closed.
    """
    filling = _Filling(text, env, only)
    filling.run()
    return "".join(filling.out), filling.missing


def name_at(text: str, at: int) -> int:
    """Where the name ends that begins here; the same place if none does."""
    if at >= len(text) or text[at] not in FIRST:
        return at
    while at < len(text) and text[at] in FOLLOWING:
        at += 1
    return at


class _Open:
    """A brace that is not closed yet. Without a name it is none of ours, but is paired as ours are."""

    __slots__ = ("begin", "dollar", "name", "operator", "used", "value")

    def __init__(
        self, name: str, operator: str, dollar: int, begin: int, value: str | None, *, used: bool
    ) -> None:
        self.name = name
        self.operator = operator
        self.dollar = dollar
        self.begin = begin
        self.value = value
        self.used = used


class _Filling:
    def __init__(self, text: str, env: Mapping[str, str], only: Collection[str] | None) -> None:
        self.out: list[str] = []
        self.missing: list[Missing] = []
        self._text = text
        self._env = env
        self._only = only
        self._opened: list[_Open] = []
        self._counted, self._line = 0, 1

    def run(self) -> None:
        text, at, dollar = self._text, 0, self._text.find("$")
        while True:
            brace = text.find("}", at, len(text) if dollar < 0 else dollar) if self._opened else -1
            if brace >= 0:
                self._write(text[at:brace])
                self._close(brace)
                at = brace + 1
            elif dollar >= 0:
                self._write(text[at:dollar])
                at = self._placeholder(dollar)
                dollar = text.find("$", at)
            else:
                break
        if self._opened:
            raise self._unclear(self._opened[-1].dollar, "a brace that is not closed")
        self._write(text[at:])

    def _writes(self) -> bool:
        return not self._opened or self._opened[-1].used

    def _write(self, text: str) -> None:
        if text and self._writes():
            self.out.append(text)

    def _placeholder(self, dollar: int) -> int:
        """Take what begins with this dollar sign. Returns where to go on."""
        text = self._text
        braced = text.startswith("{", dollar + 1)
        begin = dollar + 1 + braced
        end = name_at(text, begin)
        name = text[begin:end]
        if self._only is not None and name not in self._only:
            return self._leave(dollar, end)
        if not name:
            if text.startswith("$", dollar + 1):
                self._write("$")
                return dollar + 2
            raise self._unclear(dollar, "a dollar sign that begins no name; write $$ for a dollar sign")
        if not braced or text.startswith("}", end):
            self._value(name, dollar)
            return end + braced
        return self._open(name, dollar, end)

    def _leave(self, dollar: int, end: int) -> int:
        """What is not ours stays."""
        self._write(self._text[dollar:end])
        if self._opened and self._text.startswith("{", dollar + 1):
            self._opened.append(_Open("", "", dollar, end, None, used=self._writes()))
        return end

    def _value(self, name: str, dollar: int) -> None:
        if not self._writes():
            return
        value = self._env.get(name)
        if value is None:
            self._miss(name, dollar, "")
        elif value:
            self.out.append(value)

    def _open(self, name: str, dollar: int, end: int) -> int:
        colon = self._text.startswith(":", end)
        operator = self._text[end + colon : end + colon + 1]
        if not operator or operator not in OPERATORS:
            raise self._unclear(
                dollar,
                f"after ${{{name} there is neither }} nor one of - :- ? :? + :+; write $$ for a dollar sign",
            )
        value = self._env.get(name)
        there = value is not None and not (colon and not value)
        used = self._writes() and operator != "?" and there == (operator == "+")
        begin = end + colon + 1
        self._opened.append(_Open(name, operator, dollar, begin, value if there else None, used=used))
        return begin

    def _close(self, brace: int) -> None:
        opened = self._opened.pop()
        if not opened.name:
            if opened.used:
                self.out.append("}")
            return
        if not self._writes() or opened.used or opened.operator == "+":
            return
        if opened.value is not None:
            self.out.append(opened.value)
        else:
            self._miss(opened.name, opened.dollar, self._text[opened.begin : brace])

    def _miss(self, name: str, at: int, message: str) -> None:
        self.missing.append(Missing(name, self._line_of(at), message))

    def _line_of(self, at: int) -> int:
        """Counted on from the last place, so that all together are counted once."""
        if at >= self._counted:
            self._line += self._text.count("\n", self._counted, at)
        else:  # a brace that was opened before
            self._line -= self._text.count("\n", at, self._counted)
        self._counted = at
        return self._line

    def _unclear(self, at: int, what: str) -> Unclear:
        return Unclear(f"line {self._line_of(at)}: {what}")
