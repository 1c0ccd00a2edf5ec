"""What happens in a stop, told to structlog, Prometheus, OpenTelemetry and Sentry: a hook of a few lines for each.

A hook gets frozen records, one after the other, in a thread of ours: it may block, and no cleanup waits for it for long.
Take the ones that you need, and put them into `guard(hooks=[...])`. With `log_event` among them the log lines stay.
"""

import time

import sentry_sdk
import structlog
from opentelemetry import trace
from prometheus_client import Counter, Histogram

from cleanup_guard import Event, StopRecord, guard

log = structlog.get_logger("cleanup_guard")
seconds = Histogram("cleanup_callback_seconds", "How long a cleanup callback took", ["callback"])
phases = Histogram("cleanup_phase_seconds", "How long each phase of a stop took", ["phase"])
cut = Counter("cleanup_cut", "Who was cut short by a stop", ["name"])
tracer = trace.get_tracer("cleanup_guard")


def to_structlog(event: Event) -> None:
    more = {"phases": dict(event.phases), "cut": dict(event.cut)} if isinstance(event, StopRecord) else {}
    log.log(event.level, str(event), record=type(event).__name__, **more)


def to_prometheus(event: Event) -> None:
    if isinstance(event, StopRecord):
        for phase, took in event.phases:
            phases.labels(phase).observe(took)
        for callback in event.callbacks:
            seconds.labels(callback.name).observe(callback.seconds)
        for name, _ in event.cut:
            cut.labels(name).inc()


def to_opentelemetry(event: Event) -> None:
    if not isinstance(event, StopRecord):
        return
    begun = int(event.at * 1e9)
    stop = tracer.start_span(event.reason, start_time=begun, attributes=dict(event.phases))
    for callback in event.callbacks:
        began = begun + int(callback.began * 1e9)
        span = tracer.start_span(callback.name, trace.set_span_in_context(stop), start_time=began)
        if callback.error is not None:
            span.record_exception(callback.error)
        span.end(began + int(callback.seconds * 1e9))
    stop.end(begun + int(event.seconds * 1e9))


def to_sentry(event: Event) -> None:
    if (error := event.failure()) is not None:
        sentry_sdk.capture_exception(error)


def flush() -> None:
    raise OSError("disk full")


def main() -> None:
    with guard(grace=10, hooks=[to_structlog, to_prometheus, to_opentelemetry, to_sentry]) as g:
        g.callback(sentry_sdk.flush, 2)  # registered first, so it comes last
        g.options(name="unlock").callback(time.sleep, 0)
        g.options(name="publish", timeout=0.5).callback(time.sleep, 60)
        g.callback(flush)
        print("ready", flush=True)
        time.sleep(3600)


if __name__ == "__main__":
    main()
