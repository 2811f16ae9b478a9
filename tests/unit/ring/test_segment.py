"""Making, checking, attaching and removing a ring's objects."""

import errno
import mmap
import os
import resource
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import posix_ipc
import pytest

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import Look, Role, ring_exists, ring_name, unlink_objects
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.shm import objects, places
from django_tasks_local.ring.shm import segment as rooms
from tests import rings as peers
from tests.children import in_a_child
from tests.rings import LIMITS, Rings, exists, leave_behind, path_of, put, refused, write_word

# --- names ---------------------------------------------------------------------------------


def test_names_fit_other_systems() -> None:
    """A name and its letter have at most 31 characters, whatever goes in."""
    name = ring_name("\udc80" * 500, "ü/\0" * 500)
    assert name.startswith(f"/dtl-{os.geteuid()}-")
    assert len(name) + 1 <= 31
    assert "/" not in name[1:]


def test_names_tell_aliases_and_namespaces_apart() -> None:
    """Alias and namespace both count, and do not run into each other."""
    names = [ring_name("a", "b"), ring_name("ab", ""), ring_name("a", "c"), ring_name("b", "b")]
    assert len(set(names)) == len(names)
    assert ring_name("a", "b") == names[0]


# --- making and finding --------------------------------------------------------------------


def test_the_objects_are_private(rings: Rings) -> None:
    """Segment and semaphores belong to this user and nobody else may touch them."""
    rings.attach()
    for path in (
        path_of(rings),
        Path(places.semaphore_path(f"{rings.name}m")),
        Path(places.semaphore_path(f"{rings.name}w0")),
    ):
        found = path.stat()
        assert found.st_uid == os.geteuid()
        assert found.st_mode & 0o7777 == 0o600


def test_a_new_ring_takes_only_its_first_step_of_memory(rings: Rings) -> None:
    """SHM_SIZE is a ceiling: most of the file is a hole."""
    big = replace(LIMITS, shm_size=256 * 2**20)
    ring = rings.attach(big)
    found = path_of(rings).stat()
    assert found.st_size == ring.segment.geometry.segment_bytes > 255 * 2**20
    assert found.st_blocks * 512 < 2 * 2**20


def test_one_process_attaches_once(rings: Rings) -> None:
    """A second attachment shares descriptor and memory: closing one would drop all locks."""
    first, second = rings.attach(), rings.attach()
    assert second.segment is first.segment


def test_two_attachments_of_one_process_keep_each_other_out(rings: Rings) -> None:
    """They share the mutex, and neither takes the other for dead."""
    first, second = rings.attach(), rings.attach()
    assert first._mutex is second._mutex
    assert first.registry.index != second.registry.index
    assert first.registry.alive(second.registry.index)
    second.upkeep.settle_dead()
    assert len(list(first.registry.attachments())) == 2
    second.attachment.detach()
    assert [entry.index for entry in first.registry.attachments()] == [first.registry.index]


def test_another_process_finds_the_same_ring(rings: Rings) -> None:
    """What one enqueues the other reads."""
    ring = rings.attach()
    peer = rings.peer()
    result_id = put(ring)
    assert peer.do(peers.status_of, result_id) == "READY"
    assert ring.get(peer.do(peers.enqueue)).status.name == "READY"


def test_a_ring_outlives_its_processes(rings: Rings) -> None:
    """Waiting tasks and results are there for the next process."""
    peer = rings.peer()
    result_id = peer.do(peers.enqueue)
    peer.kill()
    assert rings.attach().get(result_id).status.name == "READY"


def test_removed_objects_are_made_anew(rings: Rings) -> None:
    """After somebody unlinked the ring, attaching makes a new one; the old one still works."""
    old = rings.attach()
    result_id = put(old)
    unlink_objects(rings.name)
    assert not old.segment.intact()
    assert old.get(result_id).status.name == "READY"
    new = rings.attach()
    assert new.segment is not old.segment
    assert new.segment.intact()
    assert not exists(new, result_id)


def test_an_unlinked_segment_is_never_handed_out_again(rings: Rings) -> None:
    """Even when the name is in use by a newer segment, made by another process."""
    old = rings.attach()
    path_of(rings).unlink()
    rings.peer()
    new = rings.attach()
    assert new.segment.inode != old.segment.inode


def test_a_pool_keeps_a_removed_ring(rings: Rings) -> None:
    """It works off what is in it: its workers attach to the same one, and make no new names."""
    rings.peer()
    pool = rings.attach(role=Role.POOL)
    unlink_objects(rings.name)
    rooms._segments[rings.name] = pool.segment
    worker = rings.attach(role=Role.WORKER)
    assert worker.segment is pool.segment
    assert not ring_exists(rings.name)
    assert not Path(places.semaphore_path(f"{rings.name}m")).exists()


