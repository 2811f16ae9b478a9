"""Plain functions, which know nothing of tasks, for what comes from django-q."""

import os
import signal
from pathlib import Path

from django.tasks import task

from django_tasks_local import check_cancelled
from django_tasks_local.contrib.q import Task


def write_result(finished: Task) -> None:
    """A hook: write what it is given where the first argument of the task says."""
    facts = [finished.id, finished.name, finished.success, finished.result, finished.hook]
    place = Path(finished.args[0])
    unfinished = place.with_suffix(".part")
    unfinished.write_text(repr(facts))
    unfinished.rename(place)


def size(path: str, *, times: int = 1, fails: bool = False) -> int:
    """Return the length of a path, or fail."""
    if fails:
        raise ValueError(f"{path} is none")
    return len(path) * times


def takes_words(**words: object) -> dict[str, object]:
    """Return the keywords that reach the function."""
    return words


def runs_too_long() -> None:
    """Go on until it is stopped."""
    while True:
        check_cancelled()


def dies(path: str) -> None:
    """Kill its own process."""
    os.kill(os.getpid(), signal.SIGKILL)


def process_id() -> int:
    """Return where it ran."""
    return os.getpid()


async def is_async(number: int) -> int:
    """Return a number, from an event loop."""
    return number + 1


@task
def decorated(number: int) -> int:
    """A task of django.tasks, which is called here as a function is."""
    return number * 2


class Shop:
    """A class with methods that can be imported, and one that cannot."""

    @classmethod
    def name(cls) -> str:
        """Return the name of the class."""
        return cls.__name__

    @staticmethod
    def price() -> int:
        """Return a number."""
        return 7

    def sell(self) -> None:
        """Need an object."""
