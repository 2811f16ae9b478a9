"""Rings in a directory: where their objects lie, and which directories are refused."""

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import (
    Look,
    Ring,
    Role,
    ring_exists,
    ring_name,
    segment_path,
    unlink_objects,
)
from django_tasks_local.ring.shm import directories, lock, places
from tests import mounts
from tests import rings as peers
from tests.children import in_a_child
from tests.reboots import RingsOnDisk
from tests.rings import LIMITS, descriptors_of, path_of, put, run

BIG = replace(LIMITS, max_pending=100_000, shm_size=64 * 2**20, sync=True)
MOUNTS = """
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:20 / /srv\\040x rw - xfs /dev/vdb rw
24 22 0:21 / /mnt rw shared:2 - nfs4 host:/export rw
25 24 0:22 / /mnt/inner rw - tmpfs none rw
26 22 0:23 / /over rw - ext4 /dev/vdc rw
27 26 0:24 / /over rw - fuse.sshfs host: rw
""".strip().splitlines()


def refusal(directory: Path | str) -> StoreUnavailable:
    """The error of an attachment in a directory that is refused, which says what to do."""
    with pytest.raises(StoreUnavailable) as caught:
        Ring(ring_name("unit", "refused", str(directory)), "unit", LIMITS, Role.SITE)
    assert str(caught.value.path).startswith(str(directory))
    assert caught.value.fix
    return caught.value


def test_the_segment_lies_in_the_directory(on_disk: RingsOnDisk, tmp_path: Path) -> None:
    """For this user alone; the semaphores lie in memory, and all are gone with the ring."""
    ring = on_disk.attach()
    path = path_of(on_disk)
    assert [path] == list(tmp_path.iterdir())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ring.segment.path == str(path)
    name = ring.segment.semaphore_name
    semaphores = [Path(places.semaphore_path(name + letters)) for letters in ("m", "w0")]
    assert all(each.exists() for each in semaphores)
    assert not any(map(os.get_inheritable, descriptors_of(path)))
    unlink_objects(on_disk.name)
    assert not any(each.exists() for each in (path, *semaphores))


def test_processes_share_it(on_disk: RingsOnDisk) -> None:
    """One enqueues, another runs the task, and the first reads the result."""
    worker = on_disk.peer()
    ring = on_disk.attach()
    result_id = put(ring, ((b"x" * 2**18,), {}))
    assert worker.do(peers.claim) == result_id
    worker.do(peers.finish, result_id, b"y" * 2**18)
    assert ring.get(result_id).outcome() == b"y" * 2**18
    look = Look.into(on_disk.name, "unit")
    assert look is not None
    assert look.counts().kept == 1


def test_names_of_its_semaphores_are_its_own(on_disk: RingsOnDisk) -> None:
    """The same alias may have a ring in memory, and in other directories."""
    name = places.base_name(on_disk.name)
    found = {places.semaphore_name(each) for each in (name, on_disk.name, f"/srv{name}")}
    assert len(found) == 3
    assert name in found
    assert all(len(each) <= 30 and "/" not in each[1:] for each in found)


def test_the_name_stays_where_a_volume_is_mounted_elsewhere(tmp_path: Path) -> None:
    """The file's name says whose ring it is, and nothing of where it lies."""
    names = {os.path.basename(ring_name("a", "b", where)) for where in ("/x", "/y/z", "/dev/shm")}
    assert len(names) == 1
    assert ring_name("a", "b", "/dev/shm") == ring_name("a", "b")


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    """And none is made: it may be that a disk is not mounted."""
    error = refusal(tmp_path / "missing")
    assert "no such directory" in error.what
    assert "install -d" in str(error.fix)
    assert not ring_exists(ring_name("unit", "refused", str(tmp_path / "missing")))


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    """It is refused by name."""
    (tmp_path / "file").touch()
    assert "no directory" in refusal(tmp_path / "file").what


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777])
def test_a_directory_of_others_is_refused(tmp_path: Path, mode: int) -> None:
    """Whoever may write to it may put back an old ring."""
    tmp_path.chmod(mode)
    error = refusal(tmp_path)
    assert f"{mode:04o}" in error.what
    assert "chmod 700" in str(error.fix)
    assert not list(tmp_path.iterdir())


