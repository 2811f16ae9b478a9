"""The periodic tasks of an alias: what runs when, and what came of it last."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

from django.utils import timezone

from django_tasks_local.timings import NEVER_NS, SECOND_NS, Cron, Every

if TYPE_CHECKING:
    from django_tasks_local.backends.process import ProcessPoolBackend
    from django_tasks_local.ring import Look
    from django_tasks_local.schedules import ScheduleEntry


class Periodic(NamedTuple):
    """One entry of a SCHEDULE, as its ring shows it.

    Attributes:
        entry: The entry.
        next_at: When it is due next, in the time zone of its times; ``None`` for never.
        last_at: For which moment it ran last; ``None`` if it never did.
        outcome: The status of that run; ``None`` where its result is no longer kept.
        result_id: The id of that run's result.
        skipped: How many times it was left out.
        has_begun: Whether a pool has served it.
    """

    entry: ScheduleEntry
    next_at: datetime | None
    last_at: datetime | None
    outcome: str | None
    result_id: str | None
    skipped: int
    has_begun: bool

    @property
    def every_s(self) -> float | None:
        """Its period in seconds; ``None`` for one with a cron expression."""
        timing = self.entry.timing
        return timing.period_ns / SECOND_NS if isinstance(timing, Every) else None

    @property
    def when(self) -> str:
        """Its timing in a few words: ``every 30 s``, or the cron expression and its time zone."""
        timing = self.entry.timing
        if isinstance(timing, Cron):
            return f"{timing.expression} {timing.zone}"
        return f"every {self.every_s:g} s"


def schedule_of(backend: ProcessPoolBackend, look: Look | None) -> Iterator[Periodic]:
    """Yield the entries of a backend's SCHEDULE. It makes no ring.

    Args:
        backend: The backend.
        look: A look into its ring; ``None`` where there is none.
    """
    from django_tasks_local.ring import format_id  # threads are to be seen without posix_ipc, too

    now_ns, rows = time.time_ns(), look.schedule() if look else {}
    for entry in backend.checked_options.schedule.entries:
        row = rows.get(entry.key)
        next_ns = entry.timing.after(max(now_ns, row.settled_ns) if row else now_ns)
        has_run = row is not None and row.last_ns
        last_id = format_id(row.id_high, row.id_low) if row and has_run else None
        yield Periodic(
            entry,
            _moment(entry, next_ns) if next_ns < NEVER_NS else None,
            _moment(entry, row.last_ns) if row and has_run else None,
            look.status(last_id) if look and last_id else None,
            last_id,
            row.skipped if row else 0,
            row is not None,
        )


def _moment(entry: ScheduleEntry, moment_ns: int) -> datetime:
    timing = entry.timing
    zone = ZoneInfo(timing.zone) if isinstance(timing, Cron) else timezone.get_default_timezone()
    return datetime.fromtimestamp(moment_ns // SECOND_NS, zone)
