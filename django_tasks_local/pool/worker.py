"""A worker process: claim, run and finish one task at a time, until the pool leaves."""

import fcntl
import math
import os
import select
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Final

from django_tasks_local.execution import run
from django_tasks_local.ring import Ring, Role, Seen, Signs, ask_nothing
from django_tasks_local.stopping import SignalledAttempt, listen
from django_tasks_local.streams import flush_output

from . import connections
from .announcing import announce_loss
from .copies import begin_as_a_copy, run_exit_functions
from .leftovers import Leftovers
from .lifetime import Lifetime
from .loaded_files import LoadedFiles
from .spec import PoolSpec

# How long an idle worker sleeps when nothing wakes it. A fallback, since the pool replaces lost
# wake-ups every second: waking on an idle core costs 200 µs instead of 20.
IDLE_S: Final = 30.0
FOR_THE_POOL: Final = (signal.SIGINT, signal.SIGTERM)
F_SETSIG: Final = 10  # Linux only; the fcntl module does not name it


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker needs to know of its pool.

    Attributes:
        pool_spec: The ring, and how it is used.
        path: The settings file.
        pool: The pool's entry in the registry.
        life: Read end of a pipe whose other end only the pool has open.
        bell: Write end of a pipe that wakes the pool.
        backend_class: The sender of the signals.
    """

    pool_spec: PoolSpec
    path: str
    pool: int
    life: int
    bell: int
    backend_class: type


def work(spec: WorkerSpec) -> None:
    """Run tasks in this fresh process until the pool leaves, or the code on disk has changed."""
    ring, alias = _attach(spec), spec.pool_spec.alias
    leftovers = Leftovers(alias)
    worker = _Worker(ring, spec, leftovers)
    leadership, files = ring.leadership, worker.files
    has_claimed = False
    while worker.goes_on():
        claim = worker.claim = ring.claim(worker.share)
        if claim is None:
            worker.wait()
            continue
        if not has_claimed:
            has_claimed = True
            leadership.forget_failures()  # a pool whose workers claim has started well
        if worker.may_be_more and leadership.wants_more_workers():
            _ring_bell(spec.bell)
        began_s = time.monotonic()
        run(
            ring, claim, alias=alias, backend_class=spec.backend_class,
            attempt_class=SignalledAttempt,
        )  # fmt: skip
        flush_output()  # what a task prints is in the log when the task has ended
        if not leftovers.put_back(claim, time.monotonic() - began_s):
            break
        files.look()
    run_exit_functions()
    ring.attachment.detach()


class _Worker:
    """What a worker sees between two tasks.

    Attributes:
        files: What its tasks have imported.
        share: Which tasks it may claim.
        claim: What it claimed last, None if there was nothing.
        may_be_more: Whether there may be more workers than there are.
    """

    def __init__(self, ring: Ring, spec: WorkerSpec, leftovers: Leftovers) -> None:
        self._ring = ring
        self._spec = spec
        self._leftovers = leftovers
        self.files = LoadedFiles(later_only=True)
        self._lifetime = Lifetime(ring, spec.pool, partial(_ring_bell, spec.bell))
        self._newest = self._reported = ring.leadership.newest_site()
        self._limited = self._lifetime.is_limited()
        self._signs = Signs(ring.segment, spec.pool, ring.registry.code)
        self._known: Seen | None = None
        self._looks = count()
        self.share = ring.registry.share(spec.pool)
        self.claim: object = None
        self.may_be_more = True

    def goes_on(self) -> bool:
        """Return whether it is to claim a task now."""
        now = self._signs.read()
        if now == self._known:  # as nearly always
            return True
        if not self._ring.registry.serves(self._spec.pool) or self._is_to_end():
            return False
        self._known = now if ask_nothing(now) and not self._limited else None
        return True

    def _is_to_end(self) -> bool:
        ring, leadership = self._ring, self._ring.leadership
        # Read before the sites: any task that this allows is from a site that we see below.
        self.share = ring.registry.share(self._spec.pool)
        newest = leadership.newest_site()
        if newest != self._newest:
            # Modules that a task imported are not among those that the pool compares.
            if self.files.changed():
                return True
            self._newest = newest
            self._limited = self._lifetime.is_limited()  # its options hold for all
        workers, most = leadership.workers(), ring.upkeep.max_workers()
        self.may_be_more = workers < most
        # The pool starts as many workers again as it may have. A new worker claims before it gives
        # way: where two pools share one place, each finds that the other waits, and if every worker
        # left at once, no task would ever run.
        return (
            workers > most
            or bool(next(self._looks) and ring.workforce.give_way())
            # One compare where the worker's life has no limit.
            or (self._limited and self._lifetime.ends(after_task=self.claim is not None))
            or (ring.upkeep.losses.may_be_there(self.share) and not self._announce_losses())
        )

    def wait(self) -> None:
        """Wait for work."""
        newest = self._newest
        if newest > self.share.runnable_up_to and newest != self._reported:
            self._reported = newest  # a site whose tasks wait until the pool has compared its files
            _ring_bell(self._spec.bell)
        self._ring.wait_for_work(min(self._lifetime.next_look_s(), _idle_s(self._ring)))

    def _announce_losses(self) -> bool:
        """Announce the ends of lost tasks; return whether this process can go on."""
        spec = self._spec
        for lost in self._ring.upkeep.losses.take(self.share):
            announce_loss(lost, spec.pool_spec.alias, spec.backend_class)
            flush_output()
            if not self._leftovers.put_back(lost, math.inf):
                return False
        return True


def _attach(spec: WorkerSpec) -> Ring:
    _lead_own_group()
    _die_with_the_pool(spec.life)
    name, alias, limits = spec.pool_spec.name, spec.pool_spec.alias, spec.pool_spec.limits
    ring = Ring(name, alias, limits, Role.WORKER, path=spec.path, pool=spec.pool)
    connections.use(spec.pool_spec, ring)
    begin_as_a_copy(alias, spec.backend_class)
    return ring


def _idle_s(ring: Ring) -> float:
    """Return how long to wait for work: no longer than until the next deferred task is due."""
    due_ns = ring.upkeep.next_due_ns()
    return min(IDLE_S, max(0.0, (due_ns - time.time_ns()) / 1e9)) if due_ns else IDLE_S


def _ring_bell(bell: int) -> None:
    with suppress(OSError):  # full: it is ringing already; closed: the task did that
        os.write(bell, b"!")


def _lead_own_group() -> None:
    """Lead a process group that is killed with us, and ignore signals that are meant for the pool.

    systemd sends SIGTERM to every process of a service. A handler, not SIG_IGN: an ignored signal
    stays ignored in programs that a task starts. Children that a task forks get these signals from
    the first moment on: Python drops signals for a child that is not ready yet, hence the mask.
    """
    os.setpgid(0, 0)
    for number in FOR_THE_POOL:
        signal.signal(number, lambda number, frame: None)
    os.register_at_fork(
        before=partial(signal.pthread_sigmask, signal.SIG_BLOCK, FOR_THE_POOL),
        after_in_parent=partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, FOR_THE_POOL),
        after_in_child=_hear_again,
    )
    signal.set_wakeup_fd(-1)  # the pool's
    for number in (signal.SIGCHLD, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    listen()


def _hear_again() -> None:
    for number in FOR_THE_POOL:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FOR_THE_POOL)


def _die_with_the_pool(life: int) -> None:
    """Let the kernel kill our whole group when the pool's end of the pipe closes.

    Not a thread, which would make every fork in a task unsafe, and not PDEATHSIG, which follows the
    thread that forked; a task deep in C code dies as well.
    """
    fcntl.fcntl(life, fcntl.F_SETOWN, -os.getpid())
    fcntl.fcntl(life, F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()  # select() takes no descriptor above 1,023
    poll.register(life, select.POLLIN)
    if poll.poll(0):  # it closed before we were ready
        os._exit(0)
