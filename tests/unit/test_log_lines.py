"""When a line for a log need not be made: where certainly nobody sees it."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import override_settings
from django.utils.log import RequireDebugTrue

from django_tasks_local.log_lines import is_written


class OwnLogger(logging.Logger):
    pass


class OwnHandler(logging.Handler):
    def handle(self, record: logging.LogRecord) -> bool:
        return super().handle(record)


def console(handler: logging.Handler | None = None) -> logging.Handler:
    """A handler with the filter that Django's default logging gives that of the console."""
    handler = handler or logging.StreamHandler()
    handler.addFilter(RequireDebugTrue())
    return handler


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger as Django's, below one with the handlers of Django's default logging."""
    errors_only = logging.StreamHandler()
    errors_only.setLevel(logging.ERROR)
    parent, child = map(logging.getLogger, ("tests.log_lines", "tests.log_lines.child"))
    parent.setLevel(logging.INFO)
    parent.handlers[:] = [console(), errors_only]
    root, parent.parent = parent.parent, None  # it has pytest's handlers
    yield child
    parent.parent = root
    parent.handlers.clear()
    logging.disable(logging.NOTSET)
    child.__class__ = logging.Logger
    child.propagate = True
    child.handlers.clear()
    child.filters.clear()


@override_settings(DEBUG=False)
def test_what_all_handlers_drop_is_not_written(logger: logging.Logger) -> None:
    """Nor what is below the level; but each error is."""
    assert not is_written(logger, logging.INFO)
    assert not is_written(logger, logging.DEBUG)
    assert is_written(logger, logging.ERROR)
    logger.propagate = False
    assert not is_written(logger, logging.INFO)
    assert is_written(logger, logging.WARNING)


@override_settings(DEBUG=True)
def test_a_project_that_is_debugged_sees_all(logger: logging.Logger) -> None:
    """Django's filter lets it pass."""
    assert is_written(logger, logging.INFO)
    logging.disable(logging.INFO)
    assert not is_written(logger, logging.INFO)


def _first_filter(logger: logging.Logger) -> None:
    parent = logger.parent
    assert parent is not None
    parent.handlers[0].filters.insert(0, lambda record: True)


def _other_class(logger: logging.Logger) -> None:
    logger.__class__ = OwnLogger


CHANGES: dict[str, Callable[[logging.Logger], object]] = {
    "a handler": lambda logger: logger.addHandler(logging.StreamHandler()),
    "one that handles by itself": lambda logger: logger.addHandler(console(OwnHandler())),
    "a filter of a handler, called first": _first_filter,
    "a filter of the logger": lambda logger: logger.addFilter(lambda record: True),
    "a logger of another class": _other_class,
}


@override_settings(DEBUG=False)
@pytest.mark.parametrize("change", CHANGES)
def test_whoever_may_see_it(logger: logging.Logger, change: str) -> None:
    """Whatever it does with a record, and be it only to count it."""
    CHANGES[change](logger)
    assert is_written(logger, logging.INFO)


@override_settings(DEBUG=False)
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (logging.Logger, "info"), (logging.Logger, "log"), (logging.Logger, "_log"),
        (logging.Logger, "makeRecord"), (logging.Logger, "handle"),
        (logging.Logger, "callHandlers"), (logging.Handler, "handle"), (logging.Handler, "filter"),
    ],
)  # fmt: skip
def test_libraries_that_watch_all_logs(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    """They replace methods of Python's."""
    original: Any = getattr(owner, name)

    def watched(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, watched)
    assert is_written(logger, logging.INFO)


@override_settings(DEBUG=False)
def test_records_of_another_make(logger: logging.Logger) -> None:
    """A factory may count, too."""
    factory = logging.getLogRecordFactory()

    def counted(*args: Any, **kwargs: Any) -> logging.LogRecord:
        return factory(*args, **kwargs)

    logging.setLogRecordFactory(counted)
    try:
        assert is_written(logger, logging.INFO)
    finally:
        logging.setLogRecordFactory(factory)
