"""A SIGKILL at every write step of every operation of the ring, from several start states."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from django_tasks_local.ring import Look, Loss, Ring, Role, loss_word
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.ids import format_id
from django_tasks_local.ring.records import expiry, order, slots, table
from django_tasks_local.ring.records.killing import Run
from tests.crash.noted import metadata_of, noted_value
from tests.crash.scene import (
    FAILED,
    FAR_NS,
    GREEN,
    LOST,
    META,
    READY,
    SMALL,
    STATES,
    SUCCESSFUL,
    Scene,
    large_value,
    small_value,
)
from tests.crash.steps import INSIDE, Steps, kill_everywhere
from tests.rings import change_limits

TOO_MUCH = loss_word(Loss.MEMORY, 2048, 2**20)
NEW = small_value(900)
NEW_LARGE = large_value(901, 4)
NEW_NOTED = noted_value(902)
NEW_NOTED_LARGE = noted_value(903, 4)
SAVED = b'{"saved":1}' * 90  # two slots of other sizes than any before
OUTCOME = ["the", "outcome"]
LARGE_OUTCOME = bytes(range(250)) * 3


@dataclass(frozen=True)
class Operation:
    """What a child does, step by step, until it is killed.

    Attributes:
        act: The operation, with what `prepare` returned.
        prepare: What comes before it, uncounted.
        extra: Arguments of the task that may be there afterwards without anybody having its id.
        ends: How the claimed task may end, where the operation is a finish.
        claims: Whether it takes the next task.
        stops: Whether a death from then on is told as something else than WorkerLost.
        cancels: Which of the waiting tasks, by their slots, it cancels.
        hits: Kinds of steps that it takes.
        in_order: Whether it evicts the least recently used results first.
        saves: Metadata that some task may have afterwards.
    """

    act: Callable[[Ring, Any], object]
    prepare: Callable[[Ring], Any] = lambda ring: None
    extra: Any = None
    ends: str = ""
    claims: bool = False
    cancels: int | None = None
    stops: bool = False
    states: tuple[str, ...] = tuple(STATES)
    hits: tuple[str, ...] = INSIDE
    in_order: bool = True
    saves: bytes | None = None


def put(value: Any, delay_ns: int = 0) -> Callable[[Ring, Any], object]:
    """Enqueues a value."""

    def act(ring: Ring, _: Any) -> object:
        due_ns = time.time_ns() + delay_ns if delay_ns else 0
        return ring.enqueue(
            META, ring.encode(value), priority=0, due_ns=due_ns, metadata=metadata_of(value)
        )

    return act


def end(outcome: Any, successful: bool = True) -> Callable[[Ring, Any], object]:
    """Finishes a claim."""

    def act(ring: Ring, claim: Any) -> object:
        return ring.finish(claim, successful=successful, outcome=ring.encode(outcome))

    return act


def waiting_ids(ring: Ring) -> list[str]:
    """The ids of the tasks that wait, by their slots."""
    table = ring._table
    slots = [n for n in range(1, table.slots.reserved()) if table.state(n) == at.READY]
    return [format_id(head.id_high, head.id_low) for head in map(table.head, slots)]


WAITING = ("waiting", "full", "crowded", "deferred", "chained", "codes")


def cancel_waiting(which: int, states: tuple[str, ...] = WAITING) -> Operation:
    """Takes a waiting task out."""
    return Operation(
        lambda ring, result_id: ring.cancel(result_id, running=True),
        lambda ring: waiting_ids(ring)[which], cancels=which,
        states=states,
    )  # fmt: skip


def other_code(ring: Ring) -> Ring:
    """A site of another release in the same process."""
    return Ring(ring.name, "crash", ring.attachment.limits, Role.SITE, path=GREEN)


def runs_of(ring: Ring) -> list[Run]:
    """All that runs, be its worker dead or alive."""
    runs = [ring.killing.run_of(worker) for worker in ring.registry.attachments()]
    return [run for run in runs if run is not None]


def note_all(ring: Ring) -> None:
    """A pool has decided to kill every worker."""
    assert all(ring.killing.note(run, TOO_MUCH) for run in runs_of(ring))


def wish_for_workers(ring: Ring) -> None:
    """Another code's pool wanted workers, and has died."""
    ring.words[at.H_WANTED] = 1 << 3


def first_waiting(ring: Ring) -> Any:
    """A task that has not started."""
    table = ring._table
    slot = next(s for s in range(table.slots.reserved()) if table.state(s) == at.READY)
    head = table.head(slot)
    return ring.get(format_id(head.id_high, head.id_low))


def claim_what_is_awaited(ring: Ring) -> Any:
    """Claims a task for whose end somebody waits."""
    ring.words[at.H_WAITED] = time.time_ns() + FAR_NS
    return ring.claim()


def oldest_result(ring: Ring) -> str:
    """The id of the least recently used result."""
    head = ring._table.head(ring.words[at.H_OLDEST])
    return format_id(head.id_high, head.id_low)


