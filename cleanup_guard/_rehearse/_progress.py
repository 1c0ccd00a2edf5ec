"""A line on a terminal that says what takes so long, and is gone when that is over."""

from __future__ import annotations

import os
import sys
import time

SOON = 2.0
"""Seconds without a word that nobody wonders about."""

OFTEN = 0.2
"""Seconds between two versions of the line."""


class Progress:
    """Says what is being done.

    Args:
        shown: whether there is a terminal to say it on.
    """

    def __init__(self, *, shown: bool) -> None:
        self.shown = shown
        self.trying = ""
        """What is tried now, of what may be advised; empty for the first rehearsal."""
        self._began = time.monotonic()
        self._said = 0.0
        self._written = False

    @classmethod
    def on_stderr(cls) -> Progress:
        """For people: a terminal that can take a line back."""
        return cls(shown=_is_a_terminal() and os.environ.get("TERM", "dumb") != "dumb")

    def begin(self) -> None:
        """Something else is being done."""
        self._began = time.monotonic()

    def say(self, what: str, seconds: float, limit: float | None) -> None:
        """This is being done, for so long, and at most until then."""
        now = time.monotonic()
        if not self.shown or now - self._began < SOON or now - self._said < OFTEN:
            return
        self._said, self._written = now, True
        until = "" if limit is None else f" of {limit:.0f}"
        trying = f"trying {self.trying}: " if self.trying else ""
        line = f"cleanup-guard check: {trying}{what}, {seconds:.0f}{until} s"
        self._write(f"\r\033[K{line[: _columns() - 1]}")

    def clear(self) -> None:
        """Take the line back."""
        if self._written:
            self._written = False
            self._write("\r\033[K")

    def _write(self, text: str) -> None:
        try:
            os.write(2, text.encode("utf-8", "replace"))
        except OSError:
            self.shown = False  # the terminal is gone, or does not take it


def _is_a_terminal() -> bool:
    return sys.stderr is not None and os.isatty(2)


def _columns() -> int:
    try:
        return max(20, os.get_terminal_size(2).columns)
    except OSError:
        return 80
