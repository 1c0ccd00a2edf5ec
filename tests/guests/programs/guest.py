"""What the programs of this folder share: facts that they note, work that is in flight until a stop was sent, and a guard.

The guard stands where the variable GUARD_AT says: "nowhere", "module" (`on_exit` as the module is imported), "lifespan" (in the
host's startup hook), "job" (on the handler of a job or request) or "main" (around the call that runs the host). Its callback
notes "callback"; before it is registered, "registered" is noted. Each fact is one line: the process, then the words.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import time
from contextlib import asynccontextmanager

AT = os.environ.get("GUARD_AT", "nowhere")
FOLDER = os.environ["GUEST_FOLDER"]
SECONDS = float(os.environ.get("WORK_SECONDS", "0"))
REDIS = os.environ.get("REDIS_URL", "")
ANSWER = b"the whole answer"

FACTS = os.path.join(FOLDER, "facts")
SENT = os.path.join(FOLDER, "sent")
"""The file that is there once the stop has been sent."""


def note(*words: object) -> None:
    """Note a fact, in one write."""
    fd = os.open(FACTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, f"{os.getpid()} {' '.join(map(str, words))}\n".encode())
    finally:
        os.close(fd)


def facts() -> list[str]:
    """What has been noted, without the pids."""
    if not os.path.exists(FACTS):
        return []
    with open(FACTS) as file:
        return [line.rstrip("\n").partition(" ")[2] for line in file]


def was_sent() -> bool:
    """Whether the stop has been sent."""
    return os.path.exists(SENT)


def work() -> bytes:
    """One piece of work: in flight when the stop comes, and for SECONDS after that."""
    note("begins")
    while not was_sent():
        time.sleep(0.02)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        time.sleep(0.02)
    note("ends")
    return ANSWER


async def work_async(sleep=asyncio.sleep) -> bytes:
    """The same in a coroutine; `sleep` is the loop's."""
    note("begins")
    while not was_sent():
        await sleep(0.02)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        await sleep(0.02)
    note("ends")
    return ANSWER


def register() -> None:
    """Register the callback with whatever guard there is."""
    from cleanup_guard import on_exit

    note("registered")
    on_exit(note, "callback")


def module() -> None:
    """Called where a module "knows nothing of the program around it"."""
    if AT == "module":
        register()


@asynccontextmanager
async def lifespan():
    """Around the time in which the host's application is up."""
    if AT != "lifespan":
        yield
        return
    from cleanup_guard import guard

    async with guard() as g:
        g.on_stop(note, "told")
        note("registered")
        g.callback(note, "callback")
        yield


def job(function):
    """Around the handler of a job or a request."""
    return guarded(function) if AT == "job" else function


def main(function):
    """Around the call that runs the host."""
    return guarded(function) if AT == "main" else function


def guarded(function):
    """A function, or a coroutine function, inside a guard with the callback."""
    from cleanup_guard import guard

    if inspect.iscoroutinefunction(function):

        @guard
        @functools.wraps(function)
        async def inside(*args, **kwargs):
            register()
            return await function(*args, **kwargs)

    else:

        @guard
        @functools.wraps(function)
        def inside(*args, **kwargs):
            register()
            return function(*args, **kwargs)

    return inside
