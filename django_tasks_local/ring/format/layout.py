"""Where everything lies in the segment: offsets and bit fields, no I/O.

The drawing, the access rules and the invariants are in the docstring of the package
(``django_tasks_local/ring/__init__.py``); this module gives each place its number.
The words of a record are in ``head``.
"""

import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

MAGIC: Final = int.from_bytes(b"DTLRING\n", "little")
VERSION: Final = 2
PAGE: Final = 4096
WORD_BITS: Final = 64
BYTE_ORDER: Final = sys.byteorder

# --- the header: words 0 to 511 of the segment, and the lanes behind it -------------------
# The first eight words keep their place in every layout version, so that a later release can
# tell what it found and whether unfinished work lies in it.
H_MAGIC: Final = 0
H_VERSION: Final = 1
H_SEGMENT_BYTES: Final = 2
H_SLOT_SIZE: Final = 3
H_SLOTS: Final = 4
H_ENTRIES: Final = 5
H_GEOMETRY_CRC: Final = 6
H_UNFINISHED: Final = 7  # WRITING + READY + RUNNING

H_RESERVED: Final = 8  # slots whose memory is reserved, with its complement as a check
H_DIRTY: Final = 9  # not 0: what is derived cannot be trusted, rebuild it
H_TICK: Final = 10  # the next generation, and the next place in any order
H_FREE: Final = 11
H_DEFERRED: Final = 12  # READY and not yet due: in the heap
H_RUNNING: Final = 13
H_FINISHED: Final = 14
H_FINISHED_SLOTS: Final = 15  # slots that finished records occupy, chains included
H_OLDEST: Final = 16  # ends of the recency list
H_NEWEST: Final = 17
H_CURSOR: Final = 18  # where the next search for a free slot starts
H_EVICTED: Final = 19  # since the ring was made; a crash may leave one uncounted
H_LOST: Final = 20
H_EXPIRED: Final = 54
H_KILLED: Final = 55
# One word for each code: not 0 if an end of a lost task of its may have to be announced.
H_UNTOLD: Final = 56
H_SERIAL: Final = 21  # the serial number of the latest attachment
H_ENTRIES_USED: Final = 22  # no entry at or above this index was ever used
H_TEMPORARY: Final = 23  # the ring of a test run: removed with it
H_POOL_WORKERS: Final = 24  # worker processes that all pools have right now
H_WANTED: Final = 25  # a bit for each code whose pool waits for others to give workers up
H_MAX_WORKERS: Final = 26  # the options of the newest site process, see ``limits``
H_MAX_RESULTS: Final = 27
H_MAX_PENDING: Final = 28
H_DRAIN_MS: Final = 29
H_SEMAPHORE: Final = 30  # the inode of the mutex's semaphore that was opened last
H_DISCARDED: Final = 31  # the latest chain that was given up and is not all free yet
H_HAND: Final = 32  # of the finished, up to here none has arguments that can be dropped
H_WAITED: Final = 33  # Unix ns until which a process may be waiting for the end of a task
# Options that may be None: 0; else 31 times the value, see ``limits``.
H_RESULT_TTL: Final = 34
H_FAILURE_TTL: Final = 35
H_MAX_TASKS: Final = 36
H_WORKER_MEMORY: Final = 37
H_TASK_MEMORY: Final = 38
H_KEYED: Final = 39  # unfinished records that have a key
H_QUEUED: Final = 40  # not 0: a process may be waiting for the mutex
H_BOOT: Final = 41  # in a directory: half of the host's boot id when the records were judged
H_EARLIER: Final = 42  # attachments up to this serial are of earlier boots
H_MADE_AT: Final = 43  # Unix ns
H_TALLIED: Final = 44  # 1: some records are counted, see ``tally``
H_COUNTED: Final = 45  # of the count that DIRTY names: as it was
H_SUMMED: Final = 46  # of the sum that belongs to it: as it is to be
H_HANDOVER: Final = 53  # slots that are kept for follow-ups: what the largest of them needs
H_CODES: Final = 64  # the table of codes

