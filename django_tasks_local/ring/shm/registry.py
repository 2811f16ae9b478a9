"""Who is attached to a ring, and who of them lives.

Every attached process has an entry and holds a record lock on that entry's own byte. The kernel
drops the lock with the process, so asking for it tells life from death without a pid: across pid
namespaces, and never fooled by a pid that was given to another process.
"""

import os
import time
from collections.abc import Iterator

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring.format import layout as at

from .entries import ROLES, Entry, PoolState, Role
from .lock import LIVENESS, ByteLock
from .segment import Segment


class Registry:
    """The registry as this process sees it. Methods with "in the lock" need the mutex.

    Attributes:
        words: All of the ring.
        index: This process's entry, -1 before `register`.
        entry: The word index of that entry.
        commit: What stands there as long as the entry is ours: it may be settled, and given
            to others.
        serial: This attachment's number.
        worker: This process as a record names it.
        code: The number of this process's code, -1 for a visitor.
        newest: The serial of the site whose files the tasks that we enqueue may need: ourselves;
            or, since a task that enqueues tasks must not look newer than any site, the newest of
            our code when we attached.
        origin: Both, as a record names them.
        lane: Where what we enqueue goes, if tasks of sites up to `newest` may run.
        runnable_word: The word that says up to which serial they may.
        pid: This process.
        path: The end of its settings file's path, as others see it.
        schedule: The digest of this site's SCHEDULE, which it takes with it.
    """

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self.words = segment.words
        self._bytes: dict[int, ByteLock] = {}
        self.entry = at.REGISTRY_AT
        self.commit = -1
        self._state = 0
        self._pool = 0
        self._pool_commit = 0
        self.index = -1
        self.serial = 0
        self.worker = 0
        self.code = -1
        self.newest = 0
        self.origin = 0
        self.lane = at.LANES_AT
        self.runnable_word = at.code_word(0, at.C_RUNNABLE_UP_TO)
        self.pid = os.getpid()
        self.path = ""
        self.schedule = 0
        self._tail = b""
        self._share = at.Share(0, 0)

    def attached_ns(self) -> int:
        """Return when this process was attached (Unix ns)."""
        return self.field(self.index, at.E_SINCE)

    def register(self, role: Role, path: str, *, code: int = -1, pool: int = -1) -> None:
        """Take a free entry for this process (in the lock).

        Raises:
            StoreUnavailable: All entries are taken by living processes.
        """
        self._tail = path.encode(errors="replace")[-at.PATH_BYTES :]
        self.path = self._tail.decode(errors="replace")
        if pool >= 0:
            self._pool = self._named(pool)
            self._pool_commit = self.field(pool, at.E_COMMIT)
        self._take_entry()
        self.become(role, code)

    def _take_entry(self) -> None:
        """Take a free entry, and fill it but for its commit word."""
        words = self.words
        for index, commit in enumerate(self._commits(at.ENTRIES)):
            if commit or self._ours(index):
                continue
            if self._byte(index).acquire():
                break
        else:
            raise StoreUnavailable(
                f"all {at.ENTRIES} places for attached processes are taken",
                path=self._segment.path,
                fix="run fewer web workers, or give part of them another NAMESPACE",
            )
        entry = self._at(index)
        if index >= words[at.H_ENTRIES_USED]:
            words[at.H_ENTRIES_USED] = index + 1
        words[entry + at.E_PID] = self.pid
        words[entry + at.E_SINCE] = time.time_ns()
        for field in range(at.E_CURRENT, at.E_POOL):  # the rest is set below
            words[entry + field] = 0
        words[entry + at.E_STATE] = self._state
        words[entry + at.E_POOL] = self._pool
        words[entry + at.E_SCHEDULE] = self.schedule
        words[entry + at.E_PATH_BYTES] = len(self._tail)
        start = (entry + at.E_PATH) * 8
        self._segment.bytes[start : start + len(self._tail)] = self._tail
        self.index = index
        self.entry = entry
        self._segment.entries[index] = self.pid

    def become(self, role: Role, code: int) -> None:
        """Commit this process's entry under a role, a code and a new serial (in the lock)."""
        words = self.words
        self.serial = words[at.H_SERIAL] = words[at.H_SERIAL] + 1 & at.SERIAL_MASK
        self.worker = self.pid << 32 | self.serial
        self.code = code
        if code >= 0:
            newest = at.code_word(code, at.C_NEWEST)
            if role is Role.SITE:
                words[newest] = self.serial
            self.newest = words[newest] & at.SERIAL_MASK
            self.origin = code << at.CODE_SHIFT | self.newest
            self.lane = at.LANES_AT + 2 * code * at.LANE_WORDS
            self.runnable_word = at.code_word(code, at.C_RUNNABLE_UP_TO)
        self.commit = role << at.ROLE_SHIFT | code + 1 << at.CODE_SHIFT | self.serial
        words[self._at(self.index)] = self.commit

    def hold(self, pid: int = 0) -> bool:
        """Take our liveness lock once more; return False if our entry is no longer ours (0.9 µs).

        The kernel drops our record locks when anything in this process closes any descriptor of
        the ring's file (a monitor that reads /dev/shm). It tells nobody, and does not show us our
        own locks; but taking one twice is the same as once. A process that took us for dead has
        freed the entry meanwhile, and perhaps another one has it now.

        Args:
            pid: The calling process, if the caller has just asked for it.
        """
        if self.index < 0 or (pid or os.getpid()) != self.pid:
            return False
        byte = self._bytes[self.index]
        if byte.attempt():
            return False
        if self.words[self.entry] != self.commit:
            byte.release()
            return False
        if self.index >= self.words[at.H_ENTRIES_USED]:  # damage would hide us from the others
            self.words[at.H_ENTRIES_USED] = self.index + 1
        return True

    def owned(self) -> bool:
        """Return whether our entry's commit word is the one that we have put there."""
        return bool(self.words[self.entry] == self.commit)

    def ensure(self) -> None:
        """Take another entry, in the same role and order, where ours was settled (in the lock).

        Raises:
            StoreUnavailable: All entries are taken by living processes.
        """
        if self.words[self.entry] != self.commit:
            self._segment.entries.pop(self.index, None)
            self._take_entry()
            self.words[self._at(self.index)] = self.commit

    def release(self, index: int) -> None:
        """Free an entry (in the lock): our own, or a dead one's after it was settled (rule 7)."""
        self.words[self._at(index)] = 0
        if index == self.index:
            self._byte(index).release()
            self._segment.entries.pop(index, None)
            self.index = -1

    def alive(self, index: int) -> bool:
        """Return whether the process behind an entry lives (0.5 µs). Any number may be asked."""
        # The kernel does not name us our own locks, so another attachment of this process would
        # pass for dead.
        return self._ours(index) or self._byte(index).held()

    def holder(self, index: int) -> int | None:
        """Return the pid of the other process behind an entry, None for a dead one."""
        return self._byte(index).holder()

    def attachments(self) -> Iterator[Entry]:
        """Yield all entries in use, dead ones included."""
        words = self.words
        for index in range(min(words[at.H_ENTRIES_USED], at.ENTRIES)):
            entry = self._at(index)
            commit = words[entry]
            if commit == 0:
                continue
            yield Entry(
                index=index,
                role=ROLES.get(commit >> at.ROLE_SHIFT, Role.VISITOR),
                pid=words[entry + at.E_PID],
                serial=commit & at.SERIAL_MASK,
                since_ns=words[entry + at.E_SINCE],
                alive=self._ours(index) or self._byte(index).looks_held(),
                slot=words[entry + at.E_CURRENT],
                pool=self.pool_of(index),
                state=words[entry + at.E_STATE],
                code=code_in(commit),
                schedule=words[entry + at.E_SCHEDULE],
            )

    def roles(self) -> Iterator[tuple[int, int]]:
        """Yield all entries in use with their roles, dead ones included."""
        used = min(self.words[at.H_ENTRIES_USED], at.ENTRIES)
        for index, commit in enumerate(self._commits(used)):
            if commit:
                yield index, commit >> at.ROLE_SHIFT

    def latest_serial(self) -> int:
        """Return the serial of the attachment that came last."""
        return int(self.words[at.H_SERIAL])

    def codes(self) -> set[int]:
        """Return the numbers of the codes that living processes have."""
        used, found = min(self.words[at.H_ENTRIES_USED], at.ENTRIES), set()
        for index, commit in enumerate(self._commits(used)):
            code = code_in(commit)
            if code >= 0 and code not in found and self.alive(index):
                found.add(code)
        return found

    def path_of(self, index: int) -> str:
        """Return the end of the settings file's path of an entry's process."""
        length = min(self.field(index, at.E_PATH_BYTES), at.PATH_BYTES)
        start = (self._at(index) + at.E_PATH) * 8
        return bytes(self._segment.bytes[start : start + length]).decode(errors="replace")

    def in_use(self, index: int) -> bool:
        """Return whether an entry is in use, by the dead or the living, whatever the number."""
        return index < at.ENTRIES and self.field(index, at.E_COMMIT) != 0

    def field(self, index: int, which: int) -> int:
        """Return one word of an entry."""
        word: int = self.words[self._at(index) + which]
        return word

    def pool_of(self, index: int) -> int:
        """Return the entry of a worker's pool, -1 for none or if another process has it."""
        word = self.field(index, at.E_POOL)
        pool = (word & at.SERIAL_MASK) - 1
        return pool if 0 <= pool < at.ENTRIES and self._named(pool) == word else -1

    def has_pool(self, index: int) -> bool:
        """Return whether an entry is that of a pool's worker, be the pool there or not."""
        return self.field(index, at.E_POOL) != 0

    def _named(self, pool: int) -> int:
        # With its serial: a dead pool's entry may be given to another process before its workers'
        # entries are settled.
        if pool < 0:
            return 0
        serial = self.words[self._at(pool) + at.E_COMMIT] & at.SERIAL_MASK
        return int(serial << 32 | pool + 1)

    def serves(self, pool: int) -> bool:
        """Return whether a worker's pool is still there, and not about to leave."""
        return (
            self.field(pool, at.E_COMMIT) == self._pool_commit
            and self.field(pool, at.E_STATE) != PoolState.LEAVING
        )

    @property
    def role(self) -> Role:
        """What this process is."""
        return ROLES[self.commit >> at.ROLE_SHIFT]

    def code_of(self, index: int) -> int:
        """Return the number of the code of an entry's process, -1 for none."""
        return code_in(self.field(index, at.E_COMMIT))

    def state(self, index: int) -> int:
        """Return a pool's state, a `PoolState`; of a worker its bits."""
        return self.field(index, at.E_STATE)

    def set_state(self, state: int) -> None:
        """Say what this process does."""
        self._state = state
        if self.owned():
            self.set_field(at.E_STATE, state)

    def set_schedule(self, digest: int) -> None:
        """Say which SCHEDULE this site has, before it becomes one and whenever that changes."""
        self.schedule = digest
        if self.index >= 0 and self.owned():
            self.set_field(at.E_SCHEDULE, digest)

    def marked(self, bit: int) -> bool:
        """Return whether that bit of this worker's state is set."""
        return bool(self._state & bit)

    def mark(self, bit: int, there: bool) -> None:
        """Set or clear a bit of this worker's state (in the lock: threads of a task do it, too)."""
        self.set_state(self._state | bit if there else self._state & ~bit)

    def share(self, index: int) -> at.Share:
        """Return which tasks a pool of our code, with that entry, and its workers may claim."""
        entry, words = self._at(index), self.words
        bound, adopted = words[entry + at.E_RUNNABLE_UP_TO], words[entry + at.E_ADOPTED]
        share = self._share
        if bound != share.runnable_up_to or adopted != share.adopted or self.code != share.code:
            share = self._share = at.Share(max(self.code, 0), bound, adopted)
        return share

    def set_field(self, which: int, value: int) -> None:
        """Store one word of our own entry; readers see the old or the new one."""
        self.words[self._at(self.index) + which] = value

    def put(self, index: int, which: int, value: int) -> None:
        """Store one word of any entry (in the lock; for repairs)."""
        self.words[self._at(index) + which] = value

    def _commits(self, count: int) -> list[int]:
        """Return the commit words of the first entries, read at once (20 µs for all)."""
        end = at.REGISTRY_AT + count * at.ENTRY_WORDS
        words: list[int] = self.words[at.REGISTRY_AT : end : at.ENTRY_WORDS].tolist()
        return words

    def _ours(self, index: int) -> bool:
        return self._segment.entries.get(index) == self.pid

    def _at(self, index: int) -> int:
        return at.REGISTRY_AT + index * at.ENTRY_WORDS

    def _byte(self, index: int) -> ByteLock:
        byte = self._bytes.get(index)
        if byte is None:
            byte = self._bytes[index] = ByteLock(self._segment.fd, LIVENESS + index)
        return byte


def code_in(commit: int) -> int:
    """Return the number of the code in the commit word of an entry, -1 for none."""
    code: int = (commit >> at.CODE_SHIFT & 0xFF) - 1
    return code if code < at.CODES else -1
