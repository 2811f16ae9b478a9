"""Random bytes over random places: nothing wrong is returned, unpickled or kept, nothing loops."""

import os
import pickle
import random
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.exceptions import PayloadTooLarge, QueueFull, StoreUnavailable
from django_tasks_local.ring.format import ids
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.records import payload, reader
from tests.crash.damage import run
from tests.crash.retried import retried_value, retry
from tests.crash.scene import FAR_NS, GONE, LOST, RUNNING, SMALL, Scene, large_value, small_value
from tests.crash.steps import in_child

# An operation that takes longer does not end.
ENDLESS_S = 10
UNUSABLE = "UNUSABLE"
SEEDS = range(40)


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A ring with records of every kind."""
    made = Scene(SMALL)
    made.done(large_value(1), "a" * 1000)
    made.done(small_value(2), ("app.Error", "text"), successful=False)
    made.done(small_value(3), None)
    for number in range(2):
        made.enqueue(small_value(4 + number))
        made.claim()
    made.ring.finish(made.claims.pop(list(made.records)[3]), successful=True, outcome=b"\x80\x05N.")
    made.records[list(made.records)[3]].status = "SUCCESSFUL"
    made.finished.append(list(made.records)[3])
    made.enqueue(small_value(6), 5)
    made.enqueue(large_value(7))
    made.enqueue(small_value(8), due_ns=FAR_NS * 10**6)
    made.enqueue(small_value(9), -3)
    made.enqueue(retried_value(10), 50)
    retry(made)
    made.save()
    yield made
    made.close()


def regions(scene: Scene) -> dict[str, tuple[int, int]]:
    """Byte ranges that damage is aimed at."""
    geometry = scene.ring.segment.geometry
    columns = (at.COLUMNS_AT, geometry.slots_at)
    return {
        "header": (0, at.PAGE),
        "registry": (at.HEADER_BYTES, at.HEADER_BYTES + 8 * at.ENTRY_BYTES),
        "schedule": (at.SCHEDULE_AT * 8, at.SCHEDULE_AT * 8 + 4 * at.ROW_WORDS * 8),
        "columns": columns,
        "slots": (geometry.slots_at, geometry.segment_bytes),
        "all": (0, geometry.segment_bytes),
    }


def damage(scene: Scene, rng: random.Random, region: tuple[int, int]) -> None:
    """Writes over up to a dozen places; small numbers too, which look like links."""
    view = scene.ring.segment.bytes
    for _ in range(rng.randrange(1, 13)):
        start = rng.randrange(*region)
        match rng.randrange(3):
            case 0:
                data = rng.randbytes(rng.choice((1, 2, 8, 64, 300)))
            case 1:
                start -= start % 8
                data = rng.randrange(64).to_bytes(8, "little")
            case _:
                data = bytes(rng.choice((1, 8, 64)))
        view[start : start + len(data)] = data[: len(view) - start]


def trap_pickle(scene: Scene) -> None:
    """Fails at the first byte that is unpickled and never was pickled."""
    pickled = {scene.ring.encode(record.arguments) for record in scene.records.values()}
    pickled |= {scene.ring.encode(record.outcome) for record in scene.records.values()}
    pickled |= {scene.ring.encode(("new", number)) for number in range(20)}
    pickled |= {scene.ring.encode("done")}

    class Trap:
        @staticmethod
        def loads(data: Any) -> Any:
            assert bytes(data) in pickled, "unpickled what nobody pickled"
            return pickle.loads(data)

    reader.pickle = payload.pickle = Trap  # type: ignore[attr-defined, assignment]


def look(scene: Scene, result_id: str) -> str:
    """A task's status after its data were compared, or why there is none."""
    try:
        return scene.status_of(result_id)
    except StoreUnavailable:
        return UNUSABLE


