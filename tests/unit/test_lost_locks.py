"""A process that opens and closes its ring's file loses all record locks there, and lives on."""

import os
from typing import Any

import pytest

from django_tasks_local.pool import starts
from django_tasks_local.pool.site import Site
from django_tasks_local.pool.spec import PoolSpec
from django_tasks_local.pool.supervisor import Supervisor
from django_tasks_local.ring import PoolState, Ring, Role
from tests import rings as peers
from tests.rings import LIMITS, Rings, path_of, put, run


def look_into(rings: Rings) -> None:
    """What a monitor does that reads /dev/shm."""
    os.close(os.open(path_of(rings), os.O_RDONLY))


def alive(mine: Any, index: int) -> bool:
    return bool(mine.ring.registry.alive(index))


def settle_all(mine: Any) -> None:
    mine.ring.upkeep.settle_dead()


def lose(mine: Any, path: str) -> None:
    os.close(os.open(path, os.O_RDONLY))


def hold(mine: Any) -> bool:
    return bool(mine.ring.registry.hold())


def taken_for_dead(rings: Rings, ring: Ring) -> peers.Peer:
    """Another process, after it has settled this one."""
    other = rings.peer()
    assert other.do(alive, ring.registry.index)
    look_into(rings)
    assert not other.do(alive, ring.registry.index)
    other.do(settle_all)
    return other


def entry_of(ring: Ring) -> tuple[Role, int, bool]:
    """Role and serial of a ring's entry, and whether it is the only one of its process."""
    mine = [entry for entry in ring.registry.attachments() if entry.pid == os.getpid()]
    return mine[0].role, mine[0].serial, len(mine) == 1


def test_holding_makes_a_process_alive_again(rings: Rings) -> None:
    """Where nobody has noticed, nothing else has happened."""
    ring = rings.attach()
    other = rings.peer()
    index = ring.registry.index
    look_into(rings)
    assert not other.do(alive, index)
    assert ring.registry.hold()
    assert other.do(alive, index)
    assert ring.registry.index == index


@pytest.mark.parametrize("role", [Role.SITE, Role.VISITOR, Role.WORKER])
def test_a_reaped_process_takes_another_entry(rings: Rings, role: Role) -> None:
    """In the same role, and with the same serial: nothing that it enqueued is of newer code."""
    rings.attach()
    ring = Ring(rings.name, "unit", LIMITS, role, path="settings.py")
    ring.registry.set_state(PoolState.SERVING)
    before = ring.registry.serial
    other = taken_for_dead(rings, ring)
    assert not ring.registry.hold()
    ring.attachment.take_place()
    assert ring.registry.hold()
    assert other.do(alive, ring.registry.index)
    assert ring.registry.serial == before
    (mine,) = [entry for entry in ring.registry.attachments() if entry.serial == before]
    assert (mine.role, mine.state) == (role, PoolState.SERVING)
    assert ring.registry.path_of(mine.index) == "settings.py"
    assert ring.upkeep.check() == []


def test_an_entry_that_others_have_now_is_left_alone(rings: Rings) -> None:
    """Neither its end nor its words are ours."""
    ring = rings.attach()
    first = taken_for_dead(rings, ring)
    heir = rings.peer(role=Role.POOL)
    assert heir.index == ring.registry.index
    assert not ring.registry.hold()
    ring.registry.set_state(PoolState.LEAVING)
    ring.attachment.detach()
    assert heir.do(hold)
    found = {entry.index: entry.state for entry in ring.registry.attachments()}
    assert found == {first.index: 0, heir.index: 0}


def test_claiming_and_copying_need_an_entry_of_our_own(rings: Rings) -> None:
    """A task under another's entry would be lost with that process."""
    ring = rings.attach()
    taken_for_dead(rings, ring)
    heir = rings.peer()
    small, large = put(ring), put(ring, ((bytes(5000),), {}))
    claim = ring.claim()
    assert claim is not None
    assert claim.result_id == small
    assert ring.registry.index != heir.index
    heir.kill()
    ring.upkeep.settle_dead()
    ring.finish(claim, successful=True, outcome=ring.encode(1))
    assert run(ring, 2) == large
    assert ring.get(small).outcome() == 1
    assert ring.upkeep.check() == []


