"""A ring's named objects: whose they are, how large, and which descriptors they get."""

import gc
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import posix_ipc
import pytest

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import Ring, Role, unlink_objects
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.shm import objects, places
from tests.rings import LIMITS, Rings, descriptors_of, path_of, refused, stat_of

# --- descriptors ---------------------------------------------------------------------------


def test_collecting_a_removed_ring_keeps_its_locks(rings: Rings) -> None:
    """Its pool goes on only as long as a site lives, and the mapping's end would drop our lock."""
    peer = rings.peer()
    old = rings.attach()
    index = old.registry.index
    unlink_objects(rings.name)
    del old
    gc.collect()
    assert peer.do(is_alive, index)
    rings.attach()
    gc.collect()
    assert peer.do(is_alive, index)


def is_alive(mine: Any, index: int) -> bool:
    return bool(mine.ring.registry.alive(index))


def test_a_removed_ring_that_everybody_left_is_given_back(rings: Rings) -> None:
    """A user's cron job may have RemoveIPC at each of its logouts: memory must not pile up."""
    old = rings.attach()
    fd = old.segment.fd
    unlink_objects(rings.name)
    del old
    gc.collect()
    inode = os.fstat(fd).st_ino
    rings.attach()
    gc.collect()
    numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    assert all(found.st_ino != inode for number in numbers if (found := stat_of(number)))


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2), (1, 2)])
def test_no_standard_descriptor_is_ours(rings: Rings, closed: tuple[int, ...]) -> None:
    """A library's line on standard error would go over the ring's header."""
    other = Rings()
    peer = other.peer()
    assert peer.do(attach_without_streams, closed, rings.name) >= 3
    assert rings.attach().upkeep.check() == []
    other.close()


def attach_without_streams(mine: Any, closed: tuple[int, ...], name: str) -> int:
    for fd in closed:
        os.close(fd)
    Ring(name, "unit", LIMITS, Role.SITE)
    for fd in closed:  # as it was: nothing of ours stays there
        assert stat_of(fd) is None
    return min(descriptors_of(Path(places.segment_path(name))))


def test_missing_standard_descriptors_are_filled(rings: Rings) -> None:
    """A process of ours has all three, so that nothing else gets their numbers."""
    peer = rings.peer()
    assert peer.do(fill_streams) == [True] * 3


def fill_streams(mine: Any) -> list[bool]:
    os.closerange(0, 3)
    objects.fill_standard_descriptors()
    null = os.stat(os.devnull)
    return [os.path.samestat(os.fstat(fd), null) and os.get_inheritable(fd) for fd in range(3)]


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["m", "w0"])
@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_semaphore_of_another_size_is_refused(rings: Rings, letter: str, size: int) -> None:
    """Using one that is too short would kill this process with SIGBUS."""
    path = Path(places.semaphore_path(rings.name + letter))
    path.write_bytes(bytes(size))
    path.chmod(0o600)
    error = refused(rings)
    assert f"{size} bytes" in str(error)
    assert error.path == str(path)


def test_a_semaphore_that_is_exchanged_while_we_open_it(
    rings: Rings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was looked at and what was opened must be one: else it is looked at again."""
    rings.peer()
    name = f"{rings.name}m"
    path = Path(places.semaphore_path(name))
    real = posix_ipc.Semaphore

    def exchange(name: str, *args: Any, **kwargs: Any) -> Any:
        if not args and path.exists() and not path.with_suffix(".old").exists():
            path.rename(path.with_suffix(".old"))
            path.write_bytes(b"")
            path.chmod(0o600)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(posix_ipc, "Semaphore", exchange)
    try:
        assert "0 bytes" in str(refused(rings))
    finally:
        path.with_suffix(".old").unlink()


def test_a_semaphore_that_is_removed_while_we_make_it(
    rings: Rings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process of a test run sweeps away what nobody seems to be attached to."""
    real = posix_ipc.Semaphore
    removed: list[str] = []

    def make(name: str, *args: Any, **kwargs: Any) -> Any:
        semaphore = real(name, *args, **kwargs)
        if not removed:
            removed.append(places.semaphore_path(name))
            os.unlink(removed[0])
        return semaphore

    monkeypatch.setattr(posix_ipc, "Semaphore", make)
    ring = rings.attach()
    assert removed == [places.semaphore_path(f"{rings.name}m")]
    assert Path(removed[0]).stat().st_ino == ring.words[at.H_SEMAPHORE]


def test_a_file_with_a_second_name_is_refused(rings: Rings) -> None:
    """Laying out a ring over a link to a private file of ours would destroy that file."""
    precious = path_of(rings).with_suffix(".precious")
    precious.write_bytes(b"precious")
    precious.chmod(0o600)
    try:
        os.link(precious, path_of(rings))
        assert "hard link" in str(refused(rings))
        assert precious.read_bytes() == b"precious"
    finally:
        precious.unlink()


def test_a_semaphore_with_a_second_name_is_refused(rings: Rings) -> None:
    """As the segment is: nothing of ours gives it one."""
    rings.peer().kill()
    path = Path(places.semaphore_path(f"{rings.name}{objects.MUTEX}"))
    second = path.with_name(f"{path.name}.second")
    os.link(path, second)
    try:
        assert "hard link" in str(refused(rings))
    finally:
        second.unlink()
    assert rings.attach().upkeep.check() == []


@pytest.mark.parametrize(
    "makers", [f"sem.{uuid4().hex[:6]}", f"tmp-{uuid4().int % 10**9}"], ids=["glibc", "musl"]
)
def test_a_semaphore_that_is_just_being_made_is_waited_for(
    rings: Rings, monkeypatch: pytest.MonkeyPatch, makers: str
) -> None:
    """The C library's own name for it is there until it has got ours."""
    rings.peer().kill()
    path = Path(places.semaphore_path(f"{rings.name}{objects.MUTEX}"))
    first = path.with_name(makers)
    os.link(path, first)
    pauses: list[float] = []

    def look_again(for_s: float) -> None:
        pauses.append(for_s)
        if len(pauses) == 3:
            first.unlink()

    monkeypatch.setattr(objects, "sleep", look_again)
    assert rings.attach().upkeep.check() == []
    assert len(pauses) == 3


@pytest.mark.parametrize(
    "makers", [f"sem.{uuid4().hex[:6]}", f"tmp-{uuid4().int % 10**9}"], ids=["glibc", "musl"]
)
def test_a_semaphore_whose_maker_died_half_way_is_used(rings: Rings, makers: str) -> None:
    """Nobody would come to remove the C library's name for it."""
    rings.peer().kill()
    path = Path(places.semaphore_path(f"{rings.name}{objects.MUTEX}"))
    first = path.with_name(makers)
    os.link(path, first)
    assert rings.attach().upkeep.check() == []
    assert not first.exists()
    assert path.stat().st_nlink == 1


def test_a_ring_that_was_cut_is_not_touched_again(rings: Rings) -> None:
    """Slots behind the new end of the file would be a SIGBUS."""
    peer = rings.peer()
    os.truncate(path_of(rings), 3 * at.PAGE)
    with pytest.raises(StoreUnavailable, match="was cut to 12288"):
        peer.do(attach_once_more)


def attach_once_more(mine: Any) -> None:
    Ring(mine.ring.name, "unit", LIMITS, Role.SITE)
