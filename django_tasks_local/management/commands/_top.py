"""``local_tasks top``: the tasks of this host in a terminal, live."""

import os
import sys
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_tasks_local.backends.process import ProcessPoolBackend

_EXTRA: Final = (
    "local_tasks top needs the package textual, which the extra `top` installs: "
    'pip install "django-tasks-local[top]".'
)


def add_arguments(parser: CommandParser) -> None:
    """Add no options."""


def run(command: BaseCommand, backends: list[ProcessPoolBackend], **options: Any) -> None:
    """Show what runs, waits and has ended, until the person at the terminal leaves.

    Raises:
        CommandError: Textual is not installed, or there is no terminal.
    """
    try:
        from ._top_app import show
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("textual", "rich"):
            raise CommandError(_EXTRA) from error
        raise
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr)):
        raise CommandError(
            "local_tasks top needs a terminal. Elsewhere, use `local_tasks status`, `list` and "
            "`show`, with --json, too."
        )
    show(backends, colored=not (options.get("no_color") or "NO_COLOR" in os.environ))
