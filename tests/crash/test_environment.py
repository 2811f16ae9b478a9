"""What can be wrong with the machine: /dev/shm too small, objects that are not ours or gone."""

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import posix_ipc
import pytest
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.exceptions import PayloadTooLarge, QueueFull, StoreUnavailable
from django_tasks_local.ring import Limits, Look, Ring, Role, ring_name, unlink_objects
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.shm import segment
from django_tasks_local.ring.shm.places import segment_path, semaphore_path
from tests.crash.scene import META, SMALL
from tests.crash.steps import in_child
from tests.crash.test_objects import OTHER, attach, use

CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
# As a site would have it: 32 MiB, of which a small /dev/shm can hold a part.
USUAL = Limits(2, 1000, 1000, 1024, 32 * 2**20)


@pytest.fixture
def name() -> Iterator[str]:
    """The name of a ring that does not exist yet."""
    made = ring_name("crash", uuid4().hex)
    yield made
    unlink_objects(made)


def in_small_shm(mebibytes: int, body: Callable[[], object]) -> None:
    """Runs `body` in a child with a /dev/shm of its own; a SIGBUS there fails the test."""

    def in_namespace() -> None:
        _own_mounts()
        options = f"size={mebibytes}m"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", "/dev/shm"], check=True)
        segment._segments.clear()
        body()

    if not _may_mount():
        pytest.skip("neither root nor an unprivileged user namespace may mount a tmpfs here")
    in_child(in_namespace)


def _own_mounts() -> None:
    uid, gid = os.geteuid(), os.getegid()
    try:
        os.unshare(CLONE_NEWNS)
    except PermissionError:
        os.unshare(CLONE_NEWNS | CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def _may_mount() -> bool:
    with suppress(AssertionError):
        in_child(_try_mount)
        return True
    return False


def _try_mount() -> None:
    _own_mounts()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/dev/shm"], check=True)


def finish_all(ring: Ring, outcome: bytes) -> int:
    """Runs what waits, with a large outcome where it fits and an error where not."""
    count = 0
    while (claim := ring.claim()) is not None:
        try:
            ring.finish(claim, successful=True, outcome=ring.encode(outcome))
        except PayloadTooLarge as error:
            text = ring.encode(("PayloadTooLarge", str(error)))
            ring.finish(claim, successful=False, outcome=text)
        count += 1
    return count


def test_a_small_shm_refuses_and_loses_nothing() -> None:
    """In 4 MiB, enqueue refuses by name, and everything that was accepted still finishes."""

    def body() -> None:
        ring = attach("/dtl-small", USUAL)
        accepted = []
        refusals = []
        for number in range(200):
            try:
                arguments = ring.encode((number, bytes(60_000)))
                accepted.append(ring.enqueue(META, arguments, priority=0, due_ns=0)[0])
            except (StoreUnavailable, QueueFull) as error:
                refusals.append(str(error))
        assert 20 < len(accepted) < 80
        assert len(accepted) + len(refusals) == 200
        assert "--shm-size" in refusals[0]
        assert finish_all(ring, bytes(50_000)) == len(accepted)
        assert ring.get(accepted[-1]).status.name == "SUCCESSFUL"
        assert ring.upkeep.check() == []

    in_small_shm(4, body)


def test_a_small_shm_evicts_earlier() -> None:
    """Where there is no room for MAX_RESULTS results, the oldest ones go earlier."""

    def body() -> None:
        ring = attach("/dtl-small", USUAL)
        ids = []
        for number in range(300):
            ids.append(ring.enqueue(META, ring.encode(number), priority=0, due_ns=0)[0])
            assert finish_all(ring, bytes(40_000)) == 1
            assert ring.get(ids[-1]).status.name == "SUCCESSFUL"
        with pytest.raises(TaskResultDoesNotExist):
            ring.get(ids[0])
        assert 20 < ring.counts().kept < 100
        assert ring.upkeep.check() == []

    in_small_shm(4, body)


def test_no_room_at_all() -> None:
    """Where not even an empty ring fits, attaching says so and leaves no memory behind."""

    def body() -> None:
        with pytest.raises(StoreUnavailable, match="--shm-size"):
            attach("/dtl-small", USUAL)
        assert os.stat("/dev/shm/dtl-smalls").st_blocks == 0

    in_small_shm(1, body)


def test_shm_filled_up_by_others() -> None:
    """A /dev/shm that somebody else filled: what has memory works on, and growth comes later."""

    def body() -> None:
        ring = attach("/dtl-small", USUAL)
        first, _ = ring.enqueue(META, ring.encode("first"), priority=0, due_ns=0)
        with suppress(OSError), Path("/dev/shm/other").open("wb", buffering=0) as other:
            while True:
                other.write(bytes(2**16))
        assert os.statvfs("/dev/shm").f_bfree == 0
        in_child(status_of_one_waiting)
        with pytest.raises(StoreUnavailable, match="--shm-size"):
            ring.enqueue(META, bytes(2_000_000), priority=0, due_ns=0)
        assert finish_all(ring, b"small") == 1
        assert ring.get(first).outcome() == b"small"
        Path("/dev/shm/other").unlink()
        ring.enqueue(META, ring.encode(bytes(2_000_000)), priority=0, due_ns=0)
        assert finish_all(ring, b"small") == 1
        assert ring.upkeep.check() == []

    in_small_shm(4, body)


def status_of_one_waiting() -> None:
    """What `local_tasks status` does, in a process that was not attached: it needs no memory."""
    segment._segments.clear()
    for name in Path("/dev/shm").glob("sem.*"):
        name.unlink()
    look = Look.into("/dtl-small", "crash")
    assert look is not None
    assert look.counts().waiting == 1
    assert list(look.running()) == []
    assert len(look.attached()) == 1
    assert not list(Path("/dev/shm").glob("sem.*"))


# --- objects that are not as they should be ------------------------------------------------


def other_user(path: Path) -> None:
    path.touch(mode=0o600)
    os.chown(path, 12345, 12345)


def other_mode(path: Path) -> None:
    path.touch()
    path.chmod(0o660)


def symlink(path: Path) -> None:
    path.symlink_to("/dev/null")


def fifo(path: Path) -> None:
    os.mkfifo(path, 0o600)


def garbage(path: Path) -> None:
    path.touch(mode=0o600)
    path.write_bytes(os.urandom(3 * at.PAGE))


def old_layout_with_work(path: Path) -> None:
    head = memoryview(bytearray(at.PAGE)).cast("Q")
    head[at.H_MAGIC], head[at.H_VERSION], head[at.H_UNFINISHED] = at.MAGIC, at.VERSION + 1, 3
    path.touch(mode=0o600)
    path.write_bytes(head)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (other_user, "uid 12345|permission denied"),
        (other_mode, "0660"),
        (symlink, "symbolic link"),
        (fifo, "regular file"),
        (garbage, "not a ring"),
        (old_layout_with_work, "3 unfinished"),
    ],
)
def test_refused_before_a_byte_is_used(
    name: str, make: Callable[[Path], object], says: str
) -> None:
    """What is not ours, not private or not a ring is refused, with its path and a way out."""
    path = Path(segment_path(name))
    if make is other_user and os.geteuid():
        pytest.skip("only root can give a file to somebody else")
    make(path)
    before = path.lstat()

    def body() -> None:
        with pytest.raises(StoreUnavailable, match=says) as caught:
            attach(name, SMALL)
        assert caught.value.path == str(path)
        assert caught.value.fix

    in_child(body)
    after = path.lstat()
    assert (before.st_ino, before.st_size, before.st_mode) == (
        after.st_ino, after.st_size, after.st_mode,
    )  # fmt: skip
    assert not stat.S_ISLNK(after.st_mode) or os.readlink(path) == "/dev/null"


