"""Sites that share a ring by mistake, and sites that should share one but do not."""

import logging
import os

from django.conf import settings

from django_tasks_local.ring import Ring, Role, base_name, directory_of, ring_name, sites_elsewhere

logger = logging.getLogger("django_tasks_local")

_looked: set[int] = set()  # pids


def warn_of_strangers(ring: Ring) -> None:
    """Log a site whose settings are another file than ours: two checkouts with one SECRET_KEY.

    Call it when this process has become a site. Where both sites had a process before, the later
    of those has logged it: a recycled web worker of a blue/green deployment does not say it again.
    """
    ours = ring.attachment.path.partition(":")[0]
    stranger = None
    seen_before = {True: False, False: False}  # processes that came before us: theirs, ours
    for entry in ring.registry.attachments():
        theirs = ring.registry.path_of(entry.index).partition(":")[0]
        if not (ours and theirs and entry.alive and entry.role in (Role.SITE, Role.POOL)):
            continue
        is_strange = not ours.endswith(theirs)
        if is_strange and entry.role is Role.SITE:
            stranger = stranger or (entry.pid, theirs)
        # A pool stands in for the only web worker of its site while that is replaced.
        if entry.serial < ring.registry.serial:
            seen_before[is_strange] = True
    if stranger is not None and not all(seen_before.values()):
        logger.warning(
            "alias=%s the process %d shares this ring and has its settings at %s, this one "
            "at %s. If these are two sites, give each its own NAMESPACE in OPTIONS.",
            ring.alias, *stranger, ours,
        )  # fmt: skip


def warn_of_other_rings(ring: Ring, namespace: str) -> None:
    """Log, once per process, a site with our settings in another ring: its SECRET_KEY differs.

    Args:
        ring: Our ring.
        namespace: The default namespace. Where the options name one, there is nothing to check.
    """
    ours = ring.attachment.path.partition(":")[0]
    derived = base_name(ring.name) == ring_name(ring.alias, namespace)
    if os.getpid() in _looked or not ours or not derived:
        return
    _looked.add(os.getpid())
    our_rings = {
        ring_name(alias, (params.get("OPTIONS") or {}).get("NAMESPACE") or namespace)
        for alias, params in settings.TASKS.items()
    }
    for site in sites_elsewhere((directory_of(ring.name),)):
        path = site.path.partition(":")[0]
        if base_name(site.ring) not in our_rings and path and ours.endswith(path):
            logger.warning(
                "alias=%s the process %d has the same settings (%s) and another ring, so neither "
                "finds the tasks and results of the other. Most likely each process generates "
                "SECRET_KEY at random: give all of them the same. If these are two sites, give "
                "each its own NAMESPACE in OPTIONS.", ring.alias, site.pid, path,
            )  # fmt: skip
            return
