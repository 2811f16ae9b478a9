"""One process of the fuzzer: random operations on a ring, each result compared with the ledger."""

import json
import os
import random
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Final

from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.exceptions import ArgumentsDropped, PayloadTooLarge, QueueFull
from django_tasks_local.ring import Limits, Loss, Ring, Role, loss_word
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.ids import format_id
from django_tasks_local.ring.records.loss import EXIT_DETACHED, is_cancelled, noted_loss
from django_tasks_local.store import KeyTaken, StopAsked, time_limit_word
from tests.crash.cancelling import Canceller
from tests.crash.firing import Firer
from tests.crash.follower import Follower
from tests.crash.ledger import CANCELLED, ENDED, TOLD, Ledger
from tests.crash.monitor import Monitor, remove_monitor
from tests.crash.retrier import Retrier, be_impatient, lost_attempts
from tests.rings import tally_of

META: Final = b"tests.tasks:noop"
# Whose code may be in the ring at the same time.
RELEASES: Final = ("", "/blue/settings.py", "/green/settings.py")
# So little memory that results, and before them arguments of results, make room now and then.
# And results that expire while others look for them.
LIMITS: Final = Limits(
    4, 150, 300, 512, at.COLUMNS_AT + 400_000, result_ttl_s=0.5, failure_ttl_s=0.7
)  # fmt: skip
# Few, so that unique tasks meet: some have the bits in common that choose a bucket.
KEYS: Final = tuple((n % 16).to_bytes(15, "little") + bytes([n]) for n in range(40))


class Interrupted(BaseException):
    """What the handler of SIGUSR1 raises, wherever the main thread is."""


