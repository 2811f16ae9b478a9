"""A site process's side: attach, keep a pool for waiting tasks, wait at exit where needed."""

import atexit
import logging
import os
import threading
import time
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final

from django_tasks_local import under_test
from django_tasks_local.exceptions import StoreUnavailable, from_a_signal_handler
from django_tasks_local.ring import PoolState, Ring, Role, format_id
from django_tasks_local.store import task_path
from django_tasks_local.streams import say
from django_tasks_local.ties import Ties

from . import project
from .counting import counts_of
from .launcher import log_ended_pools, started
from .loaded_files import digest_of
from .main_script import names_main, refuse_main, refuse_main_task
from .neighbours import warn_of_other_rings, warn_of_strangers
from .own_tasks import OwnTasks
from .passed_on import PassedOn
from .serving import is_server
from .spec import PoolSpec
from .starts import Starts
from .step import TICK_S, Step, until_tick_s

logger = logging.getLogger("django_tasks_local")

TICK_NS: Final = int(TICK_S * 1e9)
# For this long after a look at the pool, further tasks are enqueued without one.
BURST_NS: Final = 5_000_000


class Site(PassedOn):
    """This process's attachment to one ring, and its part in keeping a pool alive."""

    def __init__(self, spec: PoolSpec, *, ring: Ring | None = None, guest: bool = False) -> None:
        """Attach, as a VISITOR: a process that only reads keeps no pool alive.

        Args:
            spec: Which ring, and how.
            ring: A worker's own attachment, where the backend is used inside a task of that ring.
            guest: This is a pool or a worker of one. It may start another ring's pool, but keeps
                none alive: two pools would keep each other alive.

        Raises:
            StoreUnavailable: The ring cannot be used.
            RuntimeError: This is a pool that imports its site's unguarded main script.
            ImproperlyConfigured: Tests use a database that no other process can see.
        """
        project.refuse_unguarded_main()
        self.spec = spec
        self.pid = os.getpid()
        self.closed = False
        self.serves = False
        self._guest = guest
        self._own = None if guest else OwnTasks()
        self._starts = Starts()
        self._next_tick = time.monotonic() + TICK_S
        self._lead = threading.Lock()
        self._looks_after_pool = False
        self._has_role = False  # SITE, in the ring as it is now
        self._watched = False
        self._seen_alive_ns = 0  # when an enqueue saw a pool, and nothing to be done
        self._borrowed = ring is not None
        # A server's main script is the server, and defines nothing that tasks take as arguments.
        self._main_is_known = project.needs_main() or is_server()
        self.ring = ring or self._attach()

    def change(self, spec: PoolSpec) -> None:
        """Apply changed options, those that are shared at once and for all processes."""
        if self.spec.limits != spec.limits:
            self.ring.attachment.set_limits(spec.limits)
        if self.spec.schedule.digest != spec.schedule.digest and not self._borrowed:
            self.ring.registry.set_schedule(spec.schedule.digest)
        self.spec = spec

    def encode(self, value: Any) -> Any:
        """Pickle a task's arguments; may raise whatever pickling raises."""
        encoded = self.ring.encode_arguments(value)
        if not self._main_is_known and names_main(encoded):
            refuse_main(value)
        return encoded

    def enqueue(
        self, meta: bytes, arguments: Any, *, priority: int, due_ns: int, time_limit: int = 0,
        metadata: bytes = b"", key: bytes = b"", ties: Ties | None = None,
    ) -> tuple[str, int]:  # fmt: skip
        """Do what `Ring.enqueue` does, and make sure that a pool will run the task.

        Raises:
            InvalidTask: The task is defined in a main script that no pool can import.
        """
        ring = self._ring_for(meta)
        tally, ties = counts_of(ring, self.spec, meta, ties)
        high, low, now_ns = ring.put(
            meta, arguments, priority=priority, due_ns=due_ns, time_limit=time_limit,
            metadata=metadata, key=key, ties=ties, tally=tally,
        )  # fmt: skip
        self._see_to(ring, (high, low), due_ns, now_ns)
        return format_id(high, low), now_ns

    def enqueue_many(
        self, meta: bytes, arguments: Sequence[Any], *, priority: int, due_ns: int,
        time_limit: int = 0, metadata: bytes = b"", keys: Sequence[bytes] = (),
        ties: Ties | None = None,
    ) -> tuple[list[str], dict[int, str], int]:  # fmt: skip
        """Do what `Bulk.put` does, as `enqueue` does it."""
        ring = self._ring_for(meta)
        tally, ties = counts_of(ring, self.spec, meta, ties)
        ids, held, now_ns = ring.bulk.put(
            meta, arguments, priority=priority, due_ns=due_ns, time_limit=time_limit,
            metadata=metadata, keys=keys, ties=ties, tally=tally,
        )  # fmt: skip
        self._see_to(ring, chain.from_iterable(ids), due_ns, now_ns)
        return [format_id(*words) for words in ids], held, now_ns

    def _ring_for(self, meta: bytes) -> Ring:
        """Return the ring for a task to be enqueued; this process keeps a pool alive from now."""
        if not self._main_is_known and meta.startswith(b"__main__:"):
            refuse_main_task(task_path(meta))
        if not self._looks_after_pool:
            self._become_site()
        return self.ring

    def _see_to(self, ring: Ring, id_words: Iterable[int], due_ns: int, now_ns: int) -> None:
        try:
            if self._own is not None:
                self._own.add(ring, id_words, due_ns)
            # Not for each task of a burst: the tick sees what changes meanwhile.
            if not 0 <= now_ns - self._seen_alive_ns < BURST_NS:
                if due_ns <= now_ns + TICK_NS:
                    self._look_for_pool(now_ns)
                self._tick_if_late()
        except Exception as error:
            if from_a_signal_handler(error):
                raise  # the time limit of the task that enqueues, say
            # The task is in the ring, and its caller must get its id. The tick looks again.
            logger.exception("alias=%s looking after a task failed", self.spec.alias)
        if _ending:
            self.end()

    def _look_for_pool(self, now_ns: int) -> None:
        leadership, serial = self.ring.leadership, self.ring.registry.serial
        alive = leadership.pool_alive()
        if alive and not leadership.successor_wanted(serial, server=self.serves):
            self._seen_alive_ns = now_ns
        else:
            self._start_pool()

    def serve(self) -> bool:
        """Note that this process serves requests: it keeps a pool alive, and never waits at exit.

        Returns:
            Whether it became a site; False where another process is inside the ring for long. The
            request that is about to be served may need no task, and must not wait for that.
        """
        self.serves = True
        self._own = None
        if self._has_role:
            self.ring.registry.set_state(PoolState.SERVING)
        return self._looks_after_pool or self._become_site(needed=False)

    def keep_pool(self) -> None:
        """Have this server keep a pool from now on, whether or not a request comes.

        Where another process is inside the ring for long, the next ticks make up for it.
        """
        if not self.serve():
            with self._lead:
                if not self._looks_after_pool:
                    self._begin_to_look_after_pool()
                    self._looks_after_pool = True

    def expect_requests(self) -> None:
        """Note that this process is about to serve: until its first request it keeps a pool alive.

        It starts no thread yet: it may be a master that forks. Where another process is inside the
        ring for long, the first request makes up for it.
        """
        if not self._looks_after_pool:
            self._take_part(serves=is_server(), needed=False)

    def _take_part(self, *, serves: bool, needed: bool) -> bool:
        self._has_role = self.ring.attachment.become(Role.SITE, needed=needed)
        if self._has_role:
            if serves:  # tells scripts that they may leave their tasks to us
                self.ring.registry.set_state(PoolState.SERVING)
            warn_of_strangers(self.ring)
        return self._has_role

    def _become_site(self, *, needed: bool = True) -> bool:
        if self._guest:
            if not self.ring.registry.serial:
                self.ring.attachment.take_place(needed=needed)
            return True
        under_test.refuse_unshared_databases(self.spec.alias)
        if not self.serves and is_server():
            self.serves = True
            self._own = None
            if self._has_role:
                self.ring.registry.set_state(PoolState.SERVING)
        # Not while holding `_lead`: this may have to wait, and other threads may not want to.
        while not self._has_role or not self.ring.segment.intact():
            if self._has_role:  # nobody could see our role before, so the ring could be removed
                self._reattach()
            if not self._take_part(serves=self.serves, needed=needed):
                return False
        with self._lead:
            if not self._looks_after_pool:
                self._begin_to_look_after_pool()
                self._looks_after_pool = True
        return True

    def _begin_to_look_after_pool(self) -> None:
        self.ring.leadership.forget_failures()
        _sites.append(self)
        self._start_watch()

    def _tick_if_late(self) -> None:
        """Do the tick's work if its thread is late, or cannot run (plain uWSGI)."""
        if time.monotonic() > self._next_tick + TICK_S:
            self.tick()
            if self._looks_after_pool and not self._watched:
                self._start_watch()

    def tick(self) -> None:
        """Check that all is well, and act where it is not (20 µs where it is)."""
        self._next_tick = time.monotonic() + TICK_S
        if self.closed or self._borrowed:
            return
        if not (ring := self.ring).segment.intact():
            self._reattach()
            return
        self._keep_place()
        ring.upkeep.reopen_semaphores()
        ring.bulk.settle_rest()
        if started:
            log_ended_pools()
        if not (self._looks_after_pool and self._has_role):
            return
        if not ring.leadership.pool_looks_alive():
            ring.upkeep.renew_semaphores()
            living = ring.upkeep.settle_dead()
            periodic = self.serves and self.spec.schedule.entries
            if periodic or ring.upkeep.work_is_due(TICK_S, living):
                self._start_pool()
        elif ring.leadership.successor_wanted(ring.registry.serial, server=self.serves):
            self._start_pool()

    def _keep_place(self) -> None:
        """Keep our entry and our role; what cannot be done now waits for the next tick."""
        ring = self.ring
        if not ring.registry.serial:
            ring.attachment.take_place(needed=False)  # there was none when it attached
        elif not ring.registry.hold():
            logger.warning(
                "ring=%s others took this process for dead: something in it opened and closed the "
                "file of the shared memory, which drops its record locks. It is attached again.",
                self.spec.name,
            )
            ring.attachment.take_place(needed=False)
        if self._looks_after_pool and not self._has_role:
            self._take_part(serves=self.serves, needed=False)

    def close(self) -> None:
        """Detach this process; its tasks stay in the ring."""
        if self.closed or self.pid != os.getpid():
            return
        self.closed = True
        if not self._borrowed:
            self.ring.attachment.detach()
            if self in _sites:
                _sites.remove(self)

    def _attach(self) -> Ring:
        spec = self.spec
        path = project.site_path()
        while True:
            ring = Ring(
                spec.name, spec.alias, spec.limits, Role.VISITOR,
                path=path, digest=digest_of(path), temporary=spec.temporary,
            )  # fmt: skip
            ring.codes.module = project.settings_module()
            if ring.segment.intact():  # nobody removed or replaced it before we were registered
                ring.registry.set_schedule(spec.schedule.digest)
                return ring

    def _reattach(self) -> None:
        """Attach again: the ring was removed (RemoveIPC, an operator), or a descriptor closed."""
        before = self.ring.segment
        was_removed = before.still_open()
        try:
            self.ring = self._attach()
        except StoreUnavailable:
            if was_removed:
                logger.critical("ring=%s was removed, and there is no new one yet", self.spec.name)
            raise
        self._seen_alive_ns = 0
        self._has_role = False
        if self._own is not None and self.ring.segment.inode != before.inode:
            self._own = OwnTasks()  # those of the old ring are out of reach
        if was_removed:
            logger.critical(
                "ring=%s was removed while in use: tasks and results in it are out of reach for "
                "new readers, and service goes on with a new ring. If systemd-logind did it at a "
                "logout, set RemoveIPC=no in logind.conf, or run the site as a system user.",
                self.spec.name,
            )
        else:
            logger.warning(
                "ring=%s something in this process closed its descriptor of the shared memory (as "
                "os.closerange does). It is attached again.", self.spec.name,
            )  # fmt: skip
        if self._looks_after_pool:
            self._take_part(serves=self.serves, needed=False)  # or else the next tick

    def _start_pool(self) -> None:
        self._starts.start(self.ring, self.spec, is_server=self.serves, is_guest=self._guest)

    def _start_watch(self) -> None:
        try:
            threading.Thread(target=self._watch, name="django-tasks-local", daemon=True).start()
        except RuntimeError as error:  # a limit, or the interpreter is ending
            logger.log(
                logging.DEBUG if _ending else logging.WARNING,
                "alias=%s no thread can be started to look after the pool (%s): until one can, "
                "calls of enqueue and get_result do it.", self.spec.alias, error,
            )  # fmt: skip
        else:
            self._watched = True

    def _watch(self) -> None:
        while not self.closed:
            time.sleep(until_tick_s())
            try:
                self.tick()
                if not self.spec.temporary:
                    warn_of_other_rings(self.ring, self.spec.namespace)
            except Exception:
                logger.exception("alias=%s looking after the ring failed", self.spec.alias)

    def end(self) -> None:
        """Leave the ring at the end of this process; a script waits for its tasks first."""
        if self.pid != os.getpid() or self.closed:
            return
        try:
            # A test run removes its rings itself.
            if self._own is not None and not (self.spec.temporary or self.serves or is_server()):
                alias = self.spec.alias
                tick = Step(f"alias={alias} this script cannot look after its tasks", self.tick)
                self._own.wait(alias, lambda: self.ring, tick)
        except KeyboardInterrupt:
            say("\ndjango-tasks-local: left in the ring.")
        finally:
            self.close()


# The sites of this process, for its end. The hook is set when this module is loaded, and so runs
# after all hooks set later; `enqueue` itself waits for tasks that are enqueued even later.
_sites: list[Site] = []
_ending: list[bool] = []


def _end_all() -> None:
    _ending.append(True)
    for site in _sites[:]:
        site.end()


atexit.register(_end_all)
