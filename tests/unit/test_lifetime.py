"""When a worker is replaced, and how much memory it is told to have."""

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from django_tasks_local.pool import lifetime as module
from django_tasks_local.pool import oom
from django_tasks_local.pool.lifetime import Lifetime
from django_tasks_local.pool.oom import OomKills
from django_tasks_local.pool.process_memory import private_bytes, resident_bytes
from django_tasks_local.ring import Ring, Role
from tests.children import in_a_child
from tests.rings import LIMITS, Rings

MIB = 2**20


@pytest.fixture
def site(rings: Rings) -> Iterator[Ring]:
    """A site of a ring with room for ten workers."""
    ring = rings.attach(replace(LIMITS, max_workers=10))
    yield ring
    ring.attachment.detach()


def lifetime_of(ring: Ring, calls: list[int] | None = None) -> Lifetime:
    """That of a worker of a pool in this process."""
    calls = [] if calls is None else calls
    return Lifetime(ring, ring.registry.index, lambda: calls.append(1))


def tasks_in(life: Lifetime) -> int:
    """How many tasks it takes until it is over."""
    assert life.is_limited()
    for number in range(1, 10_000):
        life.ends(after_task=True)
        if life.is_over:
            return number
    raise AssertionError("it is never over")


def test_without_options_there_is_no_limit(site: Ring) -> None:
    """Then nothing is counted."""
    assert not lifetime_of(site).is_limited()


def test_workers_do_not_go_all_at_once(site: Ring) -> None:
    """The number of tasks differs by a tenth; small ones are exact."""
    site.attachment.set_limits(replace(LIMITS, max_tasks_per_worker=100))
    numbers = {tasks_in(lifetime_of(site)) for _ in range(60)}
    assert min(numbers) >= 90
    assert max(numbers) <= 110
    assert len(numbers) > 5
    site.attachment.set_limits(replace(LIMITS, max_tasks_per_worker=1))
    assert tasks_in(lifetime_of(site)) == 1


def test_options_of_a_later_site(site: Ring) -> None:
    """A worker that began without a limit gets one, and loses it again."""
    life = lifetime_of(site)
    assert not life.is_limited()
    site.attachment.set_limits(replace(LIMITS, max_tasks_per_worker=10))
    assert life.is_limited()
    site.attachment.set_limits(LIMITS)
    assert not life.is_limited()


def test_the_pool_is_called_once(site: Ring, caplog: pytest.LogCaptureFixture) -> None:
    """And the log has one line, however many tasks run until the successor is there."""
    caplog.set_level("INFO", "django_tasks_local")
    site.attachment.set_limits(replace(LIMITS, max_tasks_per_worker=1))
    calls: list[int] = []
    life = lifetime_of(site, calls)
    assert life.is_limited()
    for _ in range(5):
        life.ends(after_task=True)
    assert calls == [1]
    assert caplog.text.count("is replaced: it has run 1 tasks (MAX_TASKS_PER_WORKER)") == 1


