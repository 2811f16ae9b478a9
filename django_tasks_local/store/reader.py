"""Reading records without the lock, and what their result ids look like."""

import math
import os
import pickle
import zlib
from struct import Struct
from typing import Any, NamedTuple

from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.progress import Progress

from . import layout as at
from .table import Head, Table

# A result id is a UUID of version 8 (RFC 9562: layout of our own): 60 + 38 random bits, and the
# slot's number behind the variant. The id *is* the address; its random bits make it safe to show.
_LOW_RANDOM_BITS = 38
_VARIANT = 0b10 << 62
_HALVES = Struct("=QQ")
_DIGITS = Struct(">QQ")
_PROGRESS_WORD = Struct("=Q")


def new_id_words(slot: int) -> tuple[int, int]:
    """The two halves of a fresh id for a slot."""
    high, low = _HALVES.unpack(os.urandom(16))
    return (
        high & ~0xF000 | 0x8000,
        _VARIANT | slot << _LOW_RANDOM_BITS | low & ((1 << _LOW_RANDOM_BITS) - 1),
    )


def format_id(high: int, low: int) -> str:
    """The one spelling of an id."""
    digits = f"{high:016x}{low:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def parse_id(result_id: object) -> tuple[int, int, int]:
    """(slot, high, low) of anything that could be one of our ids; slot 0 for what can't be."""
    # Only the one spelling that `format_id` gives: whoever compares ids as text must be right.
    if (
        not isinstance(result_id, str)
        or len(result_id) != 36
        or result_id[8:24:5] != "----"
        or result_id != result_id.lower()
    ):
        return 0, 0, 0
    try:
        digits = bytes.fromhex(result_id.replace("-", ""))
    except ValueError:
        return 0, 0, 0
    if len(digits) != _DIGITS.size:
        return 0, 0, 0
    high, low = _DIGITS.unpack(digits)
    return slot_of_id(low), high, low


def slot_of_id(low: int) -> int:
    """The slot's number in the lower half of an id."""
    return low >> _LOW_RANDOM_BITS & at.MAX_SLOTS - 1


class Found(NamedTuple):
    """One record as copied at one moment, checked."""

    slot: int
    word: int  # its commit word then
    head: Head
    raw: bytes  # the whole head slot
    progress: Progress | None

    @property
    def state(self) -> int:
        return self.word >> at.STATE_SHIFT


