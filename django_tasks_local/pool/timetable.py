"""The serving pool's clock: it fires the periodic tasks of its alias, each time once per host."""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured

from django_tasks_local.exceptions import PayloadTooLarge, QueueFull
from django_tasks_local.periodic import Periodic, find, moment_text
from django_tasks_local.ring import Due, Entry, Outcome, PoolState, Ring, Role, Row
from django_tasks_local.schedules import EMPTY, Schedule
from django_tasks_local.ties import Ties
from django_tasks_local.timings import NEVER_NS, SECOND_NS, Act, judge

from .counting import tallied
from .step import REPEAT_S

logger = logging.getLogger("django_tasks_local")

# How often it looks at all rows though no time has come: the clock may have been set.
LOOK_S: Final = 0.9
# Which of the attached decides whose schedule holds: the newest server, or else the newest script,
# or the pool of `local_worker`.
_RANKS: Final = {Role.SITE: 1, Role.POOL: 0}
_SERVER_RANK: Final = 2


@dataclass(slots=True)
class _Job:
    """A periodic task, ready to be enqueued, and what is known of its next time."""

    periodic: Periodic
    arguments: Any
    time_limit: int
    ties: Ties | None
    settled_ns: int = -1  # for which `next_ns` was computed
    next_ns: int = 0
    told_at: float = 0.0  # when it was logged that there is no room


def firing_code(entries: Iterable[Entry]) -> int:
    """Return the number of the code whose pool fires; -1 where nobody is attached.

    Where sites of several releases are attached, that is one of them.
    """
    ranked = [
        (_SERVER_RANK if _is_server(each) else _RANKS[each.role], each.serial, each.code)
        for each in entries
        if each.role in _RANKS
    ]
    return max(ranked)[2] if ranked else -1


def newest_server(sites: Iterable[Entry]) -> Entry | None:
    """Return the newest of these sites that serves requests, None for none."""
    return max(filter(_is_server, sites), key=lambda site: site.serial, default=None)


class Timetable:
    """The periodic tasks of one pool.

    Args:
        ring: The ring, attached as POOL.
        schedule: The alias's SCHEDULE, as this pool has read it.
        time_limit: Returns the `time_limit_word` of a task with a function.
        tally: Returns what counts a task, by what names it.
        provisional: A script has started this pool: where its settings have no SCHEDULE, those of
            the servers may have one.
        clock: Returns the Unix time in ns.
    """

    def __init__(
        self,
        ring: Ring,
        schedule: Schedule = EMPTY,
        time_limit: Callable[[object], int] = lambda function: 0,
        tally: Callable[[bytes], int] = lambda meta: 0,
        *,
        provisional: bool = False,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._ring = ring
        self._tally = tally
        self._clock = clock
        self._may_forget = bool(schedule.entries) or not provisional
        self.digest = schedule.digest
        self._wanted = [(entry.key, entry.timing_key) for entry in schedule.entries]
        self._jobs: list[_Job] = []
        for entry in schedule.entries:
            try:
                periodic = find(entry, ring.alias)
            except ImproperlyConfigured as error:
                logger.error("alias=%s SCHEDULE %r does not run: %s", ring.alias, entry.name, error)
                continue
            arguments = ring.encode_arguments((entry.args, entry.kwargs))
            function = periodic.task.func
            self._jobs.append(
                _Job(periodic, arguments, time_limit(function), periodic.ties(time_limit))
            )
        self._next_ns = 0
        self._look_at = 0.0

    def look(self, entries: Iterable[Entry]) -> None:
        """Fire what is due. Call it often: it mostly does nothing.

        Args:
            entries: Who is attached.

        Raises:
            StoreUnavailable: Another process is frozen inside the ring.
        """
        now, now_ns = time.monotonic(), self._clock()
        if now < self._look_at and now_ns < self._next_ns:
            return
        self._look_at, self._next_ns = 0.0, now_ns + SECOND_NS  # if it fails
        next_ns = NEVER_NS
        if firing_code(entries) == self._ring.registry.code:
            rows = self._rows()
            for job in self._jobs:
                row = rows.get(job.periodic.entry.key)
                if row is not None:
                    self._attend(job, row)
                    next_ns = min(next_ns, job.next_ns)
        self._look_at, self._next_ns = now + LOOK_S, next_ns

    def next_s(self) -> float:
        """Return how long it is until the next time of any entry."""
        return max(0.0, (self._next_ns - self._clock()) / SECOND_NS)

    def _rows(self) -> dict[int, Row]:
        """Return the entries' rows, which are given to them if need be."""
        firing = self._ring.firing
        rows = firing.rows()
        there = {(row.name, row.timing) for row in rows.values()}
        if there != set(self._wanted) and self._may_forget:
            firing.adopt(self._wanted, self._clock())
            rows = firing.rows()
        return rows

    def _attend(self, job: _Job, row: Row) -> None:
        entry, now_ns = job.periodic.entry, self._clock()
        patience_ns = entry.timing.patience_ns
        if (
            job.settled_ns == row.settled_ns
            and row.settled_ns - patience_ns <= now_ns < job.next_ns
        ):
            return
        verdict = judge(entry.timing, row.settled_ns, now_ns, entry.grace_ns)
        settled_ns = row.settled_ns
        if verdict.act is not Act.WAIT:
            if verdict.act is Act.FIRE:
                settled = self._fire(job, row, verdict.time_ns)
            else:
                settled = self._ring.firing.settle(row, verdict.time_ns)
                self._tell(verdict.act, entry.name)
            if not settled:  # the next look sees what another pool has done, or tries again
                job.next_ns = now_ns + SECOND_NS
                job.settled_ns = -1
                return
            settled_ns = verdict.time_ns
        job.settled_ns, job.next_ns = settled_ns, entry.timing.after(settled_ns)

    def _fire(self, job: _Job, row: Row, time_ns: int) -> bool:
        """Return whether that time is settled, by us."""
        entry, task = job.periodic.entry, job.periodic.task
        try:
            outcome = self._ring.firing.fire(
                Due(row, time_ns, entry.overlap), job.periodic.meta, job.arguments,
                priority=int(task.priority), time_limit=job.time_limit,
                metadata=job.periodic.metadata(time_ns), key=job.periodic.key,
                ties=tallied(job.ties, self._tally), tally=self._tally(job.periodic.meta),
            )  # fmt: skip
        except (QueueFull, PayloadTooLarge) as error:
            if time.monotonic() - job.told_at > REPEAT_S:
                job.told_at = time.monotonic()
                logger.error(
                    "alias=%s SCHEDULE %r does not run, and is tried again: %s",
                    self._ring.alias, entry.name, error,
                )  # fmt: skip
            return False
        logger.debug(
            "alias=%s SCHEDULE %r for %s: %s",
            self._ring.alias, entry.name, moment_text(time_ns), outcome.name,
        )  # fmt: skip
        return outcome is not Outcome.TOO_LATE

    def _tell(self, act: Act, name: str) -> None:
        if act is Act.BEGIN:
            logger.warning(
                "alias=%s SCHEDULE %r begins afresh: the clock was set back", self._ring.alias, name
            )
        else:
            logger.info(
                "alias=%s SCHEDULE %r: the times that were missed are longer ago than its grace",
                self._ring.alias, name,
            )  # fmt: skip


def _is_server(entry: Entry) -> bool:
    return entry.role is Role.SITE and entry.state == PoolState.SERVING
