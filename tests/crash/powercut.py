"""Cuts the power of a host, thousands of times, while processes use and kill a ring in a directory.

    python -m tests.crash.powercut --cuts 3000 --seed 1

A disk is played by memory, to which a process that stands for the kernel copies pages of the ring,
or sectors of 512 bytes, in any order and at any time, and to which a process that waits for the
disk copies all. So at any moment the disk has a mixture of what the ring was at many moments. Each
cut is a copy of it, which another process attaches to as after a restart. The exit status is 1
where that crashed, hung, raised or returned what it must not; or, with SYNC, where a task was
missing that had been accepted, or ran again that had been started.
"""

import argparse
import fcntl
import logging
import mmap
import os
import random
import select
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import Ring, Role, ring_name, unlink_objects
from django_tasks_local.ring import recovery as recovery_module
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.shm.places import segment_path
from django_tasks_local.ring.shm.segment import Segment
from tests.crash.actor import LIMITS, META, RELEASES, Actor, value_of
from tests.crash.ledger import CANCELLED, NEXT, RETRIED, STARTED, Ledger
from tests.crash.retrier import be_impatient, lost_attempts
from tests.reboots import restart

# What has ended stays until it is evicted: much to be compared.
KEPT: Final = replace(LIMITS, result_ttl_s=None, failure_ttl_s=None)
ACTORS: Final = 3
TASKS_EACH: Final = 20_000
# Of the tasks of each actor, so many are compared after a cut.
LATEST: Final = 300
SECTOR: Final = 512
# A cut that takes longer to be looked at does not end.
ENDLESS_S: Final = 20
KILLS_PER_SECOND: Final = 8.0
BETWEEN_CUTS_S: Final = 0.02
CUTS_EACH: Final = 100  # of one ring


class Disk:
    """What has been written of a ring."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._memory = mmap.mmap(-1, size)
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (its lock is what counts)

    def close(self) -> None:
        """Gives back its lock's file and its memory."""
        self._file.close()
        self._memory.close()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else writes; the lock goes with a process that is killed."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def write(self, ring: Any, start: int, end: int) -> None:
        """Writes a part as it is now."""
        with self.held():
            self._memory[start:end] = ring[start:end]

    def cut(self) -> bytes:
        """All of it, as it is at one moment."""
        with self.held():
            return self._memory[:]


def write_back(disk: Disk, path: str, seed: str) -> None:
    """The life of the kernel: pages go to the disk in their own time, some of them in parts."""
    rng = random.Random(seed)
    with open(path, "rb") as file:
        ring = mmap.mmap(file.fileno(), disk.size, prot=mmap.PROT_READ)
    while True:
        unit = rng.choice((at.PAGE, at.PAGE, SECTOR))
        pause_s = rng.choice((0.0, 0.002, 0.02))
        until = time.monotonic() + rng.uniform(0.01, 0.3)
        while time.monotonic() < until:
            for _ in range(rng.randrange(1, 40)):
                start = rng.randrange(0, disk.size, unit)
                disk.write(ring, start, min(start + unit, disk.size))
            select.select([], [], [], pause_s)


