"""The record that has the key of a unique task."""

from typing import NamedTuple

from .table import Table


class Holder(NamedTuple):
    """The record that has a key, as it was when the key was looked for."""

    slot: int
    word: int
    id_high: int
    id_low: int


def holder_of(table: Table, key: bytes) -> Holder | None:
    """Return the record that has a key (in the lock); None for none."""
    slot = table.keys.find(key)
    if not slot:
        return None
    head = table.head(slot)
    return Holder(slot, table.words[table.commit + slot], head.id_high, head.id_low)
