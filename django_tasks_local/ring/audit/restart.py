"""The first look at a ring after its host was restarted: what is whole is kept, and nothing else.

The kernel brings the file to the disk page by page, in its own time. After a power cut it is put
together from pages of several moments: of the same record the commit word may be older than the
head slot, or newer, or its chain may be another record's by now. So nothing that is derived is
believed, nor any count, and of each record only what its CRCs cover.

Every process of an earlier boot is dead. What one of them ran is settled as after any death, which
finds it under an entry that is made for it here.
"""

import time
from array import array
from collections import Counter
from typing import Final

from django_tasks_local.exceptions import counted
from django_tasks_local.ring import recovery
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.head import (
    CLAIM_AT,
    CLAIM_END,
    OUTCOME_AT,
    OUTCOME_END,
    S_HISTORY_CHAIN,
    S_METADATA_CHAIN,
    S_OUTCOME_BYTES,
    S_OUTCOME_CHAIN,
    S_TIES_CHAIN,
    inline_bytes,
    make_head,
    problem,
    seal_claim,
    seal_loss,
)
from django_tasks_local.ring.format.ids import format_id, slot_of_id
from django_tasks_local.ring.records import retrying
from django_tasks_local.ring.records.batched import in_order_of_settling, was_accepted
from django_tasks_local.ring.records.loss import Loss, loss_word, noted_loss
from django_tasks_local.ring.records.table import Table
from django_tasks_local.ring.shm.boots import boot_for, is_of_another_boot
from django_tasks_local.ring.shm.entries import Role
from django_tasks_local.ring.shm.errors import NO_ROOM, no_space
from django_tasks_local.ring.shm.mutex import Notice
from django_tasks_local.ring.shm.registry import Registry

from .records import Audit
from .repair import repair_codes
from .tallies import repair_tallies

# Generations that records may have had which are not on the disk: no ring gets so far in a minute.
_FORGOTTEN_TICKS: Final = 2**24
# How many of the records that are not whole the log names.
_NAMED: Final = 20


def rebuild(table: Table) -> list[str]:
    """Rebuild what is derived (in the lock); after a restart of the host, judge the records first.

    Returns:
        What there is to say of it, a sentence each.
    """
    if is_of_another_boot(table.words, table.segment.path):
        restart = _Restart(table)
        if not restart.anyone_lives():  # or else the word is damaged, or a container has its own id
            return restart.recover()
    return recovery.rebuild(table)


