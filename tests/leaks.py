"""What a test left behind: processes, and objects in /dev/shm.

Several test runs, a development server and a benchmark may share a machine. So nothing counts as
ours because it is new: a process is ours by the mark in its environment or by descent, an object
because a process of ours had it mapped when we looked. Only a CI machine, where nobody else is, has
every new object held against the test, unless several tests run at a time.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from django.conf import settings

from django_tasks_local.ring import ring_name
from django_tasks_local.ring.shm.objects import SEMAPHORES
from tests import support
from tests.support import mapped_objects

# For how long what a test started may take to go: an idle pool needs about two seconds.
GRACE_S: Final = 10.0
# Started by multiprocessing on demand, and kept by it until this process ends.
KEPT: Final = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
# The names of objects that stay over many tests.
lasting_objects: set[str] = set()


class Watch:
    """What was there before a test, and what is there after it."""

    def __init__(self) -> None:
        self._objects_before = support.shm_objects()
        self._pids_before = set(support.all_pids())
        self._mapped_by_us: set[str] = set()

    def remove_what_is_left(self, grace_s: float = GRACE_S) -> str:
        """Wait a little, then end and remove what is left; return its description or ""."""
        with suppress(AssertionError):
            support.wait_for(self._clean, grace_s)
            return ""
        pids, objects = self._pids(), self._objects()
        report = [support.describe(pids), *(f"  /dev/shm/{name}" for name in sorted(objects))]
        support.end(pids)
        support.unlink_shm(objects & self._mapped_by_us)
        return "\n".join(filter(None, report))

    def _clean(self) -> bool:
        return not self._objects() and not self._pids()

    def _pids(self) -> list[int]:
        # Only what is new is looked at: to read all of /proc takes longer than a small test.
        return our_pids(set(support.all_pids()) - self._pids_before)

    def _objects(self) -> set[str]:
        new = support.shm_objects() - self._objects_before - lasting_objects
        if not new:
            return new
        ours = {os.getpid(), *our_pids(support.all_pids())}
        self._mapped_by_us |= new & support.Site.objects_seen.union(*map(mapped_objects, ours))
        if "CI" not in os.environ or "PYTEST_XDIST_WORKER" in os.environ:
            return new & self._mapped_by_us
        # But for those of a site that a wider fixture keeps open.
        others = set(support.all_pids()) - ours
        return new - (set().union(*map(mapped_objects, others)) - self._mapped_by_us)


def remove_objects(namespace: str, aliases: Iterable[str] = ()) -> None:
    """Remove the rings of a namespace, and end the pools that are attached to them.

    Args:
        namespace: The NAMESPACE option they were made with.
        aliases: Those that are not in ``settings.TASKS``.
    """
    objects: set[str] = set()
    for alias in {"default", "cpu_intensive", *settings.TASKS, *aliases}:
        objects |= objects_of(alias, namespace)
    objects &= support.shm_objects()
    if objects:
        ours = set(our_pids(support.all_pids()))
        support.end([pid for pid in support.users_of(objects) if pid in ours])
        support.unlink_shm(objects)


def objects_of(alias: str, namespace: str) -> set[str]:
    """Return the names in /dev/shm that a ring has, or may have."""
    name = ring_name(alias, namespace).removeprefix("/")
    return {f"{name}s", *(f"sem.{name}{letters}" for letters in SEMAPHORES)}


def our_pids(among: Iterable[int]) -> list[int]:
    """Live processes of this test run, but for those that a wider fixture keeps over many tests."""
    among = set(among)
    pids = set(support.marked_pids(os.environ[support.MARK], among))
    pids.update(support.descendants_of(os.getpid(), among))
    for site in support.Site.running:
        pids.difference_update(site.pids())
    for held in support.HELD:
        pids.difference_update(held(pids))
    return [pid for pid in sorted(pids) if not any(k in support.command_of(pid) for k in KEPT)]
