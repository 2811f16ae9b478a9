"""Test runs: which one this process belongs to, and when it is over.

A test run is one process in which Django's test environment is set up (each process of
``test --parallel`` is one), and the pools that it starts, with their workers and the pools that
these start. Its rings and databases are its own. Before Django destroys the databases, the run's
threads and pools must end, or PostgreSQL refuses.
"""

import logging
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.signals import connection_created
from django.dispatch import receiver

logger = logging.getLogger("django_tasks_local")

# The test run of the process that started this pool; empty in every other process.
_told: Final[list[str]] = []
# Functions that end the threads and pools of this process's test run, one for each backend.
_ends: Final[list[Callable[[], None]]] = []
# The databases that pools of this test run last heard of, if any.
_shown: Final[list[dict[str, str]]] = []


def under_test() -> bool:
    """Return whether Django's test environment is set up in this process."""
    utils = sys.modules.get("django.test.utils")
    return utils is not None and hasattr(utils._TestState, "saved_data")


def test_run() -> str:
    """Return a text that tells this process's test run from others; "" outside of one."""
    if _told:
        return _told[0]
    return str(os.getpid()) if under_test() else ""


def join(run: str, *, debug: bool) -> None:
    """Make this process, a pool that is set up, part of a test run: it sends no mail, and so on.

    Args:
        run: Its name, from `test_run`.
        debug: The value of ``settings.DEBUG`` there.
    """
    _told[:] = [run]
    if not under_test():
        import_module("django.test.utils").setup_test_environment(debug)


def databases() -> dict[str, str]:
    """Return alias and name of each test database that another process can open.

    A call notes them as what a pool was told.
    """
    _shown[:] = [_databases()]
    return _shown[0]


def unshared_databases() -> list[str]:
    """Return the aliases of test databases that live in this process's memory alone."""
    if not under_test():
        return []
    connections = import_module("django.db").connections
    return [
        alias
        for alias in connections
        if connections[alias].vendor == "sqlite" and connections[alias].is_in_memory_db()
    ]


def refuse_unshared_databases(alias: str) -> None:
    """Check that a backend with a pool can use this process's test databases.

    Raises:
        ImproperlyConfigured: A database is in this process's memory alone.
    """
    if databases := unshared_databases():
        raise ImproperlyConfigured(
            f"Tests that use ProcessPoolBackend (alias {alias!r}) need databases that other "
            f"processes can open; {', '.join(databases)} is SQLite in memory. In tests use "
            "django_tasks_local.test.InlineBackend, or give it a file: "
            "DATABASES[...]['TEST']['NAME']."
        )


def close_connections() -> None:
    """Close this thread's database connections, so that the databases can be destroyed."""
    for connection in import_module("django.db").connections.all(initialized_only=True):
        connection.close()
        if _told and hasattr(connection, "close_pool"):  # else the runner's own are in there
            connection.close_pool()


def at_end(end: Callable[[], None]) -> None:
    """Call ``end`` before the test databases of this process are made or destroyed."""
    _ends.append(end)


# Django does not announce that it is about to destroy a test database. But it does so over a
# connection to no database, and this signal comes before the first statement there. SQLite needs
# no such connection: it destroys a file that others may have open.
@receiver(connection_created)
def _on_connection(connection: Any = None, **kwargs: Any) -> None:
    if _told or not under_test():
        return
    # A pool older than the test databases (a pytest session may begin without any) would run tasks
    # on the real ones.
    if getattr(connection, "alias", "") == NO_DB_ALIAS or (_shown and _shown[0] != _databases()):
        _shown.clear()
        for end in _ends:
            try:
                end()
            except Exception:  # the databases' own error says more to the reader
                logger.exception("Threads or pools of the test run could not be ended")


def _databases() -> dict[str, str]:
    if not under_test():
        return {}
    connections = import_module("django.db").connections
    return {
        alias: str(connections[alias].settings_dict["NAME"])
        for alias in connections
        if connections[alias].vendor != "unknown"
    }
