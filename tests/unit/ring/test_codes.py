"""Whose code runs a task: lanes, clearance, adoption, and the table of codes."""

from typing import Any

import pytest

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import Ring, Role, code_digest
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.layout import Share
from django_tasks_local.ring.records.codes import Codes
from tests import rings as peers
from tests.rings import Rings, put, run

BLUE, GREEN = "/blue/settings.py", "/green/settings.py"


def claimed(ring: Ring, share: Share | None) -> list[str]:
    """All that may be claimed with a share, in its order."""
    found = []
    while (claim := ring.claim(share)) is not None:
        found.append(claim.result_id)
        ring.finish(claim, successful=True, outcome=ring.encode(None))
    return found


def lane_counts(ring: Ring) -> dict[int, int]:
    """Lanes that are not empty, by number."""
    lanes = range(at.LANES_AT, at.HEADER_BYTES // 8, at.LANE_WORDS)
    counts = [ring.words[lane + at.L_WAITING] for lane in lanes]
    return {lane: count for lane, count in enumerate(counts) if count}


# --- clearance: one code, whose files change in place --------------------------------------


def test_a_worker_with_old_files_leaves_newer_tasks(rings: Rings) -> None:
    """What a newer site enqueued waits for a newer pool; it holds back nothing behind it."""
    old = rings.attach()
    old.upkeep.set_runnable_up_to(old.registry.serial)
    first = put(old)
    new = rings.attach()
    newer = [put(new, priority=5), put(new)]
    last = put(old)
    share = Share(0, old.registry.serial)
    assert claimed(old, share) == [first, last]
    assert not old.words[at.H_DIRTY]
    assert claimed(old, share._replace(runnable_up_to=new.registry.serial)) == newer
    assert old.upkeep.check() == []


def test_what_may_run_keeps_its_order(rings: Rings) -> None:
    """Tasks of one site may lie in both lanes: those from before they might run, and after."""
    ring = rings.attach()
    ids = [put(ring), put(ring)]
    ring.upkeep.set_runnable_up_to(ring.registry.serial)
    ids += [put(ring), put(ring)]
    assert lane_counts(ring) == {0: 2, 1: 2}
    assert ring.upkeep.check() == []
    ring.upkeep.rebuild()
    assert lane_counts(ring) == {0: 4}
    assert claimed(ring, Share(0, ring.registry.serial)) == ids


def test_both_lanes_are_one_queue(rings: Rings) -> None:
    """The better of the two heads goes first: by priority, then by age."""
    ring = rings.attach()
    low, high = put(ring), put(ring, priority=7)
    ring.upkeep.set_runnable_up_to(ring.registry.serial)
    equal, highest = put(ring, priority=7), put(ring, priority=9)
    assert claimed(ring, Share(0, ring.registry.serial)) == [highest, high, equal, low]


def test_a_worker_of_the_pool_before_claims_nothing_that_only_its_successor_runs(
    rings: Rings,
) -> None:
    """It may be slow: it read what it may claim before its pool left."""
    ring = rings.attach()
    ring.upkeep.set_runnable_up_to(ring.registry.serial + 5)
    put(ring)
    assert ring.claim(Share(0, ring.registry.serial)) is None
    assert claimed(ring, Share(0, ring.registry.serial + 5))


def test_what_falls_due_goes_into_the_right_lane(rings: Rings) -> None:
    """A deferred task was enqueued before its site was compared, and falls due after."""
    ring = rings.attach()
    result_id = put(ring, due_ns=peers.FAR_NS * 10**6)
    assert (ring.counts().waiting, ring.counts().deferred) == (0, 1)
    ring.upkeep.set_runnable_up_to(ring.registry.serial)
    ring._mutex.run(ring._table.order.promote, peers.FAR_NS * 10**6)
    assert lane_counts(ring) == {0: 1}
    assert ring.words[at.code_word(0, at.C_DEFERRED)] == 0
    assert ring.upkeep.check() == []
    assert claimed(ring, Share(0, ring.registry.serial)) == [result_id]


# --- several codes -------------------------------------------------------------------------


def test_nobody_runs_tasks_of_other_code(rings: Rings) -> None:
    """Which site is the newest says nothing: each worker claims what its own code enqueued."""
    blue, green = rings.attach(path=BLUE), rings.attach(path=GREEN)
    assert (blue.registry.code, green.registry.code) == (0, 1)
    theirs = put(green, priority=100)
    mine = put(blue)
    recycled = rings.attach(path=BLUE)
    assert recycled.registry.code == 0
    also_mine = put(recycled, priority=-100)
    everything = recycled.registry.serial
    assert claimed(blue, Share(0, everything)) == [mine, also_mine]
    assert claimed(green, Share(1, everything)) == [theirs]
    assert blue.upkeep.check() == []


def test_a_task_enqueues_for_the_code_that_runs_it(rings: Rings) -> None:
    """A worker has its pool's code, and the serial of the newest site of that."""
    ring = rings.attach(path=BLUE)
    rings.attach(path=GREEN)
    pool = rings.peer(role=Role.POOL, path=BLUE)
    worker = rings.peer(role=Role.WORKER, path="/whatever", pool=pool.index)
    result_id = worker.do(peers.enqueue)
    assert claimed(ring, Share(1, 2**32 - 1)) == []
    assert claimed(ring, Share(0, ring.registry.serial)) == [result_id]


def test_a_visitor_gets_a_code_when_it_enqueues(rings: Rings) -> None:
    """Who only looks takes nobody's number away."""
    ring = rings.attach(role=Role.VISITOR, path=BLUE)
    assert ring.codes.find(ring.attachment.digest) == -1
    assert put(ring)
    assert ring.codes.find(ring.attachment.digest) == ring.registry.code == 0
    assert ring.registry.role is Role.VISITOR
    assert ring.upkeep.check() == []


def test_each_code_has_its_own_wake_ups(rings: Rings) -> None:
    """A wake-up is not eaten by a worker that may not run the task."""
    blue, green = rings.attach(path=BLUE), rings.attach(path=GREEN)
    put(green)
    assert (blue._semaphores.wake_ups(), green._semaphores.wake_ups()) == (0, 1)
    blue._semaphores.wake(3, green.registry.code)
    assert (blue._semaphores.wake_ups(), green._semaphores.wake_ups()) == (0, 3)


def test_adopted_tasks_are_one_queue_with_ours(rings: Rings) -> None:
    """By priority and age over all lanes; not those of a site that came back since."""
    ring = rings.attach(path=GREEN)
    gone = rings.attach(path=BLUE)
    theirs = [put(gone, priority=3), put(gone)]
    mine = [put(ring, priority=3), put(ring)]
    bound = gone.registry.serial
    back = rings.attach(path=BLUE)
    late = put(back, priority=-50)
    share = Share(0, ring.registry.serial, bound << at.CODES | 1 << 1)
    assert claimed(ring, share) == [theirs[0], mine[0], theirs[1], mine[1]]
    assert claimed(ring, None) == [late]


def test_codes_survive_a_rebuild(rings: Rings) -> None:
    """A record says itself whose it is."""
    blue, green = rings.attach(path=BLUE), rings.attach(path=GREEN)
    blue.upkeep.set_runnable_up_to(blue.registry.serial)
    for ring in (blue, green, blue):
        put(ring)
        put(ring, due_ns=2**62)
    before = lane_counts(blue)
    assert before == {0: 2, 3: 1}
    blue.upkeep.rebuild()
    assert lane_counts(blue) == before
    assert [blue.codes.field(code, at.C_DEFERRED) for code in (0, 1)] == [2, 1]
    assert blue.upkeep.check() == []


# --- the table -----------------------------------------------------------------------------


def test_a_digest_tells_its_parts_apart() -> None:
    """And is never 0, which stands for a free number."""
    assert len({code_digest("a", "b"), code_digest("ab", ""), code_digest("b", "a")}) == 3
    assert code_digest("\udcff")


def fill(rings: Rings) -> list[Any]:
    """Eight releases, each with a process."""
    return [rings.peer(path=f"/release {number}") for number in range(at.CODES)]


def test_a_ninth_release_is_refused(rings: Rings) -> None:
    """It says what to do, and leaves the ring as it is; reading goes on."""
    visitor = rings.attach(role=Role.VISITOR, path="/release 9")
    fill(rings)
    with pytest.raises(StoreUnavailable, match=r"8 releases.*NAMESPACE"):
        put(visitor)
    with pytest.raises(StoreUnavailable, match="8 releases"):
        rings.late_peer(path="/release 9").result()
    assert visitor.registry.role is Role.VISITOR
    assert visitor.upkeep.check() == []


def test_a_number_is_free_when_nothing_of_its_code_is_left(rings: Rings) -> None:
    """No process and no waiting task; the one out of use for longest is given away first."""
    visitor = rings.attach(role=Role.VISITOR, path="/release 9")
    releases = fill(rings)
    waiting = [releases[2].do(peers.enqueue), releases[3].do(later)]
    for release in releases[2:6]:
        release.kill()
    visitor.upkeep.settle_dead()
    assert put(visitor)
    assert visitor.registry.code == 4
    assert visitor.codes.path(4) == "/release 9"
    assert rings.peer(path="/release 10").do(code_of) == 5
    with pytest.raises(StoreUnavailable):
        rings.late_peer(path="/release 11").result()
    assert [visitor.get(each).status.name for each in waiting] == ["READY", "READY"]
    assert visitor.upkeep.check() == []


def later(mine: Any) -> str:
    return peers.enqueue(mine, due_ns=2**62)


def code_of(mine: Any) -> int:
    return int(mine.ring.registry.code)


@pytest.mark.parametrize("place", ["take_pool", "take_successor"])
def test_a_number_is_not_free_while_a_pool_is_on_its_way(rings: Rings, place: str) -> None:
    """It has the number already, and is not attached yet."""
    visitor = rings.attach(role=Role.VISITOR, path="/release 9")
    releases = fill(rings)
    holder = rings.peer(role=Role.VISITOR)
    holder.do(hold, place, 4)
    releases[4].kill()
    with pytest.raises(StoreUnavailable):
        put(visitor)
    holder.kill()
    assert put(visitor)
    assert visitor.registry.code == 4


def hold(mine: Any, place: str, code: int) -> None:
    mine.ring.registry.code = code
    assert getattr(mine.ring.leadership, place)()


def test_a_pool_that_comes_in_between_keeps_its_number(
    rings: Rings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who gives a number away clears the digest, and looks once more."""
    ring = rings.attach(path=BLUE)
    for number in range(at.CODES - 1):
        rings.peer(path=f"/release {number}").kill()
    ring.upkeep.settle_dead()
    answers = iter([False] * (at.CODES - 1) + [True, False])
    monkeypatch.setattr(Codes, "has_pool", lambda self, code: next(answers))
    before = ring.codes.digest(1)
    assert ring._mutex.run(ring.codes.take, 4711, GREEN, {0}) == 2
    assert (ring.codes.digest(1), ring.codes.digest(2)) == (before, 4711)


def test_damage_to_the_table_strands_no_task(rings: Rings) -> None:
    """A lost digest leaves its tasks to whoever adopts them; repair makes the table whole."""
    blue, green = rings.attach(path=BLUE), rings.attach(path=GREEN)
    mine = put(blue)
    blue.words[at.code_word(0, at.C_DIGEST)] = green.attachment.digest
    blue.words[at.code_word(1, at.C_RUNNABLE_UP_TO)] = 2**60
    assert [each for each in blue.upkeep.check() if "digest of code 0" in each]
    assert [each for each in blue.upkeep.check() if "RUNNABLE_UP_TO of code 1" in each]
    blue.upkeep.repair()
    assert blue.upkeep.check() == []
    blue.words[at.code_word(0, at.C_DIGEST)] = 0
    assert [each for each in blue.upkeep.check() if "has no digest" in each]
    blue.upkeep.repair()
    assert blue.upkeep.check() == []
    assert blue.codes.digest(0) not in (0, blue.attachment.digest)
    assert claimed(green, Share(1, 0, blue.registry.serial << at.CODES | 1)) == [mine]


def test_a_process_that_was_taken_for_dead_finds_its_code_again(rings: Rings) -> None:
    """Its number may have been given to others meanwhile."""
    ring = rings.attach(path=BLUE)
    ring.words[at.REGISTRY_AT + ring.registry.index * at.ENTRY_WORDS] = 0
    ring.words[at.code_word(0, at.C_DIGEST)] = 4711
    ring.attachment.take_place()
    assert ring.codes.digest(ring.registry.code) == ring.attachment.digest
    assert ring.registry.code == 1
    assert put(ring)
    assert run(ring)
    assert ring.upkeep.check() == []


def test_a_wrong_head_in_one_of_several_lanes_is_noticed(rings: Rings) -> None:
    """Their order is compared only for slots that there are."""
    blue, green = rings.attach(path=BLUE), rings.attach(path=GREEN)
    ids = [put(blue), put(green)]
    blue.words[at.LANES_AT + at.LANE_WORDS + at.L_HEAD + 100] = 2**40
    with pytest.raises(StoreUnavailable, match="rebuilt at the next use"):
        blue.claim()
    assert claimed(blue, None) == ids
    assert blue.upkeep.check() == []
