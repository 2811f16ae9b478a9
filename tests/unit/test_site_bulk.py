"""A site process's part in tasks that it enqueues together."""

from typing import Any

import pytest

from django_tasks_local.exceptions import StoreUnavailable
from tests.unit.test_site import Make, make, started

__all__ = ["make", "started"]


def test_the_tick_settles_a_batch_that_was_interrupted(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tasks were accepted, and must not wait for the end of this process."""
    site = make()
    bulk: Any = site.ring.bulk
    settle = bulk._settle

    def fail(batch: Any) -> None:
        raise StoreUnavailable("somebody is frozen")

    monkeypatch.setattr(bulk, "_settle", fail)
    with pytest.raises(StoreUnavailable):
        site.enqueue_many(b"tests.tasks:noop", [site.encode(((), {}))] * 3, priority=0, due_ns=0)
    site.tick()
    assert site.ring.counts().waiting == 0
    monkeypatch.setattr(bulk, "_settle", settle)
    site.tick()
    assert site.ring.counts().waiting == 3
    assert site.ring.upkeep.check() == []
