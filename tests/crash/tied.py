"""Tasks with follow-ups, for the crash tests: what is there, and whether that is right."""

from __future__ import annotations

from typing import Any, Final

from django.tasks import TaskResultStatus

from django_tasks_local.ring import Ring
from django_tasks_local.ring.records.listing import Listing
from django_tasks_local.ring.records.reader import STATUSES, Found
from django_tasks_local.ties import FollowUp, Ties
from tests.rings import tally_of

TIED: Final = b"tests.tied_tasks:work"
THEN: Final = b"tests.tied_tasks:note_more"
FAILING: Final = b"tests.tied_tasks:note"
GROUP: Final = "tied"
# Before anything that a scene enqueues.
FIRST: Final = 100


def ties_of(ring: Ring, slots: int = 0) -> Ties:
    """Ties of a task that is followed, however it ends; the follow-ups need so many slots more."""
    large = ring.encode(((b"t" * (512 * slots),), {})) if slots else None
    first = FollowUp(THEN, large, FIRST, 7, tally=tally_of(ring))  # the other is not counted
    plan = first, FollowUp(FAILING, None, FIRST, 8, group="other")
    return Ties(GROUP, "", 0, 1, plan)


def put_tied(ring: Ring, slots: int = 0, priority: int = FIRST, due_ns: int = 0) -> str:
    """Enqueues a task that is followed."""
    arguments, ties = ring.encode(((), {})), ties_of(ring, slots)
    return ring.enqueue(
        TIED, arguments, priority=priority, due_ns=due_ns, ties=ties, tally=tally_of(ring)
    )[0]


def following(ring: Ring, result_id: str) -> list[Found]:
    """The tasks that follow another one."""
    found = Listing(ring._table, ring._reader).records(list(STATUSES), group=GROUP)
    return [each for each in found if each.ties.after == result_id]


def judge(ring: Ring, result_id: str, slots: int = 0) -> TaskResultStatus:
    """Checks that what follows a task is there once it has ended, once, and not before.

    Returns:
        The task's status.
    """
    found, followers = ring.get(result_id), following(ring, result_id)
    if not found.finished_at_ns:
        assert followers == []
        return found.status
    (follower,) = followers
    succeeded = found.status is TaskResultStatus.SUCCESSFUL
    assert follower.meta == (THEN if succeeded else FAILING)
    assert follower.head.time_limit == (7 if succeeded else 8)
    text = b"t" * (512 * slots)
    assert follower.arguments() == (((text,), {}) if succeeded and slots else ((result_id,), {}))
    assert (follower.ties.group, follower.ties.plan) == (GROUP, found.ties.plan)
    assert ring.unfinished_in(GROUP).count(follower.result_id) == (not follower.finished_at_ns)
    return found.status


def drain_tied(ring: Ring) -> list[bytes]:
    """Runs the tasks with ties, which come first, and returns what ran."""
    ran: list[Any] = []
    while ring.unfinished_in(GROUP):
        claim = ring.claim()
        assert claim is not None
        ran.append(claim.meta)
        ring.finish(claim, successful=True, outcome=ring.encode(None))
        assert len(ran) < 9
    return ran
