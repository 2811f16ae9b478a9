"""The record in a head slot: its words, what each CRC covers, and where its payload lies.

No other module knows a byte range of a record, or in which order a CRC goes over it. To add a field
is to add it to `Head`, in front of the CRC that is to cover it, and to the `seal_…` function that
writes it: the structs, the word numbers and the offsets follow.

A record grows in three stages, each closed by a CRC that goes on from the one before: the request
(`seal_request`), the claim (`seal_claim`) and the end (`seal_outcome` or `seal_loss`).
Four words stand behind them all, since they are written between the stages. One says why the task
is to stop, and carries its own check. Three name blocks that check themselves (see
``format.blocks``): the metadata, which changes at any stage, the history of earlier attempts, and
the ties to other tasks. A record that is retried goes back to its first stage, and keeps these.
"""

from struct import Struct
from typing import Final, NamedTuple, Protocol

from . import layout as at
from .crc import crc32


class Head(NamedTuple):
    """The words of a head slot, in their order there."""

    id_high: int
    id_low: int
    generation: int
    enqueued_at_ns: int
    origin: int  # KEYED | code << 40 | serial of the site that enqueued << 8 | priority + 100
    time_limit: int  # see ``store.time_limit_word``
    meta_bytes: int
    arguments_bytes: int
    arguments_chain: int
    request_crc: int  # all before it, and the payload; if chained: and meta, table << 32

    started_at_ns: int
    worker: int  # pid << 32 | serial
    claim_crc: int  # the claim's words, going on from the request's CRC

    finished_at_ns: int
    outcome_bytes: int  # in a LOST record: why (see ``loss.loss_word``); while it waits: until when
    outcome_chain: int
    outcome_crc: int  # these and the outcome, from claim's ^ state; table << 32

    stop: int  # why the task is to stop, with a check of its own (see ``loss.note_word``)
    metadata_chain: int  # covered by no CRC of the record
    history_chain: int  # of its earlier attempts; likewise
    ties_chain: int  # likewise

    @property
    def request_bytes(self) -> int:
        """What names the task and its arguments, in bytes."""
        return self.meta_bytes + self.arguments_bytes

    @property
    def key_bytes(self) -> int:
        """How much of what names the task is its key."""
        return KEY_BYTES if self.origin & at.KEYED else 0

    @property
    def arguments_table_crc(self) -> int:
        """The CRC of the table of chained arguments."""
        return self.request_crc >> 32

    @property
    def outcome_table_crc(self) -> int:
        """The CRC of the table of a chained outcome."""
        return self.outcome_crc >> 32


class Chained(Protocol):
    """A payload that lies in a chain: its size, and the CRC of the table in front of it."""

    crc: int

    def __len__(self) -> int: ...


# The numbers of the words that are read or written one by one.
_word = Head._fields.index
S_ID_HIGH: Final = _word("id_high")
S_ID_LOW: Final = _word("id_low")
S_GENERATION: Final = _word("generation")
S_ENQUEUED_AT: Final = _word("enqueued_at_ns")
S_ORIGIN: Final = _word("origin")
S_TIME_LIMIT: Final = _word("time_limit")
S_META_BYTES: Final = _word("meta_bytes")
S_ARGUMENTS_BYTES: Final = _word("arguments_bytes")
S_ARGUMENTS_CHAIN: Final = _word("arguments_chain")
S_REQUEST_CRC: Final = _word("request_crc")
S_STARTED_AT: Final = _word("started_at_ns")
S_WORKER: Final = _word("worker")
S_CLAIM_CRC: Final = _word("claim_crc")
S_FINISHED_AT: Final = _word("finished_at_ns")
S_OUTCOME_BYTES: Final = _word("outcome_bytes")
S_OUTCOME_CHAIN: Final = _word("outcome_chain")
S_OUTCOME_CRC: Final = _word("outcome_crc")
S_STOP: Final = _word("stop")
S_METADATA_CHAIN: Final = _word("metadata_chain")
S_HISTORY_CHAIN: Final = _word("history_chain")
S_TIES_CHAIN: Final = _word("ties_chain")
# Those that name blocks.
BLOCK_WORDS: Final = S_METADATA_CHAIN, S_HISTORY_CHAIN, S_TIES_CHAIN
# While a record is WRITING: the batch that it belongs to, as a chained slot would name its head.
BATCH_WORD: Final = S_FINISHED_AT
# While it is READY or RUNNING: since when it has waited, if that is not 0 nor the name of a batch.
SINCE_WORD: Final = S_FINISHED_AT

