"""ThreadPoolBackend: tasks in threads of this process, results in its memory.

    handles (one per thread and asyncio context)  ->  registry  ->  ThreadPool  ->  MemoryStore

The registry has one pool per pid, effective uid, backend class, alias and options, so a forked
process starts with none, and changed settings give a new pool in place of the old one.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import Final

from django.conf import settings
from django.urls import set_script_prefix

from django_tasks_local import under_test
from django_tasks_local.exceptions import counted, listed
from django_tasks_local.execution import current_result_id, run
from django_tasks_local.memory import MemoryStore
from django_tasks_local.options import Options
from django_tasks_local.pool.serving import is_restarted_by_autoreload
from django_tasks_local.store import Claim, task_path
from django_tasks_local.streams import unbuffer_output

from .base import LocalBackend
from .counting import CountingStore

logger = logging.getLogger("django_tasks_local")

# After DRAIN_TIMEOUT: for how long, and how often, running tasks are interrupted.
INTERRUPT_S: Final = 0.5
AGAIN_S: Final = 0.1

type Key = tuple[int, int, type, str, Options]


class ThreadPool:
    """The store of one alias and the threads that run what is in it.

    The threads are daemons: concurrent.futures joins its threads at exit without a limit, which
    would break the promise of DRAIN_TIMEOUT.
    """

    def __init__(self, key: Key) -> None:
        self.pid, self.euid, self.backend_class, self.alias, self.options = key
        self.store = (CountingStore if self.options.metrics else MemoryStore)(
            self.alias,
            max_workers=self.options.max_workers,
            max_results=self.options.max_results,
            max_result_bytes=self.options.max_result_bytes,
            max_pending=self.options.max_pending,
            result_ttl_s=self.options.result_ttl,
            failure_ttl_s=self.options.failure_ttl,
        )
        self.closed = False
        self._lock = threading.Lock()  # guards _threads
        self._threads: list[threading.Thread] = []

    def grow(self) -> None:
        """Start a thread if one is missing and MAX_WORKERS allows it.

        One at most: for a moment a new thread is neither idle nor at work, and as many threads
        seem to be missing as before. The new thread calls this again when it has found work.
        """
        if not self._wants_thread():
            return
        with self._lock:
            if not self.closed and self._wants_thread():
                self._start_thread()

    def close(self) -> Sequence[Claim]:
        """Stop claims, drop all results, and return what was waiting; running tasks may end."""
        self.closed = True
        return self.store.close()

    @property
    def threads(self) -> list[threading.Thread]:
        """The pool's threads that have not ended."""
        return [thread for thread in self._threads if thread.is_alive()]

    def _wants_thread(self) -> bool:
        return len(self._threads) < self.options.max_workers and self.store.unattended > 0

    def _start_thread(self) -> None:
        worker_id = f"{self.alias}-{self.pid}-t{len(self._threads) + 1}"
        thread = threading.Thread(target=self._work, args=(worker_id,), name=worker_id, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # Out of threads, or the interpreter is ending (before Python 3.12.3 no thread starts
            # then). The task stays READY: an existing thread or the next enqueue takes care of it.
            if not self._threads:
                logger.exception("Thread pool alias=%s cannot start a thread", self.alias)
        else:
            self._threads.append(thread)

    def _work(self, worker_id: str) -> None:
        # A thread begins with an empty context, and django.setup() has set this in the main one.
        if settings.FORCE_SCRIPT_NAME is not None:
            set_script_prefix(settings.FORCE_SCRIPT_NAME)
        while self._run_next(worker_id):
            pass

    # A separate frame, so that an idle thread keeps no reference to the previous task.
    def _run_next(self, worker_id: str) -> bool:
        claim = self.store.wait_for_claim(worker_id)
        if claim is None:
            return False
        self.grow()
        try:
            run(self.store, claim, alias=self.alias, backend_class=self.backend_class)
        except BaseException:
            logger.exception("Task id=%s: its outcome could not be stored", claim.result_id)
        return True


class ThreadPoolBackend(LocalBackend):
    """A backend that runs tasks in at most ``MAX_WORKERS`` threads of this process.

    It suits I/O-bound work. Results are in this process's memory: no other process can read them.
    """

    kind = "thread"

    _held: ThreadPool | None = None

    def close(self) -> None:
        """Close the pool of this alias in this process: waiting tasks and results are dropped."""
        with _pools_lock:
            pools = [_pools.pop(key) for key in _keys_of(type(self), self.alias)]
        _close(pools)

    def opened_store(self) -> MemoryStore | None:
        """Return the store of this process and alias, ``None`` if nothing has used it yet."""
        key = (os.getpid(), _geteuid(), type(self), self.alias, self.checked_options)
        with _pools_lock:
            pool = _pools.get(key)
        return None if pool is None or pool.closed else pool.store

    def _store(self) -> MemoryStore:
        return self._pool().store

    def _enqueued(self, due_ns: int) -> None:
        if self._held is not None:  # as `_store` has left it
            self._held.grow()

    def _pool(self) -> ThreadPool:
        pool = self._held
        if pool is None or pool.closed or pool.pid != os.getpid() or pool.euid != _geteuid():
            pool = self._held = _open_pool(type(self), self.alias, self.checked_options)
        return pool


# --- the registry of the process ----------------------------------------------------------------

_pools: dict[Key, ThreadPool] = {}
_closed: list[ThreadPool] = []  # those whose threads may still run something
_pools_lock = threading.Lock()  # held for look-ups only
_exit_hook_set = False

_geteuid = getattr(os, "geteuid", lambda: 0)  # Windows has none


def _keys_of(backend_class: type, alias: str) -> list[Key]:
    # _pools_lock must be held.
    mine = (os.getpid(), _geteuid(), backend_class, alias)
    return [key for key in _pools if key[:4] == mine]


def _open_pool(backend_class: type, alias: str, options: Options) -> ThreadPool:
    key = (os.getpid(), _geteuid(), backend_class, alias, options)
    with _pools_lock:
        pool = _pools.get(key)
        if pool is not None and not pool.closed:
            return pool
        # Settings change in tests only. Tasks and results of the old pool go with it.
        replaced = [_pools.pop(old) for old in _keys_of(backend_class, alias)]
        pool = _pools[key] = ThreadPool(key)
        _set_exit_hook()
    _close(replaced)
    return pool


def _close(pools: list[ThreadPool]) -> None:
    _closed[:] = [pool for pool in _closed if pool.threads]
    for pool in pools:
        waiting = pool.close()
        if pool.threads:
            _closed.append(pool)
        if waiting:
            logger.warning(
                "Thread pool alias=%s closed: %s waiting, which will not run: %s",
                pool.alias, counted(len(waiting), "task"), _named(waiting),
            )  # fmt: skip


def _named(records: Sequence[Claim]) -> str:
    return listed([f"{task_path(record.meta)} id={record.result_id}" for record in records])


def _forget_pools() -> None:
    # In a forked child: the threads are gone, and one of them may have held any of the locks.
    global _pools_lock
    _pools.clear()
    _closed.clear()
    _pools_lock = threading.Lock()


getattr(os, "register_at_fork", dict)(after_in_child=_forget_pools)  # Windows has no fork


def _set_exit_hook() -> None:
    """Register `_drain` for the exit, once for this process and all that are forked from it."""
    global _exit_hook_set
    if _exit_hook_set:
        return
    _exit_hook_set = True
    # The hook of concurrent.futures, which runs before atexit's: after that no executor takes work,
    # and even an async task that looks up a host name needs one. It is private, hence the default.
    register = getattr(threading, "_register_atexit", atexit.register)
    try:
        register(_drain)
    except RuntimeError:  # the interpreter is already ending
        atexit.register(_drain)


def _drain() -> None:
    """Give running and due tasks DRAIN_TIMEOUT to end. Called at exit."""
    pools = [*_pools.values(), *_closed]
    if not is_restarted_by_autoreload():  # a developer who saved a file does not want to wait
        _end(pools)
    if any(pool.threads for pool in pools):
        unbuffer_output()


def _end_before_databases_go() -> None:
    """End the threads of a test run, and what runs in them within DRAIN_TIMEOUT."""
    if current_result_id.get(""):
        return  # a task connects: that does not make or destroy databases
    with _pools_lock:
        pools = [_pools.pop(key) for key in list(_pools)]
    _close(pools)
    _end(list(_closed))


under_test.at_end(_end_before_databases_go)


def _end(pools: list[ThreadPool]) -> None:
    """Wait for each pool as long as its options allow, close it, and cut off what still runs."""
    started = time.monotonic()

    def left_s(pool: ThreadPool) -> float | None:
        limit_s = pool.options.drain_timeout
        return None if limit_s is None else max(0.0, limit_s - (time.monotonic() - started))

    for pool in pools:
        if not pool.store.wait_until_done(left_s(pool)) and (cut_off := pool.store.in_progress()):
            logger.warning(
                "Thread pool alias=%s: DRAIN_TIMEOUT (%g s) is over, and %s cut off: %s. To give "
                "them more time, raise it.",
                pool.alias, pool.options.drain_timeout, counted(len(cut_off), "running task"),
                _named(cut_off),
            )  # fmt: skip
    _close([pool for pool in pools if not pool.closed])
    for pool in pools:
        for thread in pool.threads:  # the task has ended, but its signals' receivers may still run
            thread.join(left_s(pool))
    _interrupt([thread for pool in pools for thread in pool.threads])


def _interrupt(threads: list[threading.Thread]) -> None:
    """Raise SystemExit in threads of closed pools, and wait a moment for their end.

    The interpreter stops a daemon thread wherever it is. If that is in the middle of a write to a
    buffered file, such as standard output, it then aborts the process: SIGABRT, a wrong exit status
    and a lost buffer.
    A thread that waits in C code does not see the exception, but does not write either. For those
    that catch it and go on, see `unbuffer_output`.
    """
    try:
        import ctypes

        raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    except (ImportError, AttributeError):  # built without libffi; PyPy, which does not abort
        return
    give_up = time.monotonic() + INTERRUPT_S
    while threads and time.monotonic() < give_up:
        # From here on nobody takes a lock of their stores: such an exception may leave it taken.
        for thread in threads:
            raise_in(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
        # Time for the task's own clean-up, before the next exception interrupts that.
        again = time.monotonic() + AGAIN_S
        for thread in threads:
            thread.join(max(0.0, again - time.monotonic()))
        threads = [thread for thread in threads if thread.is_alive()]
