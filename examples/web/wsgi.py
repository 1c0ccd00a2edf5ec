"""WSGI under gunicorn, whatever worker: `gunicorn --chdir examples/web wsgi:app`. Flask and Django are WSGI, too.

gunicorn owns the stop: it takes no new connection, finishes the requests in hand, and leaves. `on_exit` runs when it has.
`on_stop` is told at once: a load balancer that asks for /ready sends its requests elsewhere.
"""

import threading
import time
from collections.abc import Callable, Iterable

from cleanup_guard import current_guard, on_exit

on_exit(print, "pool closed", flush=True)
unready = threading.Event()
guard = current_guard()
assert guard is not None
guard.on_stop(unready.set)


def app(environ: dict[str, str], start_response: Callable[..., object]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/ready":
        start_response("503 Service Unavailable" if unready.is_set() else "200 OK", [])
        return []
    print("begun", flush=True)
    time.sleep(1)
    print("ready" if not unready.is_set() else "unready", flush=True)
    print("answered", flush=True)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the whole answer"]
