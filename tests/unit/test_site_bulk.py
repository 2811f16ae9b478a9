"""A site process's part in tasks that it enqueues together."""

import signal
from typing import Any

import pytest

from django_tasks_local.exceptions import StoreUnavailable
from tests.unit.test_site import Make, make, started

__all__ = ["make", "started"]

NOOP = b"tests.tasks:noop"


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
        site.enqueue_many(NOOP, [site.encode(((), {}))] * 3, priority=0, due_ns=0)
    site.tick()
    assert site.ring.counts().waiting == 0
    monkeypatch.setattr(bulk, "_settle", settle)
    site.tick()
    assert site.ring.counts().waiting == 3
    assert site.ring.upkeep.check() == []


def test_a_time_limit_when_they_were_stored(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its signal's handler raises is not taken for a fault of ours."""

    def over(*args: object) -> None:
        raise TimeoutError

    site = make()
    monkeypatch.setattr(site, "_look_for_pool", lambda _: signal.raise_signal(signal.SIGUSR2))
    before = signal.signal(signal.SIGUSR2, over)
    try:
        with pytest.raises(TimeoutError):
            site.enqueue_many(NOOP, [site.encode(((), {}))] * 3, priority=0, due_ns=0)
    finally:
        signal.signal(signal.SIGUSR2, before)
