"""Reading records without the lock."""

import pickle
from functools import partial
from typing import Any, NoReturn

from django.tasks import TaskResultStatus
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.attempts import Past
from django_tasks_local.exceptions import ArgumentsDropped, StoreUnavailable, WorkerLost
from django_tasks_local.progress import Progress
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.head import (
    PROGRESS_BYTES,
    Head,
    inline_arguments,
    inline_bytes,
    inline_meta,
    inline_outcome,
    make_head,
    names_task,
    problem,
)
from django_tasks_local.ring.format.history import decode_past
from django_tasks_local.ring.format.ids import format_id, parse_id, slot_of_id
from django_tasks_local.ring.format.ties import decode_ties
from django_tasks_local.store import limit_s, task_path
from django_tasks_local.ties import NO_TIES, Ties

from .attempts import current_worker, named
from .loss import is_cancelled, loss_error, lost_error, noted_loss
from .payload import NO_ARGUMENTS, NONE, decode
from .progress import read_progress
from .table import Table

# What Django calls the states.
STATUSES = {
    at.READY: TaskResultStatus.READY,
    at.RUNNING: TaskResultStatus.RUNNING,
    at.SUCCESSFUL: TaskResultStatus.SUCCESSFUL,
    at.FAILED: TaskResultStatus.FAILED,
    at.LOST: TaskResultStatus.FAILED,
}


class Found:
    """One record as copied at one moment, checked; a `Snapshot`.

    What a poll for the status does not ask for is not computed.

    Attributes:
        result_id: Its id.
        slot: Its head slot.
        word: Its commit word then.
        head: The head slot's words.
        raw: The whole head slot.
        progress: What its task had reported, None for nothing.
    """

    __slots__ = (
        "_metadata",
        "_past",
        "_reader",
        "_ties",
        "head",
        "progress",
        "raw",
        "result_id",
        "slot",
        "word",
    )

    _ties: Ties

    def __init__(
        self,
        reader: "Reader",
        result_id: str,
        slot: int,
        word: int,
        head: Head,
        raw: bytes,
        progress: Progress | None = None,
    ) -> None:
        self._reader = reader
        self.result_id = result_id
        self.slot = slot
        self.word = word
        self.head = head
        self.raw = raw
        self.progress = progress
        self._metadata = None if head.metadata_chain else b""

    @property
    def state(self) -> int:
        """The state in the commit word."""
        return self.word >> at.STATE_SHIFT

    @property
    def status(self) -> TaskResultStatus:
        """What Django calls the state."""
        return STATUSES[self.word >> at.STATE_SHIFT]

    @property
    def meta(self) -> bytes:
        """What names the task."""
        return self._reader.meta(self)

    @property
    def metadata(self) -> bytes:
        """Its metadata as JSON, b"" for none: at that moment, or of a claim when first asked."""
        if self._metadata is None:
            self._metadata = self._reader.metadata(self)
        return self._metadata

    @property
    def enqueued_at_ns(self) -> int:
        """When it was enqueued, Unix ns."""
        return self.head.enqueued_at_ns

    @property
    def started_at_ns(self) -> int:
        """When it was claimed, Unix ns; 0 before that."""
        return self.head.started_at_ns if self.state != at.READY else 0

    @property
    def finished_at_ns(self) -> int:
        """When it ended, Unix ns; 0 before that."""
        return self.head.finished_at_ns if self.state in at.FINISHED else 0

    @property
    def worker_id(self) -> str:
        """Who claimed it, "" before that, and where `past` says it already."""
        if self.state == at.READY:
            return ""
        return current_worker(self.head, self._reader.alias, self.past)

    @property
    def past(self) -> Past[str] | None:
        """Its attempts before the present or last one, None where there were none."""
        if not self.head.history_chain:
            return None
        try:
            return self._past
        except AttributeError:  # a claim that is asked for the first time
            self._past: Past[str] = self._reader.past(self)
            return self._past

    @property
    def ties(self) -> Ties:
        """Its ties to other tasks."""
        if not self.head.ties_chain:
            return NO_TIES
        return getattr(self, "_ties", None) or self._reader.ties(self)

    @property
    def worker_pid(self) -> int:
        """The pid of the process that claimed it, 0 before that."""
        return self.head.worker >> 32 if self.state != at.READY else 0

    @property
    def limit_s(self) -> float:
        """How many seconds an attempt may run; 0 for any."""
        return limit_s(self.head.time_limit)

    @property
    def loss(self) -> WorkerLost | None:
        """How its worker was lost; None where it was not."""
        error = lost_error(self.head) if self.state == at.LOST else None
        return error if isinstance(error, WorkerLost) else None

    @property
    def cancelled(self) -> bool:
        """Whether it was taken out, or asked to stop before its end."""
        state = self.state
        if state == at.LOST:
            return is_cancelled(self.head.outcome_bytes)
        return state == at.FAILED and is_cancelled(noted_loss(self.head.stop))

    def arguments(self) -> Any:
        """Return the arguments, unpickled."""
        return self._reader.arguments(self)

    def outcome(self) -> Any:
        """Return the return value or the error (exception class path, text), unpickled."""
        return loss_error(self.head) if self.state == at.LOST else self._reader.outcome(self)


