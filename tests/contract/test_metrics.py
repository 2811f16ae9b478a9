"""METRICS: what the collector tells of an alias, whatever its backend."""

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from django_tasks_local.contrib.prometheus import METRICS, TaskCollector
from tests.contract.conftest import Bench, finished
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
def test_nothing_is_counted_without_the_option(bench: Bench) -> None:
    """The gauges are there all the same."""
    bench.value(add, 1, 2)
    families = {family.name: family for family in registry(bench).collect()}
    assert families["django_tasks_running"].samples[0].value == 0
    assert not families["django_tasks_enqueued"].samples
