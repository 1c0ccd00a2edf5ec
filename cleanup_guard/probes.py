"""Whether the program is alive and ready, for probes by HTTP: small applications to put into a server that is there anyway.

    app.mount("/health", probes.asgi())                              # Starlette, FastAPI
    DispatcherMiddleware(app, {"/health": probes.wsgi()})            # Flask, any WSGI server

A path that ends with `/live` is answered with 200 as long as the process answers at all, also while it cleans up: who is
restarted in the middle of that loses what he was cleaning up. Every other path is answered with 200 while the program is ready
(`Guard.ready`), else with 503 and what it does instead: it is starting, draining, stopping.
"""

from __future__ import annotations

from cleanup_guard._guard.on_exit import current_guard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from typing import Any

    from cleanup_guard._guard.guard import Guard

    Send = Callable[[dict[str, Any]], Awaitable[None]]
    ASGIApplication = Callable[[Mapping[str, Any], Any, Send], Awaitable[None]]
    StartResponse = Callable[[str, list[tuple[str, str]]], object]
    WSGIApplication = Callable[[Mapping[str, Any], StartResponse], Iterable[bytes]]


def asgi(guard: Guard | None = None) -> ASGIApplication:
    """An ASGI application that answers probes.

    Args:
        guard: whose readiness it is; None for the guard in force when a probe comes.
    """

    async def application(scope: Mapping[str, Any], receive: Any, send: Send) -> None:  # noqa: ARG001
        if scope["type"] != "http":
            raise NotImplementedError(f"probes answer HTTP, not {scope['type']}")
        status, text = answer(scope["path"], guard)
        headers = [(name.encode(), value.encode()) for name, value in _headers(text)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text.encode()})

    return application


def wsgi(guard: Guard | None = None) -> WSGIApplication:
    """A WSGI application that answers probes.

    Args:
        guard: whose readiness it is; None for the guard in force when a probe comes.
    """

    def application(environ: Mapping[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        status, text = answer(environ.get("PATH_INFO", ""), guard)
        reason = {200: "OK", 503: "Service Unavailable"}[status]
        start_response(f"{status} {reason}", _headers(text))
        return [text.encode()]

    return application


def answer(path: str, guard: Guard | None = None) -> tuple[int, str]:
    """What a probe is answered, for servers of another kind: the status, and a word.

    Args:
        path: what is asked for: `/live`, or anything else for readiness.
        guard: whose readiness it is; None for the guard in force.
    """
    if path.rstrip("/").endswith("/live"):
        return 200, "alive"
    asked = current_guard() if guard is None else guard
    if asked is None:
        return 503, "starting"
    if asked.is_ready:
        return 200, "ready"
    return 503, "starting" if asked.state in ("new", "running") else asked.state


def _headers(text: str) -> list[tuple[str, str]]:
    return [
        ("content-type", "text/plain; charset=utf-8"),
        ("content-length", str(len(text.encode()))),
        ("cache-control", "no-store"),
    ]
