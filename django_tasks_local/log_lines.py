"""Whether anybody would write a line of Django's to a log.

A record that every handler drops need not be made, which takes 10 µs. With ``DEBUG = False`` and
Django's default logging that is so for each one below an error: the console's handler has a filter.
"""

import logging
from types import FunctionType
from typing import Any, Final

from django.conf import settings
from django.utils.log import RequireDebugTrue

_Logger: Final[Any] = logging.Logger
_Handler: Final[Any] = logging.Handler


def _on_its_way() -> tuple[object, ...]:
    """Return what a record passes on its way to the filters of a handler."""
    return (
        _Logger.debug, _Logger.info, _Logger.log, _Logger._log, _Logger.makeRecord, _Logger.handle,
        _Logger.callHandlers, _Handler.handle, _Handler.filter, logging.getLogRecordFactory(),
    )  # fmt: skip


def _is_of_logging(part: object) -> bool:
    if type(part) is FunctionType:
        return part.__code__.co_filename == logging.__file__
    return part is logging.LogRecord


# As Python has it. Where a library that watches logs was there before us, nothing is equal to it.
_PLAIN: Final = _on_its_way() if all(map(_is_of_logging, _on_its_way())) else None


def is_written(logger: logging.Logger, level: int) -> bool:
    """Return whether anything may come of a record; False only where certainly nothing does.

    Args:
        logger: Where it would be logged.
        level: Its level.
    """
    if not logger.isEnabledFor(level):
        return False
    # Handlers of last resort write warnings.
    if level >= logging.WARNING or logger.filters or type(logger) is not _Logger:
        return True
    if _on_its_way() != _PLAIN:
        return True
    each: logging.Logger | None = logger
    while each is not None:
        for handler in each.handlers:
            if level >= handler.level and not _drops_all(handler):
                return True
        each = each.parent if each.propagate else None
    return False


def _drops_all(handler: logging.Handler) -> bool:
    """Return whether a handler's first filter is Django's for DEBUG, and drops all."""
    kind: Any = type(handler)
    return (
        bool(handler.filters)
        and type(handler.filters[0]) is RequireDebugTrue
        and not settings.DEBUG
        and kind.handle is _Handler.handle
        and kind.filter is _Handler.filter
    )
