"""A site process's side of the pool: what it starts, and what it says."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_tasks_local import under_test
from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.pool import launcher, project, slow_start, starts, temporary
from django_tasks_local.pool import site as module
from django_tasks_local.pool.site import BURST_NS, Site
from django_tasks_local.pool.spec import PoolSpec
from django_tasks_local.pool.temporary import remove
from django_tasks_local.ring import Ring, Role, ring_exists
from django_tasks_local.schedules import EMPTY, Schedule
from tests.rings import LIMITS, Rings
from tests.support import wait_for

type Make = Callable[..., Site]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Instead of starting pools: what each would have been told."""
    calls: list[Any] = []
    monkeypatch.setattr(starts, "start_pool", lambda ring, preparation: calls.append(preparation))
    return calls


@pytest.fixture
def make(rings: Rings, started: list[Any], wake: Event) -> Iterator[Make]:
    """Makes sites of a ring of the test's own."""
    wait_for(lambda: watchers() == 0, message="the end of other tests' sites")
    made: list[Site] = []

    def site(*, temporary: bool = False, schedule: Schedule = EMPTY, **more: Any) -> Site:
        spec = PoolSpec(rings.name, "alias", LIMITS, "namespace", temporary, schedule)
        made.append(Site(spec, **more))
        return made[-1]

    yield site
    for each in made:
        each.close()
    wake.set()
    wait_for(lambda: watchers() == 0, message="the end of the sites' threads")


def watchers() -> int:
    """How many sites of this process look after their rings."""
    return sum(thread.name == "django-tasks-local" for thread in threading.enumerate())


def enqueue(site: Site, due_ns: int = 0) -> str:
    """One task."""
    meta = b"tests.tasks:nothing"
    return site.enqueue(meta, site.encode(((), {})), priority=0, due_ns=due_ns)[0]


def finish_all(ring: Ring) -> None:
    """Runs what waits."""
    while (claim := ring.claim()) is not None:
        ring.finish(claim, successful=True, outcome=ring.encode(None))


def role(site: Site) -> Role:
    """What it is to the ring right now."""
    index = site.ring.registry.index
    return next(e.role for e in site.ring.registry.attachments() if e.index == index)


