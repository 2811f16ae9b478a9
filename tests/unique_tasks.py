"""Tasks of which only one with the same key waits or runs."""

from typing import Any

from django.tasks import task

from django_tasks_local import fixed, policy
from tests import tasks


@task
@policy(unique=True)
def bill(order_id: Any, note: Any = None) -> list[Any]:
    """Unique by all arguments."""
    return [order_id, note]


@task
@policy(unique="order_id", on_conflict="raise")
def strict(order_id: int, note: str = "") -> int:
    """Unique by one of them."""
    return order_id


def last_digit(number: Any) -> int | None:
    """A key: what the number ends with; 0 is none."""
    return None if number == 0 else number % 10 if number != "x" else 1 // 0


@task
@policy(unique=last_digit)
def by_function(number: Any) -> Any:
    """Unique by what a function says."""
    return number


@task
@policy(unique=True)
def fail(number: int) -> None:
    """Fails."""
    raise ValueError(number)


@task
@policy(unique=True, max_attempts=2, backoff=fixed(3600))
def fail_and_wait(number: int) -> None:
    """Fails, and waits for its second attempt."""
    raise ValueError(number)


@task
@policy(unique=True)
def hold(gate: str) -> None:
    """Says that it runs, and runs until the file ``gate`` is there."""
    tasks.hold.func(gate)
