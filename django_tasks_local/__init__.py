"""Background tasks for Django with zero infrastructure: threads, or processes of this host."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django_tasks_local.again import aenqueue_again, enqueue_again
    from django_tasks_local.backends.process import ProcessPoolBackend
    from django_tasks_local.backends.thread import ThreadPoolBackend
    from django_tasks_local.backoff import exponential, fixed
    from django_tasks_local.bulk import aenqueue_many, enqueue_many
    from django_tasks_local.cancelling import acancel, cancel
    from django_tasks_local.chains import achain, chain, previous_result, step
    from django_tasks_local.execution import current_result_id
    from django_tasks_local.groups import await_group, in_group, wait_group
    from django_tasks_local.listing import MissingTask, aresults, results
    from django_tasks_local.metadata import metadata_of, with_metadata
    from django_tasks_local.on_commit import enqueue_on_commit
    from django_tasks_local.periodic import scheduled_for
    from django_tasks_local.policies import policy
    from django_tasks_local.progress import Progress, progress_of, report_progress, track
    from django_tasks_local.stopping import check_cancelled, is_cancel_requested
    from django_tasks_local.waiting import await_finished, wait_finished

__version__ = "3.0.0"

__all__ = [
    "MissingTask",
    "ProcessPoolBackend",
    "Progress",
    "ThreadPoolBackend",
    "acancel",
    "achain",
    "aenqueue_again",
    "aenqueue_many",
    "aresults",
    "await_finished",
    "await_group",
    "cancel",
    "chain",
    "check_cancelled",
    "current_result_id",
    "enqueue_again",
    "enqueue_many",
    "enqueue_on_commit",
    "exponential",
    "fixed",
    "in_group",
    "is_cancel_requested",
    "metadata_of",
    "policy",
    "previous_result",
    "progress_of",
    "report_progress",
    "results",
    "scheduled_for",
    "step",
    "track",
    "wait_finished",
    "wait_group",
    "with_metadata",
]

# Imported at first use: a pool has to find out whether anything needs it before it spends half a
# second on importing Django, and threads need no posix_ipc.
_MODULES = {
    "MissingTask": "django_tasks_local.listing",
    "ProcessPoolBackend": "django_tasks_local.backends.process",
    "Progress": "django_tasks_local.progress",
    "ThreadPoolBackend": "django_tasks_local.backends.thread",
    "acancel": "django_tasks_local.cancelling",
    "achain": "django_tasks_local.chains",
    "aenqueue_again": "django_tasks_local.again",
    "aenqueue_many": "django_tasks_local.bulk",
    "aresults": "django_tasks_local.listing",
    "await_finished": "django_tasks_local.waiting",
    "await_group": "django_tasks_local.groups",
    "cancel": "django_tasks_local.cancelling",
    "chain": "django_tasks_local.chains",
    "check_cancelled": "django_tasks_local.stopping",
    "current_result_id": "django_tasks_local.execution",
    "enqueue_again": "django_tasks_local.again",
    "enqueue_many": "django_tasks_local.bulk",
    "enqueue_on_commit": "django_tasks_local.on_commit",
    "exponential": "django_tasks_local.backoff",
    "fixed": "django_tasks_local.backoff",
    "in_group": "django_tasks_local.groups",
    "is_cancel_requested": "django_tasks_local.stopping",
    "metadata_of": "django_tasks_local.metadata",
    "policy": "django_tasks_local.policies",
    "previous_result": "django_tasks_local.chains",
    "progress_of": "django_tasks_local.progress",
    "report_progress": "django_tasks_local.progress",
    "results": "django_tasks_local.listing",
    "scheduled_for": "django_tasks_local.periodic",
    "step": "django_tasks_local.chains",
    "track": "django_tasks_local.progress",
    "wait_finished": "django_tasks_local.waiting",
    "wait_group": "django_tasks_local.groups",
    "with_metadata": "django_tasks_local.metadata",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(_MODULES[name]), name)
    except ModuleNotFoundError as error:
        if error.name not in ("fcntl", "posix_ipc"):
            raise
        raise ImportError(
            f"{name} needs Linux and the package posix_ipc ({error}). "
            "Use django_tasks_local.ThreadPoolBackend here."
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
