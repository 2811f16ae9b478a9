"""One process's place in a ring: as what it takes part, and whether others see it alive."""

import os
from collections.abc import Callable

import posix_ipc

from django_tasks_local.ring.records.codes import code_digest
from django_tasks_local.ring.shm.entries import Role
from django_tasks_local.ring.shm.limits import Limits

from .enrolment import Enrolment, enrol
from .format import layout as at
from .parts import Parts


class Attachment:
    """An entry of the registry and the number of a code, taken, kept and given up.

    Attributes:
        limits: The options.
        path: This process's settings file.
        digest: Which code this process runs.
        pid: The process that this attachment belongs to.
        syncs: Whether what this process does for its callers has to be on the disk.
        run: Runs a function inside the lock. Workers and their pool wait for that for as long as it
            takes: what they do is done by nobody else.
    """

    def __init__(
        self, parts: Parts, settle_dead: Callable[[], object], limits: Limits, role: Role, *,
        path: str, digest: int, pool: int,
    ) -> None:  # fmt: skip
        """Attach.

        A visitor gets its entry later, if another process is inside for long: reading needs none.

        Args:
            parts: The ring.
            settle_dead: Frees the entries of the dead.
            limits: The options.
            role: What this process is to the ring.
            path: Its settings file.
            digest: What its code is, see `code_digest`; 0: that of its settings file.
            pool: A worker's pool (its entry).
        """
        self.path = path
        self.digest = digest or code_digest(path)
        self.pid = os.getpid()
        self._parts = parts
        self.syncs = False
        self._take_limits(limits)
        self._registry = parts.registry
        self._mutex = parts.mutex
        self._settle_dead = settle_dead
        self._enrolment = Enrolment(parts.registry, parts.codes, path, self.digest)
        if not parts.words[at.H_MAX_WORKERS]:  # just made, and no site has come yet
            limits.share(parts.words)
        insists = role in (Role.POOL, Role.WORKER)
        self.run = self._mutex.insist if insists else self._mutex.run
        run = self._mutex.try_run if role is Role.VISITOR else self.run
        enrol(settle_dead, run, self._enrolment.register, role, pool)
        parts.semaphores.take_code(self._registry.code)

    def take_code(self) -> posix_ipc.Semaphore:
        """Give a visitor the number of its code, since it enqueues.

        Returns:
            The semaphore on which the workers of that code wait.

        Raises:
            StoreUnavailable: All numbers are in use.
        """
        if self._registry.code < 0:
            enrol(self._settle_dead, self.run, self._enrolment.become, Role.VISITOR, True)
        self._parts.semaphores.take_code(self._registry.code)
        return self._parts.semaphores.work

    def become(self, role: Role, *, needed: bool = True) -> bool:
        """Take another role, and with it a new serial; a site's limits hold for all.

        Args:
            role: The new role.
            needed: False to give it up where another process is inside for long.

        Returns:
            Whether it was done.
        """
        run = self.run if needed else self._mutex.try_run
        needs_code = role is not Role.VISITOR
        if not enrol(self._settle_dead, run, self._enrolment.become, role, needs_code):
            return False
        if role is Role.SITE:
            self.limits.share(self._parts.words)
        self._parts.semaphores.take_code(self._registry.code)
        return True

    def take_place(self, *, needed: bool = True) -> None:
        """Take an entry of the registry: ours was settled while we live, or we got none yet.

        Args:
            needed: False to give it up where another process is inside for long.
        """
        run = self.run if needed else self._mutex.try_run
        enrol(self._settle_dead, run, self._enrolment.take_place)

    def set_limits(self, limits: Limits) -> None:
        """Apply changed options, at once and for all processes; the geometry stays."""
        self._take_limits(limits)
        limits.share(self._parts.words)

    def _take_limits(self, limits: Limits) -> None:
        self.limits = limits
        if limits.sync and not (self.syncs or self._parts.segment.in_memory):
            self._parts.segment.sync_name()
        self.syncs = limits.sync and not self._parts.segment.in_memory

    def wait_for_disk(self) -> None:
        """Wait until all that was stored is on the disk, if SYNC says so; never inside the lock.

        Raises:
            StoreUnavailable: The disk cannot be written.
        """
        if self.syncs:
            self._parts.segment.sync()

    def detach(self) -> None:
        """Leave the ring; nothing that was accepted depends on it.

        Where another process is inside for long, the entry stays until this process has ended.
        """
        if self.pid == os.getpid() and self._registry.index >= 0:
            self._mutex.try_run(self._parts.operations.leave)
