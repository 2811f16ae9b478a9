"""What a pool does about other codes in its ring."""

import logging
from typing import Any

import pytest

from django_tasks_local.pool import releases as module
from django_tasks_local.pool.releases import Releases
from django_tasks_local.ring import Entry, Ring, Role
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.records import codes
from tests import rings as peers
from tests.rings import Rings, put

BLUE, GREEN = "/blue/settings.py", "/green/settings.py"


@pytest.fixture(autouse=True)
def gone_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release without a process has gone, without the usual delay."""
    monkeypatch.setattr(codes, "GONE_S", 0.0)


@pytest.fixture
def pool(rings: Rings) -> Ring:
    """Attached as the pool of the green release, whose site came last."""
    rings.attach(role=Role.VISITOR)
    return rings.attach(role=Role.POOL, path=GREEN)


def living(ring: Ring) -> list[Entry]:
    return ring.upkeep.settle_dead()


def adopt(releases: Releases, ring: Ring) -> at.Share:
    """A turn of the pool; what its workers may claim then."""
    latest = ring.registry.latest_serial()
    releases.adopt(living(ring), latest)
    return ring.registry.share(ring.registry.index)


def serve(mine: Any) -> None:
    assert mine.ring.leadership.take_pool()


def test_orphans_are_adopted_and_said_so(
    rings: Rings, pool: Ring, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, with both paths; not while a process of their release is there."""
    blue = rings.peer(path=BLUE)
    rings.attach(path=GREEN)
    result_id = blue.do(peers.enqueue)
    releases = Releases(pool)
    assert adopt(releases, pool).adopted == 0
    blue.kill()
    share = adopt(releases, pool)
    claim = pool.claim(share)
    assert claim is not None
    assert claim.result_id == result_id
    pool.finish(claim, successful=True, outcome=pool.encode(None))
    for _ in range(2):
        put_deferred(rings)
        adopt(releases, pool)
    assert caplog.text.count(BLUE) == caplog.text.count(GREEN) == 1
    assert pool.upkeep.check() == []