# Eight: releases whose processes, or unfinished tasks, are there at the same time.
CODES: Final = 8
CODE_WORDS: Final = 32
C_DIGEST: Final = 0  # what the code is, see ``pool.loaded_files``; 0: the entry is free
C_RUNNABLE_UP_TO: Final = 1  # tasks of its sites up to this serial go into its judged lane
C_NEWEST: Final = 2  # the serial of its newest site process
C_DEFERRED: Final = 3  # its records in the heap
C_SUCCESSOR: Final = 4  # its pool asks for a successor: 1 + least serial that may start it
C_START_FAILURES: Final = 5  # pools in a row that ended before a worker of theirs claimed
C_START_AFTER: Final = 6  # CLOCK_MONOTONIC ns before which no pool is started
C_WORKERS: Final = 7  # worker processes that its pools have
C_WANTED: Final = 8  # CLOCK_MONOTONIC ns since when its pool waits for workers of others
C_SEMAPHORE: Final = 9  # the inode of its work semaphore that was opened last
C_PATH_BYTES: Final = 10
C_PATH: Final = 11  # UTF-8 of what it is called in texts, cut at the front
CODE_PATH_BYTES: Final = (CODE_WORDS - C_PATH) * 8

# Behind the table, whose ring it is: the length of the settings module's name, and the name.
H_MODULE: Final = H_CODES + CODES * CODE_WORDS  # as a word index
MODULE_BYTES: Final = 248

# --- the lanes: two for each code ----------------------------------------------------------
# The first holds the tasks of sites whose files its pool has compared, the second newer ones.
PRIORITIES: Final = 201
LOWEST_PRIORITY: Final = -100
LANES_AT: Final = PAGE // 8  # as a word index
LANE_WORDS: Final = 416
LANES: Final = 2 * CODES
L_BITMAP: Final = 0  # four words: which FIFOs are not empty
L_WAITING: Final = 4  # records in the lane
L_HEAD: Final = 5  # one word for each priority
L_TAIL: Final = L_HEAD + PRIORITIES
HEADER_BYTES: Final = PAGE + LANES * LANE_WORDS * 8

# --- the registry: one entry for each attached process ----------------------------------
# Twice the largest MAX_WORKERS, in 512 KiB: as many places stay for web workers and scripts.
ENTRIES: Final = 2048
ENTRY_BYTES: Final = 256
ENTRY_WORDS: Final = ENTRY_BYTES // 8
REGISTRY_AT: Final = HEADER_BYTES // 8  # as a word index
E_COMMIT: Final = 0  # role << 56 | 1 + code << 32 | serial; 0: free
E_PID: Final = 1  # as seen in that process's own pid namespace
E_SINCE: Final = 2  # Unix ns
E_CURRENT: Final = 3  # a worker's slot; true only if that slot is RUNNING by this entry
E_OTHERS: Final = 4  # slots that are WRITING by this entry, or RUNNING beside that one
E_RUNNABLE_UP_TO: Final = 5  # a pool: tasks of its code's sites up to this serial may run on it
E_ADOPTED: Final = 6  # a pool: up to which serial << 8 | of which other codes it runs tasks
E_WORKERS: Final = 7  # a pool: the worker processes that it has, or is about to have
E_POOL: Final = 8  # a worker: its pool's serial << 32 | 1 + its pool's entry
E_STATE: Final = 9  # a `registry.PoolState`; a site that serves requests: SERVING; a worker: bits
E_SCHEDULE: Final = 10  # a site: the digest of its SCHEDULE, 0: none
E_PATH_BYTES: Final = 11
E_PATH: Final = 12  # UTF-8 of the settings file's path, cut at the front
PATH_BYTES: Final = ENTRY_BYTES - E_PATH * 8
SERIAL_MASK: Final = (1 << 32) - 1
ROLE_SHIFT: Final = 56
CODE_SHIFT: Final = 32  # below it the serial

# --- the schedule: one row for each periodic task --------------------------------------------
# Three pages. More entries than that make a settings file nobody reads.
ROWS: Final = 128
ROW_WORDS: Final = 12
SCHEDULE_AT: Final = REGISTRY_AT + ENTRIES * ENTRY_WORDS  # as a word index
R_NAME: Final = 0  # the number of its name, see ``schedules``; 0: the row is free
R_TIMING: Final = 1  # the number of its times
R_SETTLED: Final = 2  # unix ns: its times up to here have fired, or never will
R_LAST: Final = 3  # unix ns: the time for which it fired last, 0: never
R_ID_HIGH: Final = 4  # the result id of that run
R_ID_LOW: Final = 5
R_SKIPPED: Final = 6  # times that came while an earlier run was not over
R_FIRING: Final = 7  # ID_HIGH of the record that is being made READY for it; 0: none
R_FIRING_FOR: Final = 8  # unix ns: the time for which

