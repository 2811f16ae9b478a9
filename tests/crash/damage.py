"""Damages a live ring at random and uses it: it may not crash, nor hang, nor say what is wrong.

    python -m tests.crash.damage --count 10000 --seed 1

Each case furnishes a ring, writes over a bit, a byte, a word or a range of it, and does everything
that can be done to a ring in a child process under an alarm. What has no memory is protected there,
so that a link into a hole is a SIGSEGV, as it would be a SIGBUS on a full /dev/shm. The exit status
is 1 where anything was violated; every violation names the case that shows it again (`--only`).
"""

import argparse
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.exceptions import (
    ArgumentsDropped,
    PayloadTooLarge,
    QueueFull,
    StoreUnavailable,
)
from django_tasks_local.ring import Due, Look, Ring, Role, loss_word
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.records.loss import EXIT_DETACHED, Loss
from django_tasks_local.ring.shm import segment
from tests.crash.damaged import LIMITS, Damaged, damage
from tests.crash.noted import metadata_of
from tests.crash.scene import (
    FAILED,
    FAR_NS,
    GONE,
    LOST,
    META,
    READY,
    RUNNING,
    SUCCESSFUL,
    large_value,
    small_value,
)
from tests.rings import tally_of

# An operation that takes longer does not end.
ENDLESS_S: Final = 10
DOCUMENTED: Final = (StoreUnavailable, TaskResultDoesNotExist, QueueFull, PayloadTooLarge)
OK, VIOLATED = 0, 1
SAVED: Final = b'{"saved":1}' * 100


