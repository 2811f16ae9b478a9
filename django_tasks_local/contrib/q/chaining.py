"""Calls of which each follows the success of the one before it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from django_tasks_local import chains
from django_tasks_local.groups import in_group, wait_group
from django_tasks_local.stopping import check_cancelled

from .options import OPTIONS, split, warn_once
from .paths import path_of
from .reading import count_group, fetch_group
from .running import q_alias, run_callable

if TYPE_CHECKING:
    from .task import Task

_NOT_FOR_STEPS: Final = "Leave it out; what a hook does can be a further call of the chain."


def async_chain(
    chain: Iterable[Any], group: str | None = None, sync: bool | None = None, **without: Any
) -> str:
    """Enqueue the first of several calls; each further one when the one before succeeds.

    When one fails, the rest is dropped.

    Args:
        chain: Each call a function, or a tuple of a function, its positional arguments (or not) and
            its keyword arguments (or not).
        group: A label for all of them; by default one of their own.
        sync: Whether to wait here for the end of the chain.
        without: Options of django-q that mean nothing here.

    Returns:
        The label, for `result_group`.

    Raises:
        TypeError: There is no call, or an option that django-q does not have.
        InvalidTask: One cannot be found by its import path.
        ValueError, ImproperlyConfigured: As `async_task`.
        QueueFull, PayloadTooLarge, StoreUnavailable: As `async_task`.
    """
    _, unknown = split({}, without, None)
    if unknown:
        raise TypeError(f"async_chain() has no keyword {next(iter(unknown))!r}.")
    group = group or str(uuid4())
    alias = q_alias()
    with in_group(group):
        chains.chain(*(_step(each, alias) for each in chain))
    if sync:
        wait_group(group, alias)
    return group


def _step(given: Any, alias: str) -> chains.Step:
    func, *rest = given if isinstance(given, tuple) else (given,)
    args, kwargs = rest[0] if rest else (), dict(rest[1] if len(rest) > 1 else {})
    q_options = kwargs.pop("q_options", None)
    options = {name: kwargs.pop(name, None) for name in OPTIONS}
    options, kwargs = split(options, kwargs, q_options)
    for name, value in options.items():
        if value is not None:
            warn_once(f"{name}= in a chain", _NOT_FOR_STEPS)
    return chains.step(run_callable.using(backend=alias), path_of(func), tuple(args), kwargs)


class Chain:
    """Calls that follow each other, and their results.

    Attributes:
        group: The label of its calls; "" before the first `run`, unless it was given one.
        started: Whether all of them were enqueued.
    """

    def __init__(self, chain: Iterable[Any] = (), group: str = "", **options: Any) -> None:
        """Take what `async_chain` takes, and enqueue nothing."""
        self.chain = list(chain)
        self.group = group
        self.started = False
        self._options = options

    def append(self, func: str | Callable[..., Any], /, *args: Any, **kwargs: Any) -> int:
        """Add a call, and return how many there are."""
        self.chain.append((func, args, kwargs))
        self.started = False
        return self.length()

    def length(self) -> int:
        """Return how many calls there are."""
        return len(self.chain)

    def run(self) -> str:
        """Enqueue them, and return the label of their group."""
        self.group = async_chain(self.chain, self.group, **self._options)
        self.started = True
        return self.group

    def current(self) -> int | None:
        """Return how many of them have ended; ``None`` before `run`."""
        return count_group(self.group) if self.started else None

    def result(self, wait: float = 0) -> list[Any]:
        """Wait for the end of the chain, and return the results of the calls that succeeded.

        Args:
            wait: Milliseconds, after which it returns what there is; 0 or -1: however long it
                takes.
        """
        return [each.result for each in self.fetch(failures=False, wait=wait)]

    def fetch(self, failures: bool = True, wait: float = 0) -> list[Task]:
        """Wait for the end of the chain, and return its calls.

        Args:
            failures: Whether to return the one that failed, too.
            wait: See `result`.
        """
        if not self.started:
            return []
        with suppress(TimeoutError):
            wait_group(self.group, q_alias(), timeout=wait / 1000 if wait > 0 else None)
        check_cancelled()  # a task's own time limit is a TimeoutError, too
        return fetch_group(self.group, failures)
