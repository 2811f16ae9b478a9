"""A ring as one process has it open: its memory, its lock, and the parts that work on them."""

from functools import partial

from django_tasks_local.ring.records.codes import Codes
from django_tasks_local.ring.records.reader import Reader
from django_tasks_local.ring.records.table import Table
from django_tasks_local.ring.shm.leadership import Leadership
from django_tasks_local.ring.shm.lock import GUARD, ByteLock
from django_tasks_local.ring.shm.mutex import Mutex
from django_tasks_local.ring.shm.registry import Registry
from django_tasks_local.ring.shm.segment import Segment, attach_segment
from django_tasks_local.ring.shm.semaphores import Semaphores
from django_tasks_local.ring.shm.waiters import Waiters

from .audit import restart
from .format.layout import Geometry
from .metadata import MetadataOperations


class Parts:
    """What `Ring`, `Upkeep` and `Attachment` have in common. A forked child makes its own.

    Attributes:
        alias: The alias of the backend, for texts and worker ids.
        segment: The memory.
        words: The memory as words.
        table: The records.
        registry: Who is attached.
        codes: Whose tasks are in the ring.
        reader: Reads records without the lock.
        operations: What is done inside the lock.
        semaphores: The lock's, and that of the workers of our code.
        waiters: Those who wait for the end of a task.
        mutex: The lock: one for all that this process has attached to the segment.
    """

    def __init__(
        self, name: str, alias: str, geometry: Geometry, pid: int, *, make: bool, temporary: bool
    ) -> None:
        """Open the ring, or make it where there is none.

        Args:
            name: As from `ring_name`.
            alias: The alias of the backend.
            geometry: The sizes of a new ring.
            pid: This process.
            make: Whether to make one.
            temporary: Marks a new ring as that of a test run.

        Raises:
            StoreUnavailable: See `attach_segment`.
        """
        self.alias = alias
        self.segment: Segment = attach_segment(name, geometry, temporary=temporary, make=make)
        self.words = self.segment.words
        self.table = Table(self.segment)
        self.registry = Registry(self.segment)
        self.codes = Codes(self.table)
        self.reader = Reader(self.table, alias)
        self.operations = MetadataOperations(self.table, self.registry)
        self.semaphores = Semaphores(self.segment)
        self.waiters = Waiters(self.segment, self.registry)
        guard, rebuild = ByteLock(self.segment.fd, GUARD), partial(restart.rebuild, self.table)
        mutex = Mutex(guard, self.semaphores.mutex, self.words, rebuild, self.segment.path)
        self.mutex = self.segment.mutexes.setdefault(pid, mutex)
        self._leadership: Leadership | None = None

    @property
    def leadership(self) -> Leadership:
        """Who runs the pool of our code; of no use to a visitor, which has none."""
        code = max(self.registry.code, 0)
        if self._leadership is None or self._leadership.code != code:
            self._leadership = Leadership(self.segment, code)
        return self._leadership
