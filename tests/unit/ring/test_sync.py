"""SYNC: who waits for the disk, and that nobody does so inside the lock."""

import os
from collections.abc import Callable
from dataclasses import replace

import pytest

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.store import KeyTaken
from tests.reboots import RingsOnDisk
from tests.rings import LIMITS, META, Rings, change_limits, put

SYNCED = replace(LIMITS, sync=True)
KEY = b"k" * 16


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The descriptors that were waited for."""
    found: list[int] = []
    monkeypatch.setattr(os, "fdatasync", found.append)
    return found


def test_what_is_promised_is_on_the_disk(on_disk: RingsOnDisk, waits: list[int]) -> None:
    """A task that was enqueued, one that starts, and one that was cancelled before."""
    ring = on_disk.attach(SYNCED)
    assert not waits
    operations: list[Callable[[], object]] = [
        lambda: put(ring),
        lambda: put(ring, ((b"x" * 5000,), {})),
        lambda: ring.enqueue(META, b"", priority=0, due_ns=0, metadata=b"{}", key=KEY),
        lambda: ring.bulk.put(META, [b"", b""], priority=0, due_ns=0),
        lambda: ring.bulk.held([KEY]),
        ring.claim,
        lambda: ring.cancel(put(ring), running=False),  # waits twice
    ]
    for count, operation in enumerate(operations, 1):
        operation()
        assert waits == [ring.segment.fd] * (count + (count == 7))
    with pytest.raises(KeyTaken):
        ring.enqueue(META, b"", priority=0, due_ns=0, key=KEY)
    assert len(waits) == 9


def test_nobody_waits_inside_the_lock(
    on_disk: RingsOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others go on while a process waits for the disk."""
    ring = on_disk.attach(SYNCED)
    other = on_disk.peer(SYNCED)
    inside = []

    def wait(fd: int) -> None:
        inside.append(ring._mutex._inside)
        other.do(_count)

    monkeypatch.setattr(os, "fdatasync", wait)
    put(ring)
    ring.claim()
    assert inside == [False, False]


def _count(mine: object) -> int:
    """Goes into the lock."""
    return mine.ring._mutex.run(lambda: 1)  # type: ignore[attr-defined, no-any-return]


def test_without_sync_nobody_waits(on_disk: RingsOnDisk, waits: list[int]) -> None:
    """The kernel writes when it thinks fit; the option can be changed."""
    ring = on_disk.attach()
    put(ring)
    ring.claim()
    assert not waits
    change_limits(ring, sync=True)
    put(ring)
    assert len(waits) == 1


def test_in_memory_nobody_waits(rings: Rings, waits: list[int]) -> None:
    """As in a test run, whose ring lies in memory whatever its settings say."""
    put(rings.attach(SYNCED))
    assert not waits


def test_a_broken_disk_is_told(on_disk: RingsOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asked to wait for the disk must hear that it cannot be written."""
    ring = on_disk.attach(SYNCED)

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(StoreUnavailable, match="cannot be written to its disk"):
        put(ring)


def test_a_new_ring_is_on_the_disk(on_disk: RingsOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its name in the directory: without either, no task in it could be found."""
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    path = on_disk.attach().segment.path
    assert synced == [path, path, os.path.dirname(path)]