def test_a_directory_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner may write to it; root may write to all."""
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    owner = tmp_path.stat().st_uid
    if owner:
        assert f"uid {owner}" in refusal(tmp_path).what
    else:
        directories.must_hold_rings(str(tmp_path))


@pytest.mark.parametrize("kind", ["nfs4", "9p", "fuse.sshfs", "virtiofs", *mounts.served()])
def test_what_others_serve_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """With the type of the file system, and the way out; on a real mount where there can be one."""

    def be_refused(place: Path) -> None:
        error = refusal(place)
        assert kind in error.what
        assert "DIRECTORY" in str(error.fix)

    if kind in mounts.served():
        mounts.on(kind, tmp_path, be_refused)
    else:
        monkeypatch.setattr(directories, "file_system_of", lambda directory: kind)
        be_refused(tmp_path)


def test_no_record_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that we do not know by name may have none."""
    monkeypatch.setattr("django_tasks_local.ring.shm.objects.can_lock", lambda fd: False)
    assert "has no record locks" in refusal(tmp_path).what
    assert lock.can_lock(os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR))


def test_a_file_system_without_files_of_ours() -> None:
    """One that nobody would think of is named, too, with the way out."""
    error = refusal(Path("/proc"))
    assert "cannot be opened" in error.what
    assert "of type proc" in error.what
    assert "DIRECTORY" in str(error.fix)


def test_types_of_file_systems() -> None:
    """The innermost mount counts, and of two in one place the later one."""
    found = {
        path: directories.type_among(MOUNTS, path)
        for path in ("/", "/srv x/tasks", "/srv", "/mnt", "/mnt/inner/a", "/mnts", "/over/a")
    }
    assert found == {
        "/": "ext4", "/srv x/tasks": "xfs", "/srv": "ext4", "/mnt": "nfs4", "/mnt/inner/a": "tmpfs",
        "/mnts": "ext4", "/over/a": "fuse.sshfs",
    }  # fmt: skip
    assert directories.file_system_of("/proc") == "proc"


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not /dev/shm, which may have room."""

    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    error = refusal(tmp_path)
    assert f"the disk of {tmp_path} is full" in error.what
    assert "make room" in str(error.fix)


def _use(place: Path) -> None:
    """All that a ring needs of a file system: locks, mappings, room; and what it refuses."""
    name = ring_name("unit", uuid4().hex, str(place))
    try:
        _use_ring(name, place)
    finally:
        unlink_objects(name)


def _use_ring(name: str, place: Path) -> None:
    ring = Ring(name, "unit", BIG, Role.SITE)

    def work() -> None:
        other = Ring(name, "unit", BIG, Role.WORKER)
        assert run(other, b"large" * 2**18) == first
        claim = other.claim()
        assert claim is not None
        os._exit(0)  # with a task in hand

    first, second = put(ring), put(ring)
    in_a_child(work)
    assert ring.get(first).outcome() == b"large" * 2**18
    assert ring.get(second).outcome()[0].endswith(".WorkerLost")
    if directories.file_system_of(str(place)) == "tmpfs":  # small enough to be filled
        with pytest.raises(StoreUnavailable, match=r"disk of .* is full"):
            _fill(ring)
    assert ring.upkeep.check() == []


def _fill(ring: Ring) -> None:
    for _ in range(100):
        put(ring, ((b"x" * 2**20,), {}))


def _be_refused(place: Path) -> None:
    mounts.mount("-o", "remount,bind,ro" if place.is_mount() else "remount,ro", str(place))
    error = refusal(place)
    assert f"of type {directories.file_system_of(str(place))}, is mounted read-only" in error.what
    assert "mount it for writing" in str(error.fix)


@pytest.mark.parametrize("kind", [mounts.AS_IT_IS, *mounts.mountable()])
def test_a_ring_lies_on(kind: str, tmp_path: Path) -> None:
    """Every file system that keeps locks and mappings, among them those of this machine."""
    mounts.on(kind, tmp_path, _use)
    if kind != mounts.AS_IT_IS:
        (tmp_path / "again").mkdir()
        mounts.on(kind, tmp_path / "again", _be_refused)


def test_of_the_settings(namespace: str, tmp_path: Path) -> None:
    """Symbolic links are followed once; a test run's ring lies in memory all the same."""
    from django_tasks_local.options import Options
    from django_tasks_local.pool.spec import spec_of

    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    params: dict[str, Any] = {"OPTIONS": {"NAMESPACE": namespace, "DIRECTORY": link}}
    options = Options.from_params(params, "a", "process")
    name = spec_of("a", options).name
    assert os.path.dirname(segment_path(name)) == str(tmp_path)
    assert os.path.dirname(segment_path(spec_of("a", options, "run").name)) == "/dev/shm"
