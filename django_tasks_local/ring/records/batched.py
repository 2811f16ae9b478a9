"""Records that are enqueued together: which of them were accepted, and in what order they go."""

from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.head import BATCH_WORD, inline_bytes, make_head, problem

from .table import Table


def was_accepted(table: Table, slot: int) -> bool:
    """Return whether a WRITING record belongs to a batch whose own record is free by now."""
    words = table.words
    generation = words[table.commit + slot] & at.GENERATION_MASK
    name = words[table.offset(slot) // 8 + BATCH_WORD]
    batch = name >> at.CHAIN_SLOT_SHIFT & at.MAX_SLOTS - 1
    if not name or not 0 < batch < table.slots.reserved() or batch == slot:
        return False
    word = words[table.commit + batch]
    its_name = at.chain_word(batch, word & at.GENERATION_MASK)
    if word >> at.STATE_SHIFT == at.WRITING and its_name == name:
        return False
    # So it was written to its end. Where its batch was damaged and dropped, that need not be.
    offset, size = table.offset(slot), table.geometry.slot_size
    raw = bytes(table.bytes[offset : offset + size])
    head = make_head(raw)
    return head.generation == generation and not problem(raw, head, at.READY, inline_bytes(size))


def in_order_of_settling(table: Table, slots: list[int]) -> list[int]:
    """Return head slots as they were taken, but the records of batches last."""

    def place(slot: int) -> tuple[bool, int]:
        generation = table.words[table.commit + slot] & at.GENERATION_MASK
        name = table.words[table.offset(slot) // 8 + BATCH_WORD]
        return name == at.chain_word(slot, generation), generation

    return sorted(slots, key=place)
