"""A task whose module only imports where no pool is: what differs between two environments."""

from pathlib import Path

from django.tasks import task

if b"django_tasks_local.pool" in Path("/proc/self/cmdline").read_bytes():
    raise ImportError("this module does not import in a pool")


@task
def never_runs() -> None:
    pass
