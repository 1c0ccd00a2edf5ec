"""Greenlets under a guard: greenlets.py LIBRARY WHEN, where WHEN tells whether its patch is first or last, after our import."""

import sys

library, when = sys.argv[1:]
if when == "last":
    import cleanup_guard  # noqa: F401
if library == "gevent":
    from gevent import monkey

    monkey.patch_all()
    import gevent as green
else:
    import eventlet as green

    green.monkey_patch()

import time

import guest


def work(number):
    try:
        while True:
            time.sleep(0.02)
    finally:
        guest.note("worker", number, "unwound")


def end(workers):
    for worker in workers:
        worker.kill()
    green.sleep(0.1)
    guest.note("workers ended")


def main():
    workers = [green.spawn(work, number) for number in range(2)]
    if guest.AT != "nowhere":
        from cleanup_guard import on_exit

        guest.register()
        on_exit(end, workers)
    green.sleep(0.1)  # they have begun
    guest.note("begins")
    while True:
        green.sleep(0.02)


guest.module()
guest.main(main)()
