"""A SIGKILL at every write step of the first attachment after a restart of the host.

The next attachment judges all records again, and finds the same. They are such that each part of
that has something to do: most are whole, and some are as a power cut leaves them.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.ring import Ring, Role, unlink_objects
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.head import (
    HEAD_BYTES,
    S_GENERATION,
    S_METADATA_CHAIN,
    S_STARTED_AT,
)
from tests import rings as peers
from tests.crash.scene import FAR_NS, SMALL
from tests.crash.steps import Steps, in_child, kill_everywhere
from tests.reboots import RingsOnDisk, restart
from tests.rings import META, done, path_of, put, ring_address

GONE = "GONE"
KEY = b"k" * 16
LARGE: Any = ((b"x" * 1500,), {})


def fill(mine: Any) -> dict[str, str]:
    """Has whole records of every kind."""
    ring: Ring = mine.ring
    found = {"kept": done(ring, LARGE, b"y" * 1500), "failed": done(ring, outcome="failed" * 10)}
    found["running"] = put(ring, priority=50)
    mine.claim = ring.claim()
    found["retried"] = put(ring, priority=50)
    peers.retry(ring)
    found["deferred"] = put(ring, due_ns=time.time_ns() + FAR_NS)
    found["waiting"] = put(ring, LARGE)
    found["unique"], _ = ring.enqueue(
        META, ring.encode(((5,), {})), priority=-1, due_ns=0, metadata=b'{"a":1}', key=KEY
    )
    return found


def fill_and_break(mine: Any) -> dict[str, str]:
    """And some that are not whole, each in another way."""
    ring: Ring = mine.ring
    found = fill(mine)
    words, table = ring.words, ring._table

    def write(result_id: str, word: int, value: int) -> None:
        words[table.offset(ring_address(result_id)[0]) // 8 + word] = value

    def commit(result_id: str, state: int) -> None:
        slot = ring_address(result_id)[0]
        word = words[table.commit + slot]
        words[table.commit + slot] = at.head_word(state, word & at.GENERATION_MASK)

    write(found["failed"], HEAD_BYTES // 8 + 8, 1)  # its outcome
    found["unstarted"] = put(ring, priority=60)
    mine.other = ring.claim()
    write(found["unstarted"], S_STARTED_AT, 1)
    found["ended"] = done(ring, outcome="ended")
    commit(found["ended"], at.READY)
    found["unnoted"], _ = ring.enqueue(META, b"", priority=-2, due_ns=0, metadata=b'{"b":2}')
    write(found["unnoted"], S_METADATA_CHAIN, 1 << 32 | 2)
    found["gone"] = put(ring)
    write(found["gone"], S_GENERATION, 1)
    # The next one with this key was there only because it had ended.
    ring.cancel(found["unique"], running=False)
    found["later"], _ = ring.enqueue(META, b"", priority=-3, due_ns=0, key=KEY)
    commit(found["unique"], at.RUNNING)
    return found


def seen(ring: Ring, ids: dict[str, str]) -> dict[str, list[str]]:
    """What readers see of all tasks, but for times."""
    ring.upkeep.settle_dead()
    assert ring.upkeep.check() == []
    found = {}
    for name, result_id in ids.items():
        try:
            record = ring.get(result_id)
        except TaskResultDoesNotExist:
            found[name] = [GONE]
            continue
        outcome = record.outcome() if record.finished_at_ns else ""
        outcome = "lost" if "restarted" in str(outcome) else repr(outcome)[:30]
        found[name] = [
            str(record.status.name), repr(record.metadata), outcome, repr(record.past is not None),
        ]  # fmt: skip
    found["order"] = list(_claimed(ring, ids))
    return found


def _claimed(ring: Ring, ids: dict[str, str]) -> Iterator[str]:
    names = {result_id: name for name, result_id in ids.items()}
    while (claim := ring.claim()) is not None:
        yield names[claim.result_id]
        ring.finish(claim, successful=True, outcome=ring.encode(None))


def test_a_death_in_the_first_look(on_disk: RingsOnDisk, tmp_path: Path) -> None:
    """Whatever step it comes at, the next process finds what the dead one would have found."""
    ids = on_disk.peer(SMALL).do(fill_and_break)
    on_disk.reboot()
    path = path_of(on_disk)
    image, told = path.read_bytes(), tmp_path / "seen"

    def restore() -> None:
        unlink_objects(on_disk.name)
        path.touch(0o600)
        path.write_bytes(image)
        restart(on_disk.name)

    def attach(steps: Steps | None = None) -> Ring:
        if steps is not None:
            steps.arm()
        return Ring(on_disk.name, "unit", SMALL, Role.SITE)

    def look() -> None:
        told.write_text(json.dumps(seen(attach(), ids)))

    def verify(completed: bool) -> None:
        in_child(look)
        assert json.loads(told.read_text()) == wanted

    restore()
    in_child(look)
    wanted = json.loads(told.read_text())
    hits = ("words", "ByteLock.attempt", "ByteLock.release", "os.pwrite")
    assert kill_everywhere(restore, attach, verify, hits=hits) > 100


def test_what_is_not_whole(on_disk: RingsOnDisk) -> None:
    """What can be kept of each, and what is told of it."""
    ids = on_disk.peer(SMALL).do(fill_and_break)
    on_disk.reboot()
    found = seen(Ring(on_disk.name, "unit", SMALL, Role.SITE), ids)
    lost = {name for name, facts in found.items() if facts[2:3] == ["lost"]}
    assert lost == {"failed", "running", "unstarted", "unique"}
    assert found["gone"] == [GONE]
    assert found["ended"][2] == "'ended'"
    assert found["unnoted"][:2] == ["READY", "b''"]
    assert found["order"] == ["retried", "waiting", "unnoted", "later"]
    assert found["deferred"][0] == "READY"
