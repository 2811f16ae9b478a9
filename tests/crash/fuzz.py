"""Kills, stops, interrupts and forks processes that use a ring, at random; counts what breaks.

    python tests/crash/fuzz.py --seconds 600 --processes 8 --kills-per-second 40 --seed 1

It works in rounds, each with a ring of its own. After each round all processes are killed, and a
survivor audits the ring, compares every accepted task with the ledger and runs what still waits.
The summary is one JSON object on stdout; the exit status is 1 where anything was violated.
"""

import argparse
import json
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

ROOT: Final = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

from django_tasks_local.ring import Ring, Role, ring_name, unlink_objects  # noqa: E402
from django_tasks_local.ring.shm.places import inode_of, segment_path  # noqa: E402
from tests.crash.actor import LIMITS, Actor, live, was_noted  # noqa: E402
from tests.crash.follower import judge_follow_ups  # noqa: E402
from tests.crash.ledger import (  # noqa: E402
    BUCKETS,
    CANCELLED,
    COUNTERS,
    ENDED,
    KINDS,
    RETRIED,
    STARTED,
    STOPS,
    Ledger,
    percentile_ms,
)
from tests.crash.monitor import PAUSE_BOUND_S, Monitor  # noqa: E402
from tests.crash.retrier import be_impatient, lost_attempts  # noqa: E402
from tests.support import LONG_TIMEOUT, wait_for  # noqa: E402

ROUND_S: Final = 15.0
TASKS_EACH: Final = 60_000
STOP_S: Final = (0.005, 0.2)


class Round:
    """One ring, and the processes that are tormented in it."""

    def __init__(self, seed: str, processes: int, kills_per_second: float, seconds: float) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.processes = processes
        self.kills_per_second = kills_per_second
        self.until = time.monotonic() + seconds
        self.name = ring_name("fuzz", uuid4().hex)
        self.ledger = Ledger(2 * processes + 1, TASKS_EACH)
        self.pids = [0] * processes
        self.births = 0
        self.kills = 0
        self.stops = 0
        self.stopped: dict[int, float] = {}

    def run(self) -> None:
        """Torments until the time is over, then verifies in a process of its own."""
        try:
            # Only a site makes a ring.
            self._in_child(lambda: Ring(self.name, "fuzz", LIMITS, Role.SITE), "the first process")
            self.ledger.has_ring(inode_of(segment_path(self.name)))
            for place in range(self.processes):
                self._bear(place)
            pause_s = 0.7 / self.kills_per_second
            while time.monotonic() < self.until and self._has_ring():
                self._torment()
                self._collect()
                select.select([], [], [], self.rng.expovariate(1 / pause_s))
            for place in range(self.processes):
                self._kill(place)
            self._collect(last=True)
            self.ledger.close_places()
            if not self._has_ring():
                self.ledger.violation("somebody else removed the ring: this round says nothing")
                return
            verdict = lambda: Verdict(self.name, self.ledger, self.kills).reach()  # noqa: E731
            self._in_child(verdict, "the verdict")
        finally:
            for pid in filter(None, self.pids):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            unlink_objects(self.name)

    def _has_ring(self) -> bool:
        """Whether newcomers get the ring that the others have: else nothing excludes them."""
        return inode_of(segment_path(self.name)) == self.ledger.ring

    def _torment(self) -> None:
        place = self.rng.randrange(self.processes)
        kind = self.rng.random()
        if kind < 0.7:
            self._kill(place)
        elif kind < 0.85:
            os.kill(self.pids[place], signal.SIGUSR1)
        elif place not in self.stopped:
            self.ledger.stopped()
            self.ledger.set_field(place, STOPS, self.ledger.field(place, STOPS) + 1)
            os.kill(self.pids[place], signal.SIGSTOP)
            self.stopped[place] = time.monotonic() + self.rng.uniform(*STOP_S)
            self.stops += 1

    def _kill(self, place: int) -> None:
        os.kill(self.pids[place], signal.SIGKILL)
        self.kills += 1

    def _collect(self, last: bool = False) -> None:
        """Takes in the dead, puts others in their places, and lets the stopped go on."""
        for place, pid in enumerate(self.pids):
            found, status = os.waitpid(pid, 0 if last else os.WNOHANG)
            if not found:
                continue
            if self.stopped.pop(place, None):
                self.ledger.stopped()
            if not os.WIFSIGNALED(status) and status and not was_noted(status, self.ledger):
                self.ledger.violation(f"a process ended with status {status}")
            if not last:
                self._bear(place)
        for place, until in list(self.stopped.items()):
            if last or time.monotonic() > until:
                del self.stopped[place]
                os.kill(self.pids[place], signal.SIGCONT)
                self.ledger.stopped()
        if last:
            self.pids = [0] * self.processes

    def _bear(self, place: int) -> None:
        self.births += 1
        seed = f"{self.seed} {self.births}"
        self.pids[place] = self.ledger.fork(
            lambda: live(self.name, self.ledger, place, seed, self.until + 60), f"place {place}"
        )

    def _in_child(self, body: Callable[[], object], what: str) -> None:
        pid = self.ledger.fork(body, what)
        # A ring that hangs the survivor must not hang the fuzzer.
        flags = os.WEXITED | os.WNOWAIT | os.WNOHANG
        wait_for(lambda: os.waitid(os.P_PID, pid, flags), LONG_TIMEOUT, what)
        _, status = os.waitpid(pid, 0)
        if status:
            self.ledger.violation(f"{what} ended with status {status}")