# The words of each stage, without its CRC, which is the next one.
HEAD: Final = Struct(f"={len(Head._fields)}Q")
REQUEST: Final = Struct(f"={S_REQUEST_CRC}Q")
CLAIM: Final = Struct(f"={S_CLAIM_CRC - S_REQUEST_CRC - 1}Q")
OUTCOME: Final = Struct(f"={S_OUTCOME_CRC - S_CLAIM_CRC - 1}Q")

# Bytes within the slot: where a claim and an outcome are written, each with its CRC, and where
# payloads begin.
CLAIM_AT: Final = REQUEST.size + 8
CLAIM_END: Final = CLAIM_AT + CLAIM.size + 8
OUTCOME_AT: Final = CLAIM_END
OUTCOME_END: Final = OUTCOME_AT + OUTCOME.size + 8
HEAD_BYTES: Final = HEAD.size
META_BYTES_AT: Final = S_META_BYTES * 8
META_AT: Final = HEAD_BYTES  # what names the task, where the request is not chained
# The digest of a unique task's key, with which its meta begins.
KEY_BYTES: Final = 16

# The slot's last bytes are the progress, which no CRC covers: its sequence word comes first.
PROGRESS: Final = Struct("=2d64s")  # done, total (NaN: none), message
PROGRESS_BYTES: Final = 8 + PROGRESS.size
PROGRESS_TEXT_BYTES: Final = 64

# The packed words of a stage with their CRC; of a request, zeros in what is not known yet.
_sealed_request = Struct(f"={REQUEST.size}sQ{HEAD_BYTES - CLAIM_AT}x").pack
_WORD: Final = Struct("=Q")
_sealed_claim = Struct(f"={CLAIM.size}sQ").pack
_sealed_outcome = Struct(f"={OUTCOME.size}sQ").pack
_REQUEST_PART: Final = slice(0, REQUEST.size)
_CLAIM_PART: Final = slice(CLAIM_AT, CLAIM_AT + CLAIM.size)
_OUTCOME_PART: Final = slice(OUTCOME_AT, OUTCOME_AT + OUTCOME.size)
_CRC_MASK: Final = at.CRC_MASK

# Whatever may name a chain, from `ARGUMENTS_CHAIN` on.
_words_of_chains = Struct(
    f"=Q{(S_OUTCOME_CHAIN - S_ARGUMENTS_CHAIN - 1) * 8}x"
    f"Q{(S_METADATA_CHAIN - S_OUTCOME_CHAIN - 1) * 8}x{len(BLOCK_WORDS)}Q"
).unpack_from
_CHAINS_AT: Final = S_ARGUMENTS_CHAIN * 8
_NO_CHAINS: Final = (0, 0, 0, 0, 0)

_unpack = HEAD.unpack_from
_new_tuple = tuple.__new__


def make_head(raw: bytes | memoryview) -> Head:
    """Return the words at the beginning of a head slot's bytes."""
    # `Head._make` is written in Python, and takes four times as long.
    head: Head = _new_tuple(Head, _unpack(raw))
    return head


def has_chains(view: memoryview, offset: int) -> bool:
    """Return whether the record of a head slot that begins there has anything in other slots."""
    return _words_of_chains(view[offset + _CHAINS_AT : offset + HEAD_BYTES]) != _NO_CHAINS


def inline_bytes(slot_size: int) -> int:
    """Return how many bytes of payload a head slot can hold."""
    return slot_size - HEAD_BYTES - PROGRESS_BYTES


