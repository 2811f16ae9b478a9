"""A site process's side: attach, see that somebody runs what waits, wait at exit where due."""

import atexit
import logging
import os
import threading
import time
from typing import Any, Final

from django_tasks_local import under_test
from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import PoolState, Ring, Role
from django_tasks_local.store import Snapshot, task_path
from django_tasks_local.streams import say

from . import project
from .launcher import log_ended_pools, start_pool, started
from .loaded_files import digest_of
from .main_script import names_main, refuse_main, refuse_main_task
from .neighbours import warn_of_other_rings, warn_of_strangers
from .own_tasks import OwnTasks
from .project import Preparation
from .serving import is_server
from .slow_start import SlowStart
from .spec import PoolSpec
from .ticks import TICK_S, until_tick_s

logger = logging.getLogger("django_tasks_local")

TICK_NS: Final = int(TICK_S * 1e9)
# For so long after a look at the pool, further tasks are enqueued without one.
BURST_NS: Final = 5_000_000
# The pause after a pool that did not come up; it doubles each time, up to a minute.
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 60.0


class Site:
    """This process's attachment to one ring, and its part in keeping a pool alive."""

    def __init__(self, spec: PoolSpec, *, ring: Ring | None = None, guest: bool = False) -> None:
        """Attaches, as a VISITOR: who only reads keeps no pool alive.

        Args:
            spec: Which ring, and how.
            ring: A worker's own attachment, where the backend is used inside a task of that ring.
            guest: This is a pool or a worker of one. It may start another ring's pool, but keeps
                none alive: two pools would keep each other.

        Raises:
            StoreUnavailable: The ring can't be used.
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
        self._slow_start = SlowStart()
        self._next_tick = time.monotonic() + TICK_S
        self._lead = threading.Lock()
        self._is_site = False
        self._has_role = False  # in the ring as it is now
        self._watched = False
        self._seen_alive_ns = 0  # when an enqueue saw a pool, and nothing to be done
        self._borrowed = ring is not None
        # A server's main script is the server, and defines nothing that a task is handed.
        self._main_is_known = project.needs_main() or is_server()
        self.ring = ring or self._attach()

    def encode(self, value: Any) -> Any:
        """Pickles a task's arguments; it may raise whatever pickling raises."""
        encoded = self.ring.encode_arguments(value)
        if not self._main_is_known and names_main(encoded):
            refuse_main(value)
        return encoded

    def enqueue(
        self, meta: bytes, arguments: Any, *, priority: int, due_ns: int, time_limit: int = 0
    ) -> tuple[str, int]:
        """As `Ring.enqueue`, and sees to it that somebody runs what was enqueued.

        Raises:
            InvalidTask: The task is defined in a main script that no pool can import.
        """
        if not self._main_is_known and meta.startswith(b"__main__:"):
            refuse_main_task(task_path(meta))
        if not self._is_site:
            self._become_site()
        ring = self.ring
        result_id, now_ns = ring.enqueue(
            meta, arguments, priority=priority, due_ns=due_ns, time_limit=time_limit
        )
        try:
            if self._own is not None:
                self._own.add(ring, result_id, due_ns)
            # In a burst not for each task: what changes meanwhile is seen by the tick.
            if due_ns <= now_ns + TICK_NS and not 0 <= now_ns - self._seen_alive_ns < BURST_NS:
                self._look_for_pool(now_ns)
            self._keep_house()
        except Exception:
            # The task is in the ring, and its caller must get its id. The tick looks again.
            logger.exception("alias=%s looking after a task failed", self.spec.alias)
        if _ending:
            self.end()
        return result_id, now_ns

    def _look_for_pool(self, now_ns: int) -> None:
        ring = self.ring
        leadership = ring.leadership
        alive = leadership.pool_alive()
        if alive and not leadership.successor_wanted(ring.registry.serial, server=self.serves):
            self._seen_alive_ns = now_ns
        else:
            self._start_pool()

    def get(self, result_id: str) -> Snapshot:
        """As `Ring.get`."""
        self._keep_house()
        return self.ring.get(result_id)

    def cancel(self, result_id: str, *, running: bool) -> tuple[bool, Snapshot | None]:
        """Take a READY task out, or ask a RUNNING one to stop; see `StoreClient`."""
        self._keep_house()
        return self.ring.cancel(result_id, running=running)

    def serve(self) -> bool:
        """This process serves requests: it keeps a pool alive, and never waits at exit.

        Returns:
            Whether it could take its part; False where somebody is inside the ring for long. The
            request that is about to be served may need no task, and must not wait for one.
        """
        self.serves = True
        self._own = None
        if self._has_role:
            self.ring.registry.set_state(PoolState.SERVING)
        return self._is_site or self._become_site(needed=False)

    def expect_requests(self) -> None:
        """This process is about to serve: until its first request it only keeps a pool alive.

        No thread yet: it may be a master that forks. Where somebody is inside the ring for long,
        its first request does it.
        """
        if not self._is_site:
            self._take_part(serves=is_server(), needed=False)

    def _take_part(self, *, serves: bool, needed: bool) -> bool:
        self._has_role = self.ring.become(Role.SITE, needed=needed)
        if self._has_role and serves:  # a script may leave its tasks to us
            self.ring.registry.set_state(PoolState.SERVING)
        return self._has_role

    def _become_site(self, *, needed: bool = True) -> bool:
        if self._guest:
            if not self.ring.registry.serial:
                self.ring.take_place(needed=needed)
            return True
        under_test.refuse_unshared_databases(self.spec.alias)
        if not self.serves and is_server():
            self.serves = True
            self._own = None
            if self._has_role:
                self.ring.registry.set_state(PoolState.SERVING)
        # Not with `_lead` in hand: it may have to wait, and other threads may not want to.
        while not self._has_role or not self.ring.intact():
            if self._has_role:  # nobody saw us there before, so it could be removed
                self._reattach()
            if not self._take_part(serves=self.serves, needed=needed):
                return False
        with self._lead:
            if not self._is_site:
                self._lead_the_way()
                self._is_site = True
        return True

    def _lead_the_way(self) -> None:
        self.ring.leadership.forget_failures()
        warn_of_strangers(self.ring)
        _sites.append(self)
        self._start_watch()

    def _keep_house(self) -> None:
        """Does the tick's work if the thread that should is late, or can't run (plain uWSGI)."""
        if time.monotonic() > self._next_tick + TICK_S:
            self.tick()
            if self._is_site and not self._watched:
                self._start_watch()

    def tick(self) -> None:
        """Looks whether all is well (20 us where it is)."""
        self._next_tick = time.monotonic() + TICK_S
        if self.closed or self._borrowed:
            return
        ring = self.ring
        if not ring.intact():
            self._reattach()
            return
        self._keep_place()
        ring.renew_semaphores()
        if started:
            log_ended_pools()
        if not (self._is_site and self._has_role):
            return
        if not ring.leadership.pool_looks_alive():
            ring.heal()
            living = ring.reap_dead()
            if ring.work_is_due(TICK_S, living):
                self._start_pool()
        elif ring.leadership.successor_wanted(ring.registry.serial, server=self.serves):
            self._start_pool()

    def _keep_place(self) -> None:
        """Sees to our entry and our role; what can't be done now is done in the next tick."""
        ring = self.ring
        if not ring.registry.serial:
            ring.take_place(needed=False)  # there was none when it attached
        elif not ring.hold():
            logger.warning(
                "ring=%s others took this process for dead: something in it opened and closed the "
                "file of the shared memory, which drops its record locks. It is attached again.",
                self.spec.name,
            )
            ring.take_place(needed=False)
        if self._is_site and not self._has_role:
            self._take_part(serves=self.serves, needed=False)

    def close(self) -> None:
        """Detaches this process; its tasks stay in the ring."""
        if self.closed or self.pid != os.getpid():
            return
        self.closed = True
        if not self._borrowed:
            self.ring.detach()
            if self in _sites:
                _sites.remove(self)

    def _attach(self) -> Ring:
        spec = self.spec
        path = project.site_path()
        while True:
            ring = Ring(
                spec.name, spec.alias, spec.limits, Role.VISITOR,
                path=path, digest=digest_of(path), passing=spec.temporary,
            )  # fmt: skip
            if ring.intact():  # nobody removed it, or laid it out anew, before we were registered
                return ring

    def _reattach(self) -> None:
        """The objects were removed under us (RemoveIPC, an operator), or our descriptor closed."""
        before = self.ring.segment
        if before.still_open():
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
        self.ring = self._attach()
        self._seen_alive_ns = 0
        self._has_role = False
        if self._own is not None and self.ring.segment.inode != before.inode:
            self._own = OwnTasks()  # those of the old ring are out of reach
        if self._is_site:
            self._take_part(serves=self.serves, needed=False)  # or else the next tick

    def _start_pool(self) -> None:
        """Starts a pool unless one is on its way, or the last one's failure is too fresh."""
        ring = self.ring
        leadership = ring.leadership
        if leadership.successor_alive():
            self._slow_start.look(ring)
            return
        if not leadership.may_start_pool(FIRST_PAUSE_S, LONGEST_PAUSE_S):
            return
        # A script's pool may outlive it; who reads the script's output must not have to wait.
        lends = not (self.serves or self._guest) and project.output_is_piped()
        lender = ring.registry.serial if lends else 0
        try:
            told = Preparation.of_this_process(
                self.spec.namespace, ring.path,
                lender=lender, provisional=not (self.serves or self._guest),
            )  # fmt: skip
            start_pool(ring, told)
        except (StoreUnavailable, OSError, ValueError) as error:
            logger.error("alias=%s no pool can be started: %s", self.spec.alias, error)

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
        """What this process does about its ring when it ends; a script waits for its tasks."""
        if self.pid != os.getpid() or self.closed:
            return
        try:
            # The ring of a test run is removed by itself.
            if self._own is not None and not (self.spec.temporary or self.serves or is_server()):
                self._own.wait(self.spec.alias, lambda: self.ring, self.tick)
        except KeyboardInterrupt:
            say("\ndjango-tasks-local: left in the ring.")
        finally:
            self.close()


# The sites of this process, for its end. The hook is set when this module is loaded, and so runs
# after all that were set later; what is enqueued even later than that is waited for at once.
_sites: list[Site] = []
_ending: list[bool] = []


def _end_all() -> None:
    _ending.append(True)
    for site in _sites[:]:
        site.end()


atexit.register(_end_all)
