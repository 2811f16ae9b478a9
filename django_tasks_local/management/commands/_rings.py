"""``local_tasks rings``: all rings of this user on the host, and the removal of those of nobody."""

import time
from collections import Counter
from collections.abc import Iterator
from json import dumps
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_tasks_local.exceptions import counted
from django_tasks_local.inspection.rings import Found, survey
from django_tasks_local.inspection.text import COLUMNS, cut, cut_left, harmless, iso, span, write
from django_tasks_local.ring import (
    MEMORY,
    base_name,
    directory_of,
    unlink_unattached,
)

from ._questions import confirmed


def add_arguments(parser: CommandParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--purge", action="store_true",
        help="remove those that nobody is attached to, if no task in them is unfinished",
    )  # fmt: skip
    parser.add_argument(
        "--ring", action="append", metavar="NAME",
        help="only this one, and remove it though its tasks are unfinished; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--directory", action="append", metavar="PATH", default=[],
        help="look there, too; /dev/shm and those of this project are looked at in any case",
    )  # fmt: skip
    parser.add_argument("--no-input", action="store_true", help="do not ask")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(
    command: BaseCommand, *, purge: bool, ring: list[str] | None, directory: list[str],
    no_input: bool, json: bool, **_: Any,
) -> None:  # fmt: skip
    """Print which rings there are, or remove some.

    Raises:
        CommandError: There is no ring of a name, or it must not be removed.
    """
    try:
        found, named = survey(ring, directory), ring is not None
    except LookupError as error:
        raise CommandError(str(error)) from None
    if not purge:
        for line in [json_of(found)] if json else lines(found):
            write(command.stdout, line)
        return
    doomed = purgeable(found, named=named)
    for each in doomed:
        write(command.stdout, f"{each.ring.name}: {each.summary}")
    if not doomed:
        command.stdout.write("There is no ring to remove.")
    elif not no_input and not confirmed(f"Remove {counted(len(doomed), 'ring')}"):
        command.stdout.write("Left as they are.")
    else:
        for each in doomed:
            removed = unlink_unattached(each.ring.name, idle=not named)
            done = "removed" if removed else "in use by now, and left as it is"
            command.stdout.write(f"{each.ring.name}: {done}.")


def purgeable(found: list[Found], *, named: bool) -> list[Found]:
    """Return the rings to remove.

    Args:
        found: Of which.
        named: They were named: then unfinished tasks in them are given up.

    Raises:
        CommandError: A process is attached to one that was named, or it is no ring.
    """
    if not named:
        return [each for each in found if each.is_of_nobody]
    for each in found:
        if each.ring.is_attached:
            raise CommandError(
                f"{each.ring.name}: processes are attached. Stop them first; or, with the settings "
                "of that site, use `local_tasks destroy --force`."
            )
        if not each.ring.is_ours:
            raise CommandError(
                f"{each.ring.name}: {each.ring.problem}. It is left as it is: remove the file by "
                "hand if you know whose it is."
            )
    return found


def lines(found: list[Found]) -> Iterator[str]:
    """Yield what there is to say of the rings, for people: at most 80 columns."""
    if not found:
        yield "This user has no rings."
    for each in found:
        name = each.ring.name
        yield cut(f"{base_name(name)}  {_whose(each)}".rstrip(), COLUMNS)
        if directory_of(name) != MEMORY:
            yield f"  in {cut_left(harmless(directory_of(name)), COLUMNS - 5)}"
        if each.ring.module:
            yield f"  {cut_left(harmless(each.ring.module), COLUMNS - 2)}"
        for path in each.ring.paths:
            yield f"  {cut_left(harmless(path), COLUMNS - 2)}"
        for line in _lines(each):
            yield f"  {line}"


def json_of(found: list[Found]) -> str:
    """Return the same for programs: a JSON object with one for each ring, by its name."""
    return dumps({each.ring.name: _facts(each) for each in found}, indent=2)


def _whose(found: Found) -> str:
    if found.alias:
        return f"{harmless(found.alias)} of this project"
    if found.ring.problem:
        return ""
    if found.ring.temporary:
        return "of a test run"
    return "of this project's settings file" if found.is_stranded else ""


def _lines(found: Found) -> Iterator[str]:
    ring, now = found.ring, time.time()
    memory = f"{ring.reserved_bytes / 2**20:,.1f} of {ring.size_bytes / 2**20:,.1f} MiB"
    if ring.problem:
        yield cut(f"cannot be used: {ring.problem}", COLUMNS - 2)
        yield f"made {span(now - ring.made_at)} ago, {memory}"
        return
    used = f", last attached to {span(now - ring.attached_at)} ago" if ring.attached_at else ""
    yield f"made {span(now - ring.made_at)} ago{used}"
    tasks = "a death has left open how many tasks are unfinished"
    if ring.is_of_another_boot:
        tasks = "not in use since the host was restarted"
    if ring.unfinished is not None:
        tasks = f"{ring.unfinished - ring.running:,} waiting, {ring.running:,} running"
    yield f"{tasks}, {ring.kept:,} kept, {memory}"
    roles = Counter(each.role.name.lower() for each in ring.attached)
    if roles:
        yield f"attached: {', '.join(counted(number, role) for role, number in roles.items())}"
    elif ring.is_attached:
        yield "attached: a process on its way in or out"
    else:
        yield "nobody is attached"
    if found.is_stranded:
        yield "STRANDED: no alias of this project leads here any more. SECRET_KEY,"
        yield "NAMESPACE, the settings module or an alias has changed. With the old one,"
        yield "`local_worker` runs these tasks."


def _facts(found: Found) -> dict[str, Any]:
    ring = found.ring
    return {
        "alias": found.alias or None,
        "directory": directory_of(ring.name),
        "settings_module": ring.module or None,
        "paths": list(ring.paths),
        "problem": ring.problem or None,
        "test_run": ring.temporary,
        "restarted": ring.is_of_another_boot,
        "stranded": found.is_stranded,
        "of_nobody": found.is_of_nobody,
        "made_at": iso(int(ring.made_at * 1e9)),
        "last_attached_at": iso(int(ring.attached_at * 1e9)),
        "reserved_bytes": ring.reserved_bytes,
        "size_bytes": ring.size_bytes,
        "unfinished": ring.unfinished,
        "running": ring.running,
        "kept_results": ring.kept,
        "is_attached": ring.is_attached,
        "attached": [{"pid": each.pid, "role": each.role.name.lower()} for each in ring.attached],
    }