def untouched(scene: Scene) -> set[str]:
    """Ids of the records none of whose bytes differ from the state before."""
    table, before, now = scene.ring._table, scene.snapshot, scene.ring.segment.bytes
    geometry = table.geometry
    slots: dict[str, set[int]] = {}
    words = memoryview(before).cast("Q")
    column = words[table.commit : table.commit + table.slots.total].tolist()
    for result_id in scene.records:
        head, _, _ = ids.parse_id(result_id)
        owner_word = at.chain_word(head, column[head] & at.GENERATION_MASK)
        slots[result_id] = {head} | {n for n, word in enumerate(column) if word == owner_word}
    places = [(at.H_RESERVED * 8, 8)]

    def same(slot: int) -> bool:
        word_places = [((geometry.column(n) + slot) * 8, 8) for n in ("commit", "link", "sequence")]
        own = (geometry.slots_at + slot * geometry.slot_size, geometry.slot_size)
        return all(
            before[start : start + size] == now[start : start + size]
            for start, size in [*places, *word_places, own]
        )

    return {result_id for result_id, each in slots.items() if all(map(same, each))}


def examine(scene: Scene, use_first: bool) -> None:
    """All that must hold in a damaged ring, before, during and after its repair."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(ENDLESS_S)
    # This child passes for the process that attached: none can attach where the damage is too much.
    scene.ring.attachment.pid = os.getpid()
    trap_pickle(scene)
    whole = untouched(scene)
    for result_id, record in scene.records.items():
        lost = {LOST} if record.status == RUNNING else set()
        assert look(scene, result_id) in {record.status, GONE, UNUSABLE, *lost}
    if use_first:
        use(scene)
    else:
        problems = scene.ring.upkeep.check()
        if not problems:
            assert all(
                look(scene, key) == record.status for key, record in scene.records.items()
            ), "the audit found nothing"
    scene.ring.upkeep.repair()
    assert scene.ring.upkeep.check() == []
    for result_id, record in scene.records.items():
        status = look(scene, result_id)
        lost = {LOST, GONE} if record.status == RUNNING else {GONE}
        if result_id in whole and record.status != RUNNING and not use_first:
            assert status == record.status, f"{result_id} was whole"
        assert status in {record.status, *lost} or use_first
    assert scene.ring.upkeep.check() == []
    use(scene)
    assert scene.ring.upkeep.check() == []
    signal.alarm(0)


def use(scene: Scene) -> None:
    """Uses the ring for a while; it may refuse, and nothing else."""
    ring = scene.ring
    for number in range(12):
        with suppress(StoreUnavailable, QueueFull, PayloadTooLarge):
            ring.enqueue(b"m", ring.encode(("new", number)), priority=number, due_ns=0)
        with suppress(StoreUnavailable, PayloadTooLarge):
            claim = ring.claim()
            if claim is not None:
                known = scene.records.get(claim.result_id)
                arguments = claim.arguments()
                assert known is None or arguments == known.arguments
                assert known is not None or arguments[0] == "new"
                ring.finish(claim, successful=True, outcome=ring.encode("done"))
        for text in ("", str(uuid4()), "0" * 36):
            with pytest.raises(TaskResultDoesNotExist):
                ring.get(text)


@pytest.mark.parametrize("where", ["header", "registry", "schedule", "columns", "slots", "all"])
@pytest.mark.parametrize("use_first", [False, True])
def test_damage(scene: Scene, where: str, use_first: bool) -> None:
    """A damaged ring refuses or returns what is right, is found out, and can be repaired."""
    for seed in SEEDS:
        scene.restore()
        damage(scene, random.Random(f"{where} {seed}"), regions(scene)[where])
        try:
            in_child(lambda: examine(scene, use_first))
        except AssertionError as error:
            error.add_note(f"seed {where!r} {seed}")
            raise


def test_one_wrong_place_is_survived() -> None:
    """Whatever one operation meets after a small damage; `make damage` does it 10,000 times."""
    assert run(count=200, seed=8) == []
