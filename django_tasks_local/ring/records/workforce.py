"""How the pools of several codes share MAX_WORKERS, and the places of the registry.

Together they never have more workers than MAX_WORKERS. As long as nobody is short of them, any pool
may have as many as it likes. A pool whose tasks wait, and which has less than its share, says so
(WANTED): then the others start none beyond their own share, and their workers give way, each
between two tasks. Where there are fewer places than codes they take turns.
"""

import time
from collections import Counter
from typing import Final, NamedTuple

from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.shm.entries import RETIRING, Role
from django_tasks_local.ring.shm.limits import shared_max_workers, shared_optional
from django_tasks_local.ring.shm.mutex import Mutex
from django_tasks_local.ring.shm.registry import Registry

from .codes import Codes

# Places of the registry that workers leave to web workers, scripts and commands.
KEPT: Final = 128
# For so long a worker that is to be replaced takes newcomers for those that were expected before.
PATIENCE_S: Final = 10.0


class Hiring(NamedTuple):
    """What a pool may do now.

    Attributes:
        number: How many workers it may start.
        short: Whether it has to wait for others to give way.
        no_place: Whether only the registry's size keeps it from starting more.
    """

    number: int
    short: bool = False
    no_place: bool = False


class Allowance(NamedTuple):
    """What each worker may take, as the ring's processes share it; 0: no limit.

    Attributes:
        tasks: MAX_TASKS_PER_WORKER.
        worker_bytes: MAX_WORKER_MEMORY.
        task_bytes: MAX_TASK_MEMORY.
    """

    tasks: int
    worker_bytes: int
    task_bytes: int


