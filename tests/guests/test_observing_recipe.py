"""The hooks for observability, with the real libraries: each has got what its page says."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from guests.stage import require
from support import child

pytestmark = [pytest.mark.guests, pytest.mark.one_python]

HOOKS = Path(__file__).parents[2] / "examples" / "observing" / "hooks.py"

WATCHED = """\
import atexit, runpy, sys
import prometheus_client, sentry_sdk
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

spans, events = InMemorySpanExporter(), []
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(provider)
sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", before_send=lambda event, hint: events.append(event))
try: raise LookupError("warm")  # the first report imports much: seconds on a loaded machine
except LookupError as error: sentry_sdk.capture_exception(error)
events.clear()

def tell():
    sample = prometheus_client.REGISTRY.get_sample_value
    print("prometheus", sample("cleanup_callback_seconds_count", {"callback": "unlock"}),
          sample("cleanup_cut_total", {"name": "callback publish"}),
          sample("cleanup_phase_seconds_count", {"phase": "cleaning up"}))
    ended = spans.get_finished_spans()
    stop = next(span for span in ended if span.name == "SIGTERM")
    for span in ended:
        inside = stop.start_time <= span.start_time <= span.end_time <= stop.end_time + 1000
        below = span.parent is not None and span.parent.span_id == stop.context.span_id
        print("opentelemetry", span.name, inside, below, len(span.events))
    print("phases", *stop.attributes)
    for event in events:
        print("sentry", event["exception"]["values"][-1]["value"], flush=True)

atexit.register(tell)
"""


def test_each_library_is_told() -> None:
    """The lines are in structlog, the numbers in Prometheus, spans in OpenTelemetry, the failure in Sentry."""
    require("structlog", "prometheus_client", "opentelemetry", "sentry_sdk")
    code = WATCHED + f"runpy.run_path({str(HOOKS)!r}, run_name='__main__')\n"
    with child(code, preamble="") as started:
        started.signal(signal.SIGTERM)
        ended = started.end()
    text = "\n".join(ended.out)
    assert ended.status == 128 + signal.SIGTERM, ended.err
    assert "SIGTERM received" in text
    assert "callback flush failed: OSError: disk full" in text
    assert "callback publish" in next(line for line in ended.out if "record=StopRecord" in line)
    assert "prometheus 1.0 1.0 1.0" in ended.out
    spans = {line for line in ended.out if line.startswith("opentelemetry")}
    assert spans >= {
        "opentelemetry SIGTERM True False 0",
        "opentelemetry unlock True True 0",
        "opentelemetry flush True True 1",
        "opentelemetry publish True True 1",
    }
    assert "phases stopping unwinding cleaning up" in ended.out
    assert "sentry disk full" in ended.out, ended.err
