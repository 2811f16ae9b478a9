"""The audit of the tallies: what was counted against what is there, and its repair."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format import tally

if TYPE_CHECKING:
    from .records import Audit


class _Sums(NamedTuple):
    """What must fit together in one tally."""

    enqueued: int
    unfinished: int  # that are there: READY and RUNNING
    started: int
    running: int  # that are there
    ended: int  # attempts
    retried: int
    taken_out: int

    @property
    def over(self) -> int:
        """How many tasks have ended for good."""
        return self.ended - self.retried + self.taken_out


def tally_problems(audit: Audit) -> list[str]:
    """Return where counts do not fit the records: each accepted task is there, or has ended."""
    problems = [
        f"word {(place - at.TALLIES_AT) % at.TALLY_WORDS} of tally "
        f"{(place - at.TALLIES_AT) // at.TALLY_WORDS} is {audit.words[place]}"
        for place in _damaged(audit)
    ]
    found = _sums(audit)
    for number, sums in found.items():
        if sums.enqueued != sums.over + sums.unfinished:
            problems.append(
                f"tally {number} has {sums.enqueued} tasks enqueued, {sums.over} that have ended, "
                f"and {sums.unfinished} are there"
            )
        if sums.started != sums.ended + sums.running:
            problems.append(
                f"tally {number} has {sums.started} attempts started, {sums.ended} that have ended,"
                f" and {sums.running} run"
            )
    if found and not audit.words[at.H_TALLIED]:
        problems.append("TALLIED is 0, and there are tallies that count")
    return problems


def repair_tallies(audit: Audit) -> None:
    """Make the counts fit the records, when those are whole again.

    What was accepted and is nowhere any more, was lost. No count gets smaller, but for those that
    are beyond belief: their tally begins again.
    """
    words = audit.words
    for place in _damaged(audit):
        words[place] = 0
    for number, sums in _sums(audit).items():
        if sums.enqueued + sums.started + sums.ended > tally.MOST // 4:
            for which in range(tally.K_ENQUEUED, tally.K_END):
                words[tally.word_of(number, which)] = 0
    for number, sums in _sums(audit).items():
        words[at.H_TALLIED] = 1
        lost = max(0, sums.enqueued - sums.over - sums.unfinished)
        lost = max(lost, sums.started - sums.ended - sums.running)
        first = tally.word_of(number, 0)
        words[first + tally.LOST] += lost
        words[first + tally.K_WAITED] += sums.ended + lost + sums.running - sums.started
        words[first + tally.K_ENQUEUED] += sums.over + lost + sums.unfinished - sums.enqueued


def _sums(audit: Audit) -> dict[int, _Sums]:
    """Return by number what is in the tallies that count anything, or are named by a record."""
    ready, running = (_numbers(audit, state) for state in (at.READY, at.RUNNING))
    found, used = {}, _used(audit)
    for number in sorted({*used, *ready, *running} - {tally.NOT_COUNTED}):
        words = used.get(number, _NOTHING)
        if any(words[tally.K_ENQUEUED :]) or ready[number] or running[number]:
            retried = words[tally.RETRIED : tally.RETRIED + tally.BUCKETS]
            found[number] = _Sums(
                words[tally.K_ENQUEUED], ready[number] + running[number],
                sum(words[tally.K_WAITED : tally.K_RAN]), running[number],
                sum(words[tally.K_RAN : tally.K_END]), sum(retried), words[tally.K_TAKEN_OUT],
            )  # fmt: skip
    return found


def _numbers(audit: Audit, state: int) -> Counter[int]:
    heads = map(audit.table.head, audit.states[state])
    return Counter(tally.number_in(head.origin) for head in heads)


def _used(audit: Audit) -> dict[int, list[int]]:
    """Return the words of the tallies in which there is anything, by number."""
    size = at.TALLY_WORDS * 8
    start = at.TALLIES_AT * 8
    data = bytes(audit.table.bytes[start : start + at.TALLIES * size])
    parts = (data[place : place + size] for place in range(0, len(data), size))
    return {
        number: memoryview(part).cast("Q").tolist()
        for number, part in enumerate(parts)
        if part != _EMPTY
    }


def _damaged(audit: Audit) -> list[int]:
    """Return the words that nobody counts up to, and the lengths that no name has."""
    return [
        tally.word_of(number, which)
        for number, words in _used(audit).items()
        for which, (word, most) in enumerate(zip(words, _MOST, strict=True))
        if word > most
    ]


def _most(which: int) -> int:
    """Return what a word of a tally is at most."""
    if which == tally.K_NAME_BYTES:
        return tally.NAME_BYTES
    if which < tally.K_ENQUEUED:  # of the name
        return 1 << at.WORD_BITS
    return tally.MOST_NS if which in (tally.K_WAITED_NS, tally.K_RAN_NS) else tally.MOST


_MOST = [_most(which) for which in range(at.TALLY_WORDS)]
_NOTHING = [0] * at.TALLY_WORDS
_EMPTY = bytes(8 * at.TALLY_WORDS)