def test_memory_is_looked_at_cheaply(site: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exact look comes only where the cheap one does not do, and neither too often."""
    site.attachment.set_limits(replace(LIMITS, max_worker_memory=100 * MIB))
    looks: list[str] = []
    now = [0.0]
    resident = [50 * MIB]

    def cheap() -> int:
        looks.append("cheap")
        now[0] += 0.001
        return resident[0]

    def exact() -> int:
        looks.append("exact")
        now[0] += 0.01
        return 60 * MIB

    monkeypatch.setattr(module, "resident_bytes", cheap)
    monkeypatch.setattr(module, "private_bytes", exact)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.thread_time", lambda: now[0])
    life = lifetime_of(site)
    assert life.is_limited()
    life.ends(after_task=True)
    life.ends(after_task=True)
    assert looks == ["cheap"]
    now[0] += 0.2
    resident[0] = 200 * MIB  # most of it shared
    life.ends(after_task=True)
    assert looks == ["cheap", "cheap", "exact"]
    now[0] += 0.5
    life.ends(after_task=True)
    assert len(looks) == 3
    assert not life.is_over


def test_a_worker_without_tasks_is_looked_at_again(
    site: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that ends in the pause after a look is not forgotten if none comes after it."""
    site.attachment.set_limits(replace(LIMITS, max_worker_memory=100 * MIB))
    now = [0.0]
    used = [50 * MIB]

    def look() -> int:
        now[0] += 0.001
        return used[0]

    monkeypatch.setattr(module, "resident_bytes", look)
    monkeypatch.setattr(module, "private_bytes", look)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.thread_time", lambda: now[0])
    life = lifetime_of(site)
    assert life.is_limited()
    assert life.next_look_s() == math.inf
    life.ends(after_task=True)
    assert life.next_look_s() == math.inf  # seen, and small
    used[0] = 200 * MIB
    life.ends(after_task=True)
    assert not life.is_over
    assert life.next_look_s() == pytest.approx(0.1)
    now[0] += life.next_look_s()
    life.ends(after_task=False)
    assert life.is_over
    assert life.next_look_s() < 0.1  # for its successor


def test_private_memory_is_what_is_not_shared() -> None:
    """A forked child has little of its own until it writes; what was freed does not count."""
    parents = [bytearray(os.urandom(MIB)) * 64]

    def body() -> None:
        before = private_bytes()
        assert before < 48 * MIB < len(parents[0]) < resident_bytes()
        own = bytearray(b"x") * (64 * MIB)
        assert before + 60 * MIB < private_bytes() <= resident_bytes()
        del own
        assert private_bytes() < before + 16 * MIB

    in_a_child(body)


def test_memory_of_nobody() -> None:
    """A process that has gone has none."""
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert private_bytes(pid) == resident_bytes(pid) == 0  # not waited for
    os.waitpid(pid, 0)
    assert private_bytes(pid) == resident_bytes(pid) == 0


def attached_worker(rings: Rings, pool: Ring) -> int:
    """One more worker of a pool has come; its entry."""
    peer = rings.peer(role=Role.WORKER, pool=pool.registry.index)
    return peer.index


def test_the_successor_comes_first(rings: Rings, site: Ring) -> None:
    """A worker goes when one that began later is there; where no place is free, at once."""
    pool = rings.attach(role=Role.POOL)
    index = pool.registry.index
    worker = rings.attach(role=Role.WORKER, pool=index)
    assert pool.workforce.hire(0, 1, waiting=True, strays=0).number == 1
    assert not worker.workforce.retire(index)
    assert pool.workforce.hire(1, 1, waiting=True, strays=0).number == 1
    assert not worker.workforce.retire(index)
    attached_worker(rings, pool)
    assert worker.workforce.retire(index)


def test_no_place_for_a_successor(rings: Rings, site: Ring) -> None:
    """MAX_WORKERS counts processes, so the worker has to end before."""
    site.attachment.set_limits(replace(LIMITS, max_workers=1))
    pool = rings.attach(role=Role.POOL)
    worker = rings.attach(role=Role.WORKER, pool=pool.registry.index)
    assert pool.workforce.hire(0, 1, waiting=True, strays=0).number == 1
    assert worker.workforce.retire(pool.registry.index)


def test_the_last_place_is_for_a_successor_on_its_way(rings: Rings, site: Ring) -> None:
    """With it all places are taken; the worker waits for it all the same."""
    site.attachment.set_limits(replace(LIMITS, max_workers=2))
    pool = rings.attach(role=Role.POOL)
    index = pool.registry.index
    worker = rings.attach(role=Role.WORKER, pool=index)
    assert pool.workforce.hire(0, 1, waiting=True, strays=0).number == 1
    assert not worker.workforce.retire(index)
    assert pool.workforce.hire(1, 1, waiting=True, strays=0).number == 1
    assert not worker.workforce.retire(index)
    attached_worker(rings, pool)
    assert worker.workforce.retire(index)


# --- the kernel's own kills -----------------------------------------------------------------------


def test_kills_by_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A count that has grown a moment ago is told, an older one and none are not."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    events = tmp_path / "memory.events"
    events.write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    kills = OomKills(events)
    assert not kills.recently()
    events.write_text("low 0\noom 3\noom_kill 3\noom_group_kill 0\n")
    kills.look()
    now[0] += oom.RECENT_S / 2
    assert kills.recently()
    now[0] += oom.RECENT_S
    assert not kills.recently()


@pytest.mark.parametrize("text", [None, "", "oom_kill", "oom_kill many"])
def test_a_count_that_cannot_be_read(tmp_path: Path, text: str | None) -> None:
    """Where the kernel keeps none, nothing is put down to it."""
    events = tmp_path / "memory.events"
    if text is not None:
        events.write_text(text)
    assert not OomKills(events).recently()
    assert not OomKills(None).recently()
