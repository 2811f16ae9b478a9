"""Other sites of this user that share this one's ring by mistake."""

import logging

from django_tasks_local.store import Ring, Role

logger = logging.getLogger("django_tasks_local")


def warn_of_strangers(ring: Ring) -> None:
    """Logs a site whose settings are another file than ours: two checkouts with one SECRET_KEY."""
    ours = ring.path.partition(":")[0]
    for entry in ring.registry.attachments():
        theirs = ring.registry.path_of(entry.index).partition(":")[0]
        strange = bool(ours and theirs) and not ours.endswith(theirs)
        if strange and entry.alive and entry.role is Role.SITE:
            logger.warning(
                "alias=%s the process %d shares this ring and has its settings at %s, this one "
                "at %s. If these are two sites, give each its own NAMESPACE in OPTIONS.",
                ring.alias, entry.pid, theirs, ours,
            )  # fmt: skip
            return
