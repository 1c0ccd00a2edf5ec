"""What a person types in the tests of sessions, as short words: a terminal shows each key."""

import atexit
import time

import guest

from cleanup_guard import guard, on_exit


def at_exit():
    atexit.register(guest.note, "callback")
    print("regis" + "tered")


def on_exit_here():
    on_exit(guest.note, "callback")
    print("regis" + "tered")


def snooze(word):
    print(f"{word} sleeps")
    time.sleep(60)


def guarded(word):
    with guard() as g:
        g.callback(guest.note, word)
        snooze(word)


@guard
def decorated(word):
    on_exit(guest.note, word)
    snooze(word)


def alive(word, after=0.0):
    time.sleep(after)
    print(f"{word} lives")


print("be" + "gun")
