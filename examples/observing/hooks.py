"""What happens in a stop, told to structlog, Prometheus, OpenTelemetry and Sentry: a hook of a few lines for each.

A hook gets frozen records, one after the other, in a thread of ours: it may block, and no cleanup waits for it for long.
Take the ones that you need, and put them into `guard(hooks=[...])`. With `log_event` among them the log lines stay.
"""

import time

import sentry_sdk
import structlog
from opentelemetry import trace
from prometheus_client import Counter, Histogram

from cleanup_guard import CallbackDone, CallbackFailed, CallbackTimedOut, Event, guard

log = structlog.get_logger("cleanup_guard")
seconds = Histogram("cleanup_callback_seconds", "How long a cleanup callback took", ["callback"])
failed = Counter("cleanup_callbacks_failed", "Cleanup callbacks that failed or were cut", ["callback"])
tracer = trace.get_tracer("cleanup_guard")


def to_structlog(event: Event) -> None:
    log.log(event.level, str(event), record=type(event).__name__)


def to_prometheus(event: Event) -> None:
    if isinstance(event, CallbackDone):
        seconds.labels(event.name).observe(event.seconds)
    elif isinstance(event, (CallbackFailed, CallbackTimedOut)):
        failed.labels(event.name).inc()


def to_opentelemetry(event: Event) -> None:
    if isinstance(event, (CallbackDone, CallbackFailed, CallbackTimedOut)):
        end = time.time_ns()
        span = tracer.start_span(event.name, start_time=end - int(event.seconds * 1e9))
        if (error := event.failure()) is not None:
            span.record_exception(error)
        span.end(end)


def to_sentry(event: Event) -> None:
    if (error := event.failure()) is not None:
        sentry_sdk.capture_exception(error)


def flush() -> None:
    raise OSError("disk full")


def main() -> None:
    with guard(grace=10, hooks=[to_structlog, to_prometheus, to_opentelemetry, to_sentry]) as g:
        g.callback(sentry_sdk.flush, 2)  # registered first, so it comes last
        g.options(name="unlock").callback(time.sleep, 0)
        g.callback(flush)
        print("ready", flush=True)
        time.sleep(3600)


if __name__ == "__main__":
    main()
