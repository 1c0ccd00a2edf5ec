"""The same handler, installed when a guard is there already."""

import signal
import time

import guest

guest.module()


@guest.main
def main():
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    signal.signal(signal.SIGINT, lambda *_: stopped.append(1))
    guest.work()
    while not stopped:
        time.sleep(0.02)
    guest.note("host over")


main()
