"""A program to be interrupted in a debugger."""

import os
import time

import guest

guest.module()


def spin():
    beat = os.path.join(guest.FOLDER, "beat")
    while True:
        os.close(os.open(beat, os.O_CREAT))
        time.sleep(0.02)


@guest.main
def main():
    spin()


main()
