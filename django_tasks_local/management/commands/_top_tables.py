"""What ``local_tasks top`` shows: rows of text, read from the rings without a trace.

Nothing here knows a terminal. All text that comes from tasks is harmless already.
"""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from enum import Enum
from heapq import nlargest
from tempfile import TemporaryFile
from typing import Final, NamedTuple

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.db import connections
from django.tasks import TaskResultStatus
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.backends.process import ProcessPoolBackend
from django_tasks_local.exceptions import LocalTasksError, StoreUnavailable
from django_tasks_local.inspection.looks import numbers_of
from django_tasks_local.inspection.records import Row, duration_s, error_line, latest_ns
from django_tasks_local.inspection.schedule import schedule_of
from django_tasks_local.inspection.text import clock, harmless, span
from django_tasks_local.listing import select
from django_tasks_local.moments import unix_ns
from django_tasks_local.pool.process_memory import resident_bytes
from django_tasks_local.ring import Found, Look, Role

from . import _show
from ._cancel import cancelled
from ._no_ring import no_ring

# At most so many rows: what is older is found by a filter.
ROWS: Final = 200
# How much of a traceback is shown: it is read and drawn while the keys wait.
_MOST_CHARACTERS: Final = 50_000
_READY, _RUNNING = TaskResultStatus.READY, TaskResultStatus.RUNNING
_SUCCESSFUL, _FAILED = TaskResultStatus.SUCCESSFUL, TaskResultStatus.FAILED