def seal_request(
    id_high: int,
    id_low: int,
    generation: int,
    enqueued_at_ns: int,
    origin: int,
    meta: bytes,
    arguments: bytes | Chained,
    chain: int,
    time_limit: int = 0,
) -> bytes:
    """Return the first bytes of a new record's head slot: all that is known of it by now.

    Args:
        id_high: The upper half of its id.
        id_low: The lower half, with its slot.
        generation: As in its commit word.
        enqueued_at_ns: When it was enqueued, Unix ns.
        origin: Who enqueued it, and its priority.
        meta: What names the task.
        arguments: Its pickled arguments; no bytes where they are chained.
        chain: The first extent of meta and arguments, 0 where they stand in the head slot.
        time_limit: How long the task may run, and how long it may take to stop.
    """
    fields = REQUEST.pack(
        id_high, id_low, generation, enqueued_at_ns, origin, time_limit, len(meta),
        len(arguments), chain,
    )  # fmt: skip
    if isinstance(arguments, bytes):
        payload = meta + arguments
        return _sealed_request(fields, crc32(payload, crc32(fields))) + payload
    return _sealed_request(fields, crc32(meta, crc32(fields)) | arguments.crc << 32)


def seal_in_batch(
    id_high: int,
    id_low: int,
    generation: int,
    enqueued_at_ns: int,
    origin: int,
    meta: bytes,
    arguments: bytes | Chained,
    chain: int,
    time_limit: int,
    rest: bytes,
) -> bytes:
    """Return what `seal_request` does, for a record of a batch.

    Args:
        id_high: As there, and likewise the others.
        rest: The words behind the request, `words_in_batch`.
    """
    fields = REQUEST.pack(
        id_high, id_low, generation, enqueued_at_ns, origin, time_limit, len(meta),
        len(arguments), chain,
    )  # fmt: skip
    if isinstance(arguments, bytes):
        payload = meta + arguments
        return fields + _WORD.pack(crc32(payload, crc32(fields))) + rest + payload
    return fields + _WORD.pack(crc32(meta, crc32(fields)) | arguments.crc << 32) + rest


def words_in_batch(name: int, due_ns: int, metadata_chain: int = 0, ties_chain: int = 0) -> bytes:
    """Return the words behind the request of a record of a batch, which is WRITING.

    Args:
        name: The batch's, as a chained slot would name its head.
        due_ns: When the record is due, Unix ns; 0 for at once.
        metadata_chain: The record's, and likewise `ties_chain`.
    """
    words = [0] * len(Head._fields)
    words[BATCH_WORD], words[S_METADATA_CHAIN] = name, metadata_chain
    words[S_OUTCOME_BYTES], words[S_TIES_CHAIN] = due_ns, ties_chain
    return HEAD.pack(*words)[CLAIM_AT:]


def seal_claim(started_at_ns: int, worker: int, request_crc: int) -> bytes:
    """Return the bytes from `CLAIM_AT` to `CLAIM_END` of a record that gets RUNNING.

    Args:
        started_at_ns: When it starts, Unix ns.
        worker: By whom: pid << 32 | serial.
        request_crc: The record's.
    """
    fields = CLAIM.pack(started_at_ns, worker)
    return _sealed_claim(fields, crc32(fields, request_crc & _CRC_MASK))


def seal_outcome(
    finished_at_ns: int, outcome: bytes | Chained, chain: int, claim_crc: int, state: int
) -> bytes:
    """Return the bytes from `OUTCOME_AT` to `OUTCOME_END` of a record that ends.

    Args:
        finished_at_ns: When it ended, Unix ns.
        outcome: Its pickled return value or error; no bytes where it is chained.
        chain: The first extent of that chain, or 0.
        claim_crc: The record's.
        state: SUCCESSFUL or FAILED; the CRC covers it, since it is told as well.
    """
    fields = OUTCOME.pack(finished_at_ns, len(outcome), chain)
    crc = crc32(fields, claim_crc ^ state)
    if isinstance(outcome, bytes):
        return _sealed_outcome(fields, crc32(outcome, crc))
    return _sealed_outcome(fields, crc | outcome.crc << 32)