class Use:
    """Everything that a process does with a ring, in a child."""

    def __init__(self, scene: Damaged, rng: random.Random, pipe: int) -> None:
        self.scene = scene
        self.rng = rng
        self.pipe = pipe
        self.ring = scene.attach(Role.WORKER)
        self.claimed: set[str] = set()
        self.new: dict[str, Any] = {}
        self.taken: list[Any] = []
        # Who is refused in the middle is like one who dies there: it may be done, or not.
        self.half_enqueued: list[Any] = [small_value(99)]  # by newcomers
        self.half_claimed = False
        for _ in range(2):
            self.claim()

    def claim(self) -> None:
        """Claims: only what waits, each once, with what was enqueued."""
        self.half_claimed, before = True, self.half_claimed
        claim = self.ring.claim()
        self.half_claimed = before
        if claim is None:
            return
        key = claim.result_id
        assert key not in self.claimed, "claimed twice"
        self.claimed.add(key)
        record = self.scene.records.get(key)
        if record is not None:
            assert record.status == READY, f"claimed what is {record.status}"
        elif key not in self.new:
            assert claim.arguments() in self.half_enqueued, "a task that nobody enqueued"
        wanted = record.arguments if record else self.new.get(key, claim.arguments())
        assert claim.meta == META
        assert claim.arguments() == wanted, "other arguments"
        self.compare_metadata(claim, wanted)
        claim.report(1, 2, "half")
        self.taken.append(claim)

    def finish(self) -> None:
        """Finishes what it claimed."""
        if self.taken:
            claim = self.taken.pop()
            outcome = self.rng.choice(("done", "d" * 5000))
            with suppress(PayloadTooLarge):
                self.ring.finish(claim, successful=True, outcome=self.ring.encode(outcome))

    def enqueue(self) -> None:
        """Enqueues small, large and deferred tasks."""
        rng = self.rng
        number = 100 + len(self.new) + len(self.half_enqueued)
        arguments = rng.choice((small_value, large_value))(number)
        due_ns = rng.choice((0, 0, time.time_ns() + FAR_NS, 1))
        ring = self.ring
        self.half_enqueued.insert(0, arguments)
        key, _ = ring.enqueue(
            META, ring.encode(arguments), priority=rng.randrange(-100, 101), due_ns=due_ns,
            tally=tally_of(ring),
        )  # fmt: skip
        self.half_enqueued.pop(0)
        assert key not in self.new
        self.new[key] = arguments

    def fire(self) -> None:
        """Does as a pool with a periodic task; damaged rows are somebody else's, or none."""
        firing = self.ring.firing
        firing.adopt([(1, 1), (2, 1)], time.time_ns())
        row = firing.rows().get(self.rng.choice((1, 2)))
        if row is None:
            return
        firing.settle(row, row.settled_ns)
        arguments = self.rng.choice((small_value, large_value))(80 + len(self.half_enqueued))
        self.half_enqueued.append(arguments)
        due = Due(row, min(row.settled_ns + 1, 2**64 - 1), self.rng.random() < 0.5)
        firing.fire(
            due, META, self.ring.encode(arguments), priority=0, time_limit=0, metadata=SAVED
        )

    def get(self) -> None:
        """Reads everything there is."""
        for key, record in self.scene.records.items():
            right = {record.status, GONE}
            if key in self.claimed:
                right |= {RUNNING, SUCCESSFUL, LOST}
            if self.half_claimed and record.status == READY:
                right |= {RUNNING, LOST}
            if record.status == RUNNING:
                right.add(LOST)
            with suppress(StoreUnavailable):
                status = self.status_of(key, record)
                assert status in right, f"{key} is {status}, not one of {right}"

    def status_of(self, key: str, record: Any) -> str:
        """A status, and whether what comes with it is right."""
        try:
            found = self.ring.get(key)
        except TaskResultDoesNotExist:
            return GONE
        with suppress(TaskResultDoesNotExist):
            assert found.meta == META
            self.compare_metadata(found, record.arguments)
            with suppress(ArgumentsDropped):
                assert found.arguments() == record.arguments, "other arguments"
            status = str(found.status.name)
            if status in (SUCCESSFUL, FAILED):
                outcome = found.outcome()
                if status == FAILED and outcome[0].endswith(".WorkerLost"):
                    return LOST
                wanted = {repr(record.outcome)} if key not in self.claimed else set()
                wanted |= {repr("done"), repr("d" * 5000)} if key in self.claimed else set()
                assert repr(outcome) in wanted, "another outcome"
            return status
        return GONE

    def compare_metadata(self, found: Any, arguments: Any) -> None:
        """It is what was stored; a word of zeros where it was named passes for none."""
        assert found.metadata in (metadata_of(arguments), SAVED, b""), "other metadata"

    def save(self) -> None:
        """Gives some task other metadata."""
        key = self.rng.choice(list(self.scene.records))
        self.ring.save_metadata(key, self.rng.choice((SAVED, b"")))

    def strangers(self) -> None:
        """Ids that never were any."""
        for text in ("", "0" * 36, "00000000-0000-8000-8000-000000000000"):
            with suppress(TaskResultDoesNotExist):
                self.ring.get(text)
                raise AssertionError("found what never was")

    def look_after(self) -> None:
        """What a site's and a pool's tick do."""
        ring = self.ring
        ring.segment.intact()
        if not ring.registry.hold():
            ring.attachment.take_place()
        ring.upkeep.reopen_semaphores()
        ring.upkeep.renew_semaphores()
        ring.upkeep.promote()
        ring.upkeep.top_up()
        ring.upkeep.work_is_due(1.0)
        for entry in ring.upkeep.settle_dead():
            ring.upkeep.is_busy(entry)
            ring.registry.path_of(entry.index)
        ring.leadership.pool_looks_alive()
        ring.leadership.wants_more_workers()
        assert ring.upkeep.max_workers() <= 1024
        ring.upkeep.drain_timeout_s()

    def look(self) -> None:
        """What `local_tasks status` does."""
        ring = self.ring
        look = Look(ring._table, ring.alias)
        look.counts()
        look.attached()
        list(look.running())
        look.stuck_inside()
        ring.upkeep.has_work()
        ring.upkeep.next_due_ns()

    def settle(self) -> None:
        """Asks for all entries, dead or alive."""
        for index in self.rng.sample(range(at.ENTRIES), 5):
            self.ring.upkeep.settle(index, loss_word(Loss.UNKNOWN))

    def check(self) -> None:
        """The audit."""
        self.ring.upkeep.check()

    def recover(self) -> None:
        """A rebuild."""
        self.ring.upkeep.rebuild()

    def become(self) -> None:
        """Another role."""
        self.ring.attachment.become(Role.SITE)

    def attach(self) -> None:
        """A newcomer."""
        pid = os.fork()
        if not pid:
            code = VIOLATED
            with suppress(BaseException):
                try:
                    self.attach_here()
                except DOCUMENTED as error:
                    if "places" in str(error):  # there are four processes
                        raise
                except BaseException:
                    os.write(self.pipe, f"\n{traceback.format_exc()}".encode())
                    raise
                code = OK
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == OK, "a newcomer failed"
        self.scene.open_up_to(self.ring.segment.reserved())

    def attach_here(self) -> None:
        """As a process that has nothing open."""
        segment._segments.clear()
        ring = Ring(self.scene.name, "crash", LIMITS, Role.SITE)
        ring.enqueue(META, ring.encode(small_value(99)), priority=0, due_ns=0)
        ring.attachment.detach()

    def everything(self) -> None:
        """All of it in some order, twice, then a repair, and all of it again."""
        operations: list[Callable[[], None]] = [
            self.claim, self.finish, self.enqueue, self.get, self.strangers, self.look_after,
            self.look, self.settle, self.check, self.recover, self.become, self.attach, self.save,
            self.fire,
        ]  # fmt: skip
        order = [*operations, self.claim, self.finish, self.enqueue, self.enqueue, self.get]
        self.rng.shuffle(order)
        for operation in order:
            with suppress(*DOCUMENTED):
                operation()
        self.ring.upkeep.repair()
        problems = self.ring.upkeep.check()
        assert problems == [], f"the repair left {problems[:3]}"
        for operation in (self.get, self.claim, self.finish, self.enqueue, self.get, self.detach):
            with suppress(*DOCUMENTED):
                operation()

    def detach(self) -> None:
        """The end."""
        self.ring.attachment.detach()


