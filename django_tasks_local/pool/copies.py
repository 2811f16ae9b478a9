"""What a worker process does about being a copy: at its start, and with exit functions at its end.

A forked worker begins with all that its pool has in memory, including the functions that the
project registered with ``atexit`` during set-up.
"""

import atexit
import faulthandler
import logging
import signal
import sys
import threading
import weakref
from typing import Final

from django_tasks_local.signals import worker_started

logger = logging.getLogger("django_tasks_local")

# How long exit functions may take in all. Shorter: an exporter that sends its last spans to a slow
# collector loses them; longer: a deploy waits for a function that hangs.
EXIT_S: Final = 5.0


def begin_as_a_copy(alias: str, backend_class: type) -> None:
    """Give up what belongs to the pool alone, reseed what is known, and send `worker_started`.

    Python itself reseeds the functions of ``random`` after a fork.
    """
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is not None:  # its exit function would terminate the pool's children
        multiprocessing._children.clear()
    # For instance a temporary directory from set-up: the first worker to end would remove it.
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False
    numpy_random = sys.modules.get("numpy.random")
    try:
        if numpy_random is not None:
            numpy_random.seed()
        worker_started.send_robust(sender=backend_class, alias=alias)
    except BaseException:  # send_robust catches only Exception
        logger.exception("alias=%s preparing a worker process failed", alias)


def run_exit_functions() -> None:
    """Do what Python does at the end of a process, for at most 5 s; then the process is killed.

    Wait for non-daemon threads, and run the functions of ``atexit``, last registered first. When
    the time is over, the stacks of all threads go to standard error.
    """
    signal.setitimer(signal.ITIMER_REAL, 0)
    # Ignoring it drops one that a task has left blocked and pending, and that would end us here.
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    # In C, so that code that hangs in C ends too; SIGALRM's default, which kills, follows.
    faulthandler.register(signal.SIGALRM, file=2, chain=True)
    signal.setitimer(signal.ITIMER_REAL, EXIT_S)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    signal.setitimer(signal.ITIMER_REAL, 0)
