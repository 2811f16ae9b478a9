"""Tasks that others follow, and that follow others."""

import os
import signal
from pathlib import Path
from typing import Any

from django.tasks import task

from django_tasks_local import check_cancelled, fixed, policy, previous_result
from tests.support import wait_for


@task
def note(result_id: str) -> str:
    """Follows."""
    return f"after {result_id}"


@task
@policy(then=note)
def note_more(result_id: str) -> str:
    """Follows, and is followed."""
    return f"more {result_id}"


@task
@policy(then="tests.tied_tasks.note_more", on_failure=note)
def work(fails: bool = False) -> str:
    """Is followed, however it ends."""
    if fails:
        raise ValueError("as it was told to")
    return "done"


@task
@policy(on_failure=note)
def hold(gate: str) -> None:
    """Runs until a file is there."""
    Path(f"{gate}.running").touch()
    wait_for(Path(gate).exists)


@task
@policy(on_failure=note, max_attempts=2, backoff=fixed(0))
def fail_twice() -> None:
    """Fails, and is tried once more."""
    raise ValueError("again")


@task
@policy(on_failure=note, timeout=0.1)
def overdue(gate: str) -> None:
    """Is stopped at its time limit."""
    wait_for(lambda: check_cancelled() or Path(gate).exists())


@task
@policy(on_failure=note)
def die() -> None:
    """Kills its worker."""
    os.kill(os.getpid(), signal.SIGKILL)


@task
@policy(group="letters")
def letter(text: Any) -> Any:
    """Is in a group."""
    return text


@task
def begin(number: Any) -> Any:
    """The first step of a chain."""
    return number


@task
@policy(on_failure=note)
def add(number: int) -> int:
    """A further step: adds to what the one before has returned."""
    previous = previous_result()
    assert previous is not None
    value: int = previous.return_value + number
    return value


@task
@policy(then="tests.tied_tasks.count_down", unique=False)
def count_down(result_id: str) -> None:
    """Follows itself."""


@task
def idle() -> None:
    """Does nothing."""
