"""Lists as a site process shows them."""

from typing import Any

import pytest
from django.tasks import TaskResultStatus

from django_tasks_local.pool import starts
from django_tasks_local.pool.site import Site
from django_tasks_local.pool.spec import PoolSpec
from tests import rings as peers
from tests.rings import LIMITS, Rings


def test_the_tasks_of_the_dead_are_lost(rings: Rings, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `get` shows them, where no other process has settled them yet."""
    monkeypatch.setattr(starts, "start_pool", lambda *_: None)
    site = Site(PoolSpec(rings.name, "alias", LIMITS, "namespace", temporary=False))
    try:
        result_id = peers.put(site.ring)
        peer = rings.peer()
        assert peer.do(peers.claim) == result_id
        running: Any = {TaskResultStatus.RUNNING}
        assert [each.result_id for each in site.listed(running, None)] == [result_id]
        peer.kill()
        assert list(site.listed(running, None)) == []
        (lost,) = site.listed({TaskResultStatus.FAILED}, None)
        assert lost.loss is not None
    finally:
        site.close()
