"""A program whose handler has one of many shapes: shapes.py SPEC, where SPEC is a `test_shapes.Shape` in JSON.

Its work is in flight when the first signal comes. It notes each call of its handler, and "host over" when its main is done.
"""

import json
import os
import signal
import sys
import time
from signal import signal as install  # an alias, as many programs have it

import guest

spec = json.loads(sys.argv[1])
signum = spec["signum"]
calls = []
previous = None

kill = os.kill
WAYS = {
    "kill": lambda: os.kill(os.getpid(), signum),
    "alias": lambda: kill(os.getpid(), signum),
    "killpg": lambda: os.killpg(os.getpgid(0), signum),
    "raise_signal": lambda: signal.raise_signal(signum),
}


def die():
    """Put the default back, and die of it."""
    install(signum, signal.SIG_DFL)
    WAYS[spec["way"]]()


def act(kind):
    """What a handler does once it has noted the call."""
    if kind == "raises":
        raise RuntimeError("theirs")
    if kind == "exits":
        sys.exit(7)
    if kind == "dies":
        die()
    if kind == "default next":
        install(signum, signal.SIG_DFL)


def handler(signum, frame):
    """The program's own."""
    calls.append(signum)
    guest.note("called", len(calls))
    if spec["first"] == "looks" and signal.getsignal(signum) is not handler:
        guest.note("not installed")
    act(spec["first"] if len(calls) == 1 else spec["second"])
    if spec["composes"] and callable(previous):
        previous(signum, frame)


def take():
    """Install the handler."""
    global previous  # noqa: PLW0603 - a program in one file
    previous = signal.getsignal(signum)
    install(signum, handler)


def work():
    """The piece of work; then the end that the handler asked for."""
    if spec["order"] == "handler last":
        take()
    guest.work()
    while not calls:
        time.sleep(0.005)
    guest.note("host over")
    if spec["first"] == "dies later":
        die()


def main():
    """With the guard where it belongs."""
    if spec["order"] == "handler first":
        take()
    guest.module()
    if guest.AT == "with":
        from cleanup_guard import guard

        with guard() as g:
            guest.note("registered")
            g.callback(guest.note, "callback")
            work()
    else:
        guest.main(work)()
    if spec["first"] == "dies at the end":
        die()


main()
