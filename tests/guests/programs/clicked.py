"""A click command under a guard."""

import time

import click
import guest


@click.command()
@click.option("--number", default=1)
@guest.main
def main(number):
    guest.note("begins")
    while True:
        time.sleep(0.02)


main()