class Verdict:
    """What a survivor finds when everybody else is dead."""

    def __init__(self, name: str, ledger: Ledger, kills: int) -> None:
        self.ledger = ledger
        self.kills = kills
        be_impatient()
        place = ledger.places - 1  # nobody else's, and never taken
        Monitor(ledger, place).install()
        self.ring = Ring(name, "fuzz", LIMITS, Role.SITE)
        self.actor = Actor(self.ring, ledger, place, random.Random(0))

    def reach(self) -> None:
        """Notes every violation that it finds."""
        self.ring.upkeep.settle_dead()
        self.actor.check()
        lost = self.ledger.lost()
        tasks = self.ledger.wanted_tasks()
        statuses = {task: self.actor.compare(task) for task in tasks}
        for task, status in statuses.items():
            problem = self._problem(task, status, lost)
            if problem:
                self.ledger.violation(f"task {task} is {status}: {problem}")
        self._count([task for task in tasks if statuses[task]], tasks)
        self._drain()
        judge_follow_ups(self.ledger, self.ledger.lost())
        for task, status in statuses.items():
            if status == "READY" and self.actor.compare(task) in ("READY", "RUNNING"):
                self.ledger.violation(f"task {task} was READY, and was not run at last")
        self.actor.check()

    def _problem(self, task: int, status: str, lost: set[int]) -> str:
        noted = self.ledger.noted
        match status:
            case "READY" if noted(task, STARTED) and not (
                noted(task, RETRIED) or lost_attempts(task)
            ):
                return "it was started before"
            case "RUNNING":
                return "nobody is alive to run it"
            case "SUCCESSFUL" if not noted(task, ENDED):
                return "nobody finished it"
            case "GONE":
                halves = self.ledger.id_of(task)
                ended = noted(task, ENDED) or noted(task, CANCELLED)
                if not ended and halves and halves[0] not in lost:
                    return "it was neither finished nor given up, so nobody may evict it"
        return ""

    def _count(self, accepted: list[int], wanted: list[int]) -> None:
        """Accepted = waiting + running + kept + evicted, but for what the dying did not count."""
        counts = self.ring.counts()
        there = counts.waiting + counts.deferred + counts.running + counts.kept + counts.evicted
        there += counts.expired
        dead = sum(map(self.ledger.total, ("fork_kills", "interrupts", "noted")), self.kills)
        if not len(accepted) - dead <= there <= len(wanted):
            self.ledger.violation(f"{len(accepted)} tasks were accepted, {counts} are there")

    def _drain(self) -> None:
        while self.ring.counts().waiting + self.ring.counts().deferred:
            before = self.ledger.total("claimed")
            self.actor.drain()
            if self.ledger.total("claimed") == before:
                select.select([], [], [], 0.005)  # until the next deferred one is due


def fuzz(seconds: float, processes: int, kills_per_second: float, seed: int) -> dict[str, Any]:
    """Runs rounds for so many seconds.

    Returns:
        The summary: what was done, how long processes waited, and all violations.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    sums: dict[str, int] = dict.fromkeys(("rounds", "kills", "stops", "births", *COUNTERS), 0)
    waits = {kind: [0] * BUCKETS for kind in KINDS}
    violations: list[str] = []
    began = time.monotonic()
    while (left := seconds - (time.monotonic() - began)) > 0.5:
        each = Round(f"{seed} {sums['rounds']}", processes, kills_per_second, min(ROUND_S, left))
        try:
            each.run()
            violations += [f"round {sums['rounds']}: {line}" for line in each.ledger.violations()]
            for counter in COUNTERS:
                sums[counter] += each.ledger.total(counter)
            sums["kills"] += each.kills + each.ledger.total("fork_kills")
            for kind in KINDS:
                more = each.ledger.waits(kind)
                waits[kind] = [a + b for a, b in zip(waits[kind], more, strict=True)]
        finally:
            each.ledger.close()
        sums["stops"] += each.stops
        sums["births"] += each.births
        sums["rounds"] += 1
    return {
        "seconds": round(time.monotonic() - began, 1),
        "seed": seed,
        "processes": processes,
        **sums,
        "pause_bound_s": PAUSE_BOUND_S,
        "wait_ms": {kind: _percentiles(buckets) for kind, buckets in waits.items()},
        "violations": violations,
    }


def _percentiles(buckets: list[int]) -> dict[str, float]:
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1.0}
    return {"count": sum(buckets)} | {k: percentile_ms(buckets, v) for k, v in shares.items()}


def main() -> int:
    """Reads the flags; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--kills-per-second", type=float, default=40.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    import django

    django.setup()
    summary = fuzz(options.seconds, options.processes, options.kills_per_second, options.seed)
    print(json.dumps(summary, indent=2))
    return 1 if summary["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
