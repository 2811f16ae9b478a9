"""Loggers that exist in a pool earlier than in its site."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_enabled() -> Iterator[None]:
    """Enable again, after the project is set up, the loggers that were there before it.

    A pool imports this package and ``django.tasks`` first, a site sets up logging first. A LOGGING
    without ``"disable_existing_loggers": False`` disables the loggers that exist by then, which in
    the pool would be those for failed tasks and lost workers.
    """
    found = [
        logger for logger in logging.root.manager.loggerDict.values()
        if isinstance(logger, logging.Logger) and not logger.disabled
    ]  # fmt: skip
    try:
        yield
    finally:
        for logger in found:
            logger.disabled = False