class Reader:
    """Copies records out of the ring while others write.

    No lock: the commit word before and after the copy must be the same, and the CRCs must hold
    (rule 4).
    """

    def __init__(self, table: Table) -> None:
        geometry = table.geometry
        self._table = table
        self._words = table.words
        self._bytes = table.bytes
        self._commit = table.commit
        self._slots_at = geometry.slots_at
        self._size = geometry.slot_size
        self._inline = geometry.inline_bytes
        self._reserved = 0  # at least so many slots have memory; it only grows

    def find(self, result_id: str) -> Found:
        """The record behind an id.

        Raises:
            TaskResultDoesNotExist: No id of this ring, or its slot was recycled.
            StoreUnavailable: The record is damaged.
        """
        slot, high, low = parse_id(result_id)
        if slot >= self._reserved:
            self._reserved = self._table.slots.reserved()
        if not 0 < slot < self._reserved:
            raise does_not_exist(result_id)
        words, size = self._words, self._size
        commit, offset = self._commit + slot, self._slots_at + slot * size
        problem = ""
        for _ in range(100):
            word = words[commit]
            raw = bytes(self._bytes[offset : offset + size])
            if words[commit] != word:
                continue
            head = Head._make(at.HEAD.unpack_from(raw))
            state = word >> at.STATE_SHIFT
            if (
                head.id_low != low
                or head.id_high != high
                or not at.READY <= state <= at.LOST
                or head.generation != word & at.GENERATION_MASK
            ):
                raise does_not_exist(result_id)
            problem = self.problem(head, raw, state)
            if not problem:
                return Found(slot, word, head, raw, self._progress(offset, raw, head.generation))
        raise damaged(self._table, slot, problem)

    def arguments(self, found: Found) -> Any:
        """What unpickles the arguments: at once from what is in hand, a chain on demand."""
        head = found.head
        if head.meta_bytes + head.arguments_bytes <= self._inline:
            start = at.HEAD_BYTES + head.meta_bytes
            data = found.raw[start : start + head.arguments_bytes]
        else:
            data = self.chain(
                found, head.arguments_chain, head.meta_bytes, head.arguments_bytes,
                head.request_crc >> 32,
            )  # fmt: skip
        return pickle.loads(data)

    def outcome(self, found: Found) -> Any:
        """What unpickles the return value or the error."""
        head = found.head
        if head.outcome_chain:
            data = self.chain(
                found, head.outcome_chain, 0, head.outcome_bytes, head.outcome_crc >> 32
            )
        else:
            start = at.HEAD_BYTES
            if head.meta_bytes + head.arguments_bytes <= self._inline:
                start += head.meta_bytes + head.arguments_bytes
            data = found.raw[start : start + head.outcome_bytes]
        return pickle.loads(data)

    def meta(self, found: Found) -> bytes:
        """What names the task."""
        head = found.head
        if head.meta_bytes + head.arguments_bytes <= self._inline:
            return found.raw[at.HEAD_BYTES : at.HEAD_BYTES + head.meta_bytes]
        data, _ = self._table.slots.read(
            head.arguments_chain, self._owner_word(found), 0, head.meta_bytes
        )
        self._must_hold(found, zlib.crc32(data, zlib.crc32(found.raw[:64])), head.request_crc)
        return data

    def chain(self, found: Found, chain: int, offset: int, size: int, crc: int) -> bytes:
        """Copies a chained payload of a record and checks it.

        Raises:
            TaskResultDoesNotExist: The record was recycled since it was found.
            StoreUnavailable: It is damaged.
        """
        data, found_crc = self._table.slots.read(chain, self._owner_word(found), offset, size)
        self._must_hold(found, found_crc if len(data) == size else ~crc, crc)
        return data

    def _must_hold(self, found: Found, crc: int, wanted: int) -> None:
        if crc == wanted & 0xFFFFFFFF:
            return
        now = self._words[self._commit + found.slot]
        if now & at.GENERATION_MASK != found.word & at.GENERATION_MASK or now >> 60 < at.READY:
            raise does_not_exist(format_id(found.head.id_high, found.head.id_low))
        raise damaged(self._table, found.slot, "its payload does not match its CRC")

    def _owner_word(self, found: Found) -> int:
        return at.chain_word(found.slot, found.word & at.GENERATION_MASK)

    def problem(self, head: Head, raw: bytes, state: int) -> str:
        """What is wrong with a copied head slot in this state; "" for nothing (0.5 us)."""
        end = at.HEAD_BYTES + head.meta_bytes + head.arguments_bytes
        if end <= at.HEAD_BYTES + self._inline:
            crc = zlib.crc32(raw[at.HEAD_BYTES : end], zlib.crc32(raw[:64]))
            if crc != head.request_crc:
                return "its request does not match its CRC"
        else:  # `meta` and `chain` will see
            end, crc = at.HEAD_BYTES, head.request_crc & at.CRC_MASK
        if state == at.READY:
            return ""
        crc = zlib.crc32(raw[72:88], crc)
        if crc != head.claim_crc:
            return "its start does not match its CRC"
        if state == at.RUNNING:
            return ""
        if state == at.LOST:
            crc = zlib.crc32(at.OUTCOME.pack(head.finished_at_ns, head.outcome_bytes, 0), crc)
            return "" if crc == head.outcome_crc else "its end does not match its CRC"
        crc = zlib.crc32(raw[96:120], crc)
        if head.outcome_chain:
            crc |= head.outcome_crc & ~at.CRC_MASK
        else:
            crc = zlib.crc32(raw[end : end + head.outcome_bytes], crc)
        return "" if crc == head.outcome_crc else "its outcome does not match its CRC"

    def _progress(self, offset: int, raw: bytes, generation: int) -> Progress | None:
        place = self._size - at.PROGRESS_BYTES
        (sequence,) = _PROGRESS_WORD.unpack_from(raw, place)
        if sequence >> 16 != generation:
            return None
        word = (offset + place) // 8
        for _ in range(100):
            if not sequence & 1 and self._words[word] == sequence:
                done, total, text = at.PROGRESS.unpack_from(raw, place + 8)
                return Progress(
                    _plain(done),
                    None if math.isnan(total) else _plain(total),
                    text.rstrip(b"\0").decode(errors="replace"),
                )
            sequence = self._words[word]
            raw = bytes(self._bytes[offset : offset + self._size])
        return None  # its writer died in the middle, or never stops


def does_not_exist(result_id: object) -> TaskResultDoesNotExist:
    """What to raise for an id that names nothing here."""
    return TaskResultDoesNotExist(
        f"No result {str(result_id)[:80]!r}: it was never made here, or it was evicted "
        "(MAX_RESULTS finished results are kept)."
    )


def damaged(table: Table, slot: int, problem: str) -> StoreUnavailable:
    """What to raise for a record whose CRCs do not hold."""
    return StoreUnavailable(
        f"the record in slot {slot} is damaged: {problem or 'it never stops changing'}",
        path=table.segment.path,
        fix="`manage.py local_tasks check --fix` drops it and keeps what is whole",
    )


def _plain(number: float) -> float:
    return int(number) if number.is_integer() else number
