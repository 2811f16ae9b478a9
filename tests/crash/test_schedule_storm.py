"""A schedule under fire: web workers, pool and workers are killed at random moments."""

import json
import os
import random
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest
from django.tasks import TaskResultStatus

from django_tasks_local import ProcessPoolBackend
from django_tasks_local.ring import Role
from tests.process.client import Client, reading, serving
from tests.process.test_schedule import every_second, times, wait_for_times
from tests.support import kill, wait_for

FIRE_S: Final = float(os.environ.get("DTL_CHAOS_S", "15"))
PAUSE_S: Final = (0.2, 2.0)
OPTIONS: Final = {"MAX_WORKERS": 2, "MAX_RESULTS": 1000}


def fired(backend: ProcessPoolBackend) -> list[int]:
    """The times, in Unix seconds, for which there is a record, in order."""
    metadata = (json.loads(each.metadata) for each in backend.listed(list(TaskResultStatus), None))
    moments = (datetime.fromisoformat(each["_scheduled_for"]) for each in metadata)
    return sorted(int(moment.timestamp()) for moment in moments)


def fire_at_will(client: Client, backend: ProcessPoolBackend) -> list[float]:
    """Kill processes for a while, and return when a pool was among them."""
    rng, pools, end = random.Random(7), [], time.time() + FIRE_S
    while time.time() < end:
        until = time.time() + rng.uniform(*PAUSE_S)
        wait_for(lambda: time.time() > until)  # noqa: B023
        attached = [entry for entry in backend.site().ring.registry.attachments() if entry.alive]
        targets = {
            "web": client.site.worker_pids(),
            "pool": [entry.pid for entry in attached if entry.role is Role.POOL],
            "worker": [entry.pid for entry in attached if entry.role is Role.WORKER],
        }
        kind = rng.choice(["web", "web", "worker", "worker", "pool"])
        if targets[kind]:
            if kind == "pool":
                pools.append(time.time())
            kill(rng.choice(targets[kind]))
    return pools


@pytest.mark.time_limit(180 + 2 * FIRE_S)
def test_no_time_fires_twice(tmp_path: Path) -> None:
    """And it goes on firing.

    Which times are left out depends on how soon a new pool is there: they are printed.
    """
    path = tmp_path / "times"
    options = every_second(path) | OPTIONS
    with serving(workers=4, options=options, ready_path=None) as client:
        wait_for_times(path, 2)
        with reading(client.namespace, **OPTIONS) as backend:
            pools = fire_at_will(client, backend)
            ran = wait_for_times(path, len(times(path)) + 3)
            found = fired(backend)
    assert len(found) == len(set(found))
    assert len(ran) == len(set(ran))
    assert set(ran) <= set(found)
    assert pools
    gaps = [(before, after) for before, after in pairwise(found) if after - before > 1]
    unexplained = [
        (before, after)
        for before, after in gaps
        if not any(before <= killed <= after for killed in pools)
    ]
    print(f"{len(found)} times, {len(gaps)} gaps, {len(unexplained)} of them without a killed pool")
