"""A call, or many calls, with their options and results in one object."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from .enqueueing import async_iter, async_task
from .options import OPTIONS, WITHOUT_MEANING
from .reading import fetch, fetch_group, result, result_group

if TYPE_CHECKING:
    from .task import Task

_OPTIONS: Final = {*OPTIONS, *WITHOUT_MEANING}


class AsyncTask:
    """A call of a function: its arguments, its options, and its result once it has run.

    ``func``, ``args``, ``kwargs`` and each option of `async_task` are attributes:
    ``call.group = "math"``. Whatever is changed, the result is gone until `run`.

    Attributes:
        id: Of the result; "" before the first `run`.
        started: Whether it was enqueued as it is now.
    """

    id: str
    started: bool
    func: str | Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __init__(self, func: str | Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        """Take what `async_task` takes, and enqueue nothing."""
        self.id = ""
        self.func, self.args, self.kwargs = func, args, kwargs

    def __getattr__(self, name: str) -> Any:
        if name not in _OPTIONS:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self._options.get(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OPTIONS:
            self._options[name] = value
        else:
            super().__setattr__(name, value)
        if name not in ("id", "started"):
            self.started = False

    @property
    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = self.kwargs.get("q_options", self.kwargs)
        return options

    def run(self) -> str:
        """Enqueue it, and return the id of the result."""
        self.id = async_task(self.func, *self.args, **self.kwargs)
        self.started = True
        return self.id

    def result(self, wait: float = 0) -> Any:
        """Do what ``contrib.q.result`` does; ``None`` if it was changed since `run`."""
        return result(self.id, wait) if self.started else None

    def fetch(self, wait: float = 0) -> Task | None:
        """Do what ``contrib.q.fetch`` does; ``None`` if it was changed since `run`."""
        return fetch(self.id, wait) if self.started else None

    def result_group(
        self, failures: bool = False, wait: float = 0, count: int | None = None
    ) -> list[Any]:
        """Do what ``contrib.q.result_group`` does, for its group."""
        known = self.started and self.group
        return result_group(self.group, failures, wait, count) if known else []

    def fetch_group(
        self, failures: bool = True, wait: float = 0, count: int | None = None
    ) -> list[Task]:
        """Do what ``contrib.q.fetch_group`` does, for its group."""
        known = self.started and self.group
        return fetch_group(self.group, failures, wait, count) if known else []


class Iter:
    """Calls of one function: their arguments, and the list of their results.

    Attributes:
        id: Of the list; "" before the first `run`.
        started: Whether all of them were enqueued.
    """

    def __init__(
        self,
        func: str | Callable[..., Any],
        args: Iterable[Any] = (),
        kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Take what `async_iter` takes, and enqueue nothing."""
        self.id = ""
        self.started = False
        self.func, self.args, self.kwargs = func, list(args), {**(kwargs or {}), **options}

    def append(self, *args: Any) -> int:
        """Add the arguments of one call, and return how many calls there are."""
        self.args.append(args)
        self.started = False
        return self.length()

    def length(self) -> int:
        """Return how many calls there are."""
        return len(self.args)

    def run(self) -> str:
        """Enqueue them all, and return the id of the list."""
        self.id = async_iter(self.func, self.args, **self.kwargs)
        self.started = True
        return self.id

    def result(self, wait: float = 0) -> list[Any] | None:
        """Return the list, in the order of the calls; ``None`` before all have ended."""
        found: list[Any] | None = result(self.id, wait) if self.started else None
        return found

    def fetch(self, wait: float = 0) -> Task | None:
        """Return them as one `Task`; ``None`` before all have ended."""
        return fetch(self.id, wait) if self.started else None
