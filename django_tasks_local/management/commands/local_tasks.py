"""``manage.py local_tasks``: look into the rings, steer tasks, check the rings, remove them."""

import os
import select
import sys
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_tasks_local.exceptions import StoreUnavailable

from . import (
    _cancel,
    _check,
    _destroy,
    _health,
    _list,
    _retry,
    _rings,
    _schedule,
    _show,
    _status,
    _top,
)
from ._aliases import add_alias_argument, process_backends
from ._django_options import with_django_options

# Each has `add_arguments` and `run`; `rings` is about all rings, whatever TASKS says.
_ACTIONS: Final = {
    "status": (_status, "what waits, runs, is kept and is attached"),
    "health": (_health, "exit status 0, 1 or 2, for monitors"),
    "list": (_list, "tasks and results, newest first"),
    "top": (_top, "the same in a terminal, live"),
    "show": (_show, "all of one task, with its errors"),
    "cancel": (_cancel, "take tasks out, or ask them to stop"),
    "retry": (_retry, "enqueue tasks that have ended once more"),
    "schedule": (_schedule, "periodic tasks: next, last, skipped"),
    "check": (_check, "every broken invariant; exit status 1 if any"),
    "destroy": (_destroy, "remove the ring, with all tasks and results"),
}


class Command(BaseCommand):
    """The tasks of this site one by one, and the status, audit and removal of its rings."""

    # No check concerns this command, and a check's errors must not prevent a look.
    requires_system_checks = ()
    help = (
        "Show, check or remove the shared memory of ProcessPoolBackend on this host, "
        "and show, cancel or retry the tasks in it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        for name, (action, text) in _ACTIONS.items():
            subparser = actions.add_parser(name, help=text, **with_django_options())
            action.add_arguments(subparser)
            add_alias_argument(subparser)
        rings = actions.add_parser("rings", help="all rings of this user", **with_django_options())
        _rings.add_arguments(rings)

    def handle(self, *, action: str, alias: str | None = None, **options: Any) -> None:
        try:
            try:
                if action == "rings":
                    _rings.run(self, **options)
                else:
                    _ACTIONS[action][0].run(self, process_backends(alias), **options)
            finally:
                self.stdout.flush()
        except BrokenPipeError:
            # It may be another pipe, of a receiver of our signals.
            if options.get("stdout") is not None or not _nobody_reads(sys.stdout.fileno()):
                raise
            # `head` and the like have seen enough. Python would flush the rest at its end, and
            # complain.
            with open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), sys.stdout.fileno())
            sys.exit(1)
        except (StoreUnavailable, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from error


def _nobody_reads(fd: int) -> bool:
    """Return whether a descriptor is a pipe whose other end is closed."""
    poll = select.poll()
    poll.register(fd, 0)  # an error is told in any case
    return any(events & select.POLLERR for _, events in poll.poll(0))
