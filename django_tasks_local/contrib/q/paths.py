"""Import paths of functions: what they lead to, and which one leads to a function."""

from __future__ import annotations

from importlib import import_module
from operator import attrgetter
from typing import Any

from django.tasks import Task
from django.tasks.exceptions import InvalidTask

from django_tasks_local.exceptions import describe


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
    raise ImportError(
        f"{path!r} is not an import path: it must be module.name, such as math.copysign."
    )


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
