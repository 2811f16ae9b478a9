"""The ring's own audit: every broken invariant as a sentence.

It trusts nothing that it reads: every walk is bounded by the number of slots, and no slot at or
above RESERVED is touched, whatever bytes are in the segment. It reads every record in full, so it
costs about as much as copying the ring.
"""

import os
from collections import Counter
from typing import NamedTuple

from django_tasks_local.exceptions import counted
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.head import Head, inline_bytes, names_task, problem
from django_tasks_local.ring.format.ids import slot_of_id
from django_tasks_local.ring.records.follow_ups import FollowUps
from django_tasks_local.ring.records.loss import noted_loss
from django_tasks_local.ring.records.payload import is_whole
from django_tasks_local.ring.records.retrying import past_of
from django_tasks_local.ring.records.table import Table
from django_tasks_local.ring.shm.entries import Role
from django_tasks_local.ring.shm.header import geometry_crc
from django_tasks_local.ring.shm.registry import Registry, code_in

_STATES = ("FREE", "WRITING", "READY", "RUNNING", "SUCCESSFUL", "FAILED", "LOST", "CHAIN")


class Chain(NamedTuple):
    """A chain of a record: perhaps meta, and behind it a payload with its table's CRC.

    Its size is None while its writer has not said, its CRC while it has not written.
    """

    name: str
    word: int
    size: int | None
    table_crc: int | None
    meta_of: Head | None = None


