"""Whether the rings of a site can be used and their tasks run, in sentences and numbers."""

import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from json import dumps
from time import monotonic, sleep
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured

from django_tasks_local.backends.process import ProcessPoolBackend
from django_tasks_local.exceptions import StoreUnavailable, counted
from django_tasks_local.moments import unix_ns
from django_tasks_local.naming import load_or_stand_in
from django_tasks_local.ring import MEMORY, Look, Role, directory_of
from django_tasks_local.store import task_path

from .rings import Found
from .text import harmless, span

FINE: Final = 0
LOOK_AT_IT: Final = 1
UNUSABLE: Final = 2
_WORDS: Final = ("fine", "look at it", "UNUSABLE")

MAX_WAIT_S: Final = 60.0
# A site starts a pool at once, and the next second again if that failed; a project may take some
# seconds to import, and while it does a pool is attached.
NO_POOL_S: Final = 10.0
# A process that has the lock for so long without a move is stopped. Shorter: one that merely has
# to wait for a processor; a check that takes longer runs into the limits of those who ask.
STUCK_S: Final = 1.0
# Which part of MAX_PENDING may wait before an operator should know.
NEARLY_FULL: Final = 0.9


@dataclass
class Health:
    """How one alias is.

    Attributes:
        alias: The backend's.
        status: `FINE`, `LOOK_AT_IT` or `UNUSABLE`.
        sentences: What is to be said, each with the status for which it is.
        facts: Numbers for programs.
    """

    alias: str
    status: int = FINE
    sentences: list[tuple[int, str]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def say(self, status: int, sentence: str) -> None:
        """Add a sentence; the worst status of all holds."""
        self.status = max(self.status, status)
        self.sentences.append((status, sentence))


def examine(backend: ProcessPoolBackend, max_wait_s: float) -> Health:
    """Return how an alias is. It takes no lock, makes no ring and starts nothing.

    Args:
        backend: The alias's.
        max_wait_s: How long a task that is due may wait.

    Raises:
        ValueError: ``max_wait_s`` is not a number of seconds.
    """
    if not max_wait_s >= 0:
        raise ValueError(f"{max_wait_s} must be 0 or more seconds.")
    health = Health(backend.alias)
    try:
        _examine(backend, max_wait_s, health)
    except (StoreUnavailable, ImproperlyConfigured) as error:
        health.say(UNUSABLE, str(error))
    return health


def worst(found: Iterable[Health], stranded: Collection[Found]) -> int:
    """Return the exit status: the worst that holds of any alias."""
    return max([LOOK_AT_IT if stranded else FINE, *(each.status for each in found)])


def report(
    found: Iterable[Health],
    stranded: Collection[Found],
    foreign: dict[str, str],
    *,
    as_json: bool,
) -> Iterator[str]:
    """Yield the lines to print.

    Args:
        found: What was examined.
        stranded: Rings of this project to which no alias leads.
        foreign: Aliases that were not examined, each with its backend's kind.
        as_json: One JSON object in place of sentences.
    """
    found = list(found)
    if as_json:
        aliases = {
            each.alias: {
                "status": each.status,
                "says": [sentence for _, sentence in each.sentences],
                **each.facts,
            }
            for each in found
        }
        yield dumps(
            {
                "status": worst(found, stranded),
                "aliases": aliases,
                "stranded": {each.ring.name: each.ring.unfinished for each in stranded},
                "not_examined": foreign,
            },
            indent=2,
        )
        return
    for each in found:
        for status, sentence in each.sentences:
            yield f"{_WORDS[status]}: {harmless(each.alias)}: {harmless(sentence)}"
    for ring in (each.ring for each in stranded):
        yield (
            f"{_WORDS[LOOK_AT_IT]}: {counted(ring.unfinished or 0, 'task')} stranded in "
            f"{ring.name}, to which no alias of this project leads any more: see "
            "`local_tasks rings`."
        )
    for alias, kind in foreign.items():
        yield f"not examined: {harmless(alias)}, {harmless(kind)}."


def _examine(backend: ProcessPoolBackend, max_wait_s: float, health: Health) -> None:
    name = backend.spec().name
    look = Look.into(name, backend.alias)
    if look is None:
        since = "since the host started" if directory_of(name) == MEMORY else "in this directory"
        health.say(FINE, f"There is no ring yet: nothing was enqueued {since}.")
        return
    attached = look.attached()
    pools = [entry for entry in attached if entry.role is Role.POOL]
    counts = look.counts()
    wait = _longest_wait(look, backend.alias, has_pool=bool(pools))
    health.facts = {
        "waiting": counts.waiting,
        "deferred": counts.deferred,
        "running": counts.running,
        "longest_wait_s": None if wait is None else round(wait[0], 1),
        "pools": len(pools),
        "sites": sum(entry.role is Role.SITE for entry in attached),
    }
    stuck = _stuck(look)
    if stuck is not None:
        who = f"Process {stuck}" if stuck > 0 else "A process in another pid namespace"
        health.say(
            UNUSABLE,
            f"{who} has the lock and does not let go, so that no other can enqueue: continue it "
            f"(kill -CONT {stuck if stuck > 0 else 'PID'}) or end it.",
        )
    if wait is not None:
        _examine_wait(look, health, wait, max_wait_s, has_pool=bool(pools))
    orphans = sum(not lives for _, lives in look.running()) if not attached else 0
    if orphans:
        health.say(
            LOOK_AT_IT,
            f"The workers of {counted(orphans, 'task')} have died, and no process is there to note "
            "that: local_worker or a request to the site does.",
        )
    limit = backend.checked_options.max_pending
    pending = counts.waiting + counts.deferred
    if pending >= NEARLY_FULL * limit:
        health.say(
            LOOK_AT_IT,
            f"{counted(pending, 'task')} wait, and at {limit:,} (MAX_PENDING) enqueue raises "
            "QueueFull.",
        )
    if health.status == FINE:
        health.say(
            FINE,
            f"{counts.waiting:,} waiting, {counts.deferred:,} deferred, "
            f"{counts.running:,} running.",
        )


def _examine_wait(
    look: Look, health: Health, wait: tuple[float, str], max_wait_s: float, *, has_pool: bool
) -> None:
    waited_s, what = wait
    if not has_pool and waited_s > min(NO_POOL_S, max_wait_s):
        starts = look.starts_in_vain()
        why = (
            f"The last {counted(starts, 'start')} of one came to nothing: the site's log says why."
            if starts > 1
            else "A site process starts one by its first request, local_worker at once."
        )
        health.say(LOOK_AT_IT, f"{what} has been due for {span(waited_s)}, and no pool runs. {why}")
    elif waited_s > max_wait_s:
        health.say(
            LOOK_AT_IT,
            f"{what} has been due for {span(waited_s)}, longer than the {span(max_wait_s)} of "
            "--max-wait: all workers are busy (local_tasks status), or MAX_WORKERS is too low.",
        )


def _longest_wait(look: Look, alias: str, *, has_pool: bool) -> tuple[float, str] | None:
    """Return how long the task has waited that waits longest, and which it is; None for none."""
    now_ns = time.time_ns()
    longest: tuple[int, str] | None = None
    for since_ns, found in look.waiting():
        if longest is not None and since_ns >= longest[0]:
            break  # the others may only have come later
        if has_pool and found.past and since_ns == found.past.last_started_at_ns:
            continue  # to be tried again, and since when it is due was not kept
        due_ns = _due_ns(since_ns, found.meta, alias)
        if longest is None or due_ns < longest[0]:
            longest = due_ns, f"{harmless(task_path(found.meta))} ({found.result_id})"
    return None if longest is None else (max(0, now_ns - longest[0]) / 1e9, longest[1])


def _due_ns(since_ns: int, meta: bytes, alias: str) -> int:
    """Return since when a task has been due that has waited since ``since_ns`` or less."""
    run_after = load_or_stand_in(meta, alias).run_after
    return max(since_ns, unix_ns(run_after)) if run_after else since_ns


def _stuck(look: Look) -> int | None:
    """Return the pid of a process that has had the lock for all of `STUCK_S`, None for none."""
    first, until = look.stuck_inside(), monotonic() + STUCK_S
    while first is not None and monotonic() < until:
        sleep(0.05)
        if look.stuck_inside() != first:
            return None
    return first
