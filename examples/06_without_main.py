"""A drop-in for `atexit.register`. Use it in a module that owns something and knows nothing of the program around it."""

import time

from cleanup_guard import on_exit


@on_exit
def save() -> None:
    print("saved", flush=True)


print("ready", flush=True)
time.sleep(3600)