def next_task(ring: Ring) -> str:
    """The id of the task that is claimed next."""
    head = ring._table.head(ring._table.order.first(None)[0])
    return format_id(head.id_high, head.id_low)


def save(metadata: bytes) -> Callable[[Ring, Any], object]:
    """Saves metadata of the task of an id, or of a claim."""

    def act(ring: Ring, task: Any) -> object:
        if isinstance(task, str):
            return ring.save_metadata(task, metadata)
        return ring.save_metadata(task.result_id, metadata, task)

    return act


WITH_WORK = ("waiting", "running", "full", "crowded", "deferred", "chained", "noted", "codes")
OPERATIONS = {
    "enqueue": Operation(put(NEW), extra=NEW),
    "enqueue_deferred": Operation(put(NEW, 10**15), extra=NEW),
    "enqueue_large": Operation(put(NEW_LARGE), extra=NEW_LARGE),
    "enqueue_noted": Operation(put(NEW_NOTED), extra=NEW_NOTED),
    "enqueue_noted_large": Operation(put(NEW_NOTED_LARGE), extra=NEW_NOTED_LARGE),
    "save": Operation(
        save(SAVED), next_task, saves=SAVED, states=("waiting", "full", "crowded", "noted")
    ),
    "save_own": Operation(
        save(SAVED), lambda ring: ring.claim(), saves=SAVED, claims=True,
        states=("waiting", "full", "noted"),
    ),
    "save_finished": Operation(
        save(SAVED), oldest_result, saves=SAVED, states=("full", "crowded", "noted")
    ),
    "clear_metadata": Operation(save(b""), oldest_result, saves=b"", states=("noted",)),
    "claim": Operation(lambda ring, _: ring.claim(), claims=True, states=WITH_WORK),
    "finish": Operation(
        end(OUTCOME), lambda ring: ring.claim(), ends=SUCCESSFUL, claims=True, states=WITH_WORK
    ),
    "finish_failed": Operation(
        end(OUTCOME, False), lambda ring: ring.claim(), ends=FAILED, claims=True, states=WITH_WORK
    ),
    "finish_large": Operation(
        end(LARGE_OUTCOME), lambda ring: ring.claim(), ends=SUCCESSFUL, claims=True,
        states=WITH_WORK,
    ),
    "finish_awaited": Operation(
        end(OUTCOME), claim_what_is_awaited, ends=SUCCESSFUL, claims=True, states=("waiting",)
    ),
    "wait": Operation(
        lambda ring, found: ring.wait_for_change(found, 0.001), first_waiting,
        states=("waiting", "deferred"), hits=("words",),
    ),
    "wait_in_a_task": Operation(
        lambda ring, _: [ring.begin_waiting(""), ring.end_waiting("")],
        states=("waiting", "running"),
    ),
    "progress": Operation(
        lambda ring, claim: [claim.report(n, None, "text") for n in range(2)],
        lambda ring: ring.claim(), claims=True, states=("waiting",), hits=("bytes",),
    ),
    "read": Operation(
        lambda ring, oldest: ring.get(oldest), oldest_result,
        states=("waiting", "full", "crowded", "chained"),
    ),
    "settle_on_read": Operation(
        lambda ring, _: [ring.get(task.result_id) for task, _ in Look(ring._table, "").running()],
        states=("running", "chained"),
    ),
    "settle": Operation(lambda ring, _: ring.upkeep.settle_dead(), states=("running", "chained")),
    "rebuild": Operation(lambda ring, _: ring.upkeep.rebuild()),
    "repair": Operation(lambda ring, _: ring.upkeep.repair(), states=("running", "chained")),
    "cancel_first": cancel_waiting(0),
    "cancel_second": cancel_waiting(1, ("waiting", "deferred", "codes")),
    "cancel_last": cancel_waiting(-1),
    "cancel_running": Operation(
        lambda ring, claim: ring.cancel(claim.result_id, running=True), lambda ring: ring.claim(),
        claims=True, stops=True, states=("waiting", "chained"), hits=("words",),
    ),
    "limits": Operation(
        lambda ring, _: ring.attachment.set_limits(ring.attachment.limits), states=("waiting",),
        hits=("words",),
    ),
    "promote": Operation(lambda ring, _: ring.upkeep.promote(), states=("deferred",)),
    "trim": Operation(
        lambda ring, _: ring.upkeep.trim(),
        lambda ring: change_limits(ring, max_results=1),
        states=("full",),
    ),
    "sweep": Operation(
        lambda ring, _: ring.expiry.sweep(),
        lambda ring: change_limits(ring, result_ttl_s=1e-3, failure_ttl_s=1e-3),
        states=("waiting", "full", "crowded", "chained"), in_order=False,
    ),
    "note_kill": Operation(
        lambda ring, runs: [ring.killing.note(run, TOO_MUCH) for run in runs], runs_of,
        states=("running", "chained"),
    ),
    "settle_noted": Operation(lambda it, _: it.upkeep.settle_dead(), note_all, states=("running",)),
    "become": Operation(lambda ring, _: ring.attachment.become(Role.VISITOR), states=("waiting",)),
    "attach_other_code": Operation(lambda ring, _: other_code(ring), states=("empty", "codes")),
    "enqueue_other_code": Operation(
        lambda _, other: other.enqueue(META, other.encode(NEW), priority=0, due_ns=0),
        other_code, extra=NEW, states=("waiting", "codes"),
    ),
    "allow": Operation(
        lambda ring, _: ring.upkeep.set_runnable_up_to(ring.registry.serial),
        states=("waiting", "deferred", "codes"),
        hits=("words",),
    ),
    "hire": Operation(
        lambda ring, _: ring.workforce.hire(0, 2, waiting=True, strays=0), states=("codes",)
    ),
    "give_way": Operation(
        lambda ring, _: ring.workforce.give_way(), wish_for_workers, states=("codes",)
    ),
    "detach": Operation(lambda ring, _: ring.attachment.detach(), states=("waiting",)),
}  # fmt: skip


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A ring of 46 slots."""
    made = Scene(SMALL)
    yield made
    made.close()


def verification(scene: Scene, operation: Operation) -> Callable[[bool], None]:
    """What must hold after a death in `operation`."""
    next_up = scene.next_up()
    scene.saved = operation.saves
    target = None if operation.cancels is None else waiting_ids(scene.ring)[operation.cancels]

    def verify(completed: bool) -> None:
        allowed: dict[str, set[str]] = {}
        if operation.claims and next_up:
            ends = {operation.ends} if operation.ends else {LOST}
            allowed[next_up[0]] = ends if completed else {READY, LOST, *ends}
            if operation.ends:
                allowed[next_up[0]] -= {READY}
            if operation.stops:
                allowed[next_up[0]] = {FAILED} if completed else {FAILED, LOST}
            scene.records[next_up[0]].outcome = None
        if target is not None:
            scene.assert_newest_or_ready(target)
            allowed[target] = {FAILED} if completed else {FAILED, READY}
        scene.verify(allowed, operation.extra, operation.in_order)

    return verify


def body_of(scene: Scene, operation: Operation) -> Callable[[Steps], None]:
    """The child's part of `operation`."""

    def body(steps: Steps) -> None:
        ring = scene.attach(Role.WORKER if operation.claims else Role.SITE)
        prepared = operation.prepare(ring)
        steps.arm()
        operation.act(ring, prepared)

    return body


