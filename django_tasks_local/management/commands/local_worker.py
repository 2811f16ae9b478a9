"""``manage.py local_worker``: the pool in the foreground, for systemd and similar managers."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from django_tasks_local.exceptions import StoreUnavailable, counted
from django_tasks_local.pool.serve import serve_in_foreground

from ._aliases import add_alias_argument, process_backend


class Command(BaseCommand):
    """Run the worker processes of one alias until told to stop."""

    help = (
        "Run the worker processes of a ProcessPoolBackend in the foreground. It takes over from a "
        "pool that a web process has started, and web processes start none while it lives. SIGTERM "
        "or Ctrl-C hands over to a new pool while web processes are attached, and otherwise ends "
        "within DRAIN_TIMEOUT; a second one ends at once."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        add_alias_argument(parser)

    def handle(self, *, alias: str | None, **options: Any) -> None:
        backend = process_backend(alias)
        if options["verbosity"]:
            self.stdout.write(
                f"Serving {backend.alias!r} with up to "
                f"{counted(backend.checked_options.max_workers, 'worker')}. Stop with Ctrl-C."
            )
            self.stdout.flush()
        try:
            serve_in_foreground(backend.alias)
        except StoreUnavailable as error:
            self.stderr.write(self.style.ERROR(str(error)))
            raise SystemExit(1) from error
