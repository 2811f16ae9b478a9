"""For the tests of projects: a backend that runs tasks inside ``enqueue``, and what was enqueued.

    TASKS = {"default": {"BACKEND": "django_tasks_local.test.InlineBackend"}}

With this backend no thread and no process starts, and everything that `ProcessPoolBackend` has is
there: results that can be read, progress, ``run_after``, metadata, pickled arguments and return
values, policies.
"""

from .backend import InlineBackend
from .captured import CapturedTasks, captured_tasks
from .waiting import run_waiting, wait_for

__all__ = ["CapturedTasks", "InlineBackend", "captured_tasks", "run_waiting", "wait_for"]
