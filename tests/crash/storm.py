"""One process of a storm of cancellations: it enqueues, and cancels its own tasks and others'.

Run as ``python -m tests.crash.storm NUMBER TASKS FOLDER``. It prints a JSON object that says for
each id what each call of `cancel` has returned, and ends when its standard input does.
"""

import json
import os
import random
import select
import sys
from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import django
from django.tasks import TaskResultStatus

AT_ONCE: Final = 20
# Of all tasks, about so many are cancelled; some of those by several processes.
CANCELLED: Final = 0.4


class Cancelling:
    """Cancels what any process of the storm has enqueued, soon after it was."""

    def __init__(self, rng: random.Random, ids: Path) -> None:
        self._rng = rng
        self._ids = ids
        self._read = 0
        self._next: list[str] = []
        self.answers: defaultdict[str, list[bool]] = defaultdict(list)

    def go_on(self) -> None:
        """Cancel some of the tasks that were chosen, and choose among those that are new."""
        self._next += [each for each in self._new_ids() if self._rng.random() < CANCELLED / 2]
        self._rng.shuffle(self._next)
        # The others later: by then they run, or have ended.
        for _ in range(self._rng.randint(0, len(self._next))):
            self._cancel(self._next.pop())
        if self._rng.random() < 0.5:
            self._cancel_running()
        select.select([], [], [], self._rng.uniform(0, 0.01))

    def end(self) -> None:
        """Cancel all that were chosen."""
        while self._next:
            self._cancel(self._next.pop())

    def _cancel_running(self) -> None:
        from django_tasks_local import results

        for found in results(status=TaskResultStatus.RUNNING, limit=1):
            self._cancel(found.id)

    def _cancel(self, result_id: str) -> None:
        from django_tasks_local import cancel

        answer = cancel(result_id)
        self.answers[result_id].append(answer)
        assert answer or is_finished(result_id), f"{result_id} had not ended: cancel() was False"

    def _new_ids(self) -> Iterator[str]:
        with self._ids.open("rb") as file:
            file.seek(self._read)
            lines = file.read().splitlines(keepends=True)
        for line in lines:
            if line.endswith(b"\n"):  # else it is still being written
                self._read += len(line)
                yield line.decode().strip()


def is_finished(result_id: str) -> bool:
    """Return whether a task has ended."""
    from django.tasks import default_task_backend

    return default_task_backend.get_result(result_id).is_finished


def enqueue(rng: random.Random, log: str) -> str:
    """Enqueue a task of a random kind."""
    from tests.crash import storm_tasks as tasks

    task: Any = tasks.brief.using(priority=rng.choice((-5, 0, 0, 5)))
    args: tuple[Any, ...] = (log,)
    chance = rng.random()
    if chance < 0.01:
        task = tasks.stubborn
    elif chance < 0.2:
        task, args = tasks.compute, (log, rng.uniform(0, 0.01))
    elif chance < 0.4:
        task, args = tasks.rest, (log, rng.uniform(0, 0.02))
    elif chance < 0.45:
        task = task.using(run_after=timedelta(seconds=rng.uniform(0.02, 0.3)))
    return str(task.enqueue(*args).id)


def main(number: int, tasks: int, folder: Path) -> None:
    """Enqueue and cancel, until all tasks are enqueued and all that were chosen cancelled."""
    rng = random.Random(number)
    ids = folder / "ids"
    cancelling = Cancelling(rng, ids)
    descriptor = os.open(ids, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for _ in range(tasks // AT_ONCE):
        own = [enqueue(rng, str(folder / "runs")) for _ in range(AT_ONCE)]
        os.write(descriptor, "".join(f"{each}\n" for each in own).encode())
        # Not all at once, or nearly every task would still be waiting when it is cancelled.
        while not is_finished(rng.choice(own)):
            cancelling.go_on()
    cancelling.end()
    print(json.dumps(cancelling.answers), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    django.setup()
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
