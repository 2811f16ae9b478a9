"""METRICS: what the collector tells of an alias, whatever its backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.tasks import Task
from django.test import override_settings
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from django_tasks_local import enqueue_many
from django_tasks_local.contrib.prometheus import METRICS, TaskCollector
from tests.contract.conftest import Bench, finished
from tests.retried_tasks import third_time
from tests.stopped_tasks import ask_beyond_its_limit, ask_until_cancelled
from tests.support import wait_for
from tests.tasks import add, fail


def registry(bench: Bench) -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(TaskCollector([bench.alias]))
    return made


def test_what_is_counted(bench: Bench) -> None:
    """Tasks by name and queue, attempts, outcomes and times; gauges of what is there now."""
    bench.configure(MAX_WORKERS=1, METRICS=True)
    seen = registry(bench)

    def value(name: str, task: str = "", **labels: str) -> float | None:
        if task:
            labels |= {"task": f"tests.tasks.{task}", "queue": "default"}
        return seen.get_sample_value(f"django_tasks_{name}", {"alias": bench.alias, **labels})

    assert value("up") == 1
    assert value("waiting") is None
    assert bench.value(add, 1, 2) == 3
    bench.run(fail)
    release = bench.occupy()
    waiting = [bench.enqueue(add, 1, 2), bench.enqueue(add, 3, 4)]
    assert (value("waiting"), value("running"), value("deferred")) == (2, 1, 0)
    assert value("workers") == 1
    assert waiting[0].cancel()
    release()
    finished(waiting[1])
    wait_for(lambda: value("running") == 0)
    assert value("enqueued_total", "add") == 3
    assert value("started_total", "add") == value("queue_seconds_count", "add") == 2
    outcomes = {
        outcome: value("finished_total", "add", outcome=outcome)
        for outcome in ("successful", "failed", "lost", "timeout", "cancelled")
    }
    assert outcomes == {"successful": 2, "failed": 0, "lost": 0, "timeout": 0, "cancelled": 1}
    assert value("finished_total", "fail", outcome="failed") == 1
    assert value("retried_total", "fail") == 0
    assert value("run_seconds_bucket", "add", le="+Inf") == value("run_seconds_count", "add") == 2
    assert value("queue_seconds_sum", "add")
    assert value("run_seconds_sum", "add")
    compare_with_table(bench)


def test_attempts_and_stops(bench: Bench, tmp_path: Path) -> None:
    """Each attempt is counted by how it ended; a wait begins again with each."""
    bench.configure(MAX_WORKERS=1, METRICS=True, TIMEOUT_GRACE=1)
    seen = registry(bench)

    def counts(task: Task[..., Any]) -> dict[str, float | None]:
        labels = {"alias": bench.alias, "queue": "default", "task": task.module_path}
        found = {
            outcome: seen.get_sample_value(
                "django_tasks_finished_total", {**labels, "outcome": outcome}
            )
            for outcome in ("successful", "timeout", "cancelled")
        }
        for name in ("enqueued_total", "started_total", "retried_total", "run_seconds_count"):
            found[name] = seen.get_sample_value(f"django_tasks_{name}", labels)
        return {name: value for name, value in found.items() if value}

    assert bench.run(third_time, str(tmp_path / "notes")).return_value == "done"
    bench.run(ask_beyond_its_limit, str(tmp_path / "asked"))
    result = bench.enqueue(ask_until_cancelled, str(tmp_path / "cancelled"))
    wait_for((tmp_path / "cancelled.running").exists)
    assert result.cancel()
    finished(result)
    once = {"enqueued_total": 1, "started_total": 1, "run_seconds_count": 1}
    assert counts(third_time) == {
        "successful": 1, "enqueued_total": 1, "started_total": 3, "retried_total": 2,
        "run_seconds_count": 3,
    }  # fmt: skip
    assert counts(ask_beyond_its_limit) == {"timeout": 1, **once}
    assert counts(ask_until_cancelled) == {"cancelled": 1, **once}


def test_tasks_that_are_enqueued_together(bench: Bench) -> None:
    """Each of them counts."""
    bench.configure(MAX_WORKERS=1, METRICS=True)
    for result in enqueue_many(bench.on(add), [((n, n), {}) for n in range(3)]):
        finished(result)
    labels = {"alias": bench.alias, "queue": "default", "task": add.module_path}
    for name in ("enqueued_total", "started_total", "run_seconds_count"):
        assert registry(bench).get_sample_value(f"django_tasks_{name}", labels) == 3


def compare_with_table(bench: Bench) -> None:
    """Types and labels are those that the reference shows."""
    for family in TaskCollector([bench.alias]).collect():
        kind, labels, text = METRICS[full_name(family)]
        assert (family.type, family.documentation) == (kind, text)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(labels)


def full_name(family: Metric) -> str:
    """The name in the table."""
    return f"{family.name}_total" if family.type == "counter" else family.name


@pytest.mark.parametrize("bench", ["thread"], indirect=True)
def test_a_backend_that_cannot_be_imported(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """It is down by name, and the others are told of."""
    aliases = {bench.alias: settings.TASKS[bench.alias], "gone": {"BACKEND": "no.such.Backend"}}
    with override_settings(TASKS=aliases):
        up = next(iter(TaskCollector().collect()))
    assert {each.labels["alias"]: each.value for each in up.samples} == {bench.alias: 1, "gone": 0}
    assert "alias=gone its metrics cannot be collected" in caplog.text


@pytest.mark.parametrize("bench", ["thread"], indirect=True)
def test_nothing_is_counted_without_the_option(bench: Bench) -> None:
    """The gauges are there all the same."""
    bench.value(add, 1, 2)
    families = {family.name: family for family in registry(bench).collect()}
    assert families["django_tasks_running"].samples[0].value == 0
    assert not families["django_tasks_enqueued"].samples