# --- the tallies: the counters of each task in each queue, see ``tally`` ------------------------
# 1 KiB each. A site has some dozens of tasks; those beyond share tally 0.
TALLIES: Final = 128
TALLY_BITS: Final = 7
TALLY_WORDS: Final = 1 << TALLY_BITS
TALLIES_AT: Final = SCHEDULE_AT + ROWS * ROW_WORDS  # as a word index
TALLIES_END: Final = TALLIES_AT + TALLIES * TALLY_WORDS
COLUMNS_AT: Final = TALLIES_END * 8  # in bytes

# --- the commit word W -----------------------------------------------------------------------
# Five check bits make every valid word a multiple of 31. No power of 2 is one, so no flip of a
# single bit leads from a valid word to another; and 0, as memory is born, is one.
STATE_SHIFT: Final = 61
CHECK_SHIFT: Final = 56
OWNER_SHIFT: Final = 45
OWNER_MASK: Final = (1 << 11) - 1
GENERATION_MASK: Final = (1 << 45) - 1
_CHECKS: Final = tuple(
    next(check << 56 for check in range(31) if (rest + (check << 56)) % 31 == 0)
    for rest in range(31)
)
# No ring gets here, in 10 years of 100,000 ticks a second: it is damage, and must not make TICK
# overflow its 45 bits.
BEYOND_ANY_TICK: Final = (1 << 45) - (1 << 40)
# In the sequence of a READY record that is about to be cancelled. If a death comes before its new
# place is stored, a rebuild gives it the newest one where it has ended, else the old one again.
LEAVES_QUEUE: Final = 1 << 63
FREE, WRITING, READY, RUNNING, SUCCESSFUL, FAILED, LOST, CHAIN = range(8)
UNFINISHED: Final = frozenset({WRITING, READY, RUNNING})
FINISHED: Final = frozenset({SUCCESSFUL, FAILED, LOST})
# In place of an owner, in the word of a record that has ended: what follows it is still to be made
# READY. Only inside the mutex.
DUE: Final = 1
# A CHAIN word names its head slot and the low bits of the head's generation.
CHAIN_SLOT_SHIFT: Final = 32
CHAIN_GENERATION_MASK: Final = (1 << CHAIN_SLOT_SHIFT) - 1
SLOT_BITS: Final = 24
MAX_SLOTS: Final = 1 << SLOT_BITS
CRC_MASK: Final = 0xFFFFFFFF
# In an ORIGIN: the record has a key; and the number of its tally.
KEYED: Final = 1 << 63
TALLY_SHIFT: Final = 48
QUEUE_MASK: Final = 0xFF  # priority + 100

# --- chains -----------------------------------------------------------------------------------
# A chain word: slots in the extent << 32 | its first slot. The first word-sized link to the
# next extent is the LINK column of an extent's first slot.
EXTENT_SHIFT: Final = 32
EXTENT_SLOT_MASK: Final = (1 << EXTENT_SHIFT) - 1

# Memory is reserved in steps of so many bytes of slots, which the kernel clears in 0.3 ms with the
# lock held, and of at most so many slots: a step of a column is then two whole pages.
STEP_BYTES: Final = 2**20  # 1 MiB
STEP_SLOTS: Final = 1024

COLUMNS: Final = ("commit", "sequence", "due", "link", "back", "heap", "keys")
COLUMN_BYTES_PER_SLOT: Final = 8 * len(COLUMNS) + 1  # and one byte of the free map


