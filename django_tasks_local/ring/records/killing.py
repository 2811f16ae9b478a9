"""Kills that a pool decides on, each noted in the record of its task before it is made.

Between the decision and the signal the task may end, and its worker may claim the next one. So the
reason is written into the record inside the lock, where its commit word still names slot,
generation and worker; from then on the worker cannot finish that task, nor go on to another one,
and the process that settles the record tells the noted reason, whatever ended the worker.
"""

from typing import NamedTuple

from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.head import S_STARTED_AT, S_STOP
from django_tasks_local.ring.shm.entries import Entry
from django_tasks_local.ring.shm.mutex import Mutex

from .loss import BY_KILL, STOP_ASKED, Loss, kill_note, loss_word, noted_loss
from .table import Table


class Run(NamedTuple):
    """One attempt of one task: its slot, its commit word, which no other task has, and its start.

    A worker may run one task several times, with the same commit word.
    """

    slot: int
    word: int
    started_at_ns: int


class Killing:
    """How a pool notes that it is about to kill a worker."""

    def __init__(self, table: Table, mutex: Mutex) -> None:
        self._table = table
        self._words = table.words
        self._mutex = mutex

    def run_of(self, worker: Entry) -> Run | None:
        """Return what a worker runs right now, None where it runs nothing (no lock)."""
        table = self._table
        if not table.is_run_by(worker.slot, worker.index):
            return None
        head = table.offset(worker.slot) // 8
        run = Run(
            worker.slot, self._words[table.commit + worker.slot], self._words[head + S_STARTED_AT]
        )
        # The word may have changed between the two looks.
        mine = run.word >> at.OWNER_SHIFT & at.OWNER_MASK == worker.index
        return run if mine and run.word >> at.STATE_SHIFT == at.RUNNING else None

    def note(self, run: Run, loss: int) -> bool:
        """Note why the worker of a run is to be killed; the signal comes after it.

        Args:
            run: As from `run_of`. What was measured since then belongs to that task.
            loss: A `loss_word` with a reason in `KILLED`.

        Returns:
            Whether that task still runs, and may be killed. False as well where a process is inside
            the ring for long: ask again later.
        """
        return bool(self._mutex.try_run(self._note, run, loss))

    def _note(self, run: Run, loss: int) -> bool:
        words, table = self._words, self._table
        head = table.offset(run.slot) // 8
        if (words[table.commit + run.slot], words[head + S_STARTED_AT]) != run[1:]:
            return False
        # One store, and nothing is derived from it: no death leaves it half done.
        stop = head + S_STOP
        noted = noted_loss(words[stop])
        if noted and words[stop] != STOP_ASKED:
            return True  # it is being killed, and the first reason stands
        # The caller of `cancel` was told that it will be cancelled: so it ends as that.
        words[stop] = kill_note(loss_word(Loss.CANCELLED, BY_KILL) if noted else loss)
        return True