class Reader:
    """Copies records out of the ring while others write.

    No lock: the commit word before and after the copy must be the same, and the CRCs must hold
    (rule 4).

    Attributes:
        alias: The alias of the backend, for worker ids.
    """

    def __init__(self, table: Table, alias: str = "") -> None:
        geometry = table.geometry
        self.alias = alias
        self._table = table
        self._words = table.words
        self._bytes = table.bytes
        self._commit = table.commit
        self._slots_at = geometry.slots_at
        self._size = geometry.slot_size
        self._inline = inline_bytes(self._size)
        self._reserved = 0  # at least so many slots have memory; it only grows

    def find(self, result_id: str, address: tuple[int, int, int] | None = None) -> Found:
        """Return the record behind an id.

        Args:
            result_id: The id.
            address: What `parse_id` makes of it, where that is known.

        Raises:
            TaskResultDoesNotExist: No id of this ring, or its slot was recycled.
            StoreUnavailable: The record is damaged.
        """
        slot, high, low = address or parse_id(result_id)
        if slot >= self._reserved:
            self._reserved = self._table.slots.reserved()
        if not 0 < slot < self._reserved:
            raise does_not_exist(result_id)
        words, size = self._words, self._size
        commit, offset = self._commit + slot, self._slots_at + slot * size
        wrong = ""
        for _ in range(100):
            word = words[commit]
            raw = self._bytes[offset : offset + size].tobytes()
            if words[commit] != word:
                continue
            head = make_head(raw)
            state = word >> at.STATE_SHIFT
            if head.id_low != low or head.id_high != high or not word:
                raise does_not_exist(result_id)
            if word % 31:
                wrong = "the check bits of its commit word do not hold"
                continue
            if not at.READY <= state <= at.LOST or head.generation != word & at.GENERATION_MASK:
                raise does_not_exist(result_id)
            wrong = problem(raw, head, state, self._inline)
            if not wrong:
                reported = words[(offset + size - PROGRESS_BYTES) // 8] >> 16 == head.generation
                progress = self._progress(offset, head.generation) if reported else None
                found = Found(self, result_id, slot, word, head, raw, progress)
                blocks = head.metadata_chain or head.history_chain or head.ties_chain
                if (blocks or head.arguments_chain) and (wrong := self._read_chained(found)):
                    continue
                return found
        raise damaged(self._table, slot, wrong)

    def find_words(self, high: int, low: int) -> Found:
        """Do as `find`, for the two words of an id."""
        return self.find(format_id(high, low), (slot_of_id(low), high, low))

    def arguments(self, found: Found) -> Any:
        """Return the arguments, unpickled from what is in hand or from their chain.

        Raises:
            ArgumentsDropped: They had to make room when the task had finished.
        """
        head = found.head
        if not head.arguments_chain:
            data = inline_arguments(found.raw, head)
            return ((), {}) if data == NO_ARGUMENTS else pickle.loads(data)
        self._refuse_dropped(found)
        chain, offset, size = head.arguments_chain, head.meta_bytes, head.arguments_bytes
        try:
            return self._unpickled(found, chain, offset, size, head.arguments_table_crc)
        except StoreUnavailable:
            self._refuse_dropped(found)  # meanwhile
            raise

    def outcome(self, found: Found) -> Any:
        """Return the return value or the error, likewise."""
        head = found.head
        if head.outcome_chain:
            return self._unpickled(
                found, head.outcome_chain, 0, head.outcome_bytes, head.outcome_table_crc
            )
        data = inline_outcome(found.raw, head)
        return None if data == NONE else pickle.loads(data)

    def meta(self, found: Found) -> bytes:
        """Return what names the task."""
        head = found.head
        if not head.arguments_chain:
            return inline_meta(found.raw, head)
        slots = self._table.slots
        chain = slots.meta_chain(found.slot, head.arguments_chain) or head.arguments_chain
        data = slots.source(chain, self._owner_word(found), 0).copy(head.meta_bytes)
        if not names_task(head, data):
            self._refuse(found)
        return data[head.key_bytes :]

    def metadata(self, found: Found) -> bytes:
        """Return the metadata of a record as it is now.

        Raises:
            TaskResultDoesNotExist: The record was recycled since it was found.
            StoreUnavailable: It is damaged.
        """
        metadata = self._table.metadata.current(found.slot, found.head.generation)
        if metadata is None:
            self._refuse(found)
        return metadata

    def ties(self, found: Found) -> Ties:
        """Return the ties of a record; it raises as `metadata` does."""
        data = self._table.ties.read(found.head.ties_chain, self._owner_word(found))
        ties = decode_ties(data) if data else None
        if ties is None:
            self._refuse(found)
        return ties

    def past(self, found: Found) -> Past[str]:
        """Return the earlier attempts of a record that is ours, or was found just now.

        Raises:
            TaskResultDoesNotExist: The record was recycled since it was found.
            StoreUnavailable: It is damaged.
        """
        past = self.past_in_numbers(found)
        if past is None:
            self._refuse(found)
        return named(past, self.alias)

    def past_in_numbers(self, found: Found) -> Past[int] | None:
        """Return the same with workers as records have them; None where it cannot be read."""
        chain, history = found.head.history_chain, self._table.history
        data = history.read(chain, self._owner_word(found)) if chain else None
        return decode_past(data) if data else None

    def _read_chained(self, found: Found) -> str:
        """Read what a poll for the status shows of a record, as far as it lies in chains.

        Returns:
            What is wrong with it, "" for nothing; it may have changed meanwhile.
        """
        if found.head.history_chain:
            past = self.past_in_numbers(found)
            if past is None:
                return "its history does not match its CRC"
            found._past = named(past, self.alias)
        if found.head.arguments_chain:
            self.meta(found)  # the CRC of the head's request covers its meta, too
        _ = found.metadata
        found._ties = found.ties
        return ""

    def _unpickled(self, found: Found, chain: int, offset: int, size: int, table_crc: int) -> Any:
        """Return a chained payload of a record, each piece unpickled once its CRC holds.

        Raises:
            TaskResultDoesNotExist: The record was recycled since it was found.
            StoreUnavailable: It is damaged.
        """
        source = self._table.slots.source(chain, self._owner_word(found), offset)
        return decode(source, size, table_crc, partial(self._refuse, found))

    def _refuse(self, found: Found) -> NoReturn:
        """Raise the reason why a CRC of a payload does not match."""
        now = self._words[self._commit + found.slot]
        if (now ^ found.word) & at.GENERATION_MASK or now >> at.STATE_SHIFT < at.READY:
            raise does_not_exist(found.result_id)
        raise damaged(self._table, found.slot, "its payload does not match its CRC")

    def _refuse_dropped(self, found: Found) -> None:
        same = not (self._words[self._commit + found.slot] ^ found.word) & at.GENERATION_MASK
        if same and self._table.slots.is_cut(found.slot):
            path, size = task_path(self.meta(found)), found.head.arguments_bytes
            raise ArgumentsDropped(path, found.result_id, size)

    def _progress(self, offset: int, generation: int) -> Progress | None:
        place = offset + self._size - PROGRESS_BYTES
        return read_progress(self._words, self._bytes, place, generation)

    def _owner_word(self, found: Found) -> int:
        return at.chain_word(found.slot, found.word & at.GENERATION_MASK)


def does_not_exist(result_id: object) -> TaskResultDoesNotExist:
    """Return what to raise for an id that names nothing here."""
    return TaskResultDoesNotExist(
        f"No result {str(result_id)[:80]!r}: it was never made here, it was evicted (MAX_RESULTS "
        "finished results are kept), or it expired (RESULT_TTL, FAILURE_TTL)."
    )


def damaged(table: Table, slot: int, problem: str) -> StoreUnavailable:
    """Return what to raise for a record whose CRCs do not hold."""
    return StoreUnavailable(
        f"the record in slot {slot} is damaged: {problem or 'it never stops changing'}",
        path=table.segment.path,
        fix="`manage.py local_tasks check --fix` drops it and keeps what is whole",
    )
