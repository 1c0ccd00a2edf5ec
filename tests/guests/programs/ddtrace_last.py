"""A program with a tracer that comes when the guards are there already."""

import time

import guest

guest.module()


@guest.main
def main():
    import ddtrace  # noqa: F401 - its import takes the signals

    try:
        guest.note("begins")
        while True:
            time.sleep(0.02)
    finally:
        guest.note("unwound")


main()
