"""A trace that is current where a task is enqueued goes on where it runs."""

import subprocess
import sys
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from django_tasks_local import enqueue_many, with_metadata
from tests.contract.conftest import INLINE_TOO, Bench, finished
from tests.support import LONG_TIMEOUT
from tests.tasks import parent_of_a_span

IDS = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
TRACEPARENT = f"00-{IDS[0]}-{IDS[1]}-01"
SPAN = NonRecordingSpan(
    SpanContext(
        int(IDS[0], 16), int(IDS[1], 16), is_remote=False,
        trace_flags=TraceFlags(TraceFlags.SAMPLED), trace_state=TraceState([("vendor", "v")]),
    )
)  # fmt: skip
# What a process does in which there is no OpenTelemetry, as far as it can tell.
WITHOUT = """
import sys

sys.modules["opentelemetry"] = None
from django.conf import settings

settings.configure()
from django_tasks_local import tracing
from django_tasks_local.backends import thread

assert not tracing.IS_INSTALLED
assert not [name for name in sys.modules if name.startswith("opentelemetry.")]
"""


@INLINE_TOO
def test_a_trace_goes_on_in_the_task(bench: Bench) -> None:
    """However it is enqueued; a task that is enqueued outside of any has none."""
    with trace.use_span(SPAN):
        result = bench.enqueue(parent_of_a_span)
        (together,) = enqueue_many(bench.on(parent_of_a_span), [((), {})])
        noted = with_metadata(bench.on(parent_of_a_span), {"a": 1}).enqueue()
    without = bench.enqueue(parent_of_a_span)
    results: list[Any] = [result, together, noted]
    for each in results:
        assert finished(each).return_value == IDS
        assert each.raw_metadata["_traceparent"] == TRACEPARENT
        assert each.raw_metadata["_tracestate"] == "vendor=v"
    assert noted.metadata == {"a": 1}
    assert finished(without).return_value is None
    assert without.raw_metadata == {}


@INLINE_TOO
def test_what_the_metadata_say_counts(bench: Bench) -> None:
    """A trace that its caller names for the task; nonsense there is no trace."""
    task = with_metadata(bench.on(parent_of_a_span), {"_traceparent": TRACEPARENT})
    broken = with_metadata(bench.on(parent_of_a_span), {"_traceparent": "nonsense"})
    assert finished(task.enqueue()).return_value == IDS
    assert finished(broken.enqueue()).return_value is None


def test_nothing_is_imported_that_is_not_installed() -> None:
    """Backends work without it."""
    subprocess.run([sys.executable, "-c", WITHOUT], check=True, timeout=LONG_TIMEOUT)