def kill_in(scene: Scene, operation: Operation) -> None:
    """Kills a child at each step of an operation on the scene as it is."""
    scene.save()
    deaths = kill_everywhere(
        scene.restore, body_of(scene, operation), verification(scene, operation),
        hits=operation.hits,
    )  # fmt: skip
    assert deaths


CASES = [
    pytest.param(name, state, id=f"{name}-{state}")
    for name, operation in OPERATIONS.items()
    for state in operation.states
]


@pytest.mark.parametrize(("name", "state"), CASES)
def test_death_at_every_step(scene: Scene, name: str, state: str) -> None:
    """Whatever step a process is killed at, nothing accepted is lost, torn or run twice."""
    STATES[state](scene)
    kill_in(scene, OPERATIONS[name])


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("enqueue_large", "holes"),
        ("finish_large", "holes"),
        ("save_finished", "full"),
        ("settle", "chained"),
        ("promote", "deferred"),
        ("trim", "full"),
        ("trim", "holes"),
        ("sweep", "crowded"),
    ],
)
def test_death_between_pieces(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, name: str, state: str
) -> None:
    """What is done in several holds of the lock, here one for each run of slots and each record."""
    STATES[state](scene)
    monkeypatch.setattr(slots, "RUNS_AT_ONCE", 1)
    monkeypatch.setattr(table, "EVICTED_AT_ONCE", 1)
    monkeypatch.setattr(expiry, "EVICTED_AT_ONCE", 1)
    monkeypatch.setattr(order, "PROMOTED_AT_ONCE", 1)
    kill_in(scene, OPERATIONS[name])


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("enqueue", "full"),
        ("enqueue_large", "chained"),
        ("claim", "deferred"),
        ("finish_large", "full"),
        ("save_finished", "noted"),
        ("settle", "running"),
    ],
)
def test_second_death_in_the_recovery(scene: Scene, name: str, state: str) -> None:
    """Whoever dies while repairing what a death left, the next one still repairs it."""
    operation = OPERATIONS[name]
    STATES[state](scene)
    scene.save()
    first = Steps()
    verify = verification(scene, operation)

    def repair(steps: Steps) -> None:
        ring = scene.attach()
        steps.arm()
        ring.upkeep.settle_dead()
        ring.attachment.become(Role.SITE)

    kill_at = 0
    while not first.run(kill_at := kill_at + 1, False, body_of(scene, operation)).completed:
        # The audit has no second opinion on a clean ring, so only dirty ones are worth the time;
        # every fifth of them, since neighbours differ by one store.
        if kill_at % 5 == 0 and scene.dirty():
            original = scene.save()
            kill_everywhere(scene.restore, repair, lambda _: verify(False))
            scene.save(original)
        scene.restore()
