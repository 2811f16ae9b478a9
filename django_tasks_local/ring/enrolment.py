"""How a process takes its place in a ring: an entry of the registry, and the number of its code."""

from collections.abc import Callable
from typing import Any

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring.records.codes import Codes
from django_tasks_local.ring.shm.entries import Role
from django_tasks_local.ring.shm.registry import Registry


class Enrolment:
    """What is done inside the mutex for one process.

    Args:
        registry: Who is attached.
        codes: Whose tasks are in the ring.
        path: The process's settings file.
        digest: Its code.
    """

    def __init__(self, registry: Registry, codes: Codes, path: str, digest: int) -> None:
        self._registry = registry
        self._codes = codes
        self._path = path
        self._digest = digest

    def register(self, role: Role, pool: int = -1) -> None:
        """Take an entry, and for all but visitors the number of a code: a worker its pool's.

        Raises:
            StoreUnavailable: All entries, or all numbers, are taken, be it by the dead.
        """
        registry = self._registry
        code = -1
        if pool >= 0:
            code = registry.code_of(pool)
        elif role is not Role.VISITOR:
            code = self._number()
        registry.register(role, self._path, code=code, pool=pool)

    def become(self, role: Role, needs_code: bool) -> bool:
        """Take another role, and return True, since that was done."""
        self.take_place()
        code = self._registry.code
        if needs_code and code < 0:
            code = self._number()
        self._registry.become(role, code)
        return True

    def take_place(self) -> None:
        """Take an entry where we have none: not yet, or not any more."""
        registry = self._registry
        if not registry.serial:
            self.register(Role.VISITOR)
            return
        registry.ensure()
        # While nobody saw us alive our number may have been given to another code. A worker has
        # its pool's.
        lost = registry.code >= 0 and self._codes.digest(registry.code) != self._digest
        if lost and registry.role is not Role.WORKER:
            registry.become(registry.role, self._number())

    def _number(self) -> int:
        found = self._codes.find(self._digest)
        if found < 0:
            found = self._codes.take(self._digest, self._path, self._registry.codes())
        self._codes.note_module()
        return found


def enrol[*A](
    settle_dead: Callable[[], object],
    run: Callable[..., Any],
    function: Callable[[*A], object],
    *args: *A,
) -> Any:
    """Run inside the mutex what takes an entry, or a number of a code.

    Where none is free, those of the dead are, after `settle_dead`: not inside, they may be 2,048.
    """
    try:
        return run(function, *args)
    except StoreUnavailable:
        settle_dead()
        return run(function, *args)
