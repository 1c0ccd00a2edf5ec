"""A command-line tool that leaves no half a file, with click: `python convert.py notes.txt`.

Ctrl-C removes what is partial, shows no traceback, and dies of SIGINT, so that a shell's loop around it stops, too.
"""

import os
import time
from pathlib import Path

import click

from cleanup_guard import guard


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
def convert(source: Path) -> None:
    with guard() as g:
        partial = source.with_suffix(".partial")
        g.callback(partial.unlink, missing_ok=True)  # before there is one: there is no gap
        with partial.open("w") as file:
            for line in source.read_text().splitlines():
                print(line.upper(), file=file)
                click.echo(f"converted {line}")
                time.sleep(0.2)
        os.replace(partial, source.with_suffix(".done"))  # whole, or not at all


if __name__ == "__main__":
    convert()