@pytest.mark.parametrize("error", [ValueError("embedded null byte"), RuntimeError("no memory")])
def test_whatever_fails_after_a_task_was_stored(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    """Its caller gets its id, and the log says what failed."""

    def fail(*args: Any) -> None:
        raise error

    monkeypatch.setattr(starts, "start_pool", fail)
    site = make()
    assert site.get(enqueue(site)).status.name == "READY"
    assert str(error) in caplog.text


def test_who_only_reads_starts_nothing(make: Make, started: list[Any]) -> None:
    """A visitor has no thread, and keeps no pool alive; the first enqueue makes it a site."""
    site = make()
    assert role(site) is Role.VISITOR
    assert watchers() == 0
    result_id = enqueue(site)
    assert role(site) is Role.SITE
    assert len(started) == 1
    assert site.get(result_id).status == "READY"


def test_pools_are_started_with_pauses(make: Make, started: list[Any]) -> None:
    """Ten enqueues without a pool start one, not ten."""
    site = make()
    for _ in range(10):
        enqueue(site)
    assert len(started) == 1


def test_a_new_site_tries_again_at_once(make: Make, started: list[Any]) -> None:
    """It may bring the code that the last pool could not start without."""
    first = make()
    for _ in range(2):
        enqueue(first)
    assert len(started) == 1
    second = make()
    second.serve()
    second.tick()
    assert len(started) == 2


def test_a_descriptor_that_was_closed(
    make: Make, started: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The ring is the same as before, and what a script has to wait for as well."""
    site = make()
    result_id = enqueue(site)
    own = site._own
    before = site.ring
    os.close(before.segment.fd)
    site.tick()
    assert site.ring is not before
    assert site._own is own
    assert site.get(result_id).status == "READY"
    assert role(site) is Role.SITE
    assert "closed its descriptor" in caplog.text
    assert "removed" not in caplog.text


def test_a_burst_looks_for_the_pool_now_and_then(
    make: Make, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for each task; each where there is none, and when somebody has set the clock back."""
    site = make()
    enqueue(site)
    assert len(started) == 1  # none is there
    alive, looks = True, []

    def pool_alive(leadership: object) -> bool:
        looks.append(leadership)
        return alive

    def looked(now_ns: int) -> bool:
        looks.clear()
        monkeypatch.setattr(site.ring, "put", lambda *args, **kwargs: (0, 0, now_ns))
        enqueue(site)
        return bool(looks)

    monkeypatch.setattr(type(site.ring.leadership), "pool_alive", pool_alive)
    start_ns = time.time_ns()
    offsets = 0, 1, BURST_NS - 1, BURST_NS, BURST_NS + 1, -1
    assert [looked(start_ns + offset) for offset in offsets] == [1, 0, 0, 1, 0, 1]
    alive = False
    assert [looked(start_ns + BURST_NS * 2 + offset) for offset in (0, 1)] == [1, 1]


def test_a_task_for_later_needs_no_pool_yet(make: Make, started: list[Any]) -> None:
    """The thread starts one when it falls due."""
    site = make()
    enqueue(site, due_ns=2**62)
    site.tick()
    assert started == []


def test_a_tick_starts_what_is_missing(make: Make, started: list[Any]) -> None:
    """Waiting work without a pool, whoever enqueued it."""
    site = make()
    site.serve()
    site.tick()
    assert started == []
    site.ring.enqueue(b"tests.tasks:nothing", site.encode(((), {})), priority=0, due_ns=0)
    site.tick()
    assert len(started) == 1


def test_a_guest_keeps_nothing_alive(make: Make, started: list[Any]) -> None:
    """A worker that enqueues elsewhere starts that pool, but is no site of it."""
    site = make(guest=True)
    enqueue(site)
    assert role(site) is Role.VISITOR
    assert len(started) == 1
    assert watchers() == 0


def test_a_test_runs_ring_goes_with_it(make: Make, rings: Rings) -> None:
    """A temporary ring is removed when its site has left, and nothing makes it again."""
    site = make(temporary=True)
    enqueue(site)
    site.end()
    site.tick()
    remove(Ring(rings.name, "alias", LIMITS, Role.VISITOR))
    assert site.ring.segment.unlinked()
    assert not ring_exists(rings.name)


def test_a_process_that_outlives_its_test_run(
    rings: Rings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The end of a test run waits for its processes, with a limit, and names who is left."""
    ring = Ring(rings.name, "alias", LIMITS, Role.SITE, temporary=True)
    worker = rings.peer(role=Role.WORKER)
    monkeypatch.setattr(temporary, "LIMIT_S", 0.05)
    remove(ring)
    assert f"of the test run have not ended: {worker.pid}." in caplog.text


def test_what_is_wrong_is_logged(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A pool that cannot be started or ended badly is an error in the log, not for the caller."""

    def fail(ring: Ring, preparation: Any) -> None:
        raise StoreUnavailable("settings.ODD cannot be pickled")

    monkeypatch.setattr(starts, "start_pool", fail)
    site = make()
    enqueue(site)
    assert "no pool can be started: settings.ODD" in caplog.text
    monkeypatch.setattr(module, "started", {4711: "alias", 4712: "alias"})
    ended = [(4711, "alias", 1), (4712, "alias", 0), (4713, "alias", -9)]
    monkeypatch.setattr(launcher, "collect_ended_pools", lambda: ended)
    site.tick()
    assert "the pool (pid 4711) ended with status 1" in caplog.text
    assert "the pool (pid 4713) was killed by signal 9 (Killed)" in caplog.text
    assert "4712" not in caplog.text


def test_a_pool_that_imports_for_long_is_warned_of(
    make: Make, rings: Rings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, with its pid; one that has come to its end waits for its predecessor."""
    monkeypatch.setattr(slow_start, "SLOW_START_S", 0.0)
    site = make()
    enqueue(site)
    ours = site.ring.attachment
    pool = rings.peer(role=Role.POOL, path=ours.path, digest=ours.digest)
    pool.do(take_successor)
    for _ in range(3):
        site.tick()
    assert caplog.text.count(f"the pool (pid {pool.pid}) has been importing") == 1


def take_successor(mine: Any) -> None:
    """A pool on its way."""
    assert mine.ring.leadership.take_successor()


def test_settings_elsewhere_are_warned_of(
    make: Make, rings: Rings, caplog: pytest.LogCaptureFixture
) -> None:
    """Two checkouts with one key: it names NAMESPACE."""
    other = Ring(rings.name, "alias", LIMITS, Role.SITE, path="/elsewhere/settings.py")
    with caplog.at_level(logging.WARNING):
        make().serve()
    assert "/elsewhere/settings.py" in caplog.text
    assert "NAMESPACE" in caplog.text
    other.attachment.detach()


def test_a_script_lends_its_piped_output(
    make: Make, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pool is told, so that it does not keep the pipe's reader waiting."""
    monkeypatch.setattr(project, "output_is_piped", lambda: True)
    site = make()
    enqueue(site)
    assert started[0].output_owner == site.ring.registry.serial


def test_a_web_process_lends_nothing(
    make: Make, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log may be a pipe as well, and stays the pool's."""
    monkeypatch.setattr(project, "output_is_piped", lambda: True)
    site = make()
    site.serve()
    enqueue(site)
    assert started[0].output_owner == 0


def test_an_unguarded_main_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a pool imports its site's main script, no backend may be used."""
    monkeypatch.setitem(project._state, "importing main", "/srv/script.py")
    with pytest.raises(RuntimeError, match=r'/srv/script.py\. .*if __name__ == "__main__":'):
        make()


def test_tests_need_databases_that_others_can_open(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite in memory: the error names the alias, the database and the backend to use."""
    monkeypatch.setattr(under_test, "unshared_databases", lambda: ["default"])
    with pytest.raises(ImproperlyConfigured, match=r"'alias'.*default is SQLite.*InlineBackend"):
        enqueue(make())