class Power:
    """One ring in a directory, its processes, and what is on its disk."""

    def __init__(self, seed: int, directory: Path, *, sync: bool) -> None:
        self.seed = seed
        self.rng = random.Random(f"{seed} {sync}")
        self.sync = sync
        self.limits = replace(KEPT, sync=sync)
        (directory / "cut").mkdir(mode=0o700)
        self.name = ring_name("fuzz", uuid4().hex, str(directory))
        self.copy = f"{directory}/cut/{os.path.basename(self.name)}"
        self.ledger = Ledger(ACTORS + 1, TASKS_EACH)
        self.births = 0
        self.pids: list[int] = []
        self.disk: Disk | None = None
        self.counts: Counter[str] = Counter()

    def run(self, cuts: int) -> list[str]:
        """Cuts the power so often; all violations."""
        try:
            disk = self._make()
            self.pids = [self.ledger.fork(partial(self._live, n), f"{n}") for n in range(ACTORS)]
            kernel = f"{self.seed} kernel"
            path = segment_path(self.name)
            self.pids.append(self.ledger.fork(partial(write_back, disk, path, kernel), "kernel"))
            for number in range(cuts):
                select.select([], [], [], self.rng.expovariate(1 / BETWEEN_CUTS_S))
                if self.rng.random() < KILLS_PER_SECOND * BETWEEN_CUTS_S:
                    self._replace(self.rng.randrange(ACTORS))
                self._cut(number)
        finally:
            for pid in self.pids:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            unlink_objects(self.name)
            unlink_objects(self.copy)
            if self.disk is not None:
                self.disk.close()
        return self.ledger.violations()

    def _make(self) -> Disk:
        pid = self.ledger.fork(lambda: Ring(self.name, "fuzz", self.limits, Role.SITE), "the first")
        assert os.waitpid(pid, 0)[1] == 0
        made = Path(segment_path(self.name)).read_bytes()  # who makes a ring waits for the disk
        self.disk = Disk(len(made))
        self.disk.write(made, 0, len(made))
        return self.disk

    def _replace(self, place: int) -> None:
        os.kill(self.pids[place], signal.SIGKILL)
        os.waitpid(self.pids[place], 0)
        self.births += 1
        self.pids[place] = self.ledger.fork(lambda: self._live(place), f"{place}")

    def _live(self, place: int) -> None:
        """The life of an actor; it ends by a kill."""
        ledger, disk = self.ledger, self.disk
        assert disk is not None
        rng = random.Random(f"{self.seed} {place} {self.births}")
        logging.disable()
        be_impatient()

        def sync(segment: Segment) -> None:
            disk.write(segment._memory, 0, disk.size)

        Segment.sync = Segment.sync_name = sync  # type: ignore[method-assign, assignment]
        lose = recovery_module.mark_lost

        def note_and_lose(table: Any, slot: int, *args: Any) -> None:
            ledger.lose(place, table.head(slot).id_high)
            lose(table, slot, *args)

        recovery_module.mark_lost = note_and_lose  # type: ignore[assignment]
        role, path = rng.choice((Role.SITE, Role.WORKER)), rng.choice(RELEASES)
        actor = Actor(Ring(self.name, "fuzz", self.limits, role, path=path), ledger, place, rng)
        while True:
            actor.act()

    def latest(self) -> list[int]:
        """The tasks that may still be there, but for very few."""
        return [
            place * TASKS_EACH + task
            for place in range(ACTORS)
            for end in [self.ledger.field(place, NEXT)]
            for task in range(max(0, end - LATEST), end)
        ]

    def _cut(self, number: int) -> None:
        latest = self.latest()
        accepted = [task for task in latest if self.ledger.id_of(task)]
        started = {t for t in accepted if self.ledger.noted(t, STARTED)}
        assert self.disk is not None
        Path(segment_path(self.copy)).unlink(missing_ok=True)
        with open(segment_path(self.copy), "xb", opener=_private) as file:
            file.write(self.disk.cut())
        restart(self.copy)
        look = lambda: Verdict(self, latest, accepted, started).reach()  # noqa: E731
        pid = self.ledger.fork(look, f"cut {number}")
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.counts[f"exit {status}"] += 1
        if status < 0:
            self.ledger.violation(f"cut {number}: died of {signal.Signals(-status).name}")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class Verdict:
    """What a process finds that attaches after a cut."""

    def __init__(
        self, power: Power, wanted: list[int], accepted: list[int], started: set[int]
    ) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(ENDLESS_S)
        logging.disable()
        be_impatient()
        self.power = power
        self.ledger = power.ledger
        self.wanted = wanted
        self.accepted = accepted
        self.started = started
        self.ring = Ring(power.copy, "fuzz", KEPT, Role.SITE)
        self.actor = Actor(self.ring, self.ledger, ACTORS, random.Random(0))

    def reach(self) -> None:
        """Notes every violation that it finds."""
        self.actor.check()
        self.ring.upkeep.settle_dead()
        self.actor.check()
        statuses = {task: self._status(task) for task in self.wanted}
        claimed = self._drain()
        self.actor.check()
        if self.power.sync:
            for task in self.accepted:
                if problem := self._problem(task, statuses[task] or "GONE", claimed):
                    self.ledger.violation(f"task {task}, {statuses[task]}: {problem}")
        signal.alarm(0)

    def _status(self, task: int) -> str:
        with suppress(StoreUnavailable):
            return self.actor.compare(task)
        self.ledger.violation(f"task {task} cannot be read after the records were judged")
        return ""

    def _drain(self) -> Counter[int]:
        """Runs all that waits, each once."""
        ring, claimed = self.ring, Counter[int]()
        while ring.counts().waiting + ring.counts().deferred:
            claim = ring.claim()
            if claim is None:
                select.select([], [], [], 0.005)  # until the next deferred one is due
                continue
            (task, data), _ = claim.arguments()
            claimed[task] += 1
            if (task, data) != value_of(task) or claim.meta != META:
                self.ledger.violation(f"task {task} got wrong arguments")
            if claimed[task] > 1 and self.power.sync:  # else what follows a task may be there twice
                self.ledger.violation(f"task {task} runs {claimed[task]} times")
            ring.finish(claim, successful=True, outcome=ring.encode(None))
        return claimed

    def _problem(self, task: int, status: str, claimed: Counter[int]) -> str:
        noted, halves = self.ledger.noted, self.ledger.id_of(task)
        retried = noted(task, RETRIED) or lost_attempts(task)
        if task in self.started and claimed[task] and not retried:
            return "it was started before the cut, and runs again"
        untouched = not (noted(task, STARTED) or noted(task, CANCELLED) or retried)
        given_up = halves is not None and halves[0] in self.ledger.lost()
        if untouched and status == "GONE" and not given_up:
            return "it was accepted, and is not there"
        return ""


def run(cuts: int, seed: int, *, sync: bool, tell: bool = False) -> list[str]:
    """Cuts the power, of a new ring now and then; all violations."""
    violations = []
    for number, start in enumerate(range(0, cuts, CUTS_EACH)):
        many = min(CUTS_EACH, cuts - start)
        found = _cut_one(many, seed + number, sync=sync)
        violations += [f"--seed {seed + number}, SYNC={sync}: {text}" for text in found]
        if tell:
            print(*violations[-len(found) or len(violations) :], sep="\n", flush=True)
    return violations


def _cut_one(cuts: int, seed: int, *, sync: bool) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="dtl-power-") as directory:
        power = Power(seed, Path(directory), sync=sync)
        try:
            return power.run(cuts)
        finally:
            power.ledger.close()


def main(argv: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=3000, help="of either kind")
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args(argv)
    seed = random.randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}")
    violations = []
    for sync in (False, True):
        found = run(arguments.cuts, seed, sync=sync, tell=True)
        violations += found
        print(f"SYNC={sync}: {len(found)} violations in {arguments.cuts} cuts", flush=True)
    return bool(violations)


if __name__ == "__main__":
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    sys.exit(main(sys.argv[1:]))
