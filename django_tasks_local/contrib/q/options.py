"""The keywords of django-q: those that mean something here, and what to do about the others."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

OPTIONS: Final = ("hook", "group", "task_name", "timeout", "sync")
# Each with what to do.
WITHOUT_MEANING: Final[dict[str, str]] = {
    "cluster": (
        "All tasks run on the backend that DJANGO_TASKS_LOCAL_Q_BACKEND names. For another alias "
        "of TASKS, decorate the function with @task(backend=...) and call its enqueue()."
    ),
    "broker": "There is no broker. Leave it out.",
    "save": (
        "Each result is kept until it is evicted or expires. Set MAX_RESULTS, RESULT_TTL or "
        "FAILURE_TTL in the OPTIONS of the backend."
    ),
    "cached": (
        "Each result is kept in memory, without a cache. To keep results for a time, set "
        "RESULT_TTL and FAILURE_TTL in the OPTIONS of the backend."
    ),
    "ack_failure": (
        "A failed task is not delivered again. To have it tried again, set MAX_ATTEMPTS in the "
        "OPTIONS of the backend."
    ),
}
# Warnings show the line of the project.
_HERE: Final = str(Path(__file__).parent)
_warned: Final[set[str]] = set()


def split(
    options: Mapping[str, Any], kwargs: Mapping[str, Any], q_options: Mapping[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of a task, and the keyword arguments of its function.

    An option in ``q_options`` counts first, and the function then gets the keyword of that name.

    Args:
        options: The keywords of that name, with ``None`` for what was not given.
        kwargs: All others, with those among them that mean nothing here.
        q_options: As they were given.

    Raises:
        TypeError: ``q_options`` is not a dict.
    """
    if not isinstance(q_options, Mapping | None):
        raise TypeError(
            f"q_options={q_options!r} must be a dict of {', '.join(OPTIONS)}, not of type "
            f"{type(q_options).__name__}."
        )
    chosen, rest = dict(options), dict(kwargs)
    for name in WITHOUT_MEANING.keys() & rest.keys():
        if name not in (q_options or ()):
            rest.pop(name)
            warn_once(f"{name}=", WITHOUT_MEANING[name])
    for name, value in (q_options or {}).items():
        if name not in OPTIONS:
            what_to_do = WITHOUT_MEANING.get(name, "Leave it out.")
            warn_once(f"q_options[{name!r}]", what_to_do)
            continue
        if chosen[name] is not None:
            rest[name] = chosen[name]
        chosen[name] = value
    return chosen, rest


def warn_once(what: str, what_to_do: str) -> None:
    """Warn that something means nothing here, once in each process."""
    if what not in _warned:
        _warned.add(what)
        text = f"{what} of django-q means nothing in django_tasks_local. {what_to_do}"
        warnings.warn(text, UserWarning, skip_file_prefixes=(_HERE,))
