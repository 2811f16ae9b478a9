"""The first attachment after a restart of the host: what is kept, what is lost, what is said."""

import logging
import os
import time
from typing import Any

import pytest
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.ring import Ring, Role
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.head import BATCH_WORD
from django_tasks_local.ring.shm.boots import this_boot
from django_tasks_local.store import time_limit_word
from django_tasks_local.timings import SECOND_NS
from tests import rings as peers
from tests.children import in_a_child
from tests.reboots import EARLIER, RingsOnDisk, forget_semaphores
from tests.rings import FAR_NS, LIMITS, META, done, path_of, put, run
from tests.unit.test_timetable import ENTRIES, Pool
from tests.unit.test_timings import HOUR_NS, ns

MIB = 2**20


def fill(mine: Any) -> dict[str, str]:
    """Has tasks of every kind in a ring; their ids."""
    ring: Ring = mine.ring
    found = {"small": done(ring, outcome="kept"), "large": done(ring, outcome=b"x" * MIB)}
    found["running"] = put(ring, priority=50)
    mine.claim = ring.claim()
    retried = time_limit_word(None, 0, 3)
    found["retried"], _ = ring.enqueue(
        META, ring.encode(((), {})), priority=50, due_ns=0, time_limit=retried
    )
    mine.other = ring.claim()
    found["waiting"] = put(ring, ((1,), {}))
    found["long"] = put(ring, ((b"y" * 5000,), {}))
    found["deferred"] = put(ring, due_ns=time.time_ns() + FAR_NS)
    found["unique"], _ = ring.enqueue(META, b"", priority=-1, due_ns=0, key=b"k" * 16)
    return found


def restarted(
    on_disk: RingsOnDisk, caplog: pytest.LogCaptureFixture
) -> tuple[dict[str, str], Ring]:
    """The ids of tasks that were there before, and the first attachment after a restart."""
    ids = on_disk.peer().do(fill)
    on_disk.reboot()
    with caplog.at_level(logging.INFO, "django_tasks_local"):
        return ids, on_disk.attach()


def test_all_is_there(on_disk: RingsOnDisk, caplog: pytest.LogCaptureFixture) -> None:
    """Results read as before, what ran is lost, what waits runs once, in its order."""
    ids, ring = restarted(on_disk, caplog)
    (line,) = caplog.messages
    assert line == (
        f"{path_of(on_disk)}: the host was restarted since; found 4 waiting tasks, 2 running tasks "
        "and 2 results, all whole"
    )
    assert ring.upkeep.check() == []
    assert ring.get(ids["small"]).outcome() == "kept"
    assert ring.get(ids["large"]).outcome() == b"x" * MIB
    lost = ring.get(ids["running"])
    assert "the host was restarted" in lost.outcome()[1]
    assert [run(ring), run(ring), run(ring)] == [ids["waiting"], ids["long"], ids["unique"]]
    assert ring.claim() is None
    assert ring.get(ids["deferred"]).status == "READY"
    assert ring.upkeep.check() == []


def test_what_may_be_tried_again_is(on_disk: RingsOnDisk, caplog: pytest.LogCaptureFixture) -> None:
    """A task with ``retry_lost`` has another attempt, whose history says why."""
    ids, ring = restarted(on_disk, caplog)
    ring.upkeep.settle_dead()
    found = ring.get(ids["retried"])
    assert found.status == "READY"
    assert found.past is not None
    assert "the host was restarted" in found.past.errors[0][1]


def test_it_is_done_once(on_disk: RingsOnDisk, caplog: pytest.LogCaptureFixture) -> None:
    """The header says afterwards which boot this is; later newcomers find nothing to do."""
    _, ring = restarted(on_disk, caplog)
    assert ring.words[at.H_BOOT] == this_boot() not in (0, EARLIER)
    caplog.clear()
    peer = on_disk.peer()
    peer.do(peers.enqueue)
    peer.end()
    assert not caplog.messages


