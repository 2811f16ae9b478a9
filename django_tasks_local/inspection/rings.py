"""The rings of this user on the host, and what each is to this project."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from django.core.exceptions import ImproperlyConfigured

from django_tasks_local.pool import project
from django_tasks_local.ring import MEMORY, Surveyed, base_name, directory_of, survey_rings

from .aliases import all_process_backends
from .text import harmless


@dataclass(frozen=True)
class Found:
    """A ring, and what it is to this project.

    Attributes:
        ring: The ring.
        alias: The alias of this project that uses it, "" for none.
        is_stranded: It is this project's by its settings file, holds unfinished tasks, and no
            alias leads there any more.
    """

    ring: Surveyed
    alias: str
    is_stranded: bool

    @property
    def is_of_nobody(self) -> bool:
        """Whether its removal takes nothing from anybody: no process, no task, no alias."""
        ring = self.ring
        return ring.is_ours and not (ring.is_attached or self.alias) and ring.unfinished == 0

    @property
    def summary(self) -> str:
        """What its removal would take, for the question."""
        ring = self.ring
        tasks = "unknown" if ring.unfinished is None else f"{ring.unfinished:,}"
        where = harmless(", ".join(ring.paths)) or ("a test run" if ring.temporary else "?")
        return f"{where}: {ring.kept:,} kept, unfinished tasks {tasks}"


def survey(names: list[str] | None = None, directories: Iterable[str] = ()) -> list[Found]:
    """Return the rings of this user, or those with these names. Nothing is attached.

    Args:
        names: As the command shows them, or paths of their files.
        directories: Where to look, beside ``/dev/shm`` and the directories of this project.

    Raises:
        LookupError: There is no ring of a name.
    """
    aliases: dict[str, str] = {}
    for backend in all_process_backends():
        try:
            aliases[backend.spec().name] = backend.alias
        except ImproperlyConfigured:
            continue  # `check` says so; the other rings are there all the same
    wanted = {_name_of(each): each for each in names or ()}
    places = [*map(directory_of, (*aliases, *wanted)), *map(os.path.realpath, directories)]
    ours = project.settings_path()
    rings = survey_rings(tuple(dict.fromkeys(places)))
    found = [_found(ring, aliases.get(ring.name, ""), ours) for ring in rings]
    if names is None:
        return found
    chosen = {name: _named(found, name) for name in wanted}
    missing = [name for name, each in chosen.items() if not each]
    if missing:
        raise LookupError(f"This user has no ring {harmless(wanted[min(missing)])}.")
    return [each for each in found if any(each in some for some in chosen.values())]


def _named(found: list[Found], name: str) -> list[Found]:
    """Return the ring of a name; where that has no directory, it may be in any."""
    exactly = [each for each in found if each.ring.name == name]
    return exactly or [each for each in found if base_name(each.ring.name) == name]


def stranded() -> list[Found]:
    """Return the rings of this project with tasks that wait, and to which no alias leads."""
    return [each for each in survey() if each.is_stranded]


def _name_of(text: str) -> str:
    """Return a ring's name, however it was written: as shown, or as its file."""
    directory, _, name = text.rpartition("/")
    digest = name.rpartition("-")[2]
    if len(digest) == 13 and name.endswith("s"):
        name = name[:-1]
    if directory:
        directory = os.path.realpath(directory)
    return f"{'' if directory in ('/', MEMORY) else directory}/{name}"


def _found(ring: Surveyed, alias: str, our_settings: str) -> Found:
    settings = [path.partition(":")[0] for path in ring.paths]
    same = bool(our_settings) and any(path and our_settings.endswith(path) for path in settings)
    unattended = bool(ring.unfinished) and not (alias or ring.is_attached or ring.temporary)
    return Found(ring, alias, same and unattended)
