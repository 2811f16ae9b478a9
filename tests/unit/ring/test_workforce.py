"""How the pools of several codes share MAX_WORKERS and the registry's places."""

import signal
from dataclasses import replace
from typing import Any

import pytest

from django_tasks_local.ring import Ring, Role
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.records.workforce import KEPT, Hiring
from tests import rings as peers
from tests.rings import LIMITS, Peer, Rings, put
from tests.support import wait_for


def hire(mine: Any, have: int, wanted: int, waiting: bool = True, strays: int = 0) -> Any:
    return mine.ring.workforce.hire(have, wanted, waiting=waiting, strays=strays)


def serve(mine: Any) -> None:
    assert mine.ring.leadership.take_pool()


def give_way(mine: Any) -> bool:
    return bool(mine.ring.workforce.give_way())


@pytest.fixture
def site(rings: Rings) -> Ring:
    """Six workers may be there."""
    return rings.attach(replace(LIMITS, max_workers=6))


def pool(rings: Rings, path: str) -> Peer:
    """A pool of a code, in its place."""
    peer = rings.peer(role=Role.POOL, path=path)
    peer.do(serve)
    return peer


def worker(rings: Rings, of: Peer) -> Peer:
    """A worker of a pool."""
    return rings.peer(role=Role.WORKER, pool=of.index)


def test_alone_a_pool_has_all(rings: Rings, site: Ring) -> None:
    """And never more than MAX_WORKERS, strays included."""
    blue = pool(rings, "/blue")
    assert blue.do(hire, 0, 9) == Hiring(6)
    assert blue.do(hire, 6, 1) == Hiring(0)
    assert site.leadership.workers() == 6
    assert blue.do(hire, 2, 9, True, 3) == Hiring(1, short=True)


def test_two_pools_never_have_more_together(rings: Rings, site: Ring) -> None:
    """What one has taken the other does not have; a dead pool's are free again."""
    blue, green = pool(rings, "/blue"), pool(rings, "/green")
    assert blue.do(hire, 0, 4) == Hiring(4)
    assert green.do(hire, 0, 4) == Hiring(2, short=True)
    blue.kill()
    assert green.do(hire, 2, 4) == Hiring(4)
    assert site.leadership.workers() == 6


def test_a_leaving_pools_workers_count(rings: Rings, site: Ring) -> None:
    """Those of a predecessor, which still runs tasks, are workers of the same code."""
    before, after = pool(rings, "/blue"), rings.peer(role=Role.POOL, path="/blue")
    assert before.do(hire, 0, 4) == Hiring(4)
    assert after.do(hire, 0, 4) == Hiring(2)
    assert before.do(hire, 1, 0) == Hiring(0)
    assert after.do(hire, 2, 9) == Hiring(3)


def test_who_has_more_than_its_share_gives_way(rings: Rings, site: Ring) -> None:
    """Until the other has its share: three of six."""
    blue, green = pool(rings, "/blue"), pool(rings, "/green")
    blue.do(hire, 0, 6)
    mine = worker(rings, blue)
    assert not mine.do(give_way)
    assert green.do(hire, 0, 2) == Hiring(0, short=True)
    assert [mine.do(give_way) for _ in range(4)] == [True, True, True, False]
    # They end: their pool starts none in their place.
    assert blue.do(hire, 3, 3) == Hiring(0)
    assert green.do(hire, 0, 5) == Hiring(3)
    assert not mine.do(give_way)
    assert site.upkeep.check() == []


def test_one_place_goes_round(rings: Rings) -> None:
    """With less places than codes whoever has waited for longest comes next."""
    rings.attach(replace(LIMITS, max_workers=1))
    blue, green = pool(rings, "/blue"), pool(rings, "/green")
    assert blue.do(hire, 0, 2) == Hiring(1)
    assert green.do(hire, 0, 2) == Hiring(0, short=True)
    assert worker(rings, blue).do(give_way)
    # Its pool sees the end first, and has tasks itself.
    assert blue.do(hire, 0, 2) == Hiring(0, short=True)
    assert green.do(hire, 0, 2) == Hiring(1)
    assert worker(rings, green).do(give_way)
    assert green.do(hire, 0, 2) == Hiring(0, short=True)
    assert blue.do(hire, 0, 2) == Hiring(1)


def test_who_has_nothing_to_do_wants_nothing(rings: Rings, site: Ring) -> None:
    """One worker more than tasks wait is no reason to take others' away."""
    blue, green = pool(rings, "/blue"), pool(rings, "/green")
    blue.do(hire, 0, 6)
    assert green.do(hire, 0, 1, False) == Hiring(0)
    assert not worker(rings, blue).do(give_way)
    assert site.words[at.H_WANTED] == 0


def test_the_wish_of_a_dead_pool_counts_no_more(rings: Rings, site: Ring) -> None:
    """Nobody would use the place."""
    blue, green = pool(rings, "/blue"), pool(rings, "/green")
    blue.do(hire, 0, 6)
    green.do(hire, 0, 2)
    assert site.words[at.H_WANTED] == 1 << 2
    green.kill()
    assert not worker(rings, blue).do(give_way)
    assert site.words[at.H_WANTED] == 0
    assert blue.do(hire, 5, 2) == Hiring(1)


def test_workers_leave_places_for_sites(rings: Rings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool goes on with those that there is a place for; web workers find one."""
    monkeypatch.setattr(at, "ENTRIES", KEPT + 6)
    site = rings.attach(replace(LIMITS, max_workers=100))
    blue = pool(rings, "/blue")
    assert blue.do(hire, 0, 50) == Hiring(4, no_place=True)
    assert [worker(rings, blue).index for _ in range(2)]
    assert blue.do(hire, 4, 50) == Hiring(0, no_place=True)
    assert rings.peer().do(peers.enqueue)
    assert put(site)


def test_a_ring_that_somebody_holds_hires_nobody(rings: Rings, site: Ring) -> None:
    """A pool does not wait inside: it has signals and ends of workers to see to."""
    blue = pool(rings, "/blue")
    holder = rings.peer()
    holder.start(hold_inside)
    wait_for(site._mutex._guard.held)
    assert blue.do(hire, 0, 3) == Hiring(0)
    holder.kill()
    assert blue.do(hire, 0, 3) == Hiring(3)


def hold_inside(mine: Any) -> None:
    mine.ring._mutex.run(signal.pause)
