"""What the whole-stack test runs: tasks that leave a line when they start and when they end."""

import os
import select
import time

from django.tasks import task

from django_tasks_local import current_result_id


@task
def work(path: str, for_s: float) -> str:
    """Runs for a while; returns its own id."""
    result_id = current_result_id.get()
    note(path, "start", result_id)
    select.select([], [], [], for_s)
    note(path, "end", result_id)
    return result_id


def note(path: str, what: str, result_id: str) -> None:
    """Append a line to a file."""
    line = f"{what} {result_id} {os.getpid()} {time.monotonic_ns()}\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())  # one write: lines of several workers do not mix
    os.close(descriptor)
