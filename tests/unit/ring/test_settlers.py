"""Several processes settle the same dead one at once."""

from typing import Any

import pytest

from django_tasks_local.ring import Loss, Role, loss_word, recovery
from tests import rings as peers
from tests.rings import Rings, put


def test_an_entry_that_another_one_has_by_now(
    rings: Rings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was slow to settle one process does not free the entry of the next one that died."""
    ring = rings.attach()
    ids = [put(ring) for _ in range(4)]

    def die_with_two_tasks() -> int:
        peer = rings.peer(role=Role.WORKER)
        for _ in range(2):
            assert peer.do(peers.claim) in ids
        peer.kill()
        return peer.index

    index = die_with_two_tasks()
    lost, listed = loss_word(Loss.UNKNOWN), recovery.owned_by
    met: list[int] = []

    def slowly(table: Any, owner: int) -> Any:
        found = listed(table, owner)
        if not met:
            met.append(0)
            ring.upkeep.settle(index, lost)  # by another process
            met.append(die_with_two_tasks())
        return found

    monkeypatch.setattr(recovery, "owned_by", slowly)
    ring.upkeep.settle(index, lost)
    assert met == [0, index]
    assert ring.upkeep.check() == []
    ring.upkeep.settle(index, lost)
    assert ring.upkeep.check() == []
    assert [ring.get(each).status.name for each in ids] == ["FAILED"] * 4
