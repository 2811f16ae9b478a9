"""What the fuzzer's processes note outside the ring, in plain shared memory of the test's own.

Each word has one writer at a time and is stored in one piece, so a SIGKILL leaves the old or the
new value, never a mixture.
"""

import mmap
import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

from django_tasks_local.ring.shm.lock import ByteLock
from tests.support import wait_for

# A task: its id in two words, then what has happened to it.
TASK_WORDS: Final = 11
ID_HIGH, ID_LOW, ACCEPTED, STARTED, ENDED, CANCELLED, STARTS, RETRIED, MEANT, TOLD, FOLLOWED = (
    range(TASK_WORDS)
)
# Times of each of the two periodic tasks; what a task that came to nothing is meant for.
TIMES: Final = 100_000
NOTHING: Final = 2**63

# A place: one live process at a time, and its words.
PLACE_WORDS: Final = 24
# INSIDE: which of its threads is, 0 for none.
NEXT, INSIDE, STOPS, LOST, PID = range(5)
# Counters of a place, added up at the end.
COUNTERS: Final = (
    "entries", "rebuilds", "enqueued", "claimed", "finished", "reads", "interrupts", "forks",
    "fork_kills", "lost", "noted", "cancelled", "retried", "fired",
)  # fmt: skip
FIRST_COUNTER: Final = 5

# Waits to get inside, in buckets that are a quarter of a power of two of a microsecond wide: all,
# and those of whoever had to rebuild since the one before was killed or interrupted inside.
BUCKETS: Final = 112
KINDS: Final = ("waits", "waits_after_death")


