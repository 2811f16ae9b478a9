"""ProcessPoolBackend: tasks in the worker processes of this host, results in its shared memory.

handles (one per thread and asyncio context)  ->  sites of this process  ->  ring  <-  pool
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage

from django_tasks_local import periodic

# Imported for its signal receivers: they attach web processes at their first request.
from django_tasks_local.pool import attaching as attaching
from django_tasks_local.pool import connections
from django_tasks_local.pool.site import Site
from django_tasks_local.pool.spec import PoolSpec, spec_of

from .base import LocalBackend


class ProcessPoolBackend(LocalBackend):
    """A backend that runs tasks in worker processes: ``MAX_WORKERS`` of them on the host.

    Status, progress and results are in shared memory: every process of the same user and site can
    read them. It needs Linux.
    """

    kind = "process"

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        self._site: Site | None = None

    def _check_tasks(self) -> Iterator[CheckMessage]:
        problems = periodic.problems(self.checked_options.schedule, self.alias)
        yield from (problem.error() for problem in problems)
        yield from super()._check_tasks()  # now that the tasks of the SCHEDULE are imported

    def close(self) -> None:
        """Detach this process from the ring. Tasks and results stay; the next use attaches."""
        connections.close(self.alias)

    def site(self) -> Site:
        """Return this process's attachment to the alias's ring, made if need be.

        Raises:
            StoreUnavailable: The ring cannot be used.
            ImproperlyConfigured: The options are wrong.
        """
        site = self._site
        if site is None or site.pid != os.getpid() or site.closed:
            site = self._site = connections.connect(self.spec())
        return site

    def spec(self) -> PoolSpec:
        """Return which ring this alias uses, and how. Attaches nothing."""
        return spec_of(self.alias, self.checked_options)

    _store = site
