"""ThreadPoolBackend: tasks in threads of this process, results in its memory.

    handles (one per thread and asyncio context)  ->  registry  ->  ThreadPool  ->  MemoryStore

The registry has one pool per pid, effective uid, backend class, alias and options, so a process
that forked starts with none, and changed settings give a new pool in place of the old one.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time

from django_tasks_local.backends.base import LocalBackend
from django_tasks_local.execution import run
from django_tasks_local.options import Options
from django_tasks_local.store import MemoryStore

logger = logging.getLogger("django_tasks_local")

type Key = tuple[int, int, type, str, Options]


class ThreadPool:
    """The store of one alias and the threads that run what is in it.

    The threads are daemons: concurrent.futures joins its own at exit without limit, and that
    would make DRAIN_TIMEOUT a promise nobody can keep.
    """

    def __init__(self, key: Key) -> None:
        self.pid, self.euid, self.backend_class, self.alias, self.options = key
        self.store = MemoryStore(
            self.alias,
            max_results=self.options.max_results,
            max_pending=self.options.max_pending,
        )
        self.closed = False
        self._lock = threading.Lock()  # guards _threads
        self._threads: list[threading.Thread] = []

    def grow(self) -> None:
        """Start a thread if one is missing and MAX_WORKERS allows it.

        One at most: it is neither idle nor at work for a moment, and in that moment as many would
        seem to be missing as before. The new thread calls this again when it has found work.
        """
        if not self._wants_thread():
            return
        with self._lock:
            if not self.closed and self._wants_thread():
                self._start_thread()

    def close(self) -> int:
        """Claim nothing more; what runs may end. Returns the number of tasks that were waiting."""
        self.closed = True
        return self.store.close()

    def _wants_thread(self) -> bool:
        return len(self._threads) < self.options.max_workers and self.store.unattended > 0

    def _start_thread(self) -> None:
        worker_id = f"{self.alias}-{self.pid}-t{len(self._threads) + 1}"
        thread = threading.Thread(target=self._work, args=(worker_id,), name=worker_id, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # Out of threads, or the interpreter is ending (before Python 3.12.3 no thread starts
            # then). The task stays READY: a thread that exists or the next enqueue will see to it.
            if not self._threads:
                logger.exception("Thread pool alias=%s cannot start a thread", self.alias)
        else:
            self._threads.append(thread)

    def _work(self, worker_id: str) -> None:
        while self._run_next(worker_id):
            pass

    # Of its own, so that a thread that waits holds nothing of the task before.
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
    """Runs tasks in threads of this process, at most ``MAX_WORKERS`` of them, for I/O-bound work.

    Results are in this process's memory: no other process can read them.
    """

    kind = "thread"

    _held: ThreadPool | None = None

    def close(self) -> None:
        """Close the pool of this alias in this process: waiting tasks and results are dropped."""
        with _pools_lock:
            pools = [_pools.pop(key) for key in _keys_of(type(self), self.alias)]
        _close(pools)

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
        # Settings change in tests only. What the old pool knows goes with it.
        replaced = [_pools.pop(old) for old in _keys_of(backend_class, alias)]
        pool = _pools[key] = ThreadPool(key)
        _set_exit_hook()
    _close(replaced)
    return pool


def _close(pools: list[ThreadPool]) -> None:
    for pool in pools:
        if waiting := pool.close():
            logger.warning("Thread pool alias=%s closed with %d tasks waiting", pool.alias, waiting)


def _forget_pools() -> None:
    # In a forked child: the threads are not there, and any lock may have been held by one of them.
    global _pools_lock
    _pools.clear()
    _pools_lock = threading.Lock()


getattr(os, "register_at_fork", dict)(after_in_child=_forget_pools)  # Windows has no fork


def _set_exit_hook() -> None:
    """Have `_drain` called at exit, once in this process and in all that are forked from it."""
    global _exit_hook_set
    if _exit_hook_set:
        return
    _exit_hook_set = True
    # The hook of concurrent.futures, which runs before atexit's: from there on no executor takes
    # work, and an async task that only looks up a host name needs one. Private, so with a way out.
    register = getattr(threading, "_register_atexit", atexit.register)
    try:
        register(_drain)
    except RuntimeError:  # the interpreter is ending already
        atexit.register(_drain)


def _drain() -> None:
    """Give running and due tasks DRAIN_TIMEOUT to end. Called at exit."""
    if os.environ.get("RUN_MAIN") == "true":
        return  # Django's autoreloader; whoever saved a file does not want to wait.
    started = time.monotonic()
    pools = list(_pools.values())
    for pool in pools:
        timeout_s = pool.options.drain_timeout
        if timeout_s is not None:
            timeout_s = max(0.0, timeout_s - (time.monotonic() - started))
        if not pool.store.wait_until_done(timeout_s):
            logger.warning(
                "Thread pool alias=%s: DRAIN_TIMEOUT is over, %d running tasks are cut off",
                pool.alias,
                pool.store.running,
            )
    _close(pools)
