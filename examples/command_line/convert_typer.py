"""As `convert.py`, with typer: `python convert_typer.py notes.txt`."""

import os
import time
from pathlib import Path

import typer

from cleanup_guard import guard


def convert(source: Path) -> None:
    with guard() as g:
        partial = source.with_suffix(".partial")
        g.callback(partial.unlink, missing_ok=True)
        with partial.open("w") as file:
            for line in source.read_text().splitlines():
                print(line.upper(), file=file)
                print(f"converted {line}", flush=True)
                time.sleep(0.2)
        os.replace(partial, source.with_suffix(".done"))


if __name__ == "__main__":
    typer.run(convert)