def test_a_release_that_was_seen_lately_keeps_its_tasks(
    rings: Rings, pool: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server replaces killed web workers: what waits is not run by other code meanwhile."""
    blue = rings.peer(path=BLUE)
    site = rings.attach(path=GREEN)
    blue.do(peers.enqueue)
    releases = Releases(pool)
    adopt(releases, pool)
    assert not site.upkeep.work_is_due(0, living(site))
    blue.kill()
    monkeypatch.setattr(codes, "GONE_S", 1000.0)
    assert adopt(releases, pool).adopted == 0
    assert not site.upkeep.work_is_due(0, living(site))
    # A pool that has never seen it: it went before this release came.
    assert adopt(Releases(newcomer := rings.attach(role=Role.POOL, path=GREEN)), newcomer).adopted
    monkeypatch.setattr(codes, "GONE_S", 0.0)
    assert adopt(releases, pool).adopted
    assert site.upkeep.work_is_due(0, living(site))


def test_the_same_settings_under_another_python(
    rings: Rings, pool: Ring, caplog: pytest.LogCaptureFixture
) -> None:
    """One path would stand there twice: the text says what differs."""
    blue = rings.peer(path=GREEN, digest=7)
    rings.attach(path=GREEN)
    blue.do(peers.enqueue)
    blue.kill()
    assert adopt(Releases(pool), pool).adopted
    assert caplog.text.count(GREEN) == 1
    assert "the pool of the same settings under another Python or virtual environment" in (
        caplog.text
    )


def put_deferred(rings: Rings) -> None:
    blue = rings.peer(path=BLUE)
    blue.do(later)
    blue.kill()


def later(mine: Any) -> str:
    return peers.enqueue(mine, due_ns=2**62)


def test_a_release_that_comes_back_keeps_its_new_tasks(rings: Rings, pool: Ring) -> None:
    """Between two turns of the adopter: what was left is adopted, what comes is not."""
    blue = rings.peer(path=BLUE)
    rings.attach(path=GREEN)
    left = blue.do(peers.enqueue)
    blue.kill()
    releases = Releases(pool)
    share = adopt(releases, pool)
    back = rings.peer(path=BLUE)
    back.do(peers.enqueue)
    claim = pool.claim(share)
    assert claim is not None
    assert claim.result_id == left
    assert pool.claim(share) is None
    assert adopt(releases, pool).adopted == 0


def test_only_the_newest_adopts(rings: Rings, pool: Ring) -> None:
    """The pool of an older release leaves it to that of the newest site."""
    rings.attach(path=GREEN)
    blue, red = rings.peer(path=BLUE), rings.peer(path="/red/settings.py")
    blue.do(peers.enqueue)
    blue.kill()
    assert adopt(Releases(pool), pool).adopted == 0
    red.kill()
    assert adopt(Releases(pool), pool).adopted & 0xFF


def test_a_pool_that_is_on_its_way_has_its_tasks(rings: Rings, pool: Ring) -> None:
    """Or one whose sites have gone, and that goes on with what they left."""
    rings.attach(path=GREEN)
    blue, its_pool = rings.peer(path=BLUE), rings.peer(role=Role.POOL, path=BLUE)
    its_pool.do(serve)
    blue.do(peers.enqueue)
    blue.kill()
    assert adopt(Releases(pool), pool).adopted == 0
    its_pool.kill()
    assert adopt(Releases(pool), pool).adopted & 0xFF


def test_a_site_starts_a_pool_for_orphans(rings: Rings) -> None:
    """If it is the newest; one of an older release has its own tasks to mind."""
    old, new = rings.attach(path=GREEN), rings.attach(path=BLUE)
    gone = rings.peer(path="/red/settings.py")
    gone.do(peers.enqueue)
    assert not new.upkeep.work_is_due(0, living(new))
    gone.kill()
    assert new.upkeep.work_is_due(0, living(new))
    assert not old.upkeep.work_is_due(0, living(old))
    put(old)
    assert old.upkeep.work_is_due(0, living(old))


def test_what_nobody_runs_is_said(
    rings: Rings, pool: Ring, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Sites of another code are there, its tasks wait, and no pool of it comes: an error, once."""
    blue = rings.peer(path=BLUE)
    blue.do(peers.enqueue)
    releases = Releases(pool)
    with caplog.at_level(logging.ERROR):
        adopt(releases, pool)
        assert caplog.text == ""
        monkeypatch.setattr(module, "STRANDED_S", -1.0)
        adopt(releases, pool)
        adopt(releases, pool)
    assert caplog.text.count(BLUE) == 1


def test_strays_are_workers_without_a_pool(rings: Rings, pool: Ring) -> None:
    """They die with it, and have their places until then."""
    blue = rings.peer(role=Role.POOL, path=BLUE)
    rings.peer(role=Role.WORKER, pool=blue.index)
    releases = Releases(pool)
    assert releases.strays(living(pool)) == 0
    blue.kill()
    assert releases.strays(living(pool)) == 1


def test_workers_of_other_codes_are_woken(rings: Rings, pool: Ring) -> None:
    """So that idle ones see that they are to give way."""
    blue = rings.peer(role=Role.POOL, path=BLUE)
    workers = [rings.peer(role=Role.WORKER, pool=blue.index) for _ in range(2)]
    Releases(pool).wake(living(pool))
    assert workers[0].do(wake_ups) == 2
    assert pool._semaphores.wake_ups() == 0


def wake_ups(mine: Any) -> int:
    return int(mine.ring._semaphores.wake_ups())


def test_no_place_is_said_once(pool: Ring, caplog: pytest.LogCaptureFixture) -> None:
    """The pool goes on with the workers that it has."""
    releases = Releases(pool)
    for _ in range(3):
        releases.say_no_place(7)
    assert caplog.text.count("more than 7 worker processes") == 1