def test_a_task_that_drops_the_locks_ends_as_if_it_had_not(rings: Rings) -> None:
    """Its worker makes itself alive again when it stores the outcome."""
    ring = rings.attach()
    worker = rings.peer(role=Role.WORKER)
    result_id = put(ring)
    assert worker.do(peers.claim) == result_id
    worker.do(lose, str(path_of(rings)))
    assert not ring.registry.alive(worker.index)
    worker.do(peers.finish, result_id, "value")
    assert ring.registry.alive(worker.index)
    assert ring.get(result_id).outcome() == "value"


def test_a_task_that_was_given_up_meanwhile_ends_its_worker(rings: Rings) -> None:
    """Its slot may be another's: the worker touches nothing, and leaves."""
    ring = rings.attach()
    worker = rings.peer(role=Role.WORKER)
    result_id = put(ring)
    worker.do(peers.claim)
    worker.do(lose, str(path_of(rings)))
    ring.upkeep.settle_dead()
    assert ring.get(result_id).status.name == "FAILED"
    worker.start(peers.finish, result_id, "value")
    assert worker.wait() == 113
    assert ring.upkeep.check() == []


def test_a_forked_child_does_not_hold_its_parents_entry(rings: Rings) -> None:
    """It would keep the dead alive."""
    worker = rings.peer()
    result = worker.do(hold_in_child)
    assert result == 0


def hold_in_child(mine: Any) -> int:
    pid = os.fork()
    if not pid:
        os._exit(int(mine.ring.registry.hold()))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_site_is_attached_again_at_its_tick(
    rings: Rings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise it would be dead to the others for good, and keep no pool alive."""
    monkeypatch.setattr(starts, "start_pool", lambda *_: None)
    site = Site(PoolSpec(rings.name, "alias", LIMITS, "namespace", False))
    site.serve()
    other = taken_for_dead(rings, site.ring)
    site.tick()
    assert other.do(alive, site.ring.registry.index)
    assert entry_of(site.ring) == (Role.SITE, site.ring.registry.serial, True)
    site.tick()
    assert caplog.text.count("took this process for dead") == 1
    site.close()


@pytest.mark.parametrize("settled", [False, True])
def test_a_pool_that_lost_its_place_leaves(rings: Rings, settled: bool) -> None:
    """Two pools would start twice as many workers; what it has begun runs to its end."""
    rings.attach(role=Role.VISITOR)
    pool = Ring(rings.name, "unit", LIMITS, Role.POOL)
    assert pool.leadership.take_pool()
    worker = rings.peer(role=Role.WORKER, pool=pool.registry.index)
    supervisor = Supervisor(pool, lambda *_: 0, foreground=True, runnable_up_to=0)
    if settled:
        taken_for_dead(rings, pool)
    else:
        look_into(rings)
    other = rings.peer(role=Role.POOL)
    assert other.do(take_pool)
    assert worker.do(serves, pool.registry.index) is not settled
    supervisor._look_around()
    assert not worker.do(serves, pool.registry.index)
    assert other.do(has_pool)
    pool.attachment.detach()


def test_a_pool_that_nobody_missed_goes_on(rings: Rings) -> None:
    """Its place is its own again before another took it."""
    rings.attach(role=Role.VISITOR)
    pool = Ring(rings.name, "unit", LIMITS, Role.POOL)
    assert pool.leadership.take_pool()
    other = rings.peer(role=Role.POOL)
    supervisor = Supervisor(pool, lambda *_: 0, foreground=True, runnable_up_to=0)
    look_into(rings)
    supervisor._look_around()
    assert not other.do(take_pool)
    assert other.do(alive, pool.registry.index)
    pool.leadership.leave_pool()
    pool.attachment.detach()


def take_pool(mine: Any) -> bool:
    return bool(mine.ring.leadership.take_pool())


def has_pool(mine: Any) -> bool:
    return bool(mine.ring.leadership.hold_pool())


def serves(mine: Any, pool: int) -> bool:
    return bool(mine.ring.registry.serves(pool))
