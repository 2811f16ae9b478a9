"""The pool process: it starts and settles workers, maintains the ring, and knows when to go.

It holds no lock of the ring while it starts or waits for a child, and touches the ring's slots only
through the store: a process that may be killed must not be in the way. Every running task depends
on this process, so each step of its loop may fail (`Step`): no process or descriptor is left,
another process blocks the ring, a disk is full.
"""

import logging
import math
import os
import select
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

from django_tasks_local.ring import ANY_SERVER, Entry, Loss, PoolState, Ring, Role

from .crew import Crew
from .deadlines import Deadlines
from .loaded_files import LoadedFiles
from .memory_watch import MemoryWatch
from .releases import Releases
from .step import Step, until_tick_s
from .timetable import Timetable, newest_server

logger = logging.getLogger("django_tasks_local")

SHORT_TICK_S: Final = 0.05  # while it is about to leave
# How often a pool that waits for its predecessor checks whether that has gone.
TURN_S: Final = 0.01
# No site for this long: gunicorn may be between two workers, or the machine busy.
ALONE_S: Final = 1.0
# A pool that could not use its ring for this long leaves; its running tasks end. Shorter: a process
# that is frozen inside for a while costs a pool; longer: nobody does the work.
HOPELESS_S: Final = 60.0
# How often it does what is due once a second: less than a tick, since a tick may be early.
EVERY_S: Final = 0.9
# A pool that has served for this long has started well.
PROVED_S: Final = 60.0