@pytest.mark.parametrize("letter", ["m", "w0"])
def test_semaphore_of_others(name: str, letter: str) -> None:
    """A semaphore that others may use is refused as well."""
    posix_ipc.Semaphore(f"{name}{letter}", posix_ipc.O_CREX, initial_value=1).close()
    path = Path(semaphore_path(f"{name}{letter}"))
    path.chmod(0o666)

    def body() -> None:
        with pytest.raises(StoreUnavailable, match="0666"):
            attach(name, SMALL)

    in_child(body)


@pytest.mark.parametrize("size", [0, 1, at.PAGE - 1])
def test_truncated_before_it_was_a_ring(name: str, size: int) -> None:
    """A segment whose maker died at once, or that somebody cut to nothing, is laid out anew."""
    path = Path(segment_path(name))
    path.touch(mode=0o600)
    path.write_bytes(bytes(size))
    use(name, SMALL)(True)


def test_truncated_ring_is_refused(name: str) -> None:
    """A ring that was cut short is no ring, whatever its header says."""
    in_child(lambda: attach(name, OTHER))
    path = Path(segment_path(name))
    os.truncate(path, path.stat().st_size // 2)

    def body() -> None:
        with pytest.raises(StoreUnavailable, match="header is damaged"):
            attach(name, OTHER)

    in_child(body)


def test_unlinked_under_a_process(name: str) -> None:
    """Who has an unlinked ring notices, and whoever attaches anew gets a fresh one (RemoveIPC)."""

    def body() -> None:
        old = Ring(name, "crash", SMALL, Role.SITE)
        result_id, _ = old.enqueue(META, old.encode("old"), priority=0, due_ns=0)
        assert old.segment.intact()
        for path in Path("/dev/shm").glob(f"*{name[1:]}*"):
            path.unlink()
        assert not old.segment.intact()
        new = Ring(name, "crash", SMALL, Role.SITE)
        assert new.segment.intact()
        with pytest.raises(TaskResultDoesNotExist):
            new.get(result_id)
        claim = old.claim()
        assert claim is not None
        old.finish(claim, successful=True, outcome=old.encode("still works"))
        assert old.get(result_id).outcome() == "still works"
        assert new.upkeep.check() == []

    in_child(body)


def test_descriptor_closed_by_a_task(name: str) -> None:
    """A worker whose task closed all descriptors writes nothing more, and counts as dead."""

    def worker() -> None:
        ring = attach(name, SMALL)
        claim = ring.claim()
        assert claim is not None
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        claim.report(1, 2, "into the void")
        ring.finish(claim, successful=True, outcome=ring.encode("never"))

    def body() -> None:
        ring = attach(name, SMALL)
        result_id, _ = ring.enqueue(META, ring.encode("x"), priority=0, due_ns=0)
        pid = os.fork()
        if pid == 0:
            worker()
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 113
        found = ring.get(result_id)
        assert found.status.name == "FAILED"
        assert found.progress is None
        assert ring.upkeep.check() == []

    in_child(body)
