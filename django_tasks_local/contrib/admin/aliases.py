"""Which aliases of ``TASKS`` the admin shows, and what there is to be said of each."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from django.core.exceptions import ImproperlyConfigured
from django.tasks import task_backends
from django.tasks.exceptions import TaskResultDoesNotExist
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_tasks_local.backends.base import LocalBackend
from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.inspection.aliases import kind_of, load
from django_tasks_local.inspection.looks import MemoryLook, Numbers, look_into, numbers_of, row_of
from django_tasks_local.inspection.schedule import Periodic, schedule_of
from django_tasks_local.inspection.text import harmless

if TYPE_CHECKING:
    from django_tasks_local.inspection.records import Row
    from django_tasks_local.ring import Entry, Look

NOTHING: Final = Numbers(0, 0, 0, 0, 0)
_OUTCOMES: Final = {
    "READY": gettext_lazy("Waiting"),
    "RUNNING": gettext_lazy("Running"),
    "SUCCESSFUL": gettext_lazy("Successful"),
    "FAILED": gettext_lazy("Failed"),
}


class Staff(NamedTuple):
    """The processes that are attached to a ring.

    Attributes:
        sites: How many processes serve requests, or have enqueued.
        workers: How many worker processes there are.
        pools: The pids of the pools.
        stuck: A sentence about a process that keeps the lock; ``""`` for none.
    """

    sites: int
    workers: int
    pools: list[int]
    stuck: str


class ShownAlias:
    """An alias whose tasks the admin shows, as it is at this moment.

    Attributes:
        name: The key in ``TASKS``.
        backend: The backend.
        look: A look at its tasks; ``None`` where nothing has used it yet.
        problem: Why there is none; ``""`` where there is one, or could be.
    """

    def __init__(self, name: str, backend: Any) -> None:
        self.name, self.backend = name, backend
        self.look: Look | MemoryLook | None = None
        self.problem = ""
        try:
            self.look = look_into(backend)
        except (StoreUnavailable, ImproperlyConfigured) as error:
            self.problem = harmless(str(error))

    @property
    def kind(self) -> str:
        """The name of the backend's class."""
        return type(self.backend).__name__

    @property
    def only_of_process(self) -> str:
        """The pid of this process where no other sees these tasks; ``""`` where all do."""
        # Text: USE_THOUSAND_SEPARATOR would take a number apart.
        return str(os.getpid()) if self.backend.kind == "thread" else ""

    @property
    def shows_arguments(self) -> bool:
        """Whether the admin may show arguments and return values."""
        return bool(self.backend.checked_options.admin_arguments)

    @property
    def numbers(self) -> Numbers:
        """How many tasks there are."""
        return NOTHING if self.look is None else numbers_of(self.look)

    @property
    def max_workers(self) -> int:
        """The option MAX_WORKERS."""
        return int(self.backend.checked_options.max_workers)

    @property
    def staff(self) -> Staff | None:
        """Who is attached; ``None`` where there is no ring."""
        if self.look is None or isinstance(self.look, MemoryLook):
            return None
        entries, pid = self.look.attached(), self.look.stuck_inside()
        pools = [each.pid for each in _of_role(entries, "POOL")]
        sites, workers = _of_role(entries, "SITE"), _of_role(entries, "WORKER")
        return Staff(len(sites), len(workers), pools, "" if pid is None else _stuck(pid))

    @property
    def memory(self) -> tuple[int, int] | None:
        """The bytes of shared memory taken so far, and their ceiling; ``None`` without a ring."""
        if self.look is None or isinstance(self.look, MemoryLook):
            return None
        counts = self.look.counts()
        return counts.reserved_bytes, counts.segment_bytes

    @property
    def schedule(self) -> list[tuple[Periodic, str]]:
        """Its periodic tasks, each with what came of its last run, in a word."""
        if self.problem or isinstance(self.look, MemoryLook) or self.backend.kind == "thread":
            return []
        return [
            (each, str(_OUTCOMES[each.outcome]) if each.outcome else "")
            for each in schedule_of(self.backend, self.look)
        ]


def shown_aliases() -> list[ShownAlias]:
    """Return the aliases that are shown, in the order of ``TASKS``."""
    loaded = {name: load(name) for name in task_backends}
    return [ShownAlias(name, backend) for name, backend in loaded.items() if _is_shown(backend)]


def left_out() -> list[tuple[str, str]]:
    """Return the other aliases, each with what its backend is."""
    loaded = {name: load(name) for name in task_backends}
    return [
        (harmless(name), harmless(kind_of(each)))
        for name, each in loaded.items()
        if not _is_shown(each)
    ]


def find(result_id: str) -> tuple[ShownAlias, Row] | None:
    """Return the task whose result has this id, with its alias; ``None`` where no alias has it.

    Raises:
        StoreUnavailable: Its record is damaged.
    """
    for alias in shown_aliases():
        if alias.look is not None:
            try:
                return alias, row_of(alias.look, alias.name, result_id)
            except TaskResultDoesNotExist:
                continue
    return None


def _is_shown(backend: object) -> bool:
    return isinstance(backend, LocalBackend) and backend.kind in ("thread", "process")


def _of_role(entries: Iterable[Entry], role: str) -> list[Entry]:
    return [entry for entry in entries if entry.role.name == role]


def _stuck(pid: int) -> str:
    if pid > 0:
        return _(
            "Process %(pid)d has the lock and does not let go: the others wait for it. Continue "
            "it (kill -CONT %(pid)d) or end it."
        ) % {"pid": pid}
    return _(
        "A process in another pid namespace has the lock and does not let go: the others wait "
        "for it. Continue it (kill -CONT) or end it."
    )
