"""What commands say where there is no ring: which one they looked for, and what others exist."""

import getpass
import os
from typing import Any

from django_tasks_local.backends.process import ProcessPoolBackend
from django_tasks_local.inspection.text import harmless
from django_tasks_local.pool import project
from django_tasks_local.ring import MEMORY, directory_of, segment_path, survey_rings


def looked_for(backend: ProcessPoolBackend) -> dict[str, Any]:
    """Return, for programs, which ring a backend leads to, and the others of this user."""
    name = backend.spec().name
    return {
        "looked_for": name,
        "user": _user(),
        "settings_module": project.settings_module() or None,
        "namespace": backend.checked_options.namespace or None,
        "other_rings": {
            ring.name: list(ring.paths)
            for ring in survey_rings((directory_of(name),))
            if ring.name != name
        },
    }


def no_ring(backend: ProcessPoolBackend) -> str:
    """Return what the absence of a backend's ring may mean, and where it was looked for."""
    return sentences(looked_for(backend))


def sentences(facts: dict[str, Any]) -> str:
    """Return the same from what `looked_for` has returned."""
    name = facts["looked_for"]
    since = "since the host started" if directory_of(name) == MEMORY else "yet"
    namespace = "the NAMESPACE that its name and SECRET_KEY give"
    if facts["namespace"]:
        namespace = f"NAMESPACE {facts['namespace']!r}"
    return (
        f"there is no ring {segment_path(name)}, which is that of user {facts['user']} "
        f"with settings module {facts['settings_module'] or 'none'} and {harmless(namespace)}. "
        f"Nothing was enqueued {since}, or it was removed (`local_tasks destroy`); "
        "or the site runs as another user, in another container, or with another settings module, "
        f"SECRET_KEY, NAMESPACE or DIRECTORY. {_others(facts['other_rings'])}"
    )


def _others(rings: dict[str, list[str]]) -> str:
    if not rings:
        return "This user has no other ring."
    named = "; ".join(f"{name} ({', '.join(paths) or '?'})" for name, paths in rings.items())
    return f"Other rings of this user, see `local_tasks rings`: {harmless(named)}."


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such line in /etc/passwd, as in many containers
        return str(os.geteuid())
