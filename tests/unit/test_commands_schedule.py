"""`local_tasks schedule`: what it prints, and a run by hand."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.management import CommandError
from django.tasks import task, task_backends
from django.test import override_settings

from django_tasks_local.ring import Due, Ring, ring_exists
from tests.settings import TASKS
from tests.support import wait_for
from tests.unit.test_commands import PROCESS, run
from tests.unit.test_site import watchers


@task(backend="process")
def job(*args: object) -> None:
    """A periodic task."""


SCHEDULE = {
    "nightly": {"task": f"{__name__}.job", "cron": "15 3 * * *", "timezone": "Europe/Berlin"},
    "ping": {"task": f"{__name__}.job", "every": 30, "args": [1]},
}


@pytest.fixture
def scheduled(namespace: str) -> Iterator[Any]:
    """Settings with a process backend that has a schedule."""
    options = {"NAMESPACE": namespace, "SCHEDULE": SCHEDULE}
    with override_settings(TASKS=TASKS | {"process": {"BACKEND": PROCESS, "OPTIONS": options}}):
        backend: Any = task_backends["process"]
        yield backend
        backend.close()
    wait_for(lambda: watchers() == 0, message="the end of the site's thread")


def test_a_schedule_before_any_pool(scheduled: Any) -> None:
    """The next times are known, and no ring is made."""
    facts = json.loads(run("schedule", "--json"))["process"]
    assert list(facts) == ["nightly", "ping"]
    assert facts["nightly"]["when"] == "15 3 * * * Europe/Berlin"
    assert "T03:15:00+0" in facts["nightly"]["next"]
    assert facts["ping"]["when"] == "every 30 s"
    assert (facts["ping"]["last"], facts["ping"]["begun"]) == (None, False)
    assert "no pool has served it yet" in run("schedule")
    assert not ring_exists(scheduled.spec().name)


def test_a_schedule_that_has_run(scheduled: Any) -> None:
    """The last time, what came of it, and what was skipped."""
    ring, (_, ping) = scheduled.site().ring, scheduled.checked_options.schedule.entries
    ring.firing.adopt([(ping.key, ping.timing_key)], 10**18)
    for number in range(3):
        due = Due(ring.firing.rows()[ping.key], 10**18 + number + 1, overlap=False)
        meta, arguments = b"tests.tasks:nothing", ring.encode(((), {}))
        ring.firing.fire(due, meta, arguments, priority=0, time_limit=0, metadata=b"{}")
    facts = json.loads(run("schedule", "--json"))["process"]["ping"]
    assert facts["last"] == "2001-09-09T03:46:40+02:00"
    assert (facts["outcome"], facts["skipped"], facts["begun"]) == ("READY", 2, True)
    assert scheduled.get_result(facts["id"]).status == "READY"
    assert "last 2001-09-09T03:46:40+02:00 READY   skipped 2" in run("schedule")


def test_an_entry_is_run_by_hand(scheduled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is enqueued with its arguments, and its times stay as they are."""
    monkeypatch.setattr(scheduled.site(), "_start_pool", lambda: None)
    result_id = run("schedule", "--run", "ping").strip()
    result = scheduled.get_result(result_id)
    assert (result.status, result.args) == ("READY", [1])
    assert scheduled.site().ring.firing.rows() == {}
    with pytest.raises(CommandError, match="entry 'pong'; there are nightly, ping"):
        run("schedule", "--run", "pong")


def test_no_schedule(site_ring: Callable[[], Ring]) -> None:
    """Nothing to show, and nothing to run."""
    assert "no SCHEDULE" in run("schedule")
    with pytest.raises(CommandError, match="there are none"):
        run("schedule", "--run", "pong")