class Tab(Enum):
    """A table, with the status of its tasks."""

    RUNNING = _RUNNING
    WAITING = _READY
    FAILED = _FAILED
    FINISHED = _SUCCESSFUL
    SCHEDULE = None


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        title: What stands above it.
        width: Columns of the terminal; 0: a share of what the others leave.
        share: How large a share, beside those of others.
        cut_left: Whether its texts say most at their end.
    """

    title: str
    width: int = 0
    share: int = 0
    cut_left: bool = False


_TASK: Final = Column("TASK", share=3, cut_left=True)
COLUMNS: Final[dict[Tab, tuple[Column, ...]]] = {
    Tab.RUNNING: (
        _TASK, Column("FOR", 7), Column("LIMIT", 7), Column("PID", 7), Column("MEMORY", 8),
        Column("PROGRESS", share=2),
    ),
    Tab.WAITING: (_TASK, Column("SINCE", 11), Column("NOT BEFORE", 11), Column("PRIO", 4)),
    Tab.FAILED: (Column("ENDED", 11), _TASK, Column("ERROR", share=4)),
    Tab.FINISHED: (Column("ENDED", 11), _TASK, Column("TOOK", 7)),
    Tab.SCHEDULE: (
        Column("NAME", share=1), Column("TIMES", share=1), Column("NEXT", 16), Column("LAST", 16),
        Column("OUTCOME", 10),
    ),
}  # fmt: skip


class Line(NamedTuple):
    """A row of a table.

    Attributes:
        key: What tells it from the others.
        alias: The backend's.
        result_id: Of its task; "" for none.
        cells: One text for each column.
    """

    key: str
    alias: str
    result_id: str
    cells: tuple[str, ...]

    def has(self, needle: str) -> bool:
        """Return whether a text, in small letters, is in the row, its id or its alias."""
        return any(needle in text.lower() for text in (*self.cells, self.result_id, self.alias))


class Picture(NamedTuple):
    """What is to be shown at one moment.

    Attributes:
        heads: A line for each alias.
        numbers: How many rows each table has, if it has no filter.
        lines: The rows of the table that is asked for.
        more: Whether there are more.
    """

    heads: list[str]
    numbers: Counter[Tab]
    lines: list[Line]
    more: bool


class Tables:
    """The rings of some backends, seen by a visitor that is not attached.

    Args:
        backends: Whose.
    """

    def __init__(self, backends: Iterable[ProcessPoolBackend]) -> None:
        self._backends = {backend.alias: backend for backend in backends}
        self._several = len(self._backends) > 1

    def picture(self, tab: Tab, needle: str = "") -> Picture:
        """Return what there is now.

        Args:
            tab: The table whose rows are wanted.
            needle: Only rows that have this text; "": all.

        Raises:
            TaskResultDoesNotExist: One was evicted while it was read: look again.
        """
        heads, numbers, found = [], Counter[Tab](), list[tuple[int, Line]]()
        for alias, backend in self._backends.items():
            try:
                look = Look.into(backend.spec().name, alias)
                numbers[Tab.SCHEDULE] += len(backend.checked_options.schedule.entries)
                if tab is Tab.SCHEDULE:
                    found += ((-n, line) for n, line in enumerate(self._schedule(backend, look)))
                if look is None:
                    heads.append(f"{harmless(alias)}: {no_ring(backend)}")
                    continue
                there = numbers_of(look)
                numbers[Tab.RUNNING] += there.running
                numbers[Tab.WAITING] += there.waiting + there.deferred
                numbers[Tab.FAILED] += there.failed
                numbers[Tab.FINISHED] += there.successful
                heads.append(self._head(alias, look))
                found += self._lines(alias, look, tab, limit=None if needle else ROWS + 1)
            except (StoreUnavailable, ImproperlyConfigured) as error:
                heads.append(f"{harmless(alias)}: {harmless(str(error))}")
        if needle:
            found = [each for each in found if each[1].has(needle.lower())]
        best = nlargest(ROWS, found, key=lambda each: each[0])
        return Picture(heads, numbers, [line for _, line in best], len(found) > ROWS)

    def pulse(self) -> tuple[object, ...]:
        """Return what differs after everything that has happened to a task, but its progress."""
        found: list[object] = []
        for alias, backend in self._backends.items():
            with suppress(StoreUnavailable, ImproperlyConfigured):
                look = Look.into(backend.spec().name, alias)
                found.append(look and look.pulse())
        return tuple(found)

    def details(self, line: Line, arguments: bool) -> str:
        """Return all of a task, as ``local_tasks show`` prints it, but no endless traceback."""
        try:
            row = _show.find([self._backends[line.alias]], line.result_id)
            found = _show.lines(
                row, arguments=arguments, how="a shows them", longest=_MOST_CHARACTERS
            )
            return "\n".join(found)
        except (
            CommandError, StoreUnavailable, ImproperlyConfigured, TaskResultDoesNotExist,
        ) as error:  # fmt: skip
            return harmless(str(error))

    def cancel(self, line: Line) -> str:
        """Cancel a task, and return what that has done."""
        backend = self._backends[line.alias]
        try:
            return cancelled(backend, line.result_id, True).capitalize()
        except (LocalTasksError, ImproperlyConfigured, TaskResultDoesNotExist) as error:
            return harmless(str(error))
        finally:
            backend.close()  # only a visitor that is attached again
            connections.close_all()  # that receivers of signals have opened in this thread

    def retry(self, line: Line) -> str:
        """Enqueue a task that has ended once more, in a process of its own; return what it says.

        A process that enqueues keeps a pool alive, and starts one if need be, with its own output.
        """
        try:
            look = Look.into(self._backends[line.alias].spec().name, line.alias)
        except StoreUnavailable as error:
            return harmless(str(error))
        if look is None or not any(e.role is Role.SITE for e in look.attached()):
            return (
                "No process of the site is there to have it run. `local_tasks retry` starts a pool "
                "itself, and waits for the task."
            )
        words = [
            "-m", "django", "local_tasks", "retry", line.result_id, "--alias", line.alias,
            "--no-color",
        ]  # fmt: skip
        path = os.pathsep.join(filter(None, sys.path))
        with TemporaryFile() as output:  # no pipe: a pool that it starts would keep that open
            subprocess.run(
                [sys.executable, *words], env=os.environ | {"PYTHONPATH": path},
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
            output.seek(0)
            said = output.read().decode(errors="replace").strip().splitlines()
        answer = said[-1].removeprefix(f"{line.result_id}: ") if said else "no answer"
        return harmless(answer[:1].upper() + answer[1:])

    def _head(self, alias: str, look: Look) -> str:
        """Return who is there, in a line."""
        roles: Counter[Role] = Counter()
        states = []
        for entry in look.attached():
            roles[entry.role] += 1
            if entry.role is Role.POOL:
                states.append(entry.pool_state or "damaged")
        pool = f"pool {' and '.join(states)}" if states else "no pool"
        counts = look.counts()
        return (
            f"{harmless(alias)}: {pool}, workers {roles[Role.WORKER]}, sites {roles[Role.SITE]}, "
            f"lost {counts.lost:,}, killed {counts.killed:,}"
        )

    def _lines(
        self, alias: str, look: Look, tab: Tab, limit: int | None
    ) -> Iterator[tuple[int, Line]]:
        """Yield the rows of one ring, each with a number: those with greater ones come first."""
        if tab is Tab.SCHEDULE:
            return
        for number, result in enumerate(select(look.listed, alias, status=tab.value, limit=limit)):
            found = result.snapshot
            assert isinstance(found, Found)
            row = Row(result, look.is_orphan(found))
            path = self._path(alias, result.task.module_path)
            cells: tuple[str, ...]
            place = latest_ns(row)
            if tab is Tab.RUNNING:
                place = -place  # what has run for longest is what people look for
                cells = (path, *_running(row, found))
            elif tab is Tab.WAITING:
                place = -number
                run_after = result.task.run_after
                cells = (
                    path, _when(found.enqueued_at_ns),
                    _when(unix_ns(run_after)) if run_after else "", str(result.task.priority),
                )  # fmt: skip
            elif tab is Tab.FAILED:
                cells = _when(place), path, error_line(result) or ""
            else:
                cells = _when(place), path, span(duration_s(result) or 0.0)
            yield place, Line(f"{alias} {result.id}", alias, result.id, cells)

    def _schedule(self, backend: ProcessPoolBackend, look: Look | None) -> Iterator[Line]:
        for each in schedule_of(backend, look):
            name = each.entry.name
            cells = (
                self._path(backend.alias, name), harmless(each.when), _short(each.next_at),
                _short(each.last_at), each.outcome or "",
            )  # fmt: skip
            key = f"{backend.alias} {name}"
            yield Line(key, backend.alias, each.result_id or "", cells)

    def _path(self, alias: str, path: str) -> str:
        return harmless(f"{alias}: {path}" if self._several else path)


def _running(row: Row, found: Found) -> Iterator[str]:
    yield span(duration_s(row.result) or 0.0)
    yield span(found.limit_s) if found.limit_s else ""
    yield str(found.worker_pid)
    size = 0 if row.is_orphan else resident_bytes(found.worker_pid)
    yield f"{size / 2**20:,.0f} MiB" if size else ""
    progress = found.progress
    if row.is_orphan:
        yield "its worker has died"
    elif progress is None:
        yield ""
    else:
        share = progress.fraction
        done = f"{progress.done:,}" if share is None else f"{share:.0%}"
        yield f"{done} {harmless(progress.message)}".rstrip()


def _when(ns: int) -> str:
    """Return a moment in 11 characters: its time if it is of today, else its day and hour."""
    text, today = clock(ns), clock(time.time_ns())
    return text[11:] if text[:10] == today[:10] else text[5:16]


def _short(moment: datetime | None) -> str:
    """Return a moment without its seconds and its zone, which the times name."""
    return moment.strftime("%Y-%m-%d %H:%M") if moment else ""