def _pages(size: int) -> int:
    return -(-size // PAGE) * PAGE


class Share(NamedTuple):
    """Which tasks a process may claim.

    Attributes:
        code: Its code's number in the table.
        runnable_up_to: Of that code, those of sites up to this serial.
        adopted: Of other codes (a bit for each), those up to the serial above the bits.
    """

    code: int
    runnable_up_to: int
    adopted: int = 0


@dataclass(frozen=True)
class Geometry:
    """The sizes of one segment, and where its columns start (word indices).

    Attributes:
        slot_size: Bytes per slot, a power of two.
        slots: How many slots the segment can ever have; slot 0 is never used, so that 0 can
            mean "none" in every link.
    """

    slot_size: int
    slots: int

    @classmethod
    def fitting(cls, slot_size: int, shm_size: int) -> "Geometry":
        """Return the largest segment of at most `shm_size` bytes."""
        spare = shm_size - COLUMNS_AT - (len(COLUMNS) + 2) * PAGE
        slots = spare // (slot_size + COLUMN_BYTES_PER_SLOT)
        return cls(slot_size, max(2, min(slots, MAX_SLOTS)))

    @cached_property
    def step(self) -> int:
        """How many slots are reserved at a time."""
        return min(max(1, STEP_BYTES // self.slot_size), STEP_SLOTS)

    @cached_property
    def first_step(self) -> int:
        """How many slots a new ring has: at least one beside slot 0."""
        return min(max(2, self.step), self.slots)

    def may_reserve(self, slots: int) -> bool:
        """Return whether RESERVED can be that many: whole steps, or all there are."""
        return 1 < slots <= self.slots and (slots % self.step == 0 or slots == self.slots)

    @cached_property
    def column_bytes(self) -> int:
        """How far the columns' starts lie apart."""
        return _pages(self.slots * 8)

    def column(self, name: str) -> int:
        """Return the word index at which a column starts."""
        return (COLUMNS_AT + COLUMNS.index(name) * self.column_bytes) // 8

    @cached_property
    def map_at(self) -> int:
        """The byte offset of the free map: one byte a slot, 0 for free."""
        return COLUMNS_AT + len(COLUMNS) * self.column_bytes

    @cached_property
    def slots_at(self) -> int:
        """The byte offset of slot 0."""
        return self.map_at + _pages(self.slots)

    @cached_property
    def segment_bytes(self) -> int:
        """The size of the whole segment."""
        return self.slots_at + _pages(self.slots * self.slot_size)

    def ranges(self, first: int, end: int) -> list[tuple[int, int]]:
        """Return the byte ranges (offset, length) that the slots `first` to `end` - 1 occupy."""
        columns = [(self.column(name) * 8 + first * 8, (end - first) * 8) for name in COLUMNS]
        return [
            *columns,
            (self.map_at + first, end - first),
            (self.slots_at + first * self.slot_size, (end - first) * self.slot_size),
        ]


def checked(number: int) -> int:
    """Return `number` (below 2**32) with its complement above it: a word that shows damage."""
    return number | (~number & 0xFFFFFFFF) << 32


def unchecked(word: int) -> int:
    """Return the number in a word that `checked` made; 0 where the word is damaged."""
    number = word & 0xFFFFFFFF
    return number if word >> 32 == ~number & 0xFFFFFFFF else 0


def head_word(state: int, generation: int, owner: int = 0) -> int:
    """Return a commit word of a head slot."""
    word = state << STATE_SHIFT | owner << OWNER_SHIFT | generation
    return word | _CHECKS[word % 31]


def head_words(state: int, first: int, count: int, owner: int = 0) -> list[int]:
    """Commit words of so many head slots whose generations follow each other."""
    checks = _CHECKS
    start = state << STATE_SHIFT | owner << OWNER_SHIFT | first
    return [word | checks[word % 31] for word in range(start, start + count)]


def is_whole(word: int) -> bool:
    """Return whether the check bits of a commit word hold."""
    return word % 31 == 0


def chain_word(head: int, generation: int) -> int:
    """Return the commit word of the slots that continue `head`."""
    word = CHAIN << STATE_SHIFT | head << CHAIN_SLOT_SHIFT | generation & CHAIN_GENERATION_MASK
    return word | _CHECKS[word % 31]


def code_word(code: int, which: int) -> int:
    """Return the word index of a code's field in the table of codes."""
    return H_CODES + code * CODE_WORDS + which


def code_of(origin: int) -> int:
    """Return the number of the code that an ORIGIN names."""
    return origin >> 40 & CODES - 1


def lane_of(origin: int, runnable_up_to: int) -> int:
    """Return the lane (its word index) of a record of this ORIGIN."""
    newer = (origin >> 8 & SERIAL_MASK) > runnable_up_to
    return LANES_AT + (2 * code_of(origin) + newer) * LANE_WORDS


def slots_for(size: int, slot_size: int) -> int:
    """Return how many chained slots hold `size` bytes."""
    return -(-size // slot_size)