class Audit:
    """All records, read once and judged one by one.

    Attributes:
        column: The commit words.
        states: Head slots by state.
        broken: Head slots of records that cannot be kept, with the reason.
        orphans: Head slots of whole records whose owner is not attached.
        owner: For each slot the head slot of the record that occupies it, 0 for none.
        problems: What is wrong with records, a sentence each.
    """

    def __init__(self, table: Table, registry: Registry) -> None:
        self.table = table
        self.registry = registry
        self.follow_ups = FollowUps(table)
        self.words = table.words
        self.inline = inline_bytes(table.geometry.slot_size)
        self.reserved = table.slots.reserved()
        self.column: list[int] = self.words[table.commit : table.commit + self.reserved].tolist()
        self.states: dict[int, list[int]] = {state: [] for state in range(at.CHAIN)}
        self.broken: dict[int, str] = {}
        self.orphans: list[int] = []
        self.owner = [0] * self.reserved
        self.problems: list[str] = []
        generations: dict[int, int] = {}
        for slot, word in enumerate(self.column):
            state = word >> at.STATE_SHIFT
            if slot == 0 or word == 0 or state == at.CHAIN:
                continue
            wrong = self._record_problem(slot, word, generations)
            if wrong:
                self.broken[slot] = wrong
                self.problems.append(f"slot {slot} ({self.describe(slot)}): {wrong}")
                continue
            self.states[state].append(slot)
            generations[word & at.GENERATION_MASK] = slot
            owner = word >> at.OWNER_SHIFT & at.OWNER_MASK
            if state in (at.WRITING, at.RUNNING) and not registry.in_use(owner):
                self.orphans.append(slot)
                self.problems.append(
                    f"slot {slot} ({self.describe(slot)}): its owner, entry {owner}, is free"
                )

    def describe(self, slot: int) -> str:
        """Return state and generation of a slot, for a sentence about it."""
        word = self.column[slot]
        state = word >> at.STATE_SHIFT
        return f"{_STATES[state]}, generation {word & at.GENERATION_MASK}"

    def others(self) -> Counter[int]:
        """Return by entry how many records its owner is WRITING, or runs beside its CURRENT one."""
        owned = Counter(
            self.column[slot] >> at.OWNER_SHIFT & at.OWNER_MASK
            for state in (at.WRITING, at.RUNNING)
            for slot in self.states[state]
        )
        for index in owned:
            current = self.registry.field(index, at.E_CURRENT) if index < at.ENTRIES else 0
            owned[index] -= self.table.is_run_by(current, index)
        return owned

    def _record_problem(self, slot: int, word: int, generations: dict[int, int]) -> str:
        """Return what is wrong with a record, "" for nothing; its slots are noted."""
        state = word >> at.STATE_SHIFT
        generation = word & at.GENERATION_MASK
        owner = word >> at.OWNER_SHIFT & at.OWNER_MASK
        if not at.is_whole(word):
            return f"the check bits of its commit word, {word:#x}, do not hold"
        if state == at.FREE:
            return "its commit word is not 0, as that of a free slot is"
        if generation >= at.BEYOND_ANY_TICK:
            return "no ring ever comes to its generation"
        if generation in generations:
            return f"slot {generations[generation]} has the same generation"
        if owner and state not in (at.WRITING, at.RUNNING):
            return f"its commit word names an owner, entry {owner}, where there is none"
        head = self.table.head(slot)
        wrong = "" if state == at.WRITING else self._head_problem(slot, head, word)
        return wrong or self._chains_problem(slot, head, state)

    def _head_problem(self, slot: int, head: Head, word: int) -> str:
        if head.generation != word & at.GENERATION_MASK:
            return f"its head says generation {head.generation}"
        if slot_of_id(head.id_low) != slot:
            return f"its id leads to slot {slot_of_id(head.id_low)}"
        if word >> at.STATE_SHIFT == at.READY and (head.outcome_chain or noted_loss(head.stop)):
            return "it waits, and has an outcome, or a reason to stop"
        offset = self.table.offset(slot)
        raw = bytes(self.table.bytes[offset : offset + self.table.geometry.slot_size])
        return problem(raw, head, word >> at.STATE_SHIFT, self.inline)

    def _chains_problem(self, slot: int, head: Head, state: int) -> str:
        """Follow a record's chains; on success they are noted as its slots."""
        taken = [slot]
        for chain in self._chains(slot, head, state):
            wrong = self._extent_problem(slot, chain, taken)
            wrong = wrong or self._payload_problem(slot, chain)
            if wrong:
                return f"the chain of its {chain.name} {wrong}"
        metadata, owner_word = self.table.metadata, self.table.owner_word(slot)
        if head.metadata_chain and metadata.read(head.metadata_chain, owner_word) is None:
            return "its metadata does not match its CRC"
        if head.history_chain and past_of(self.table, slot) is None:
            return "its history does not match its CRC"
        if head.ties_chain and self.follow_ups.ties_of(slot) is None:
            return "its ties do not match their CRC"
        # A chained slot names one head, so no other record can have it.
        if len(set(taken)) != len(taken):
            return "its chains have a slot in common"
        for each in taken:
            self.owner[each] = slot
        return ""

    def _chains(self, slot: int, head: Head, state: int) -> list[Chain]:
        chains = []
        size = head.request_bytes
        if state == at.WRITING:
            if head.arguments_chain:  # of which there may be but a part
                chains.append(Chain("arguments", head.arguments_chain, None, None))
        elif size > self.inline:
            chain = self.table.slots.request_chain(slot)
            if self.table.slots.is_cut(slot):
                size = head.meta_bytes  # all that is left of it
            chains.append(Chain("arguments", chain, size, head.arguments_table_crc, head))
        if state == at.RUNNING and head.outcome_chain:
            chains.append(Chain("outcome", head.outcome_chain, None, None))
        elif state in (at.SUCCESSFUL, at.FAILED) and head.outcome_chain:
            crc = head.outcome_table_crc
            chains.append(Chain("outcome", head.outcome_chain, head.outcome_bytes, crc))
        if chain := head.metadata_chain:
            chains.append(Chain("metadata", chain, self.table.metadata.block_bytes(chain), None))
        if chain := head.history_chain:
            chains.append(Chain("history", chain, self.table.history.block_bytes(chain), None))
        if chain := head.ties_chain:
            chains.append(Chain("ties", chain, self.table.ties.block_bytes(chain), None))
        return chains

    def _extent_problem(self, slot: int, chain: Chain, taken: list[int]) -> str:
        owner_word = self.table.owner_word(slot)
        found: list[int] = []
        for start, length in self.table.slots.extents(chain.word, owner_word):
            found += range(start, start + length)
        foreign = [each for each in found if self.column[each] != owner_word]
        if foreign:
            return f"runs through slot {foreign[0]} ({self.describe(foreign[0])})"
        size = chain.size
        if size is not None and len(found) != at.slots_for(size, self.table.slots.size):
            return f"has {counted(len(found), 'slot')} for {counted(size, 'byte')}"
        if not found:
            return "has no slots"
        taken += found
        return ""

    def _payload_problem(self, slot: int, chain: Chain) -> str:
        size = chain.size
        if size is None or chain.table_crc is None:
            return ""
        source = self.table.slots.source(chain.word, self.table.owner_word(slot), 0)
        if head := chain.meta_of:
            if not names_task(head, source.copy(head.meta_bytes)):
                return "does not match its CRC"
            size -= head.meta_bytes
            if not size:
                return ""
        return "" if is_whole(source, size, chain.table_crc) else "does not match its CRC"


