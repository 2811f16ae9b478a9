"""A SIGKILL at every write step of every operation of the ring, from several start states."""

from collections.abc import Callable, Iterator

import pytest

from django_tasks_local.ring import Look, Role
from django_tasks_local.ring.records import expiry, order, slots, table
from tests.crash.deaths import deaths, die_everywhere
from tests.crash.noted import noted_value
from tests.crash.operations import (
    TOO_MUCH,
    WITH_WORK,
    Operation,
    cancel_waiting,
    claim_what_is_awaited,
    end,
    first_waiting,
    next_task,
    note_all,
    oldest_result,
    other_code,
    put,
    retry,
    runs_of,
    save,
    waiting_ids,
    wish_for_workers,
)
from tests.crash.retried import BUSY, VERY_BUSY
from tests.crash.scene import (
    EVERY_CODE,
    FAILED,
    FAR_NS,
    LOST,
    META,
    READY,
    SMALL,
    SUCCESSFUL,
    Scene,
    large_value,
    small_value,
)
from tests.crash.states import STATES
from tests.crash.steps import Steps
from tests.rings import change_limits

NEW = small_value(900)
NEW_LARGE = large_value(901, 4)
NEW_NOTED = noted_value(902)
NEW_NOTED_LARGE = noted_value(903, 4)
SAVED = b'{"saved":1}' * 90  # two slots of other sizes than any before
OUTCOME = ["the", "outcome"]
LARGE_OUTCOME = bytes(range(250)) * 3


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
        states=("waiting", "full", "noted", "retried"),
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
    "retry": retry(BUSY),
    "retry_large": retry(VERY_BUSY),
    "retry_later": retry(BUSY, FAR_NS),
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
    "settle": Operation(
        lambda ring, _: ring.upkeep.settle_dead(), states=("running", "chained", "retried")
    ),
    "tell": Operation(
        lambda ring, _: list(ring.upkeep.losses.take(EVERY_CODE)),
        lambda ring: ring.upkeep.settle_dead(), states=("running", "chained"), hits=("words",),
    ),
    "rebuild": Operation(lambda ring, _: ring.upkeep.rebuild()),
    "repair": Operation(
        lambda ring, _: ring.upkeep.repair(), states=("running", "chained", "retried")
    ),
    "cancel_first": cancel_waiting(0),
    "cancel_second": cancel_waiting(1, ("waiting", "deferred", "codes")),
    "cancel_last": cancel_waiting(-1),
    "cancel_retried": cancel_waiting(0, ("retried",)),
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
        states=("waiting", "full", "crowded", "chained", "retried"), in_order=False,
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
    scene.failed, scene.later = operation.fails, operation.later
    target = None if operation.cancels is None else waiting_ids(scene.ring)[operation.cancels]

    def verify(completed: bool) -> None:
        allowed: dict[str, set[str]] = {}
        if operation.claims and next_up:
            ends = {operation.ends} if operation.ends else {LOST}
            allowed[next_up[0]] = ends if completed else {READY, LOST, *ends}
            if operation.ends:
                allowed[next_up[0]] -= {READY}
            if operation.fails:
                allowed[next_up[0]] = {READY} if completed else {READY, LOST}
            if operation.stops:
                allowed[next_up[0]] = {FAILED} if completed else {FAILED, LOST}
            scene.records[next_up[0]].outcome = None
        if target is not None:
            scene.assert_newest_or_ready(target)
            allowed[target] = {FAILED} if completed else {FAILED, READY}
        scene.verify(allowed, operation.extra, operation.in_order)
        if completed and operation.fails:
            assert scene.moved == next_up[:1]

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
    body, verify = body_of(scene, operation), verification(scene, operation)
    assert die_everywhere(scene, body, verify, hits=operation.hits)


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
        ("retry_large", "full"),
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
        ("settle", "retried"),
        ("retry", "waiting"),
    ],
)
def test_second_death_in_the_recovery(scene: Scene, name: str, state: str) -> None:
    """Whoever dies while repairing what a death left, the next one still repairs it."""
    operation = OPERATIONS[name]
    STATES[state](scene)
    scene.save()
    verify = verification(scene, operation)

    def repair(steps: Steps) -> None:
        ring = scene.attach()
        steps.arm()
        ring.upkeep.settle_dead()
        ring.attachment.become(Role.SITE)

    for death in deaths(scene, body_of(scene, operation)):
        # The audit has no second opinion on a clean ring, so only dirty ones are worth the time;
        # every fifth of them, since neighbours differ by one store.
        if death.step % 5 == 0 and not death.torn and scene.dirty():
            original = scene.save()
            die_everywhere(scene, repair, lambda _: verify(False))
            scene.save(original)
