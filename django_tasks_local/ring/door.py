"""Which module of the ring has which of the names that the rest of the package uses.

Imported at first use: a pool that loses the race to start ends before it has imported Django.
"""

from importlib import import_module
from typing import Any

_NAMES = {
    ".firing": "Due Outcome",
    ".format.ids": "format_id random_id",
    ".format.layout": "Geometry Share",
    ".format.tally": "BOUNDS_S OUTCOMES Tally",
    ".look": "Look",
    ".records.codes": "code_digest",
    ".records.killing": "Run",
    ".records.loss": "Loss loss_word lost_error",
    ".records.reader": "Found",
    ".records.schedule": "Row",
    ".ring": "Ring",
    ".shm.entries": "Entry PoolState Role",
    ".shm.leadership": "ANY_SERVER Leadership",
    ".shm.limits": "Limits",
    ".shm.neighbours": "Surveyed sites_elsewhere survey_rings",
    ".shm.objects": "fill_standard_descriptors standard_descriptors",
    ".shm.removal": "ring_is_attached sweep_temporary unlink_objects unlink_unattached",
    ".shm.places": "MEMORY base_name directory_of ring_exists ring_name segment_path",
    ".shm.segment": "attach_segment",
    ".shm.signs": "Seen Signs ask_nothing",
    ".stops": "Running",
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name], __package__), name)
    raise AttributeError(f"module {__package__!r} has no attribute {name!r}")
