"""A program that knows nothing of signals: a stop ends it where it is."""

import time

import guest

guest.module()


@guest.job
def run():
    guest.note("begins")
    while True:
        time.sleep(0.02)


@guest.main
def main():
    try:
        run()
    finally:
        guest.note("unwound")


if __name__ == "__main__":
    main()
