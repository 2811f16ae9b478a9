"""What a worker sees between two tasks without asking for each thing."""

from collections.abc import Callable

import pytest

from django_tasks_local.ring import PoolState, Ring, Role, Signs, ask_nothing
from django_tasks_local.ring.format import layout as at
from tests.rings import Rings

# What a worker has to know, and whether it has to look again at every turn.
CHANGES: dict[str, tuple[Callable[[Ring], object], bool]] = {
    "the pool leaves": (lambda pool: pool.registry.set_state(PoolState.LEAVING), False),
    "it allows more sites": (
        lambda pool: pool.registry.set_field(at.E_RUNNABLE_UP_TO, 7), False,
    ),
    "it adopts tasks of other codes": (
        lambda pool: pool.registry.set_field(at.E_ADOPTED, 7), False,
    ),
    "it has gone": (lambda pool: pool.attachment.detach(), False),
    "a worker more": (lambda pool: _add(pool, at.H_POOL_WORKERS), False),
    "MAX_WORKERS": (lambda pool: _add(pool, at.H_MAX_WORKERS), False),
    "another pool is short of workers": (lambda pool: _add(pool, at.H_WANTED), True),
    "a loss is to be announced": (lambda pool: _add(pool, at.H_UNTOLD + 3), True),
    "a new site": (lambda pool: _add(pool, at.code_word(0, at.C_NEWEST)), False),
}  # fmt: skip


def _add(pool: Ring, word: int) -> None:
    pool.words[word] += 1


@pytest.mark.parametrize("change", CHANGES)
def test_a_sign_changes(rings: Rings, change: str) -> None:
    """And nothing else that happens in a ring is one: tasks that come, run and end."""
    site = rings.attach()
    pool = rings.attach(role=Role.POOL)
    signs = Signs(pool.segment, pool.registry.index, 0)
    seen = signs.read()
    site.enqueue(b"m:task", b"", priority=0, due_ns=0)
    claim = site.claim()
    assert claim is not None
    site.finish(claim, successful=True, outcome=b"")
    assert signs.read() == seen
    assert ask_nothing(seen)
    do, asks = CHANGES[change]
    do(pool)
    assert signs.read() != seen
    assert ask_nothing(signs.read()) is not asks