def test_a_name_that_is_removed_while_we_attach(
    rings: Rings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opened a segment that was made anew meanwhile opens the new one."""
    real = objects.open_segment
    opened = []

    def slow(*args: Any) -> int:
        fd = real(*args)
        opened.append(fd)
        if len(opened) == 1:
            path_of(rings).unlink()
        return fd

    monkeypatch.setattr(rooms, "open_segment", slow)
    ring = rings.attach()
    assert len(opened) == 2
    assert ring.segment.intact()


def test_a_closed_descriptor_is_noticed(rings: Rings) -> None:
    """A task can close all descriptors it finds: attaching opens the ring anew."""
    peer = rings.peer()

    assert peer.do(lose_descriptor) == "this process's descriptor of the ring was closed"
    assert peer.do(attach_again)
    assert peer.do(peers.enqueue)


def lose_descriptor(mine: Any) -> str:
    os.close(mine.ring.segment.fd)
    assert not mine.ring.segment.still_open()
    assert not mine.ring.segment.intact()
    try:
        put(mine.ring)
    except StoreUnavailable as error:
        return str(error.what)
    return ""


def attach_again(mine: Any) -> bool:
    old = mine.ring
    mine.ring = type(old)(old.name, "unit", old.attachment.limits, Role.SITE)
    return mine.ring.segment is not old.segment and mine.ring.segment.intact()


def test_a_descriptor_that_became_another_file_is_noticed(rings: Rings) -> None:
    """The number alone says nothing: the inode does."""
    peer = rings.peer()
    assert peer.do(reuse_descriptor)


def reuse_descriptor(mine: Any) -> bool:
    fd = mine.ring.segment.fd
    other = os.open(os.devnull, os.O_RDWR)
    os.dup2(other, fd)
    return not mine.ring.segment.still_open()


# --- refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["s", "m", "w0"])
@pytest.mark.parametrize("mode", [0o660, 0o606, 0o644, 0o601])
def test_objects_that_others_may_use_are_refused(rings: Rings, letter: str, mode: int) -> None:
    """Whoever can write to the ring can have us unpickle anything."""
    rings.peer().kill()
    path = places.segment_path(rings.name)
    path = path if letter == "s" else places.semaphore_path(rings.name + letter)
    os.chmod(path, mode)
    assert f"{mode:04o}" in str(refused(rings))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("letter", ["s", "m"])
def test_objects_of_another_user_are_refused(rings: Rings, letter: str) -> None:
    """Somebody else may have made the name before us, to have us unpickle what he wrote."""
    rings.peer().kill()
    path = places.segment_path(rings.name)
    path = path if letter == "s" else places.semaphore_path(rings.name + letter)
    os.chown(path, 12345, 12345)
    error = refused(rings)
    assert "belongs to" in str(error)
    assert error.path == path


def test_a_symbolic_link_is_refused(rings: Rings, tmp_path: Path) -> None:
    """A link could lead to any file of ours, and we would write over it."""
    target = tmp_path / "precious"
    target.write_bytes(b"x" * 10_000)
    path_of(rings).symlink_to(target)
    refused(rings)
    assert target.read_bytes() == b"x" * 10_000


def test_a_directory_is_refused(rings: Rings) -> None:
    """Whatever lies under the name, it ends in StoreUnavailable and not in an OSError."""
    path_of(rings).mkdir()
    try:
        refused(rings)
    finally:
        path_of(rings).rmdir()


def test_a_pipe_is_refused(rings: Rings) -> None:
    """Nothing but a regular file is mapped."""
    os.mkfifo(path_of(rings), 0o600)
    assert "not a regular file" in str(refused(rings))


def test_no_memory_for_the_mapping(rings: Rings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of the process ends in StoreUnavailable, and keeps nobody else out."""
    real = mmap.mmap

    def full(*_: Any) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", full)
    assert "Cannot allocate memory" in str(refused(rings))
    monkeypatch.setattr(mmap, "mmap", real)
    assert rings.peer().do(peers.enqueue)


@pytest.mark.parametrize("what", ["SharedMemory", "Semaphore"])
def test_what_another_user_made_is_named(
    rings: Rings, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Where the kernel refuses, the error says whose it may be."""

    def denied(*_: Any, **__: Any) -> None:
        raise posix_ipc.PermissionsError("No permission")

    monkeypatch.setattr(posix_ipc, what, denied)
    assert "Permission denied" in str(refused(rings))


def test_garbage_is_refused(rings: Rings) -> None:
    """A file of ours that is no ring stays as it is."""
    path_of(rings).write_bytes(b"garbage " * 2000)
    path_of(rings).chmod(0o600)
    assert "not a ring" in str(refused(rings))
    assert path_of(rings).read_bytes() == b"garbage " * 2000


@pytest.mark.parametrize(
    "content",
    [b"precious, and only 31 bytes long", b"x", bytes(8) + b"precious", bytes(at.PAGE - 1) + b"x"],
)
def test_a_short_file_is_refused(rings: Rings, content: bytes) -> None:
    """Nor is one that is shorter than a header, or begins with zeros."""
    path_of(rings).write_bytes(content)
    path_of(rings).chmod(0o600)
    assert "not a ring" in str(refused(rings))
    with pytest.raises(StoreUnavailable, match="not a ring"):
        Look.into(rings.name, "unit")
    assert path_of(rings).read_bytes() == content


@pytest.mark.parametrize("size", [1, 8, 9, 16, 72, 100, at.PAGE - 1])
@pytest.mark.parametrize("version", [at.VERSION, at.VERSION - 1])
def test_a_ring_that_was_cut_short_is_refused(rings: Rings, size: int, version: int) -> None:
    """What says that tasks wait in it may be cut off, and nobody is told that all is well."""
    leave_behind(rings, peers.enqueue)
    write_word(rings, at.H_VERSION, version)
    os.truncate(path_of(rings), size)
    error = refused(rings)
    assert "destroy" in str(error)
    with pytest.raises(StoreUnavailable) as seen:
        Look.into(rings.name, "unit")
    assert str(seen.value) == str(error)
    assert path_of(rings).stat().st_size == size


def test_a_ring_that_was_cut_to_nothing_is_refused_while_it_is_used(rings: Rings) -> None:
    """Those who are attached would find another ring in their memory."""
    rings.peer()
    os.truncate(path_of(rings), 0)
    refused(rings)
    assert path_of(rings).stat().st_size == 0


@pytest.mark.parametrize("word", [at.H_SLOT_SIZE, at.H_SLOTS, at.H_GEOMETRY_CRC])
def test_a_damaged_header_is_refused(rings: Rings, word: int) -> None:
    """Sizes that do not match their CRC are believed by nobody."""
    leave_behind(rings)
    write_word(rings, word, 77)
    assert "damaged" in str(refused(rings))


def test_a_truncated_segment_is_refused(rings: Rings) -> None:
    """Slots behind the end of the file would be a SIGBUS."""
    leave_behind(rings)
    os.truncate(path_of(rings), path_of(rings).stat().st_size // 2)
    assert "damaged" in str(refused(rings))


def test_a_refusal_keeps_nobody_else_out(rings: Rings) -> None:
    """The guard is given back with a refusal: an older release may be at work in that ring."""
    peer = rings.peer()
    peer.do(peers.enqueue)
    write_word(rings, at.H_VERSION, at.VERSION + 1)
    refused(rings)
    assert peers.descriptors_of(path_of(rings)) == []
    assert peer.do(peers.enqueue)


def test_no_shared_memory_at_all(rings: Rings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /dev/shm is missing the error says what to mount."""

    def shm_open(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOENT, "no such directory")

    monkeypatch.setattr(posix_ipc, "SharedMemory", shm_open)
    monkeypatch.setattr("os.path.isdir", lambda _: False)
    assert "Mount a tmpfs" in str(refused(rings))


def test_another_system_is_refused(rings: Rings, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the backend that works there."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(StoreUnavailable, match="ThreadPoolBackend"):
        rings.attach()


def test_a_full_file_system_is_named(rings: Rings, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC while the ring is made becomes an error that names --shm-size, and leaves no ring."""
    real = os.posix_fallocate

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert "--shm-size" in str(refused(rings))
    monkeypatch.setattr(os, "posix_fallocate", real)
    assert put(rings.attach())


def test_a_limit_of_file_sizes_is_named(rings: Rings) -> None:
    """`ulimit -f` concerns shared memory too; the file system is not to blame."""

    def body() -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            text = str(refused(rings))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)  # a failure is written to a file
        assert "ulimit -f" in text

    in_a_child(body)


@pytest.mark.parametrize("role", [Role.POOL, Role.WORKER])
def test_a_pool_makes_no_ring(rings: Rings, role: Role) -> None:
    """A ring that was removed while its pool started must not come back without its sites."""
    with pytest.raises(StoreUnavailable, match="was removed"):
        rings.attach(role=role)
    assert not ring_exists(rings.name)
