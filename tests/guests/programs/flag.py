"""The commonest handler of all: it notes the stop, and main looks when its work is done."""

import signal
import time

import guest

stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
signal.signal(signal.SIGINT, lambda *_: stopped.append(1))
guest.module()


@guest.job
def job():
    guest.work()


@guest.main
def main():
    job()
    while not stopped:
        time.sleep(0.02)
    guest.note("host over")


main()
