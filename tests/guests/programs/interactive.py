"""A program that gives its user a prompt: interactive.py, or python -i interactive.py prompt-by-i."""

import code
import sys

import guest

guest.module()


@guest.main
def main():
    if len(sys.argv) == 1:
        code.interact(banner="", exitmsg="", local={"guest": guest})


main()