class Ledger:
    """Shared by all processes of one round; made before they are forked.

    Attributes:
        places: How many processes can live at a time.
        tasks_each: How many tasks each place can enqueue.
    """

    def __init__(self, places: int, tasks_each: int) -> None:
        self.places = places
        self.tasks_each = tasks_each
        self._lost_each = tasks_each
        self._tasks_at = places * PLACE_WORDS
        self._lost_at = self._tasks_at + places * tasks_each * TASK_WORDS
        self._waits_at = self._lost_at + places * self._lost_each
        self._times_at = self._waits_at + places * len(KINDS) * BUCKETS
        # The last three: the inode of the ring, whether the places are closed, and how often
        # somebody was stopped.
        words = self._times_at + 2 * TIMES + 3
        self._memory = mmap.mmap(-1, words * 8)
        self.words = memoryview(self._memory).cast("Q")
        # The lock that tells the living from the dead. Its descriptor is opened before that of
        # the ring: a dying process closes the lower one first, so whoever still holds this has
        # not let go of the ring either.
        descriptor, path = tempfile.mkstemp(prefix="dtl-fuzz-")
        Path(path).unlink()
        self._life_fd = descriptor
        descriptor, self._log_path = tempfile.mkstemp(prefix="dtl-fuzz-")
        os.close(descriptor)
        self._log_fd = os.open(self._log_path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def close(self) -> None:
        """Closes what the round had open."""
        os.close(self._life_fd)
        os.close(self._log_fd)
        Path(self._log_path).unlink()

    # --- violations -----------------------------------------------------------------------

    def violation(self, text: str) -> None:
        """Notes what must not happen. One `write` with O_APPEND: lines neither mix nor vanish."""
        os.write(self._log_fd, f"{os.getpid()}: {text}\n".encode())

    def violations(self) -> list[str]:
        """All that was noted."""
        return Path(self._log_path).read_text().splitlines()

    def fork(self, body: Callable[[], object], what: str) -> int:
        """Calls `body` in a child, and notes what it raises; the child's pid."""
        pid = os.fork()
        if pid:
            return pid
        try:
            body()
            os._exit(0)
        except BaseException:
            self.violation(f"{what}: {traceback.format_exc()}")
        finally:
            os._exit(1)

    # --- places ---------------------------------------------------------------------------

    def take_place(self, place: int) -> None:
        """Makes this process the one that lives at a place, once an orphan there is gone."""
        # Several may wait here: the children of one dead process, and of the next. Only one gets
        # past the first lock before the life of the one before is over, since both go together.
        # Else the second would take back the mark of the first while that lives.
        wait_for(ByteLock(self._life_fd, self.places + place).acquire)
        self.words[place * PLACE_WORDS + INSIDE] = 0
        self.set_field(place, PID, os.getpid())
        assert ByteLock(self._life_fd, place).acquire()
        if self.words[-2]:
            os._exit(0)  # an orphan that waited for its place until the round was over

    def close_places(self) -> None:
        """From here on nobody takes a place; waits until nobody has one."""
        self.words[-2] = 1
        wait_for(lambda: not any(map(self.lives, range(self.places))))

    def lives(self, place: int) -> bool:
        """Whether another process lives at a place, and has not begun to die."""
        return ByteLock(self._life_fd, place).held()

    def add(self, place: int, counter: str, amount: int = 1) -> None:
        """Counts something."""
        self.words[place * PLACE_WORDS + FIRST_COUNTER + COUNTERS.index(counter)] += amount

    def total(self, counter: str) -> int:
        """A counter of all places."""
        at = FIRST_COUNTER + COUNTERS.index(counter)
        return sum(self.words[place * PLACE_WORDS + at] for place in range(self.places))

    def field(self, place: int, which: int) -> int:
        """One word of a place."""
        return int(self.words[place * PLACE_WORDS + which])

    def set_field(self, place: int, which: int, value: int) -> None:
        """Stores one word of a place."""
        self.words[place * PLACE_WORDS + which] = value

    @property
    def ring(self) -> int:
        """The inode of the ring of this round."""
        return int(self.words[-3])

    def has_ring(self, inode: int) -> None:
        """Notes the ring of this round; the supervisor's."""
        self.words[-3] = inode

    @property
    def stops(self) -> int:
        """Counts the SIGSTOPs; a wait during which it changed says nothing of the ring."""
        return int(self.words[-1])

    def stopped(self) -> None:
        """Counts a SIGSTOP; the supervisor's."""
        self.words[-1] += 1

    # --- tasks ----------------------------------------------------------------------------

    def new_task(self, place: int) -> int:
        """The number of a task that this place is about to enqueue, -1 where it had enough."""
        number = self.field(place, NEXT)
        if number >= self.tasks_each:
            return -1
        self.set_field(place, NEXT, number + 1)
        return place * self.tasks_each + number

    def accepted(self, task: int, high: int, low: int) -> None:
        """The ring returned an id for a task."""
        at = self._tasks_at + task * TASK_WORDS
        self.words[at + ID_HIGH] = high
        self.words[at + ID_LOW] = low
        self.words[at + ACCEPTED] = 1

    def id_of(self, task: int) -> tuple[int, int] | None:
        """The two halves of a task's id; None where the ring did not return one."""
        at = self._tasks_at + task * TASK_WORDS
        if not self.words[at + ACCEPTED]:
            return None
        return int(self.words[at + ID_HIGH]), int(self.words[at + ID_LOW])

    def note(self, task: int, which: int, place: int) -> int:
        """Notes that a task STARTED, or that it is about to have ENDED; returns the note before."""
        at = self._tasks_at + task * TASK_WORDS + which
        before = int(self.words[at])
        self.words[at] = place + 1
        return before

    def start(self, task: int, place: int) -> int:
        """Notes that an attempt of a task STARTED; returns how many had been noted before."""
        self.note(task, STARTED, place)
        at = self._tasks_at + task * TASK_WORDS + STARTS
        before = int(self.words[at])
        self.words[at] = before + 1
        return before

    def noted(self, task: int, which: int) -> bool:
        """Whether that was noted."""
        return bool(self.words[self._tasks_at + task * TASK_WORDS + which])

    def follow(self, task: int, follower: int) -> None:
        """Another task is to follow a task that is about to be enqueued."""
        self.words[self._tasks_at + task * TASK_WORDS + FOLLOWED] = follower + 1

    def follower_of(self, task: int) -> int | None:
        """What is to follow a task; None for nothing."""
        word = int(self.words[self._tasks_at + task * TASK_WORDS + FOLLOWED])
        return word - 1 if word else None

    def mean(self, task: int, periodic: int, time: int) -> None:
        """A task is about to be enqueued for a time of a periodic task, 0 or 1."""
        self.words[self._tasks_at + task * TASK_WORDS + MEANT] = 1 + periodic * TIMES + time

    def mean_nothing(self, task: int) -> None:
        """It was not."""
        self.words[self._tasks_at + task * TASK_WORDS + MEANT] = NOTHING

    def take_time(self, task: int) -> int | None:
        """A task that was started takes its time, if it has one.

        Returns:
            Another task that has it; -1 for one that never was to run; None where all is right.
        """
        meant = int(self.words[self._tasks_at + task * TASK_WORDS + MEANT])
        if not meant or meant == NOTHING:
            return -1 if meant else None
        at = self._times_at + meant - 1
        before = int(self.words[at])
        self.words[at] = task + 1
        return before - 1 if before not in (0, task + 1) else None

    def wanted_tasks(self) -> list[int]:
        """All tasks that anybody wanted to enqueue."""
        return [
            place * self.tasks_each + number
            for place in range(self.places)
            for number in range(self.field(place, NEXT))
        ]

    def lose(self, place: int, high: int) -> None:
        """Notes, before it happens, that a task is being given up with its dead worker."""
        number = self.field(place, LOST)
        self.words[self._lost_at + place * self._lost_each + number % self._lost_each] = high
        self.set_field(place, LOST, number + 1)

    def lost(self) -> set[int]:
        """First halves of the ids of all tasks that were given up."""
        found: set[int] = set()
        for place in range(self.places):
            start = self._lost_at + place * self._lost_each
            count = min(self.field(place, LOST), self._lost_each)
            found.update(self.words[start : start + count].tolist())
        return found

    # --- waits ----------------------------------------------------------------------------

    def note_wait(self, place: int, kind: str, wait_ns: int) -> None:
        """Counts one wait in its bucket."""
        bucket = _bucket(wait_ns // 1000)
        start = self._waits_at + (place * len(KINDS) + KINDS.index(kind)) * BUCKETS
        self.words[start + bucket] += 1

    def waits(self, kind: str) -> list[int]:
        """The buckets of all places."""
        sums = [0] * BUCKETS
        for place in range(self.places):
            start = self._waits_at + (place * len(KINDS) + KINDS.index(kind)) * BUCKETS
            for bucket, count in enumerate(self.words[start : start + BUCKETS].tolist()):
                sums[bucket] += count
        return sums


def _bucket(wait_us: int) -> int:
    bits = wait_us.bit_length()
    return wait_us if bits < 3 else min((bits - 2) * 4 + (wait_us >> bits - 3 & 3), BUCKETS - 1)


def _upper_us(bucket: int) -> int:
    return bucket + 1 if bucket < 4 else (bucket % 4 + 5) << bucket // 4 - 1


def percentile_ms(buckets: list[int], share: float) -> float:
    """The upper end of the bucket in which a percentile lies, in ms."""
    wanted = sum(buckets) * share
    met = 0
    for bucket, count in enumerate(buckets):
        met += count
        if count and met >= wanted:
            return _upper_us(bucket) / 1000
    return 0.0
