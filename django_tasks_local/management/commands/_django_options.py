"""Options of all of Django's commands, for the actions of one: they may stand behind the action."""

from argparse import SUPPRESS
from typing import Any

from django.core.management.base import BaseCommand, DjangoHelpFormatter


class _Plain(BaseCommand):
    """A command with no options but Django's."""

    requires_system_checks = ()


def with_django_options() -> dict[str, Any]:
    """Return what makes a subparser take Django's options; one that is not given changes nothing.

    So ``local_tasks -v 0 status`` goes on to mean what ``local_tasks status -v 0`` does.
    """
    parent = _Plain().create_parser("manage.py", "")
    for option in parent._actions:
        option.default = SUPPRESS
    # Its --help is among them.
    return {"parents": [parent], "add_help": False, "formatter_class": DjangoHelpFormatter}