class Workforce:
    """Who has how many workers."""

    def __init__(self, registry: Registry, codes: Codes, mutex: Mutex) -> None:
        self._registry = registry
        self._codes = codes
        self._mutex = mutex
        self._words = registry.words
        self._retiring_since = 0  # the serial of the latest attachment then
        self._expected = 0  # workers that were on their way then, and are nobody's successors
        self._patient_until = 0.0

    def allowance(self) -> Allowance:
        """Return what each worker may take."""
        words = self._words
        limits = at.H_MAX_TASKS, at.H_WORKER_MEMORY, at.H_TASK_MEMORY
        return Allowance(*(shared_optional(words, which) for which in limits))

    def runnable(self) -> int:
        """Return how many tasks wait that our pool may run: its code's and adopted ones."""
        return self._codes.runnable(self._registry.share(self._registry.index))

    def hire(self, have: int, wanted: int, *, waiting: bool, strays: int) -> Hiring:
        """Say whether our pool may start workers, which are noted as if it had them.

        Where another process is inside for long it may start none: they would have to wait as well.

        Args:
            have: How many it has.
            wanted: How many more it could use.
            waiting: Whether tasks wait that it may run.
            strays: Living workers whose pool has died.
        """
        hiring = self._mutex.try_run(self._hire, have, wanted, waiting, strays)
        return hiring or Hiring(0)

    def give_way(self) -> bool:
        """Return whether this worker is to end, since another code's pool is short (0.2 µs)."""
        wanted = self._words[at.H_WANTED] & ~(1 << self._registry.code)
        return bool(wanted) and self._mutex.insist(self._give_way)

    def retire(self, pool: int) -> bool:
        """Say that this worker is to be replaced, and return whether it may end now.

        Its successor comes first. Where all places are taken, there is none for a successor, since
        MAX_WORKERS counts processes: then it ends, and its pool fills the place.

        Args:
            pool: Its pool's entry.
        """
        registry = self._registry
        since = self._retiring_since or registry.latest_serial()  # before the entries are read
        workers = [
            entry
            for entry in registry.attachments()
            if entry.role is Role.WORKER and entry.pool == pool and entry.alive
        ]
        on_their_way = registry.field(pool, at.E_WORKERS) - len(workers)
        successors = sum(entry.serial > since for entry in workers)
        if not self._retiring_since:
            self._retiring_since = since
            self._expected = max(on_their_way + successors, 0)
            self._patient_until = time.monotonic() + PATIENCE_S
        if not registry.marked(RETIRING):
            self._mutex.try_run(registry.mark, RETIRING, True)
        if time.monotonic() > self._patient_until:
            self._expected = 0  # they may have died
        # Others of ours that wait for theirs, and have been here for longer.
        before = sum(entry.retires and entry.serial < registry.serial for entry in workers)
        if successors > before + self._expected:
            return True
        full = self._words[at.H_POOL_WORKERS] >= shared_max_workers(self._words)
        return bool(full and on_their_way <= 0)

    def adopt(self, orphans: int, latest: int) -> None:
        """Let our pool's workers run tasks of other codes (a bit for each) up to a serial."""
        if self._registry.owned():
            self._registry.set_field(at.E_ADOPTED, latest << at.CODES | orphans if orphans else 0)

    def _hire(self, have: int, wanted: int, waiting: bool, strays: int) -> Hiring:
        registry, words = self._registry, self._words
        ours = registry.code
        if registry.owned():
            registry.set_field(at.E_WORKERS, have)
        workers, places = self._look()
        limit = shared_max_workers(words)
        free = limit - workers.total() - strays
        rivals = self._rivals()
        share = self._share(workers, rivals)
        number = min(wanted, free)
        if rivals:
            # A code that has none, and has waited for longer, goes first.
            since = self._since(ours) or time.monotonic_ns()
            before = sum(not workers[code] and self._since(code) < since for code in rivals)
            number = min(number, share - workers[ours], free - before)
        no_place = places < number
        number = max(min(number, places), 0)
        if number and registry.owned():
            registry.set_field(at.E_WORKERS, have + number)
        workers[ours] += number
        for code in range(at.CODES):
            self._put(code, at.C_WORKERS, workers[code])
        words[at.H_POOL_WORKERS] = workers.total() + strays
        short = waiting and number < wanted and workers[ours] < share and not no_place
        self._want(ours, short)
        return Hiring(number, short, no_place)

    def _give_way(self) -> bool:
        words, ours = self._words, self._registry.code
        rivals = self._rivals()
        workers = Counter({c: self._codes.field(c, at.C_WORKERS) for c in range(at.CODES)})
        if not rivals:
            words[at.H_WANTED] &= 1 << ours  # what is left is the wish of a pool that has gone
            return False
        crowded = words[at.H_POOL_WORKERS] >= shared_max_workers(words)
        in_turn = crowded and not all(workers[code] for code in rivals)
        if workers[ours] <= self._share(workers, rivals) and not in_turn:
            return False
        # The next one of ours that looks must not give way for the same place.
        self._put(ours, at.C_WORKERS, max(workers[ours] - 1, 0))
        words[at.H_POOL_WORKERS] = max(words[at.H_POOL_WORKERS] - 1, 0)
        return True

    def _look(self) -> tuple[Counter[int], int]:
        """Return by code the workers of living pools, and how many places more workers may take.

        Leaving pools count as well, and workers on their way as if they were attached.
        """
        registry = self._registry
        found: Counter[int] = Counter()
        used = attached = 0
        for index, role in registry.roles():
            used += 1
            attached += role == Role.WORKER
            if role == Role.POOL and registry.alive(index):
                count = registry.field(index, at.E_WORKERS)
                found[registry.code_of(index)] += min(count, at.ENTRIES)  # or it is damaged
        coming = max(0, found.total() - attached)
        return found, at.ENTRIES - KEPT - used - coming

    def _rivals(self) -> list[int]:
        """Return other codes whose pools say that they are short of workers, and live."""
        wanted, ours = self._words[at.H_WANTED], self._registry.code
        return [
            code
            for code in range(at.CODES)
            if code != ours and wanted >> code & 1 and self._codes.has_pool(code)
        ]

    def _share(self, workers: Counter[int], rivals: list[int]) -> int:
        parties = {code for code, count in workers.items() if count > 0}
        parties |= {self._registry.code, *rivals}
        return max(1, shared_max_workers(self._words) // len(parties))

    def _want(self, code: int, short: bool) -> None:
        words, bit = self._words, 1 << code
        if short and not words[at.H_WANTED] & bit:
            self._put(code, at.C_WANTED, time.monotonic_ns())
            words[at.H_WANTED] |= bit
        elif not short and words[at.H_WANTED] & bit:
            self._put(code, at.C_WANTED, 0)
            words[at.H_WANTED] &= ~bit

    def _since(self, code: int) -> int:
        return self._codes.field(code, at.C_WANTED)

    def _put(self, code: int, which: int, value: int) -> None:
        self._words[at.code_word(code, which)] = value
