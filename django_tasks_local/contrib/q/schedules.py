"""What stands in SCHEDULE in place of a call of django-q's ``schedule()``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NoReturn

from .paths import path_of

# By django-q's types. Those of fixed length count from a round time, not from the first run.
TIMES: Final = {
    "I": '"every": timedelta(minutes={minutes})',
    "H": '"cron": "0 * * * *"',
    "D": '"cron": "0 0 * * *"',
    "W": '"cron": "0 0 * * mon"',
    "BW": '"every": timedelta(weeks=2)',
    "M": '"cron": "0 0 1 * *"',
    "BM": '"cron": "0 0 1 */2 *"',
    "Q": '"cron": "0 0 1 */3 *"',
    "Y": '"cron": "0 0 1 1 *"',
    "C": '"cron": "{cron}"',
}
# What else django-q takes that is not for the function.
_OTHERS: Final = {"hook", "repeats", "next_run", "cluster", "intended_date_kwarg", "q_options"}


def schedule(
    func: str | Callable[..., Any],
    /,
    *args: Any,
    name: str | None = None,
    schedule_type: str = "O",
    minutes: int | None = None,
    cron: str | None = None,
    **others: Any,
) -> NoReturn:
    """Raise ``NotImplementedError``, whose text says what to write in place of this call.

    Periodic tasks stand in the settings here, in ``SCHEDULE``, where ``manage.py check`` sees them.
    The arguments are those of django-q.
    """
    path = path_of(func)
    called = f"schedule({path!r}, ..., schedule_type={schedule_type!r})"
    if schedule_type not in TIMES:
        raise NotImplementedError(
            f"{called} of django-q has no counterpart in django_tasks_local. To run something once "
            "at a later time, decorate the function with @task of django.tasks and call "
            f"{path.rpartition('.')[2]}.using(run_after=...).enqueue(...)."
        )
    key = name or path.rpartition(".")[2]
    time = TIMES[schedule_type].format(minutes=minutes, cron=cron)
    given = f', "args": {list(args)!r}' if args else ""
    if kwargs := {key: value for key, value in others.items() if key not in _OTHERS}:
        given += f', "kwargs": {kwargs!r}'
    raise NotImplementedError(
        f"{called} of django-q: in django_tasks_local, periodic tasks stand in the settings. "
        f"Decorate the function with @task(backend=...) of django.tasks, and write into the "
        f"OPTIONS of that backend, a ProcessPoolBackend: "
        f'"SCHEDULE": {{"{key}": {{"task": "{path}", {time}{given}}}}}'
    )
