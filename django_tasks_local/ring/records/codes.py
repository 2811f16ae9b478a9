"""The codes whose tasks are in a ring: at most eight releases at a time, each with a number.

A code is what a pool would run if it were started now: which settings, which interpreter with which
packages. Its files may still change in place; its pool notices that (see ``pool.loaded_files``). A
record names its code by number, so a number must keep its meaning as long as anything uses it.
"""

import time
from collections.abc import Container, Iterable
from hashlib import blake2s
from typing import Final

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.head import S_ORIGIN
from django_tasks_local.ring.shm.entries import Entry, Role
from django_tasks_local.ring.shm.lock import ByteLock, pool_byte, successor_byte

from .table import Table

# A release without any process for so long has gone. Shorter: a server that replaces a killed web
# worker, and imports for long, finds its tasks run by another release. Longer: what a release has
# left waits for longer.
GONE_S: Final = 15.0


def code_digest(*parts: str) -> int:
    """Return what tells one code from another: 64 bits, never 0."""
    digest = blake2s("\0".join(parts).encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1


class Codes:
    """The table of codes (changes: in the lock).

    Attributes:
        module: The settings module of this process where it is a site; "" for none.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._segment = table.segment
        self._words = table.words
        self._order = table.order
        # When this process saw a site or a pool of a code last, by its digest.
        self._seen: dict[int, float] = {}
        self.module = ""

    def find(self, digest: int) -> int:
        """Return the number of a code, -1 where the table does not have it."""
        return next((code for code in range(at.CODES) if self.digest(code) == digest), -1)

    def digest(self, code: int) -> int:
        """Return the digest of a code, 0 for a number that is free."""
        return self.field(code, at.C_DIGEST)

    def field(self, code: int, which: int) -> int:
        """Return one word of a code."""
        word: int = self._words[at.code_word(code, which)]
        return word

    def path(self, code: int) -> str:
        """Return what a code is called: the end of its settings file's path."""
        length = min(self.field(code, at.C_PATH_BYTES), at.CODE_PATH_BYTES)
        start = at.code_word(code, at.C_PATH) * 8
        return bytes(self._segment.bytes[start : start + length]).decode(errors="replace")

    def take(self, digest: int, path: str, attached: Container[int]) -> int:
        """Return the number of a code, given to it if need be (in the lock).

        Args:
            digest: The code's.
            path: What it is called in texts.
            attached: The numbers that living processes have.

        Raises:
            StoreUnavailable: All numbers are in use. Nothing was written.
        """
        found = self.find(digest)
        if found >= 0:
            return found
        running = self._running()
        free = [
            code
            for code in range(at.CODES)
            if code not in running and not self._in_use(code, attached)
        ]
        # The one that has been out of use for longest.
        for code in sorted(free, key=lambda each: self.field(each, at.C_NEWEST)):
            if self._give(code, digest, path):
                return code
        raise StoreUnavailable(
            f"{at.CODES} releases (settings, interpreter, virtualenv) have processes or unfinished "
            "tasks in it, and there is no room for another",
            path=self._segment.path,
            fix="end old releases (`manage.py local_tasks status` lists their processes), or give "
            "this one another NAMESPACE",
        )

    def note_module(self) -> None:
        """Note whose ring it is, for lists of rings: of the site that came last (in the lock).

        Its length is written last: a death before that leaves none.
        """
        words, data = self._words, self._segment.bytes
        tail = self.module.encode(errors="replace")[-at.MODULE_BYTES :]
        start = at.H_MODULE * 8 + 8
        end = start + len(tail)
        if tail and (words[at.H_MODULE] != len(tail) or data[start:end] != tail):
            words[at.H_MODULE] = 0
            data[start:end] = tail
            words[at.H_MODULE] = len(tail)

    def orphans(self, living: Iterable[Entry]) -> int:
        """Return the codes (a bit for each) with unfinished tasks, and nobody to run them.

        No site of theirs is attached, and no pool: their release has gone. One that this process
        has seen lately may be between two web workers, and its tasks wait for its own code.
        """
        now = time.monotonic()
        cared_for = {entry.code for entry in living if entry.role is Role.SITE}
        orphans = 0
        for code in range(at.CODES):
            digest = self.digest(code)
            if code in cared_for or (digest and self.has_pool(code)):
                self._seen[digest] = now
            elif now - self._seen.get(digest, -GONE_S) >= GONE_S and self.has_tasks(code):
                orphans |= 1 << code
        return orphans

    def heir(self, living: Iterable[Entry]) -> int:
        """Return the code whose pool adopts orphans: the newest site's, or else the newest pool's.

        -1 where neither is there.
        """
        ranks = {Role.SITE: 2, Role.POOL: 1}
        heirs = [(ranks[e.role], e.serial, e.code) for e in living if e.role in ranks]
        return max(heirs)[2] if heirs else -1

    def cared_for(self, code: int, living: Iterable[Entry]) -> tuple[bool, bool]:
        """Return whether a pool of a code would run tasks that wait, and some that are deferred."""
        numbers = {code} - {-1}
        if code >= 0 and code == self.heir(living):
            orphans = self.orphans(living)
            numbers |= {each for each in range(at.CODES) if orphans >> each & 1}
        waiting = any(any(self._order.waiting_in(each)) for each in numbers)
        return waiting, any(self.field(each, at.C_DEFERRED) for each in numbers)

    def runnable(self, share: at.Share) -> int:
        """Return how many waiting tasks a share allowed a moment ago (outside the lock)."""
        code, runnable_up_to, adopted = share
        waiting, newer = self._order.waiting_in(code)
        if runnable_up_to >= self.field(code, at.C_NEWEST):
            waiting += newer
        others = (other for other in range(at.CODES) if adopted >> other & 1 and other != code)
        return waiting + sum(sum(self._order.waiting_in(other)) for other in others)

    def has_pool(self, code: int) -> bool:
        """Return whether a pool of that code serves, or is on its way; never our own (1 µs)."""
        fd = self._segment.fd
        return ByteLock(fd, pool_byte(code)).held() or ByteLock(fd, successor_byte(code)).held()

    def _in_use(self, code: int, attached: Container[int]) -> bool:
        return code in attached or self.has_tasks(code) or self.has_pool(code)

    def _running(self) -> set[int]:
        """Return the codes of tasks that run, as another code's or not: they may wait again.

        It looks at what each process has claimed last.
        """
        words, table = self._words, self._table
        end = at.REGISTRY_AT + min(words[at.H_ENTRIES_USED], at.ENTRIES) * at.ENTRY_WORDS
        current = words[at.REGISTRY_AT + at.E_CURRENT : end : at.ENTRY_WORDS].tolist()
        return {
            at.code_of(words[table.offset(slot) // 8 + S_ORIGIN])
            for index, slot in enumerate(current)
            if slot and table.is_run_by(slot, index)
        }

    def has_tasks(self, code: int) -> bool:
        """Return whether tasks of a code wait, or are deferred."""
        return any(self._order.waiting_in(code)) or bool(self.field(code, at.C_DEFERRED))

    def _give(self, code: int, digest: int, path: str) -> bool:
        """Give a number a new meaning; return False where a pool of the old one came in between."""
        words, start = self._words, at.code_word(code, 0)
        before = words[start + at.C_DIGEST]
        words[start + at.C_DIGEST] = 0
        # A pool that is about to start takes its byte first, and then looks at the digest.
        if self.has_pool(code):
            words[start + at.C_DIGEST] = before
            return False
        for field in range(at.C_DIGEST + 1, at.C_PATH):
            words[start + field] = 0
        tail = path.encode(errors="replace")[-at.CODE_PATH_BYTES :]
        place = (start + at.C_PATH) * 8
        self._segment.bytes[place : place + len(tail)] = tail
        words[start + at.C_PATH_BYTES] = len(tail)
        words[start + at.C_DIGEST] = digest  # last: a death before leaves the number free
        return True
