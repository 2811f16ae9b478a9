"""Metrics for Prometheus: a collector for `prometheus_client`, and a view (extra ``prometheus``).

Any web process answers for the host: the counters of a ProcessPoolBackend are in its ring, and a
scrape reads them there, without the lock and without attaching. Those of a ThreadPoolBackend are of
the process that answers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.tasks import task_backends
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from django_tasks_local.backends.counting import CountingStore
from django_tasks_local.backends.thread import ThreadPoolBackend
from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import BOUNDS_S, Tally

if TYPE_CHECKING:
    from django_tasks_local.backends.process import ProcessPoolBackend

logger = logging.getLogger("django_tasks_local")

# The labels of tasks that have no tally of their own.
OTHERS: Final = "(other)"
_LABELS: Final = ("alias", "queue", "task")
# By name: type, labels, help. The reference page and the dashboard are compared with this table.
METRICS: Final = {
    "django_tasks_up": ("gauge", ("alias",), "1 if the tasks of the alias can be seen, else 0."),
    "django_tasks_waiting": ("gauge", ("alias",), "Tasks that are due and wait for a worker."),
    "django_tasks_deferred": ("gauge", ("alias",), "Tasks that are not due yet."),
    "django_tasks_running": ("gauge", ("alias",), "Tasks that run."),
    "django_tasks_workers": ("gauge", ("alias",), "Worker processes, or threads."),
    "django_tasks_kept_results": ("gauge", ("alias",), "Finished results that are kept."),
    "django_tasks_memory_bytes": ("gauge", ("alias",), "Shared memory that is reserved."),
    "django_tasks_memory_limit_bytes": ("gauge", ("alias",), "SHM_SIZE."),
    "django_tasks_evicted_total": (
        "counter", ("alias",), "Results that made room for others before they expired.",
    ),
    "django_tasks_expired_total": (
        "counter", ("alias",), "Results that were dropped because they had expired.",
    ),
    "django_tasks_enqueued_total": ("counter", _LABELS, "Tasks that were accepted."),
    "django_tasks_started_total": ("counter", _LABELS, "Attempts that have started."),
    "django_tasks_retried_total": ("counter", _LABELS, "Attempts that were followed by another."),
    "django_tasks_finished_total": (
        "counter", (*_LABELS, "outcome"),
        "Tasks that have ended: successful, failed, lost, timeout or cancelled.",
    ),
    "django_tasks_queue_seconds": (
        "histogram", _LABELS, "How long attempts had waited, once they were due, for their start.",
    ),
    "django_tasks_run_seconds": ("histogram", _LABELS, "How long attempts ran, however they end."),
}  # fmt: skip


class _Seen(NamedTuple):
    """What a look at one alias has found: numbers by metric, and tallies."""

    numbers: dict[str, int]
    tallies: list[Tally]


class TaskCollector(Collector):
    """Collects the metrics of the task backends of this project at each scrape.

    Register it with `prometheus_client`'s ``REGISTRY``, or another registry. It starts nothing,
    makes no ring, and holds no lock of one.

    Args:
        aliases: Keys in ``TASKS``; all backends of this package by default.
    """

    def __init__(self, aliases: Iterable[str] | None = None) -> None:
        self._aliases = None if aliases is None else [*aliases]

    def describe(self) -> list[Metric]:
        """Return nothing: registering the collector must not look for rings."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        families = {name: _family(name) for name in METRICS}
        for alias in [*task_backends] if self._aliases is None else self._aliases:
            if (seen := _look_at(alias)) is not None:
                for name, number in seen.numbers.items():
                    families[name].add_metric([alias], number)
                for tally in seen.tallies:
                    _add(families, alias, tally)
        yield from families.values()