def seal_loss(finished_at_ns: int, loss: int, head: Head) -> bytes:
    """Return the bytes from `OUTCOME_AT` to `OUTCOME_END` of a record that is to be LOST.

    A chain that its worker has begun stays named there for as long as the record is RUNNING. The
    CRC covers none: the chain is given up behind the commit point.

    Args:
        finished_at_ns: When that was found, Unix ns.
        loss: Why, a `loss_word`.
        head: The record's words.
    """
    crc = crc32(OUTCOME.pack(finished_at_ns, loss, 0), head.claim_crc ^ at.LOST)
    return _sealed_outcome(OUTCOME.pack(finished_at_ns, loss, head.outcome_chain), crc)


def problem(raw: bytes, head: Head, state: int, inline: int) -> str:
    """Return what is wrong with a copied head slot in this state; "" for nothing (0.5 µs).

    Of chained payloads nothing is said here: see `names_task` and the CRCs of their tables.

    Args:
        raw: The whole slot.
        head: Its words.
        state: The state in its commit word, from READY to LOST.
        inline: The slot's `inline_bytes`.
    """
    end = HEAD_BYTES + head.meta_bytes + head.arguments_bytes
    if end <= HEAD_BYTES + inline:
        crc = crc32(raw[HEAD_BYTES:end], crc32(raw[_REQUEST_PART]))
        if crc != head.request_crc:
            return "its request does not match its CRC"
    elif head.arguments_chain:
        end, crc = HEAD_BYTES, head.request_crc & _CRC_MASK
    else:
        return "its request is as long as a chained one, and has no chain"
    if state == at.READY:
        return ""
    crc = crc32(raw[_CLAIM_PART], crc)
    if crc != head.claim_crc:
        return "its start does not match its CRC"
    if state == at.RUNNING:
        return ""
    if state == at.LOST:
        fields = OUTCOME.pack(head.finished_at_ns, head.outcome_bytes, 0)
        crc = crc32(fields, crc ^ state)
        return "" if crc == head.outcome_crc else "its end does not match its CRC"
    crc = crc32(raw[_OUTCOME_PART], crc ^ state)
    if head.outcome_chain:
        crc |= head.outcome_crc & ~_CRC_MASK
    else:
        crc = crc32(raw[end : end + head.outcome_bytes], crc)
    return "" if crc == head.outcome_crc else "its outcome does not match its CRC"


def names_task(head: Head, meta: bytes) -> bool:
    """Return whether `meta`, copied from a chain, is what the request's CRC covers."""
    fields = REQUEST.pack(*head[:S_REQUEST_CRC])
    return crc32(meta, crc32(fields)) == head.request_crc & _CRC_MASK


def inline_meta(raw: bytes, head: Head) -> bytes:
    """Return what names the task, where the request is not chained."""
    start = HEAD_BYTES + KEY_BYTES if head.origin & at.KEYED else HEAD_BYTES
    return raw[start : HEAD_BYTES + head.meta_bytes]


def inline_arguments(raw: bytes, head: Head) -> bytes:
    """Return the pickled arguments, where the request is not chained."""
    start = HEAD_BYTES + head.meta_bytes
    return raw[start : start + head.arguments_bytes]


def inline_outcome(raw: bytes, head: Head) -> bytes:
    """Return the pickled outcome, where that is not chained."""
    start = HEAD_BYTES
    if not head.arguments_chain:
        start += head.meta_bytes + head.arguments_bytes
    return raw[start : start + head.outcome_bytes]


def outcome_at(head: Head, size: int, inline: int) -> int:
    """Return where in the slot an outcome of `size` bytes goes; 0 if it has to be chained."""
    used = 0 if head.arguments_chain else head.meta_bytes + head.arguments_bytes
    return HEAD_BYTES + used if used + size <= inline else 0
