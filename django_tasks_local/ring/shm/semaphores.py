"""A ring's semaphores as one process has them open: the mutex's, and one for each code's workers.

Removed names (systemd's RemoveIPC) are made again by newcomers. Words in the header say what the
names stand for, so that those who have the old ones open notice.
"""

import posix_ipc

from django_tasks_local.ring.format import layout as at

from .objects import MUTEX, open_semaphore, work_letters
from .places import inode_of, semaphore_path
from .segment import Segment


class Semaphores:
    """See above. A process opens the semaphore of a code when it needs it.

    Attributes:
        mutex: Wake-ups for those who wait for the mutex.
        work: Wake-ups for the workers of this process's code; None before it has one.
    """

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._words = segment.words
        self._code = -1
        self.work: posix_ipc.Semaphore | None = None
        self.mutex: posix_ipc.Semaphore = self._open(MUTEX)
        self._show()

    def take_code(self, code: int) -> None:
        """Open the semaphore on which the workers of our code wait."""
        if self.work is None and code >= 0:
            self._code = code
            self.work = self._open(work_letters(code))
            self._show()

    def wake_ups(self) -> int:
        """Return how many wake-ups of our code's workers nobody has taken yet."""
        return self.work.value if self.work is not None else 0

    def wake(self, count: int, code: int = -1) -> None:
        """Wake up to so many idle workers, of our code or of another one."""
        work = self.work if code in (-1, self._code) else self._open(work_letters(code))
        if work is not None:
            for _ in range(count - work.value):
                work.release()

    def reopen(self) -> bool:
        """Open those that others use now, and return whether there was anything to do."""
        if self._shown() == self._seen or self._segment.unlinked():
            return False
        self.mutex = self._open(MUTEX)
        if self.work is not None:
            self.work = self._open(work_letters(self._code))
        self._show()
        return True

    def _open(self, letters: str) -> posix_ipc.Semaphore:
        # A removed ring is worked off by its pool; new names would outlive it.
        held = self._segment.semaphores
        if letters not in held or not self._segment.unlinked():
            held[letters] = open_semaphore(self._segment.semaphore_name + letters)
        return held[letters]

    def _show(self) -> None:
        words, name = self._words, self._segment.semaphore_name
        words[at.H_SEMAPHORE] = inode_of(semaphore_path(name + MUTEX))
        if self.work is not None:
            inode = inode_of(semaphore_path(name + work_letters(self._code)))
            words[at.code_word(self._code, at.C_SEMAPHORE)] = inode
        self._seen = self._shown()

    def _shown(self) -> tuple[int, int]:
        work = at.code_word(self._code, at.C_SEMAPHORE) if self._code >= 0 else at.H_SEMAPHORE
        return self._words[at.H_SEMAPHORE], self._words[work]
