"""What happens inside the mutex to a record whose attempt has failed, and which is to have another.

Two stores decide. With the one to HISTORY_CHAIN its attempt is over; with the one to W it waits for
the next. A death between the two leaves a record that is RUNNING, and whose own attempt is the last
one of its history: the process that settles it makes the second store.
"""

import time

from django_tasks_local.attempts import Past
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format import tally
from django_tasks_local.ring.format.blocks import Block
from django_tasks_local.ring.format.head import (
    PROGRESS_BYTES,
    S_OUTCOME_BYTES,
    S_OUTCOME_CHAIN,
    S_OUTCOME_CRC,
    S_STARTED_AT,
    S_STOP,
    S_WORKER,
    SINCE_WORD,
)
from django_tasks_local.ring.format.history import decode_past

from .table import Table


def end_attempt(table: Table, slot: int, block: Block, due_ns: int) -> None:
    """Make a RUNNING record READY again (in the lock, with room for the block).

    Args:
        table: The records.
        slot: Its head slot.
        block: Its history, with the attempt that has failed.
        due_ns: Not before then, Unix ns; 0 for at once.
    """
    words = table.words
    words[at.H_DIRTY] = 1
    owner_word = table.owner_word(slot)
    words[table.due + slot] = due_ns
    words[table.offset(slot) // 8 + S_OUTCOME_BYTES] = due_ns  # for a restart of the host
    chain = table.history.put(block, owner_word)
    old = table.history.chain(slot, owner_word)
    words[table.history.word(slot)] = chain  # from here on its attempt is over
    make_ready(table, slot)
    table.slots.discard(old)


def make_ready(table: Table, slot: int) -> None:
    """Make a RUNNING record READY whose history has all its attempts (in the lock).

    It takes its place as one that was enqueued just now, or waits until its `due` word.
    """
    words, offset = table.words, table.offset(slot)
    words[at.H_DIRTY] = 1
    words[offset // 8 + S_STOP] = 0
    # What an attempt has reported must not pass for the next one's progress.
    words[(offset + table.geometry.slot_size - PROGRESS_BYTES) // 8] = 0
    chain = words[offset // 8 + S_OUTCOME_CHAIN]  # a result that its worker was still copying
    words[offset // 8 + S_OUTCOME_CHAIN] = 0
    table.recency.stamp(slot)
    now_ns = time.time_ns()
    words[offset // 8 + SINCE_WORD] = now_ns
    counted = table.tallies.note_end(slot, tally.RETRIED, now_ns)
    generation = words[table.commit + slot] & at.GENERATION_MASK
    words[table.commit + slot] = at.head_word(at.READY, generation)
    table.tallies.count(counted)
    words[at.H_RUNNING] -= 1
    if words[table.due + slot]:
        table.order.defer(slot)
    else:
        table.order.append(slot, *table.order.lane_of(slot))
    if chain:
        table.slots.discard(chain)


def forget_end(table: Table, slot: int) -> None:
    """Take back what was noted of the end of a record that waits on: a restart would go by it."""
    words, head = table.words, table.offset(slot) // 8
    words[head + S_OUTCOME_CRC] = 0
    words[head + S_OUTCOME_BYTES] = words[table.due + slot]


def is_over(table: Table, slot: int) -> bool:
    """Return whether a RUNNING record's attempt is the last one of its history."""
    past, word = past_of(table, slot), table.offset(slot) // 8
    return past is not None and (past.last_started_at_ns, past.workers[-1]) == (
        table.words[word + S_STARTED_AT], table.words[word + S_WORKER],
    )  # fmt: skip


def past_of(table: Table, slot: int) -> Past[int] | None:
    """Return a record's history as it is now; None where it has none, or a damaged one.

    For the owner of the record, and for the process that settles a dead one's: others must see to
    it that it does not change under their eyes.
    """
    chain = table.words[table.history.word(slot)]
    data = table.history.read(chain, table.owner_word(slot)) if chain else None
    return decode_past(data) if data else None
