"""A program whose greenlet watches the signal through gevent's loop, and finishes its work."""

from gevent import monkey

monkey.patch_all()
import signal

import gevent
import guest
from gevent.event import Event

guest.module()


@guest.main
def main():
    stopped = Event()
    gevent.signal_handler(signal.SIGTERM, stopped.set)
    gevent.spawn(guest.job(guest.work)).join()
    stopped.wait()
    guest.note("host over")


main()
