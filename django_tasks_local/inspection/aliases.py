"""The backends of ``TASKS``, of which one may not import, and what each is in words."""

from django.tasks import task_backends

from django_tasks_local.backends.process import ProcessPoolBackend
from django_tasks_local.exceptions import describe


def load(alias: str) -> object:
    """Return a backend, or what importing it raised: that is another alias's mistake."""
    try:
        return task_backends[alias]
    except Exception as error:
        return error


def kind_of(backend: object) -> str:
    """Return what a backend is, as `load` has returned it, with an article."""
    if isinstance(backend, Exception):
        return f"one that cannot be imported ({describe(backend)})"
    name = type(backend).__name__
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def all_process_backends() -> list[ProcessPoolBackend]:
    """Return the process backends in ``TASKS``; there may be none."""
    return [each for each in map(load, task_backends) if isinstance(each, ProcessPoolBackend)]


def foreign_aliases() -> dict[str, str]:
    """Return the aliases whose tasks are not in shared memory, each with what its backend is."""
    loaded = {name: load(name) for name in task_backends}
    return {
        name: kind_of(backend)
        for name, backend in loaded.items()
        if not isinstance(backend, ProcessPoolBackend)
    }
