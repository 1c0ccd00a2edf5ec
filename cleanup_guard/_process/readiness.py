"""Whether the program takes work: said by the program, taken back when a stop comes or main leaves, shown to probes.

It is told to whoever has asked for it: by a file that is there as long as the program is ready.
"""

from __future__ import annotations

import os

from cleanup_guard._ground.stderr import write_line


class Readiness:
    """Any thread.

    Attributes:
        ready: the program has said that it takes work.
    """

    def __init__(self, file: str | None) -> None:
        self.ready: bool = False
        self._file = file

    def declare(self) -> None:
        """The program takes work."""
        if self._file is not None:
            with open(self._file, "w", encoding="utf-8") as file:
                file.write("ready\n")
        self.ready = True

    def withdraw(self) -> None:
        """It takes none, or none any more."""
        if self._file is None:
            return
        try:
            os.unlink(self._file)
        except FileNotFoundError:
            pass
        except OSError as error:
            write_line(
                f"the file {self._file!r}, which says that the program is ready, cannot be removed: {error}"
            )