def header_problems(table: Table) -> list[str]:
    """Return what is wrong with the words that say what the segment is."""
    words, geometry = table.words, table.geometry
    problems = [
        f"the header's {name} is {words[word]}, not {wanted}"
        for name, word, wanted in (
            ("magic", at.H_MAGIC, at.MAGIC),
            ("version", at.H_VERSION, at.VERSION),
            ("size", at.H_SEGMENT_BYTES, geometry.segment_bytes),
            ("slot size", at.H_SLOT_SIZE, geometry.slot_size),
            ("number of slots", at.H_SLOTS, geometry.slots),
            ("geometry CRC", at.H_GEOMETRY_CRC, geometry_crc(words)),
        )
        if words[word] != wanted
    ]
    file_bytes = os.fstat(table.segment.fd).st_size
    if file_bytes != geometry.segment_bytes:
        problems.append(f"the file has {file_bytes} bytes, not {geometry.segment_bytes}")
    reserved = at.unchecked(words[at.H_RESERVED])
    if not geometry.may_reserve(reserved):
        problems.append(f"RESERVED is {words[at.H_RESERVED]:#x}, which says {reserved} slots")
    return problems


def codes_problems(audit: Audit) -> list[str]:
    """Return what is wrong with the table of codes."""
    words = audit.words
    digests = [words[at.code_word(code, at.C_DIGEST)] for code in range(at.CODES)]
    problems = [
        f"code {code} has the digest of code {digests.index(digest)}"
        for code, digest in enumerate(digests)
        if digest and digests.index(digest) != code
    ]
    for code in range(at.CODES):
        for name, which in (("RUNNABLE_UP_TO", at.C_RUNNABLE_UP_TO), ("NEWEST", at.C_NEWEST)):
            serial = words[at.code_word(code, which)]
            if serial > words[at.H_SERIAL]:
                problems.append(f"{name} of code {code} is {serial}, above SERIAL")
    return problems + [
        f"code {code} is in use and has no digest"
        for code in sorted(used_codes(audit))
        if not digests[code]
    ]


def used_codes(audit: Audit) -> set[int]:
    """Return the codes that processes name, or records that wait or may wait again."""
    entries = {code_in(commit) for commit in filter(None, _commits(audit))}
    tasks = (*audit.states[at.READY], *audit.states[at.RUNNING])
    return entries - {-1} | {at.code_of(audit.table.head(slot).origin) for slot in tasks}


def registry_problems(audit: Audit) -> list[str]:
    """Return what is wrong with the registry of attached processes."""
    words, registry = audit.words, audit.registry
    used = words[at.H_ENTRIES_USED]
    problems = [] if used <= at.ENTRIES else [f"ENTRIES_USED is {used}"]
    others = audit.others()
    for index, commit in enumerate(_commits(audit)):
        if not commit:
            continue
        if index >= used:
            problems.append(f"entry {index} is in use, and ENTRIES_USED is {used}")
        if commit >> at.ROLE_SHIFT not in Role:
            problems.append(f"entry {index} has role {commit >> at.ROLE_SHIFT}")
        if commit >> at.CODE_SHIFT & 0xFF > at.CODES:
            problems.append(f"entry {index} has code {(commit >> at.CODE_SHIFT & 0xFF) - 1}")
        if commit & at.SERIAL_MASK > words[at.H_SERIAL]:
            problems.append(f"entry {index} has a serial above SERIAL, {words[at.H_SERIAL]}")
        # An interruption may leave it too high, which costs one scan when it is settled.
        if registry.field(index, at.E_OTHERS) < others[index]:
            owned = counted(others[index], "slot")
            problems.append(f"entry {index} owns {owned}, and OTHERS counts fewer")
    return problems


def _commits(audit: Audit) -> list[int]:
    """Return the commit words of all entries of the registry, free ones included."""
    first = at.REGISTRY_AT + at.E_COMMIT
    end = at.REGISTRY_AT + at.ENTRIES * at.ENTRY_WORDS
    commits: list[int] = audit.words[first : end : at.ENTRY_WORDS].tolist()
    return commits
