r"""Words that somebody else chose, made safe to write: names of processes, arguments, paths, what a program prints.

Written raw, a newline in one forges a line of our log, an escape sequence reaches the terminal, a change of direction makes it
read as something else, and a megabyte of it fills the log. One way to write such a word, for every part that does:

- `shown` writes it as it is, but for what cannot be seen, which is written as Python would in a string: `\n`, `\x1b`.
- `quoted` does the same between quotes, so that it is clear where the word begins and ends.

Both take bytes, too, and text that was decoded with `surrogateescape`: a byte that is not UTF-8 is written as `\xNN`. What
they return can be encoded in UTF-8, has no character that moves a cursor, and is not much longer than `limit`.
"""

from __future__ import annotations

LONGEST = 200
"""Characters of a word that are shown, unless the caller says otherwise."""

CUT = "..."
"""Stands for the middle of a word that is too long: what it begins with and what it ends with tells the most."""

ESCAPED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
FIRST_BYTE, LAST_BYTE, BYTE_OFFSET = 0xDC80, 0xDCFF, 0xDC00
"""Where `surrogateescape` puts a byte that is not UTF-8."""


def shown(text: str | bytes, *, limit: int | None = LONGEST, keep: str = "") -> str:
    """A foreign word as it may be written into a line.

    Args:
        text: the word; bytes are taken for UTF-8.
        limit: how many characters of it are shown, at the most; None for all.
        keep: characters that need no escape here, though they cannot be seen: a tab, for a program's line of output.
    """
    word = _cut(_decoded(text, limit), limit)
    if word.isprintable():
        return word
    return "".join(each if each.isprintable() or each in keep else _escape(each) for each in word)


def quoted(text: str | bytes, *, limit: int | None = LONGEST) -> str:
    """A foreign word between quotes. Quotes and backslashes inside are escaped, so that nobody can fake the word's end.

    Args:
        text: the word; bytes are taken for UTF-8.
        limit: how many characters of it are shown, at the most; None for all.
    """
    word = _cut(_decoded(text, limit), limit)
    quote = '"' if "'" in word and '"' not in word else "'"
    inside = "".join(
        "\\" + each if each in ("\\", quote) else each if each.isprintable() else _escape(each)
        for each in word
    )
    return quote + inside + quote


def _decoded(text: str | bytes, limit: int | None) -> str:
    if isinstance(text, str):
        return text
    if limit is not None and len(text) > 8 * limit:  # the middle need not be decoded to be left out
        text = text[: 4 * limit] + text[-4 * limit :]
    return text.decode("utf-8", "surrogateescape")


def _cut(word: str, limit: int | None) -> str:
    if limit is None or len(word) <= limit:
        return word
    tail = limit // 4
    return word[: limit - tail] + CUT + (word[-tail:] if tail else "")


def _escape(character: str) -> str:
    number = ord(character)
    if FIRST_BYTE <= number <= LAST_BYTE:
        return f"\\x{number - BYTE_OFFSET:02x}"
    return ESCAPED.get(character) or repr(character)[1:-1]