def value_of(task: int) -> tuple[int, bytes]:
    """The argument of a task: its number, and bytes that only it has; mostly few."""
    size = (0, 10, 40, 100, 700, 3000, 20_000)[task % 7] if task % 3 == 0 else task % 90
    return task, task.to_bytes(8, "little") * (size // 8)


def outcome_of(task: int) -> tuple[str, int, bytes]:
    """What a task returns."""
    return "outcome", task, value_of(task * 5 + 1)[1]


def metadata_of(task: int, rng: random.Random) -> bytes:
    """Metadata that name the task, of one slot or several."""
    return b'{"task":%d,"x":"%s"}' % (task, b"x" * rng.choice((0, 0, 20, 600, 3000)))


class Actor(Canceller, Retrier, Firer, Follower):
    """Random operations of one thread."""

    def __init__(self, ring: Ring, ledger: Ledger, place: int, rng: random.Random) -> None:
        self.ring = ring
        self.ledger = ledger
        self.place = place
        self.rng = rng
        self._numbers = threading.Lock()
        # Tasks whose kill this actor has noted, each with the class of error that it must end with.
        self._noted: list[tuple[str, str]] = []

    def act(self) -> None:
        """One random operation."""
        upkeep = self.ring.upkeep
        operations: tuple[tuple[Callable[[], object], int], ...] = (
            (self.enqueue, 28), (self.enqueue_many, 2), (self.work, 34), (self.read, 24),
            (self.save, 8),
            (upkeep.settle_dead, 3), (upkeep.promote, 2), (upkeep.top_up, 1),
            (upkeep.renew_semaphores, 2), (upkeep.rebuild, 1), (self.check, 1),
            (self.ring.counts, 1),
            (self.clear, 2), (self.hire, 1), (self.ring.workforce.give_way, 1),
            (self.ring.expiry.sweep, 3), (self.note_kill, 2), (self.look_at_noted, 2),
            (self.cancel, 4), (self.fire_a_time, 6), (self.announce, 2),
        )  # fmt: skip
        pick = self.rng.choices([each for each, _ in operations], [n for _, n in operations])[0]
        pick()

    def enqueue(self) -> None:
        """Enqueues a task of its own kind."""
        with self._numbers:
            task = self.ledger.new_task(self.place)
            follower = self.ledger.new_task(self.place) if self.rng.random() < 0.2 else -1
        if task < 0:
            return
        due_ns = time.time_ns() + self.rng.randrange(40_000_000) if self.rng.random() < 0.2 else 0
        arguments = self.ring.encode(((*value_of(task),), {}))
        later = self.ring.encode(((*value_of(follower),), {})) if follower >= 0 else b""
        ties = self.ties_to(task, follower, META, later)
        with suppress(QueueFull, PayloadTooLarge, KeyTaken):
            metadata = metadata_of(task, self.rng) if self.rng.random() < 0.2 else b""
            priority = self.rng.choice((-100, 0, 0, 0, 7, 100))
            key = self.rng.choice(KEYS) if self.rng.random() < 0.2 else b""
            result_id, _ = self.ring.enqueue(
                META, arguments, priority=priority, due_ns=due_ns, metadata=metadata, key=key,
                time_limit=time_limit_word(None, 0, lost_attempts(task)), ties=ties,
                tally=self.tally(),
            )  # fmt: skip
            number = int(result_id.replace("-", ""), 16)
            self.ledger.accepted(task, number >> 64, number & 0xFFFFFFFFFFFFFFFF)
            self.ledger.add(self.place, "enqueued")

    def tally(self) -> int:
        """What counts a task; some are not counted."""
        return tally_of(self.ring) if self.rng.random() < 0.8 else 0

    def fire_a_time(self) -> None:
        """Does as a pool with periodic tasks."""
        with self._numbers:
            task = self.ledger.new_task(self.place)
        if task >= 0:
            arguments = self.ring.encode(((*value_of(task),), {}))
            self.fire(task, META, arguments, metadata_of(task, self.rng))

    def clear(self) -> None:
        """Does as a pool that has compared its files with all sites of its code."""
        self.ring.upkeep.set_runnable_up_to(self.ring.leadership.newest_site())

    def hire(self) -> None:
        """Does as a pool that could use workers."""
        have, wanted = self.rng.randrange(3), self.rng.randrange(3)
        self.ring.workforce.hire(have, wanted, waiting=wanted > 0, strays=0)

    def enqueue_many(self) -> None:
        """Enqueues several tasks together."""
        with self._numbers:
            tasks = [self.ledger.new_task(self.place) for _ in range(self.rng.randrange(1, 12))]
        if min(tasks) < 0:
            return
        due_ns = time.time_ns() + self.rng.randrange(40_000_000) if self.rng.random() < 0.2 else 0
        arguments = [self.ring.encode(((*value_of(task),), {})) for task in tasks]
        keys = self.rng.sample(KEYS, len(tasks)) if self.rng.random() < 0.3 else []
        with suppress(QueueFull, PayloadTooLarge):
            ids, held, _ = self.ring.bulk.put(
                META, arguments, priority=self.rng.choice((0, 7)), due_ns=due_ns, keys=keys,
                tally=self.tally(),
            )  # fmt: skip
            for place, (task, (high, low)) in enumerate(zip(tasks, ids, strict=True)):
                if place not in held:
                    self.ledger.accepted(task, high, low)
                    self.ledger.add(self.place, "enqueued")

    def note_kill(self) -> None:
        """Does as a pool that is about to kill a worker of another process.

        Without the signal: who is no parent may hit a stranger who has that pid by now. The worker
        ends by itself, unless it is killed before.
        """
        others = [e for e in self.ring.registry.attachments() if e.pid != os.getpid()]
        run = self.ring.killing.run_of(self.rng.choice(others)) if others else None
        if run is None:
            return
        # Before it happens: the worker may end, and this process be killed, before the next line.
        self.ledger.add(self.place, "noted")
        if not self.ring.killing.note(run, loss_word(Loss.MEMORY, 2048, 2**20)):
            self.ledger.add(self.place, "noted", -1)
            return
        table = self.ring._table
        head = table.head(run.slot)
        # Else it is settled, and may be evicted: these words may be another record's.
        if table.words[table.commit + run.slot] == run.word:
            cancelled = is_cancelled(noted_loss(head.stop))
            ending = ".TaskCancelled" if cancelled else ".MemoryExceeded"
            self._noted.append((format_id(head.id_high, head.id_low), ending))

    def announce(self) -> None:
        """Does as a worker that has losses to announce: each is given to one process."""
        for lost in self.ring.upkeep.losses.take(at.Share(0, 0, 2**at.CODES - 1)):
            with suppress(ArgumentsDropped, TaskResultDoesNotExist):
                (task, _), _ = lost.arguments()
                if self.ledger.noted(task, TOLD):
                    self.ledger.violation(f"the loss of task {task} was given out twice")
                self.ledger.note(task, TOLD, self.place)

    def look_at_noted(self) -> None:
        """A task whose end was decided has no other one.

        What was asked to stop before it was to be killed was cancelled: the first reason stands.
        """
        for result_id, ending in self._noted[-5:]:
            with suppress(TaskResultDoesNotExist):
                found = self.ring.get(result_id)
                # The attempt that was noted may have been followed by others.
                ended = found.finished_at_ns and not found.past
                if ended and not found.outcome()[0].endswith(ending):
                    told = f"noted as {ending}, and is {found.outcome()}"
                    self.ledger.violation(f"{result_id} was {told}")

    def share(self) -> at.Share | None:
        """What a worker of our code may claim, or anything."""
        if self.rng.random() < 0.3:
            return None
        adopted = self.rng.choice((0, 2**31 << at.CODES | self.rng.randrange(2**at.CODES)))
        return at.Share(self.ring.registry.code, self.ring.leadership.newest_site(), adopted)

    def work(self) -> None:
        """Claims a task of any share and finishes it."""
        self._run(self.ring.claim(self.share()))

    def drain(self) -> None:
        """Claims the next task, whosever it is, and finishes it."""
        self._run(self.ring.claim())

    def _run(self, claim: Any) -> None:
        if claim is None:
            return
        self.ledger.add(self.place, "claimed")
        (task, data), _ = claim.arguments()
        self.started(task, claim)
        self.follows(task, claim)
        self.note_time(task)
        if (task, data) != value_of(task) or claim.meta != META:
            self.ledger.violation(f"task {task} got wrong arguments")
        if self.rng.random() < 0.3:
            claim.report(1, 2, "half")
        if self.rng.random() < 0.2:
            with suppress(PayloadTooLarge):
                self.ring.save_metadata(claim.result_id, metadata_of(task, self.rng), claim)
        if self.fails(task, claim):
            return
        self.ledger.note(task, ENDED, self.place)
        outcome = self.ring.encode(outcome_of(task))
        try:
            self.ring.finish(claim, successful=task % 4 != 0, outcome=outcome)
        except PayloadTooLarge:
            self._end(claim, ("too", "large"), cancelled=False)
        except StopAsked:
            self._end(claim, ("was", "cancelled"), cancelled=True)
        self.ledger.add(self.place, "finished")

    def read(self) -> None:
        """Reads some task's result."""
        task = self.any_task()
        if task >= 0:
            self.compare(task)

    def save(self) -> None:
        """Gives some task, whatever its state, other metadata, or none."""
        task = self.any_task()
        halves = self.ledger.id_of(task) if task >= 0 else None
        if halves is None:
            return
        metadata = metadata_of(task, self.rng) if self.rng.random() < 0.9 else b""
        with suppress(PayloadTooLarge, TaskResultDoesNotExist):
            self.ring.save_metadata(format_id(*halves), metadata)

    def compare(self, task: int) -> str:
        """Compares a task's result with what it must be; returns its status, "" for none."""
        halves = self.ledger.id_of(task)
        if halves is None:
            return ""
        self.ledger.add(self.place, "reads")
        try:
            found = self.ring.get(format_id(*halves))
            try:
                (number, data), _ = found.arguments()
            except ArgumentsDropped:
                number, data = value_of(task)
            if found.metadata and json.loads(found.metadata)["task"] != task:
                self.ledger.violation(f"task {task} shows wrong metadata")
            self.compare_past(task, found.past)
            meta = found.meta  # it may be evicted at any moment, so nothing is read later
            outcome = found.outcome() if found.finished_at_ns else None
        except TaskResultDoesNotExist:
            return "GONE"
        if (number, data) != value_of(task) or number != task or meta != META:
            self.ledger.violation(f"task {task} shows wrong arguments")
        status = found.status.name
        right = {
            "READY": outcome is None,
            "RUNNING": outcome is None,
            "SUCCESSFUL": outcome == outcome_of(task) and task % 4 != 0,
            "FAILED": outcome is not None and (
                outcome[0].endswith(("WorkerLost", "MemoryExceeded"))
                or (
                    (outcome[0].endswith("TaskCancelled") or outcome == ("was", "cancelled"))
                    and found.cancelled and self.ledger.noted(task, CANCELLED)
                )
                or outcome == ("too", "large")
                or (outcome == outcome_of(task) and task % 4 == 0)
            ),
        }  # fmt: skip
        if not right[status]:
            self.ledger.violation(f"task {task} is {status} with a wrong outcome")
        return status

    def check(self) -> None:
        """Audits the living ring."""
        for problem in self.ring.upkeep.check():
            self.ledger.violation(f"the audit says: {problem}")


def was_noted(status: int, ledger: Ledger) -> bool:
    """Whether a process has ended since its task could not be finished any more."""
    return os.waitstatus_to_exitcode(status) == EXIT_DETACHED and ledger.total("noted") > 0


def live(name: str, ledger: Ledger, place: int, seed: str, until: float) -> None:
    """The life of one process; it ends by a kill, or with the round."""
    rng = random.Random(seed)
    ledger.take_place(place)
    monitor = Monitor(ledger, place)
    monitor.install()
    be_impatient()
    role, path = rng.choice((Role.SITE, Role.WORKER)), rng.choice(RELEASES)
    ring = Ring(name, "fuzz", LIMITS, role, path=path)
    monitor.segment = ring.segment
    if ring.segment.inode != ledger.ring:  # some processes have the old one: nothing excludes them
        ledger.violation(f"the ring was replaced: {ring.segment.inode} is not {ledger.ring}")
        os._exit(1)
    actor = Actor(ring, ledger, place, rng)
    for number in range(rng.choice((0, 0, 1, 2))):
        sibling = Actor(ring, ledger, place, random.Random(f"{seed} {number}"))
        sibling._numbers = actor._numbers
        threading.Thread(target=_repeat, args=(sibling, until), daemon=True).start()

    def interrupt(signum: int, frame: FrameType | None) -> None:
        if _armed:
            _armed.clear()
            ledger.add(place, "interrupts")
            raise Interrupted

    signal.signal(signal.SIGUSR1, interrupt)
    while time.monotonic() < until:
        with suppress(Interrupted):
            _armed[:] = [True]
            _repeat(actor, until, lambda: _fork(name, seed, actor))
            _armed.clear()


# Whether the handler may raise. It clears this, so that one exception at a time is on its way.
_armed: list[bool] = []


def _repeat(actor: Actor, until: float, fork: Callable[[], None] = lambda: None) -> None:
    try:
        while time.monotonic() < until:
            actor.act()
            if actor.rng.random() < 0.004:
                fork()
    except Exception:
        actor.ledger.violation(traceback.format_exc())
        os._exit(1)


def _fork(name: str, seed: str, actor: Actor) -> None:
    """Forks while siblings may be inside; the child attaches anew, and is killed after a while."""
    ledger, place = actor.ledger, actor.place
    if place >= ledger.places // 2:
        return
    _armed.clear()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            remove_monitor()
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            seed = f"{seed} {actor.rng.random()}"
            live(name, ledger, place + ledger.places // 2, seed, time.monotonic() + 0.5)
            code = 0
        finally:
            os._exit(code)
    ledger.add(place, "forks")
    for _ in range(actor.rng.randrange(1, 60)):
        actor.act()
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        ledger.add(place, "fork_kills")
    elif status and not was_noted(status, ledger):
        ledger.violation(f"a forked child ended with status {status}")
    _armed[:] = [True]