def test_a_death_in_this_boot_is_no_restart(
    on_disk: RingsOnDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told as what it is, also after a restart."""
    _, ring = restarted(on_disk, caplog)
    ring.upkeep.settle_dead()
    peer = on_disk.peer()
    result_id = peer.do(peers.claim)
    peer.kill()
    assert "the host was restarted" not in ring.get(result_id).outcome()[1]


def test_another_boot_with_processes_attached(on_disk: RingsOnDisk) -> None:
    """Containers may have boot ids of their own. Whoever is attached lives in this boot."""
    peer = on_disk.peer()
    result_id = peer.do(peers.enqueue)
    assert peer.do(peers.claim) == result_id
    peer.do(_pretend_earlier)
    ring = on_disk.attach()
    assert ring.get(result_id).status == "RUNNING"
    assert ring.words[at.H_BOOT] == EARLIER
    ring.words[at.H_DIRTY] = 1
    ring.upkeep.rebuild()
    peer.do(peers.finish, result_id)
    assert ring.upkeep.check() == []


def _pretend_earlier(mine: Any) -> None:
    mine.ring.words[at.H_BOOT] = EARLIER


def test_a_new_container(on_disk: RingsOnDisk) -> None:
    """The boot is the same, and the semaphores are gone: as after the death of all processes."""
    ids = on_disk.peer().do(fill)
    for peer in on_disk._peers:
        peer.kill()
    forget_semaphores(on_disk.name)
    ring = on_disk.attach()
    assert ring.get(ids["small"]).outcome() == "kept"
    error = ring.get(ids["running"]).outcome()
    assert error[0].endswith(".WorkerLost")
    assert "restarted" not in error[1]
    assert run(ring) == ids["waiting"]
    assert on_disk.peer().do(peers.claim) == ids["long"]
    assert ring.upkeep.check() == []


def test_changed_sizes_wait(on_disk: RingsOnDisk) -> None:
    """The header's counts may be older than the records: nothing is dropped for their sake."""
    peer = on_disk.peer()
    result_id = peer.do(peers.enqueue)
    peer.do(_forget_count)
    on_disk.reboot()
    ring = on_disk.attach(peers.OTHER_SIZES)
    assert ring.get(result_id).status == "READY"
    assert ring.segment.geometry.slot_size == LIMITS.slot_size


def _forget_count(mine: Any) -> None:
    mine.ring.words[at.H_UNFINISHED] = 0


def test_room_that_the_header_does_not_know(on_disk: RingsOnDisk) -> None:
    """An old header with newer records behind its end: all are found."""
    peer = on_disk.peer()
    ids = peer.do(_fill_two_steps)
    on_disk.reboot()
    ring = on_disk.attach()
    for result_id, size in ids.items():
        assert len(ring.get(result_id).arguments()[0][0]) == size
    assert ring.upkeep.check() == []


def _fill_two_steps(mine: Any) -> dict[str, int]:
    ring = mine.ring
    before = ring.words[at.H_RESERVED]
    sizes = [200_000, 300_000, 400_000, 0]
    found = {put(ring, ((b"z" * size,), {})): size for size in sizes}
    assert ring.words[at.H_RESERVED] != before
    ring.words[at.H_RESERVED] = before
    ring.words[at.H_SERIAL] = ring.words[at.H_TICK] = 0
    return found


def test_an_older_link_behind_a_chain(on_disk: RingsOnDisk) -> None:
    """It leads into another chain of its record: each is given up once, when that goes."""
    result_id = on_disk.peer().do(_link_two_chains)
    on_disk.reboot()
    ring = on_disk.attach()
    assert run(ring) == result_id
    peers.change_limits(ring, max_results=1)
    done(ring)
    done(ring)
    assert not peers.exists(ring, result_id)
    assert ring.upkeep.check() == []


def _link_two_chains(mine: Any) -> str:
    ring: Ring = mine.ring
    result_id, _ = ring.enqueue(
        META, ring.encode(((b"z" * 600,), {})), priority=0, due_ns=0, metadata=b"{}"
    )
    table = ring._table
    head = table.head(peers.ring_address(result_id)[0])
    place = table.geometry.column("link") + (head.metadata_chain & at.EXTENT_SLOT_MASK)
    ring.words[place] = head.arguments_chain + (99 << at.EXTENT_SHIFT)  # as long as another was
    return result_id


def test_tasks_of_a_batch(on_disk: RingsOnDisk) -> None:
    """They are there if it was accepted, and each of them is whole."""
    whole, torn, early = on_disk.peer().do(_be_in_batches)
    on_disk.reboot()
    ring = on_disk.attach()
    assert run(ring) == whole
    assert ring.claim() is None
    assert not any(peers.exists(ring, each) for each in (torn, early))
    assert ring.upkeep.check() == []


def _be_in_batches(mine: Any) -> list[str]:
    """Two of a batch whose record is free by now, one of a batch that is being written."""
    ring: Ring = mine.ring
    table, words = ring._table, ring.words
    ids = [put(ring, ((b"z" * 600,), {})) for _ in range(3)]
    slots = [peers.ring_address(each)[0] for each in ids]
    batch = peers.ring_address(put(ring))[0]
    for slot, name in zip(slots, (900, 900, batch), strict=True):
        generation = words[table.commit + (batch if name == batch else slot)] & at.GENERATION_MASK
        words[table.offset(slot) // 8 + BATCH_WORD] = at.chain_word(name, generation)
    for slot in (*slots, batch):
        generation = words[table.commit + slot] & at.GENERATION_MASK
        words[table.commit + slot] = at.head_word(at.WRITING, generation, 5)
    chain = table.head(slots[1]).arguments_chain & at.EXTENT_SLOT_MASK
    words[table.offset(chain) // 8 + 20] = 1
    return ids


def test_a_schedule_goes_on(on_disk: RingsOnDisk) -> None:
    """The newest missed time fires within its grace, once; beyond it nothing does."""
    midnight_ns = ns("2026-05-02 00:00")

    def serve() -> None:
        pool = Pool(on_disk)
        pool.load(**ENTRIES)
        pool.at(midnight_ns - 30 * SECOND_NS)

    in_a_child(serve)
    on_disk.reboot()
    pool = Pool(on_disk)
    pool.clock.now_ns = midnight_ns + HOUR_NS + 30 * SECOND_NS
    pool.load(**ENTRIES)
    assert pool.fired() == [midnight_ns]


def test_a_full_disk(on_disk: RingsOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was reserved may have to be once more; where that fails, the error says so."""
    on_disk.peer().do(fill)
    on_disk.reboot()

    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        assert "is full" in str(peers.refused(on_disk))
    assert on_disk.attach().upkeep.check() == []


def test_readers_recover_too(on_disk: RingsOnDisk, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever attaches first does it."""
    ids = on_disk.peer().do(fill)
    on_disk.reboot()
    reader = on_disk.attach(role=Role.VISITOR)
    assert "the host was restarted" in reader.get(ids["running"]).outcome()[1]
    assert reader.get(ids["large"]).outcome() == b"x" * MIB
    with pytest.raises(TaskResultDoesNotExist):
        reader.get("0" * 36)
