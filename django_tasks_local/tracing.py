"""Trace context of OpenTelemetry, from the enqueue of a task to its run, where that is installed.

It travels in the metadata, as W3C writes it. No span is made here: those of instrumentations and of
the task itself have the one that enqueued as their parent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django_tasks_local.metadata import decode, encode, encode_of

if TYPE_CHECKING:
    from django.tasks import Task

try:
    from opentelemetry import context, trace
    from opentelemetry.trace.propagation import tracecontext
except ImportError:
    _propagator: Any = None
else:
    _propagator = tracecontext.TraceContextTextMapPropagator()

# Whether `attach` does anything.
IS_INSTALLED: Final = _propagator is not None
# What begins so is the backend's own: neither shown to tasks nor written by them.
TRACEPARENT: Final = "_traceparent"
TRACESTATE: Final = "_tracestate"
_MARK: Final = f'"{TRACEPARENT}"'.encode()


def encode_traced(task: Task[..., Any]) -> bytes:
    """Return the metadata of a task to be enqueued as JSON, with the trace that is current here.

    A trace that the task's own metadata name stays.

    Raises:
        InvalidTask: The metadata cannot be stored.
    """
    metadata = encode_of(task)
    if (
        not IS_INSTALLED
        or not trace.get_current_span().get_span_context().is_valid
        or _MARK in metadata
    ):
        return metadata
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return encode(decode(metadata) | {f"_{key}": value for key, value in carrier.items()})


def attach(metadata: bytes) -> None:
    """Make the trace in a task's metadata current here, in the context that runs the task.

    Nobody has to detach it: that context ends with the task.
    """
    if _MARK in metadata:
        raw = decode(metadata)
        carrier = {key[1:]: str(raw[key]) for key in (TRACEPARENT, TRACESTATE) if key in raw}
        context.attach(_propagator.extract(carrier))
