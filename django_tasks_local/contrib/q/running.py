"""The task that runs any callable by its import path, and where tasks of this module run."""

from __future__ import annotations

from importlib import import_module
from inspect import iscoroutinefunction
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.tasks import Task, task, task_backends
from django.tasks.exceptions import InvalidTask

from django_tasks_local.exceptions import describe
from django_tasks_local.metadata import with_metadata
from django_tasks_local.own_backend import OwnBackend

if TYPE_CHECKING:
    from django_tasks_local.naming import AnyTask

SETTING: Final = "DJANGO_TASKS_LOCAL_Q_BACKEND"
# In the metadata of a task: its function, and its name and hook where it has them.
FACTS: Final = "_q"


def run_callable(path: str, args: tuple[Any, ...], kwargs: dict[str, Any], place: int = 0) -> Any:
    """Call what an import path leads to: the function of the tasks that `async_task` enqueues.

    Args:
        path: See `find`.
        args, kwargs: What to call it with.
        place: Where in its `async_iter` this call is; for the order of the results.
    """
    found = find(path)
    if isinstance(found, Task):
        found = found.func
    return (async_to_sync(found) if iscoroutinefunction(found) else found)(*args, **kwargs)


PATH: Final = f"{run_callable.__module__}.{run_callable.__qualname__}"


def task_with(facts: dict[str, Any]) -> AnyTask:
    """Return the task that runs a callable, with what is noted about it.

    Raises:
        ImproperlyConfigured: TASKS has no backend for it.
    """
    made: Any = task(backend=q_alias())(run_callable)
    return with_metadata(made, {FACTS: facts})


def q_alias() -> str:
    """Return the key in ``TASKS`` of the backend on which the tasks of this module run.

    Raises:
        ImproperlyConfigured: There is none.
    """
    chosen: str | None = getattr(settings, SETTING, None)
    for alias in task_backends if chosen is None else [chosen]:
        if isinstance(task_backends[alias], OwnBackend):
            return str(alias)
    raise ImproperlyConfigured(
        f"django_tasks_local.contrib.q finds no backend of django_tasks_local in TASKS, where "
        f"{SETTING} is {chosen!r}: name the alias of a ThreadPoolBackend or a ProcessPoolBackend "
        "there, or in tests that of an InlineBackend."
    )


def find(path: str) -> Any:
    """Return what a dotted import path leads to, such as a function or a method of a class.

    Raises:
        ImportError: There is no such module; or whatever the module raises.
        AttributeError: The module has no such name.
    """
    names = path.split(".")
    for count in range(len(names) - 1, 0, -1):
        module = ".".join(names[:count])
        try:
            found = import_module(module)
        except ModuleNotFoundError as error:
            # Another module's absence is a mistake in this one.
            if count == 1 or not f"{module}.".startswith(f"{error.name}."):
                raise
        else:
            return attrgetter(".".join(names[count:]))(found)
    raise ImportError(f"{path!r} is no import path: it must be module.name, such as math.copysign.")


def path_of(thing: object) -> str:
    """Return the import path of a callable; a string is one.

    Raises:
        InvalidTask: It cannot be called, or its path does not lead to it.
    """
    if isinstance(thing, str):
        return thing
    if isinstance(thing, Task):
        thing = thing.func
    path = f"{getattr(thing, '__module__', None)}.{getattr(thing, '__qualname__', None)}"
    try:
        if callable(thing) and _same(find(path), thing):
            return path
    except Exception as error:
        reason = describe(error)
    else:
        reason = "it is something else"
    raise InvalidTask(
        f"{thing!r} cannot be found again by the import path {path}: {reason}. Worker processes "
        "import what they call: pass a function that stands in a module, not a lambda, a function "
        "inside a function or a method of an object; or an import path as a string."
    )


def _same(found: object, thing: object) -> bool:
    if isinstance(found, Task):
        found = found.func
    # Methods of classes are made at each access.
    return found is thing or (type(found) is type(thing) and found == thing)