class _Restart:
    """What is done once, by the first process inside. If it dies, the next one begins again.

    Attributes:
        notes: What was not whole, and what became of it.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.words = table.words
        self.registry = Registry(table.segment)
        self.inline = inline_bytes(table.geometry.slot_size)
        self.notes: list[str] = []
        self.lost = loss_word(Loss.RESTARTED)

    def anyone_lives(self) -> bool:
        """Return whether any process is attached: none is before this was done."""
        return any(self.registry.alive(index) for index, _ in self.registry.roles())

    def recover(self) -> list[str]:
        """Do all of it."""
        words = self.words
        words[at.H_DIRTY] = 1
        self._reserve()
        for index in range(at.ENTRIES):
            if self.registry.in_use(index):
                self.registry.put(index, at.E_COMMIT, 0)
        self._settle_writing()
        audit = self._free_keys(self._adopt_ends(self._judge()))
        self._clear_free(audit)
        self._end_chains(audit)
        self._put_due_times(audit)
        self._pass_serials(audit)
        said = recovery.rebuild(self.table)
        if words[at.H_TICK] + _FORGOTTEN_TICKS < at.BEYOND_ANY_TICK:
            words[at.H_TICK] += _FORGOTTEN_TICKS
        self._name_owners(audit)
        repair_tallies(Audit(self.table, self.registry))
        words[at.H_BOOT] = boot_for(self.table.segment.path)
        return [self._sentence(audit), *said]

    def _reserve(self) -> None:
        """See that all has memory that was ever used, and be it that the header is older."""
        try:
            self.table.slots.restore_reserved()
            self.table.segment.read_ahead(self.table.slots.reserved())
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise no_space(self.table.segment.path) from error

    def _settle_writing(self) -> None:
        """Take as READY what belongs to a batch that was accepted, and free what was not.

        The first is judged with the others, its chain too: it may have been written in part.
        """
        words, table = self.words, self.table
        reserved = table.slots.reserved()
        column = words[table.commit : table.commit + reserved].tolist()
        writing = [s for s, word in enumerate(column) if s and word >> at.STATE_SHIFT == at.WRITING]
        for slot in in_order_of_settling(table, writing):
            accepted = was_accepted(table, slot)
            generation = column[slot] & at.GENERATION_MASK
            words[table.sequence + slot] = generation
            words[table.commit + slot] = at.head_word(at.READY, generation) if accepted else 0

    def _judge(self) -> Audit:
        """Keep of each record what is whole of it; drop those of whose request that is not true."""
        audit = Audit(self.table, self.registry)
        for mend in (self._drop_additions, self._reduce, self._drop):
            if audit.broken:
                for slot, why in audit.broken.items():
                    mend(slot, why)
                audit = Audit(self.table, self.registry)
        return audit

    def _drop_additions(self, slot: int, why: str) -> None:
        """Drop what a record has beside request and outcome, where that is not whole."""
        words, table, head = self.words, self.table, self.table.offset(slot) // 8
        owner_word = table.owner_word(slot)
        chain = words[head + S_METADATA_CHAIN]
        if chain and table.metadata.read(chain, owner_word) is None:
            words[head + S_METADATA_CHAIN] = 0
            self._note(slot, "its metadata")
        if words[head + S_HISTORY_CHAIN] and retrying.past_of(table, slot) is None:
            words[head + S_HISTORY_CHAIN] = 0
            self._note(slot, "its earlier attempts")
        chain = words[head + S_TIES_CHAIN]
        if chain and table.ties.read(chain, owner_word) is None:
            words[head + S_TIES_CHAIN] = 0
            self._note(slot, "its group, and what follows it")
        if table.state(slot) == at.RUNNING:  # an outcome that its worker was still copying
            words[head + S_OUTCOME_CHAIN] = 0

    def _reduce(self, slot: int, why: str) -> None:
        """Keep the request alone: of a record that waits, or of one that is LOST from now on."""
        words, table = self.words, self.table
        word, head = words[table.commit + slot], table.head(slot)
        if (
            not at.is_whole(word)
            or head.generation != word & at.GENERATION_MASK
            or slot_of_id(head.id_low) != slot
        ):
            return
        started = head.outcome_chain or noted_loss(head.stop)
        if word >> at.STATE_SHIFT != at.READY or started:
            self._lose(slot)
        elif head.metadata_chain or head.history_chain or head.ties_chain:
            fields = table.offset(slot) // 8
            for which in (S_METADATA_CHAIN, S_HISTORY_CHAIN, S_TIES_CHAIN):
                words[fields + which] = 0
            self._note(slot, "its metadata, earlier attempts and group, and what follows it")

    def _lose(self, slot: int) -> None:
        """Make a record LOST that had been started, and of which no more is known for certain."""
        words, table = self.words, self.table
        offset, head = table.offset(slot), table.head(slot)
        now_ns = time.time_ns()
        if problem(self._raw(slot), head, at.RUNNING, self.inline):
            sealed = seal_claim(now_ns, 0, head.request_crc)
            table.bytes[offset + CLAIM_AT : offset + CLAIM_END] = sealed
        words[offset // 8 + S_OUTCOME_CHAIN] = 0
        sealed = seal_loss(now_ns, noted_loss(head.stop) or self.lost, table.head(slot))
        table.bytes[offset + OUTCOME_AT : offset + OUTCOME_END] = sealed
        # What follows the end of a task that ran is made READY by the rebuild.
        ran = table.state(slot) == at.RUNNING and head.ties_chain
        word = at.head_word(at.LOST, head.generation, at.DUE if ran else 0)
        words[table.commit + slot] = word
        self._note(slot, "its outcome")

    def _drop(self, slot: int, why: str) -> None:
        """Drop a record that cannot be kept."""
        self._note(slot, f"all of it, since {why}")
        self.words[self.table.commit + slot] = 0

    def _adopt_ends(self, audit: Audit) -> Audit:
        """Believe the end that a head slot tells of, where its commit word says that it waits."""
        words, table, adopted = self.words, self.table, False
        for slot in audit.states[at.READY]:
            raw = self._raw(slot)
            head = make_head(raw)
            if not head.outcome_crc or retrying.is_over(table, slot):
                continue  # what is left of an attempt after which it was tried again
            for state in sorted(at.FINISHED):
                if not problem(raw, head, state, self.inline):
                    words[table.commit + slot] = at.head_word(state, head.generation)
                    adopted = True
                    break
        return Audit(table, self.registry) if adopted else audit

    def _free_keys(self, audit: Audit) -> Audit:
        """Make LOST all but the last of the records with one key: the others have ended."""
        table = self.table
        last: dict[bytes, int] = {}
        ended: list[int] = list(audit.broken)
        keyed = (*audit.states[at.READY], *audit.states[at.RUNNING])
        for slot in sorted(filter(table.keys.has_key, keyed), key=self._place):
            before = last.get(table.keys.key(slot))
            if before is not None:
                ended.append(before)
            last[table.keys.key(slot)] = slot
        if not ended:
            return audit
        for slot in ended:
            self._lose(slot)
        return self._judge()

    def _place(self, slot: int) -> int:
        return int(self.words[self.table.sequence + slot]) & ~at.LEAVES_QUEUE

    def _clear_free(self, audit: Audit) -> None:
        """Forget the commit words of slots that no record occupies."""
        column = array("Q", audit.column)
        for slot, owner in enumerate(audit.owner):
            if not owner:
                column[slot] = 0
        start = self.table.commit
        self.words[start : start + audit.reserved] = memoryview(column)

    def _end_chains(self, audit: Audit) -> None:
        """End each chain where its record does: an older link would lead on from there."""
        table, link = self.table, self.table.geometry.column("link")
        for slot in (slot for slots in audit.states.values() for slot in slots):
            owner_word = table.owner_word(slot)
            for chain in table.chains(slot):
                starts = [start for start, _ in table.slots.extents(chain, owner_word)]
                if starts and self.words[link + starts[-1]]:
                    self.words[link + starts[-1]] = 0

    def _put_due_times(self, audit: Audit) -> None:
        """Have records wait until when their heads say, also those that are to wait again."""
        words, table = self.words, self.table
        running = [slot for slot in audit.states[at.RUNNING] if retrying.is_over(table, slot)]
        for slot in (*audit.states[at.READY], *running):
            words[table.due + slot] = words[table.offset(slot) // 8 + S_OUTCOME_BYTES]

    def _pass_serials(self, audit: Audit) -> None:
        """Give later attachments greater serials than any record names; forget what pools noted."""
        words = self.words
        unfinished = [slot for state in at.UNFINISHED for slot in audit.states[state]]
        serials = [self.table.head(slot).origin >> 8 & at.SERIAL_MASK for slot in unfinished]
        # One more, for the entries of the dead.
        serial = max(words[at.H_SERIAL] & at.SERIAL_MASK, *serials, 0) + 1 & at.SERIAL_MASK
        words[at.H_SERIAL] = words[at.H_EARLIER] = serial
        words[at.H_POOL_WORKERS] = words[at.H_WANTED] = words[at.H_ENTRIES_USED] = 0
        noted = at.C_SEMAPHORE + 1 - at.C_SUCCESSOR
        for code in range(at.CODES):
            start = at.code_word(code, at.C_SUCCESSOR)
            words[start : start + noted] = memoryview(bytes(8 * noted)).cast("Q")
        repair_codes(audit)

    def _name_owners(self, audit: Audit) -> None:
        """Make an entry for each owner of a task that ran, for those who settle the dead."""
        owners = Counter(
            audit.column[slot] >> at.OWNER_SHIFT & at.OWNER_MASK
            for slot in audit.states[at.RUNNING]
        )
        for index, count in owners.items():
            for which in range(at.E_PID, at.E_PATH_BYTES + 1):
                self.registry.put(index, which, 0)
            self.registry.put(index, at.E_OTHERS, count)
            commit = Role.WORKER << at.ROLE_SHIFT | self.words[at.H_EARLIER]
            self.registry.put(index, at.E_COMMIT, commit)
        self.words[at.H_ENTRIES_USED] = max(owners, default=-1) + 1

    def _raw(self, slot: int) -> bytes:
        offset = self.table.offset(slot)
        return bytes(self.table.bytes[offset : offset + self.table.geometry.slot_size])

    def _note(self, slot: int, what: str) -> None:
        head = self.table.head(slot)
        known = slot_of_id(head.id_low) == slot
        name = f"task id={format_id(head.id_high, head.id_low)}" if known else f"slot {slot}"
        self.notes.append(f"{name}: {what}")

    def _sentence(self, audit: Audit) -> Notice:
        words = self.words
        waiting = counted(len(audit.states[at.READY]), "waiting task")
        running = counted(len(audit.states[at.RUNNING]), "running task")
        kept = counted(words[at.H_FINISHED], "result")
        text = f"the host was restarted since; found {waiting}, {running} and {kept}"
        if not self.notes:
            return Notice(f"{text}, all whole")
        named = "; ".join(self.notes[:_NAMED])
        more = len(self.notes) - _NAMED
        return Notice(
            f"{text}; lost, since it had not come to the disk: {named}"
            + (f"; and {more} more" if more > 0 else "")
        )