def metrics(request: HttpRequest) -> HttpResponse:
    """Answer a scrape with the metrics of tasks, and of nothing else.

    A view that is not routed by default. It tells names of tasks and how busy the site is: let only
    the monitor reach it.
    """
    registry = CollectorRegistry()
    registry.register(TaskCollector())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def _look_at(alias: str) -> _Seen | None:
    """Return what is to be seen of an alias, ``None`` where another package's backend has it."""
    try:
        backend: Any = task_backends[alias]
        if isinstance(backend, ThreadPoolBackend):
            return _look_at_threads(backend)
        if getattr(backend, "kind", None) == "process" and hasattr(backend, "spec"):
            return _look_at_ring(backend)
    except (StoreUnavailable, ImproperlyConfigured) as error:
        logger.error("alias=%s its metrics cannot be collected: %s", alias, error)
        return _Seen({"django_tasks_up": 0}, [])
    return None


def _look_at_ring(backend: ProcessPoolBackend) -> _Seen:
    # Not at the top: threads are to be seen without posix_ipc, too.
    from django_tasks_local.ring import Look, Role

    look = Look.into(backend.spec().name, backend.alias)
    if look is None:  # nothing has ever been enqueued
        return _Seen({"django_tasks_up": 1}, [])
    counts, tallies = look.counts(), look.tallies()
    workers = [entry for entry in look.attached() if entry.role is Role.WORKER]
    numbers = {
        "django_tasks_up": 1,
        "django_tasks_waiting": counts.waiting,
        "django_tasks_deferred": counts.deferred,
        "django_tasks_running": counts.running,
        "django_tasks_workers": len(workers),
        "django_tasks_kept_results": counts.kept,
        "django_tasks_memory_bytes": counts.reserved_bytes,
        "django_tasks_memory_limit_bytes": counts.segment_bytes,
        "django_tasks_evicted_total": counts.evicted,
        "django_tasks_expired_total": counts.expired,
    }
    return _Seen(numbers, tallies)


def _look_at_threads(backend: ThreadPoolBackend) -> _Seen:
    store = backend.opened_store()
    if store is None:
        return _Seen({"django_tasks_up": 1}, [])
    deferred = store.deferred
    numbers = {
        "django_tasks_up": 1,
        "django_tasks_waiting": max(0, store.waiting - deferred),
        "django_tasks_deferred": deferred,
        "django_tasks_running": store.running,
        "django_tasks_workers": store.running + store.idle,
    }
    return _Seen(numbers, store.tallies() if isinstance(store, CountingStore) else [])


def _family(name: str) -> Any:
    kind, labels, text = METRICS[name]
    if kind == "counter":
        return CounterMetricFamily(name, text, labels=labels)
    if kind == "histogram":
        return HistogramMetricFamily(name, text, labels=labels)
    return GaugeMetricFamily(name, text, labels=labels)


def _add(families: dict[str, Any], alias: str, tally: Tally) -> None:
    if not tally.enqueued:
        return
    labels = [alias, tally.queue or OTHERS, tally.task or OTHERS]
    ran = {outcome: sum(counts) for outcome, counts in tally.ran.items()}
    retried = ran.pop("retried")
    ran["cancelled"] += tally.taken_out
    for name, number in (
        ("enqueued", tally.enqueued), ("started", sum(tally.waited)), ("retried", retried),
    ):  # fmt: skip
        families[f"django_tasks_{name}_total"].add_metric(labels, number)
    for outcome, number in ran.items():
        families["django_tasks_finished_total"].add_metric([*labels, outcome], number)
    all_ran = [sum(counts) for counts in zip(*tally.ran.values(), strict=True)]
    for name, counts, total_ns in (
        ("queue", tally.waited, tally.waited_ns), ("run", all_ran, tally.ran_ns),
    ):  # fmt: skip
        bounds = [*map(str, map(float, BOUNDS_S)), "+Inf"]
        buckets = list(zip(bounds, accumulate(counts), strict=True))
        families[f"django_tasks_{name}_seconds"].add_metric(labels, buckets, total_ns / 1e9)