class Supervisor:
    """One pool, from its place in the ring's file to its end.

    Args:
        ring: The ring, attached as POOL.
        start_worker: Makes a worker process from the read end of its life pipe, the bell and what
            a forked child must close, and returns the pid.
        foreground: For ``local_worker``: stay when no site is left.
        runnable_up_to: The serial of the newest site of its code when this process had loaded
            nothing yet: tasks of sites up to it may run.
        output_owner: The serial of the script whose piped output is ours too, 0 for none.
        provisional: A script has started this pool: a server's pool takes over.
        timetable: Its periodic tasks.
    """

    def __init__(
        self,
        ring: Ring,
        start_worker: Callable[[int, int, list[int]], int],
        *,
        foreground: bool,
        runnable_up_to: int,
        output_owner: int = 0,
        provisional: bool = False,
        timetable: Timetable | None = None,
    ) -> None:
        self._ring = ring
        self._timetable = timetable or Timetable(ring)
        self._foreground = foreground
        self._files = LoadedFiles(since_ns=ring.registry.attached_ns())
        self._entries: list[Entry] = []  # the living when this tick began
        self._death_seen = True  # there is an entry to settle
        self._due_ns = 0  # when the next deferred task falls due
        self._poll = select.poll()
        self._runnable_up_to = runnable_up_to
        self._output_owner = output_owner
        self._provisional = provisional
        self._asked = False  # for a successor
        self._told = False  # that a server has another SCHEDULE
        self._leaving = False
        self._stop_requests = 0
        self._alone_since: float | None = None
        self._bell, self._bell_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll.register(self._bell, select.POLLIN)
        self._crew = Crew(ring, start_worker, self._bell, self._bell_end)
        self._deadlines = Deadlines(ring, self._crew)
        self._memory = MemoryWatch(ring, self._crew)
        self._releases = Releases(ring)
        self._short = False  # of workers, because other codes' pools have them
        self._serving_since: float | None = None  # None: it has proved itself
        who = f"alias={ring.alias} the pool"
        self._in_ring = Step(f"{who} cannot use its ring", self._maintain_ring)
        self._settling = Step(f"{who} cannot settle workers that ended", self._crew.reap)
        self._steps = [
            Step(f"{who} cannot see to its sites", self._look_around),
            self._in_ring,
            self._settling,
            Step(f"{who} cannot end tasks that are to stop", self._end_tasks),
            Step(f"{who} cannot enqueue periodic tasks", self._fire),
            Step(f"{who} cannot start a worker, tasks wait", self._hire),
            Step(f"{who} cannot drop expired results", ring.expiry.sweep, every_s=EVERY_S),
            Step(f"{who} cannot look at its workers' memory", self._mind_memory, every_s=EVERY_S),
        ]

    def run(self) -> None:
        """Serve until it is time to go. Return when no worker is left."""
        self._take_signals()
        self._ring.registry.set_state(PoolState.STARTING)
        if not self._wait_for_turn():
            return
        self._serving_since = time.monotonic()
        self._ring.upkeep.set_runnable_up_to(self._runnable_up_to)
        self._ring.registry.set_state(PoolState.SERVING)
        logger.info("alias=%s pool pid=%d serves", self._ring.alias, os.getpid())
        while not self._done():
            for step in self._steps:
                step()
            self._sleep()
        logger.info("alias=%s pool pid=%d ends", self._ring.alias, os.getpid())

    def _done(self) -> bool:
        if not self._leaving or self._crew:
            return False
        return self._crew.settled or self._settling.failing_s() > HOPELESS_S

    def stop(self) -> None:
        """Ask for the end: a hand-over while sites are attached, otherwise a short drain."""
        self._stop_requests += 1

    def _take_signals(self) -> None:
        # The handlers only have to exist: the wake-up descriptor does the rest.
        signal.set_wakeup_fd(self._bell_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop if self._foreground else signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop()

    def _wait_for_turn(self) -> bool:
        """Wait for the pool's place; return False if nothing is left to wait for."""
        ring = self._ring
        while not ring.leadership.take_pool():
            self._entries = ring.upkeep.settle_dead()
            if self._stop_requests or not (self._foreground or self._sites()):
                return False
            time.sleep(TURN_S)
        return True

    # --- what a tick does -----------------------------------------------------------------------

    def _maintain_ring(self) -> None:
        """Do what needs the ring's lock, or may need it."""
        if self._in_ring.failing_s() > HOPELESS_S and not self._leaving:
            logger.critical(
                "alias=%s the pool leaves: it has not been able to use its ring for %d s, see the "
                "errors above. A site starts another pool.", self._ring.alias, HOPELESS_S,
            )  # fmt: skip
            self._leave()
        ring = self._ring
        self._due_ns = 0
        ring.upkeep.renew_semaphores()
        ring.upkeep.promote()
        ring.upkeep.trim()
        if self._death_seen:
            ring.upkeep.settle_dead()
        self._due_ns = ring.upkeep.next_due_ns()
        ring.upkeep.top_up()

    def _look_around(self) -> None:
        """Act on which processes are attached, without a lock: the ring may be in any state."""
        ring = self._ring
        if not self._leaving and not (ring.registry.hold() and ring.leadership.hold_pool()):
            logger.error(
                "alias=%s pool pid=%d was taken for dead: something in it opened and closed the "
                "file of the shared memory, which drops its record locks. Its tasks run to their "
                "end, and another pool takes over.", ring.alias, os.getpid(),
            )  # fmt: skip
            self._leave()
        # Before the entries are read: the newest site is one of them, or has gone.
        newest, latest = ring.leadership.newest_site(), ring.registry.latest_serial()
        entries = list(ring.registry.attachments())
        self._entries = [entry for entry in entries if entry.alive]
        self._death_seen = len(self._entries) < len(entries)
        sites = self._sites()
        if not self._leaving:
            current = self._compare_code(sites, newest)
            self._releases.adopt(self._entries, latest)
            if current and sites and not self._compare_schedule(sites):
                self._mind_origin(sites)
            if self._successor_ready():
                self._leave()
            self._prove()
        if self._stop_requests > 1:
            self._abandon()
        else:
            self._mind_being_alone(bool(sites))
        if self._leaving or len(self._crew) > ring.upkeep.max_workers():
            ring.upkeep.wake(len(self._crew))  # the idle ones, to see that they are to go

    def _compare_code(self, sites: list[Entry], newest: int) -> bool:
        """Allow tasks of newly attached sites to run, or ask for a pool with their code.

        Returns:
            Whether our code is theirs.
        """
        if newest <= self._runnable_up_to:
            # Another number is damage, and nothing would run.
            if self._ring.leadership.runnable_up_to() != self._runnable_up_to:
                self._ring.upkeep.set_runnable_up_to(self._runnable_up_to)
            return True
        changed = self._files.changed()
        if changed:
            # Any site of this code may start it: a new interpreter loads what is on the disk now.
            self._ask_for_successor(0, f"{changed} changed")
            return False
        self._runnable_up_to = newest
        self._ring.upkeep.set_runnable_up_to(newest)
        return True

    def _compare_schedule(self, sites: list[Entry]) -> bool:
        """Ask for a pool with the SCHEDULE of the newest server, and return whether it differs.

        Only what came with its environment: changed files are other code.
        """
        newest = newest_server(sites)
        if newest is None or newest.schedule == self._timetable.digest:
            return False
        if not self._foreground:
            self._ask_for_successor(newest.serial, "the SCHEDULE of its newest server is another")
        elif not self._told:
            self._told = True
            logger.warning(
                "alias=%s the SCHEDULE of server pid=%d is not that of this pool, pid=%d, which "
                "goes by its own until it ends: start it with the same environment.",
                self._ring.alias, newest.pid, os.getpid(),
            )  # fmt: skip
        return not self._foreground

    def _ask_for_successor(self, serial: int, why: str) -> None:
        if not self._asked:
            self._asked = True
            # In the foreground, this is why the command ends.
            level = logging.WARNING if self._foreground else logging.INFO
            logger.log(
                level, "alias=%s pool pid=%d asks for a successor: %s",
                self._ring.alias, os.getpid(), why,
            )  # fmt: skip
        self._ring.leadership.ask_for_successor(serial)

    def _mind_origin(self, sites: list[Entry]) -> None:
        """Ask for a pool with the same code if ours is to go, or is a script's."""
        if self._stop_requests or self._output_owner_gone(sites):
            why = "told to stop" if self._stop_requests else "its script has ended"
            self._ask_for_successor(0, why)
        elif self._provisional and any(site.state == PoolState.SERVING for site in sites):
            self._ask_for_successor(ANY_SERVER, "a script has started it, and a server is there")

    def _output_owner_gone(self, sites: list[Entry]) -> bool:
        """Return whether a reader of a script's output (cron, ssh, a pipe) waits only for us."""
        return self._output_owner > 0 and all(site.serial != self._output_owner for site in sites)

    def _prove(self) -> None:
        """End the pauses between starts after a minute of service, if no claim has done so."""
        since = self._serving_since
        if since is not None and time.monotonic() - since > PROVED_S:
            self._serving_since = None
            self._ring.leadership.forget_failures()

    def _successor_ready(self) -> bool:
        return any(
            entry.role is Role.POOL
            and entry.code == self._ring.registry.code
            and entry.state == PoolState.STARTING
            and entry.index != self._ring.registry.index
            for entry in self._entries
        )

    def _leave(self) -> None:
        """Claim nothing more. The successor may start as soon as the place is free."""
        self._leaving = True
        self._ring.registry.set_state(PoolState.LEAVING)
        self._ring.leadership.leave_pool()

    def _mind_being_alone(self, company: bool) -> None:
        now = time.monotonic()
        ring = self._ring
        removed = not ring.segment.intact()
        if removed and ring.upkeep.is_temporary():  # the test run has ended, and waits for our end
            self._abandon()
            return
        if not removed and (company or (self._foreground and not self._stop_requests)):
            self._alone_since = None
            return
        if self._alone_since is None:
            self._alone_since = now
        alone_s = now - self._alone_since
        drain_s = ring.upkeep.drain_timeout_s()
        # Nothing more comes through a removed ring, but what came still runs. And while sites of
        # other code are attached, service goes on: what this code's sites enqueued runs, too.
        others = any(entry.role is Role.SITE for entry in self._entries)
        if company or others:
            drain_s = None
        # No other process can ever run what is deferred in a removed ring.
        busy = ring.upkeep.has_unfinished() if removed and company else self._has_work()
        if drain_s is not None and alone_s >= max(drain_s, ALONE_S):
            self._abandon()
        elif others and self._stop_requests and not self._leaving:
            self._leave()  # what waits is adopted
        elif not (self._leaving or busy) and (alone_s >= ALONE_S or self._output_owner_gone([])):
            self._leave()

    def _has_work(self) -> bool:
        upkeep, registry = self._ring.upkeep, self._ring.registry
        return (
            self._ring.workforce.runnable() > 0
            or any(map(upkeep.is_busy, self._ours()))
            or upkeep.losses.may_be_there(registry.share(registry.index))
        )

    def _abandon(self) -> None:
        """Leave now, and kill what still runs."""
        if not self._leaving:
            self._leave()
        self._crew.kill(Loss.DRAINED)

    # --- workers ----------------------------------------------------------------------------------

    def _hire(self) -> None:
        """Start workers while a task waits, no worker is idle, and no other code needs them."""
        ring, crew = self._ring, self._crew
        waiting = ring.workforce.runnable()
        ours = self._ours()
        retiring = [worker for worker in ours if worker.retires]
        idle = len(crew) - sum(ring.upkeep.is_busy(worker) or worker in retiring for worker in ours)
        successors = crew.unsucceeded(worker.pid for worker in retiring)
        # One more than waits: the next task then starts without a fork before it.
        wanted = max(min(waiting + 1, ring.upkeep.max_workers()) - idle, len(successors))
        if self._leaving or crew.paused or wanted < 0:
            wanted = 0
        hiring = ring.workforce.hire(
            len(crew), wanted, waiting=waiting > idle, strays=self._releases.strays(self._entries)
        )
        self._short = hiring.short
        if hiring.short:
            self._releases.wake(self._entries)
        if hiring.no_place:
            self._releases.say_no_place(len(crew) + hiring.number)
        for _ in range(hiring.number):
            crew.start()
            crew.succeed(successors[:1])
            del successors[:1]

    def _mind_memory(self) -> None:
        self._crew.look_for_oom_kills()
        self._memory.look(self._ours())

    def _end_tasks(self) -> None:
        self._deadlines.look(self._ours())

    def _fire(self) -> None:
        """Enqueue what is due of the schedule, unless that would keep this pool from its end."""
        if not self._leaving and self._alone_since is None:
            self._timetable.look(self._entries)

    def _ours(self) -> list[Entry]:
        """Return our workers that were attached when this tick began."""
        index = self._ring.registry.index
        return [e for e in self._entries if e.role is Role.WORKER and e.pool == index]

    def _sites(self) -> list[Entry]:
        """Return the sites of our code."""
        code = self._ring.registry.code
        return [e for e in self._entries if e.role is Role.SITE and e.code == code]

    def _sleep(self) -> None:
        """Wait for a signal, a worker's bell, the next due task or the next tick."""
        timeout_s = until_tick_s()
        if self._asked or self._short or self._alone_since is not None:
            timeout_s = SHORT_TICK_S
        if self._due_ns:
            timeout_s = min(timeout_s, max(0.0, (self._due_ns - time.time_ns()) / 1e9))
        timeout_s = min(timeout_s, self._deadlines.next_s(), self._timetable.next_s())
        for step in self._steps:
            timeout_s = step.pause_s(timeout_s)
        # Not select(): it takes no descriptor above 1,023, and an import may have opened many.
        try:
            if self._poll.poll(math.ceil(timeout_s * 1000)):
                os.read(self._bell, 4096)
        except BlockingIOError:
            pass
        except OSError:  # something closed it: just sleep
            time.sleep(timeout_s)
