"""A program on twisted's reactor, which waits for the work in flight before it goes down."""

import guest
from twisted.internet import defer, reactor, task

guest.module()


def sleep(seconds):
    return task.deferLater(reactor, seconds)


def start():
    done = defer.ensureDeferred(guest.work_async(sleep))
    reactor.addSystemEventTrigger("before", "shutdown", lambda: done)
    reactor.addSystemEventTrigger("after", "shutdown", guest.note, "host over")


@guest.main
def main():
    reactor.callWhenRunning(start)
    reactor.run()


if __name__ == "__main__":
    main()
