"""What a command says of each alias: as lines below its name, or as JSON."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from django.core.management.base import BaseCommand


def print_facts(
    command: BaseCommand,
    facts: dict[str, dict[str, Any]],
    lines: Callable[[dict[str, Any]], Iterable[str]],
    *,
    as_json: bool,
) -> None:
    """Print facts.

    Args:
        command: The command that prints.
        facts: By alias.
        lines: Returns the lines for those of one alias.
        as_json: For programs: one object, by alias.
    """
    if as_json:
        command.stdout.write(json.dumps(facts, indent=2))
        return
    for alias, each in facts.items():
        command.stdout.write(command.style.MIGRATE_HEADING(alias))
        for line in lines(each):
            command.stdout.write(f"  {line}")