def run_case(scene: Damaged, seed: int, number: int) -> str:
    """One case; what it violated, or ""."""
    scene.restore()
    rng = random.Random(f"{seed} {number}")
    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(read_end)
        _run_child(scene, rng, write_end)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        text = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code in (OK, EXIT_DETACHED):
        return ""
    end = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"--seed {seed} --only {number}: {end}: {text}"


def _run_child(scene: Damaged, rng: random.Random, pipe: int) -> None:
    code = VIOLATED
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(ENDLESS_S)
        import logging

        logging.disable()
        scene.protect()
        use = Use(scene, rng, pipe)
        os.write(pipe, damage(scene, rng).encode())
        use.everything()
        code = OK
    except BaseException:
        os.write(pipe, f"\n{traceback.format_exc()}".encode())
    finally:
        os._exit(code)


def run(count: int, seed: int, only: int | None = None) -> list[str]:
    """Runs cases; all violations."""
    scene = Damaged(LIMITS)
    try:
        scene.furnish()
        numbers = range(count) if only is None else [only]
        return [text for number in numbers if (text := run_case(scene, seed, number))]
    finally:
        scene.close()


def main(argv: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", type=int, default=None)
    arguments = parser.parse_args(argv)
    seed = random.randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}")
    violations = run(arguments.count, seed, arguments.only)
    for text in violations:
        print(text)
    lines = Counter(text.strip().splitlines()[-1] for text in violations)
    for line, times in lines.most_common():
        print(f"{times} x {line}")
    print(f"{len(violations)} violations in {arguments.count} cases")
    return bool(violations)


if __name__ == "__main__":
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    sys.exit(main(sys.argv[1:]))
