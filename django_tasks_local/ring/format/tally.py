"""A tally, the counters of one task in one queue: where each stands, and how a count is noted.

Each number only ever grows. A count belongs to the store of a commit word, and is stored right
behind it. What it is to be is noted before: its own word and the record's slot in DIRTY, the
numbers in COUNTED and SUMMED. So the rebuild that follows a death knows whether the commit word was
stored, and completes the count; to do that twice changes nothing.
"""

from typing import Final, NamedTuple

from . import layout as at

# In an ORIGIN: the number of the record's tally. 0: it is not counted.
NOT_COUNTED: Final = 0
# That of the tasks for which there is no tally of their own left, or whose names are too long.
OTHERS: Final = 1
FIRST_NAMED: Final = 2

# --- a tally, by word -----------------------------------------------------------------------------
K_NAME_BYTES: Final = 0  # 0: the tally has no name yet; stored last
K_NAME: Final = 1  # UTF-8: import path of the task, NUL, queue
NAME_BYTES: Final = 192
K_ENQUEUED: Final = K_NAME + NAME_BYTES // 8
K_TAKEN_OUT: Final = K_ENQUEUED + 1  # cancelled before they started
K_WAITED_NS: Final = K_TAKEN_OUT + 1  # the sum of what WAITED counts
K_RAN_NS: Final = K_WAITED_NS + 1  # and of what RAN counts
K_WAITED: Final = K_RAN_NS + 1  # attempts that have started, by how long they had waited
# Upper bounds in seconds; a last bucket has what is beyond.
BOUNDS_S: Final = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400)
BOUNDS_NS: Final = tuple(round(bound_s * 1e9) for bound_s in BOUNDS_S)
BUCKETS: Final = len(BOUNDS_NS) + 1
K_RAN: Final = K_WAITED + BUCKETS  # attempts that have ended, by outcome and how long they had run
OUTCOMES: Final = ("successful", "failed", "retried", "lost", "timeout", "cancelled")
K_END: Final = K_RAN + len(OUTCOMES) * BUCKETS
# Where the counts of each outcome begin.
SUCCESSFUL, FAILED, RETRIED, LOST, TIMEOUT, CANCELLED = range(K_RAN, K_END, BUCKETS)
# What is longer counts as 0, as what is negative: the clock was set, and sums must not run over.
LONGEST_NS: Final = 10**16  # 116 days
# Numbers above are damage: of a count, and of a sum.
MOST: Final = 2**48
MOST_NS: Final = 2**62

# --- DIRTY, while something is counted ------------------------------------------------------------
# how many - 1 << 48 | word index of the count << 24 | slot. Counted are those of the records in so
# many neighbouring slots, from that one on, which have come to the state that the count is about.
NOTE_MORE_SHIFT: Final = 48
NOTE_WORD_SHIFT: Final = 24
NOTE_WORD_MASK: Final = (1 << NOTE_MORE_SHIFT - NOTE_WORD_SHIFT) - 1
NOTE_SLOT_MASK: Final = at.MAX_SLOTS - 1
_READY: Final = frozenset({at.READY})
_RUNNING: Final = frozenset({at.RUNNING})
_NONE: Final[frozenset[int]] = frozenset()


class Tally(NamedTuple):
    """The counters of one task in one queue, as they were read at one moment.

    Attributes:
        task: Its import path; "" for all tasks that have no tally of their own.
        queue: The queue, likewise.
        enqueued: How many tasks were accepted.
        taken_out: How many were cancelled before they started.
        waited: Attempts that have started, by how long they had waited: a number for each bucket.
        waited_ns: The sum of these times.
        ran: By outcome, attempts that have ended, by how long they had run.
        ran_ns: The sum of these times.
    """

    task: str
    queue: str
    enqueued: int
    taken_out: int
    waited: list[int]
    waited_ns: int
    ran: dict[str, list[int]]
    ran_ns: int


def outcome_of(successful: bool, cancelled: bool, timed_out: bool) -> int:
    """Return as what an attempt counts that its worker ends."""
    if successful:
        return SUCCESSFUL
    return CANCELLED if cancelled else TIMEOUT if timed_out else FAILED


def number_in(origin: int) -> int:
    """Return the number of the tally that an ORIGIN names."""
    return origin >> at.TALLY_SHIFT & at.TALLIES - 1


def word_of(number: int, which: int) -> int:
    """Return the word index of a tally's word."""
    return at.TALLIES_AT + number * at.TALLY_WORDS + which


def sum_of(word: int) -> int:
    """Return the word index of the sum to which a count belongs; 0 for none."""
    which = word - at.TALLIES_AT & at.TALLY_WORDS - 1
    if K_WAITED <= which < K_RAN:
        return word - which + K_WAITED_NS
    return word - which + K_RAN_NS if K_RAN <= which < K_END else 0


def states_of(word: int) -> frozenset[int]:
    """Return to which states the records have come that a count is about."""
    which = word - at.TALLIES_AT & at.TALLY_WORDS - 1
    if which == K_ENQUEUED or RETRIED <= which < RETRIED + BUCKETS:
        return _READY
    if K_WAITED <= which < K_RAN:
        return _RUNNING
    return at.FINISHED if which == K_TAKEN_OUT or K_RAN <= which < K_END else _NONE
