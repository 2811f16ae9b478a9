"""The operations that ``test_points`` kills at each of their steps, and what they may leave."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django_tasks_local.ring import Loss, Ring, Role, loss_word
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.ids import format_id
from django_tasks_local.ring.records.killing import Run
from tests.crash.keyed import key_of
from tests.crash.noted import metadata_of
from tests.crash.scene import FAR_NS, GREEN, META, MODULE
from tests.crash.states import STATES
from tests.crash.steps import INSIDE
from tests.rings import tally_of

TOO_MUCH = loss_word(Loss.MEMORY, 2048, 2**20)


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
        fails: The error with which it fails the claimed task, which is to be tried again.
        later: Whether that waits until some time.
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
    fails: tuple[str, str] | None = None
    later: bool = False


WITH_WORK = (
    "waiting", "running", "full", "crowded", "deferred", "chained", "noted", "codes", "retried",
)  # fmt: skip


def put(value: Any, delay_ns: int = 0) -> Callable[[Ring, Any], object]:
    """Enqueues a value."""

    def act(ring: Ring, _: Any) -> object:
        due_ns = time.time_ns() + delay_ns if delay_ns else 0
        return ring.enqueue(
            META, ring.encode(value), priority=0, due_ns=due_ns, metadata=metadata_of(value),
            key=key_of(value), tally=tally_of(ring),
        )  # fmt: skip

    return act


def end(outcome: Any, successful: bool = True) -> Callable[[Ring, Any], object]:
    """Finishes a claim."""

    def act(ring: Ring, claim: Any) -> object:
        return ring.finish(claim, successful=successful, outcome=ring.encode(outcome))

    return act


def retry(error: tuple[str, str], delay_ns: int = 0) -> Operation:
    """Has the claimed task tried again, at once or later."""

    def act(ring: Ring, claim: Any) -> object:
        return ring.retry(claim, error=error, due_ns=time.time_ns() + delay_ns if delay_ns else 0)

    return Operation(
        act, lambda ring: ring.claim(), claims=True, states=WITH_WORK, fails=error,
        later=delay_ns > 0,
    )  # fmt: skip


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
    other = Ring(ring.name, "crash", ring.attachment.limits, Role.VISITOR, path=GREEN)
    other.codes.module = MODULE
    other.attachment.become(Role.SITE)
    return other


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
