"""Who runs the pool, and who may start one."""

from dataclasses import replace
from typing import Any

from django_tasks_local.ring import ANY_SERVER, Ring, Role
from django_tasks_local.ring.format import layout as at
from tests.rings import LIMITS, Rings, put
from tests.support import wait_for


def take_successor(mine: Any) -> bool:
    return bool(mine.ring.leadership.take_successor())


def take_pool(mine: Any) -> bool:
    return bool(mine.ring.leadership.take_pool())


def leave_pool(mine: Any) -> None:
    mine.ring.leadership.leave_pool()


def test_there_is_one_pool_and_one_on_its_way(rings: Rings) -> None:
    """Both places are taken once, and given free in turn."""
    ring = rings.attach()
    first, second = rings.peer(), rings.peer()
    leadership = ring.leadership
    assert not leadership.pool_alive()
    assert first.do(take_successor)
    assert leadership.successor_alive()
    assert not second.do(take_successor)
    assert first.do(take_pool)
    assert leadership.pool_alive()
    assert not leadership.successor_alive()
    assert second.do(take_successor)
    assert not second.do(take_pool)
    first.do(leave_pool)
    assert second.do(take_pool)
    assert leadership.pool_alive()


def test_a_killed_pool_leaves_its_place(rings: Rings) -> None:
    """The kernel takes it away, whatever killed the pool."""
    ring = rings.attach()
    pool = rings.peer()
    pool.do(take_pool)
    pool.kill()
    wait_for(lambda: not ring.leadership.pool_alive())
    assert ring.leadership.take_pool()


def test_a_wish_for_a_successor_names_who_may_start_it(ring: Ring) -> None:
    """Only a site as new as the code that is wanted; a new pool clears the wish."""
    leadership = ring.leadership
    assert not leadership.successor_wanted(10, server=False)
    leadership.ask_for_successor(10)
    assert not leadership.successor_wanted(9, server=False)
    assert leadership.successor_wanted(10, server=False)
    assert leadership.successor_wanted(11, server=False)
    assert leadership.take_pool()
    assert not leadership.successor_wanted(11, server=False)


def test_a_wish_for_a_server(ring: Ring) -> None:
    """No script may start the successor, however new it is; any server may."""
    leadership = ring.leadership
    leadership.ask_for_successor(ANY_SERVER)
    assert not leadership.successor_wanted(2**32 - 1, server=False)
    assert leadership.successor_wanted(1, server=True)
    leadership.ask_for_successor(10)
    assert not leadership.successor_wanted(9, server=True)


def test_starts_that_lead_nowhere_are_tried_with_growing_pauses(ring: Ring) -> None:
    """Twice as long each time, up to a limit; all sites share the count."""
    leadership, words = ring.leadership, ring.words
    pauses = []
    for _ in range(6):
        assert leadership.reserve_start(100, 1000)
        assert not leadership.reserve_start(100, 1000)
        pauses.append(words[at.code_word(0, at.C_START_AFTER)])
        words[at.code_word(0, at.C_START_AFTER)] = 1  # long ago
    steps = [round((after - pauses[0]) / 1e9, -2) for after in pauses]
    assert steps == [0, 100, 300, 700, 900, 900]
    leadership.reserve_start(100, 1000)
    leadership.forget_failures()
    assert leadership.reserve_start(100, 1000)
    assert words[at.code_word(0, at.C_START_FAILURES)] == 1


def test_a_pool_that_took_its_place_has_not_proved_itself(ring: Ring) -> None:
    """It may die at once, each time: the pauses go on growing until somebody says it is well."""
    leadership = ring.leadership
    for failures in range(1, 4):
        ring.words[at.code_word(0, at.C_START_AFTER)] = 1
        assert leadership.reserve_start(100, 1000)
        assert leadership.take_pool()
        leadership.leave_pool()
        assert ring.words[at.code_word(0, at.C_START_FAILURES)] == failures
        assert not leadership.reserve_start(100, 1000)


def test_a_successor_clears_no_less_than_its_predecessor(ring: Ring) -> None:
    """It may have read how far that would go before the last step; damage is set right."""
    leadership, newest = ring.leadership, ring.registry.serial
    leadership.set_runnable_up_to(newest)
    leadership.set_runnable_up_to(newest - 1)
    assert leadership.runnable_up_to() == newest
    ring.words[at.code_word(0, at.C_RUNNABLE_UP_TO)] = 2**40
    leadership.set_runnable_up_to(newest)
    assert leadership.runnable_up_to() == newest


def test_a_pause_from_before_a_reboot_does_not_last(ring: Ring) -> None:
    """A time that lies further ahead than any pause is no pause."""
    ring.words[at.code_word(0, at.C_START_AFTER)] = 2**63
    assert ring.leadership.reserve_start(1, 60)


def note_workers(ring: Ring, ours: int, of_all: int) -> None:
    """As pools do when they hire."""
    ring.words[at.code_word(ring.registry.code, at.C_WORKERS)] = ours
    ring.words[at.H_POOL_WORKERS] = of_all


def test_sites_see_whether_workers_are_left(rings: Rings) -> None:
    """As far as the words tell."""
    ring = rings.attach()
    assert ring.leadership.wants_more_workers()
    note_workers(ring, 1, 1)
    assert ring.leadership.workers() == 1
    assert not ring.leadership.wants_more_workers()
    put(ring)
    ring.claim()
    assert ring.leadership.wants_more_workers()
    note_workers(ring, 2, 2)
    assert not ring.leadership.wants_more_workers()


def test_with_workers_of_other_code_any_worker_may_be_the_last_idle_one(ring: Ring) -> None:
    """How many tasks run is known of all codes together only: the pool must look."""
    ring.attachment.set_limits(replace(LIMITS, max_workers=3))
    note_workers(ring, 1, 2)
    assert ring.leadership.wants_more_workers()
    note_workers(ring, 1, 3)
    assert not ring.leadership.wants_more_workers()


def test_the_newest_site_is_known(rings: Rings) -> None:
    """Its serial tells a worker that somebody with newer code may have come."""
    ring = rings.attach(role=Role.VISITOR)
    assert ring.leadership.newest_site() == 0
    site = rings.attach()
    assert ring.leadership.newest_site() == site.registry.serial
