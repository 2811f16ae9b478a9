"""Rings that sites share by mistake, or should share and do not."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.test import override_settings

from django_tasks_local.pool import neighbours as module
from django_tasks_local.pool.neighbours import warn_of_other_rings, warn_of_strangers
from django_tasks_local.ring import Ring, Role, ring_name, sites_elsewhere, unlink_objects
from tests.rings import LIMITS, Rings
from tests.support import wait_for

PATH = "/srv/site/settings.py"


@pytest.fixture
def other() -> Iterator[Rings]:
    """Another ring, to which only peers attach."""
    other = Rings()
    yield other
    other.close()


def found(other: Rings) -> list[tuple[int, str]]:
    """The sites in it, by pid and path."""
    return [(site.pid, site.path) for site in sites_elsewhere() if site.ring == other.name]


def test_living_sites_are_seen(other: Rings) -> None:
    """With their settings; who only reads, and who died, is none."""
    site = other.peer(path=PATH)
    reader = other.peer(role=Role.VISITOR, path=PATH)
    assert found(other) == [(site.pid, PATH)]
    site.kill()
    wait_for(lambda: not found(other))
    reader.end()
    assert found(other) == []


def test_what_is_no_ring_of_a_site(other: Rings) -> None:
    """A test run's ring, and whatever else has such a name."""
    other.peer(path=PATH, temporary=True)
    assert found(other) == []
    for content in (b"", b"x" * 100_000, bytes(200_000)):
        name = f"/dtl-{os.geteuid()}-{uuid4().hex[:12]}"
        Path(f"/dev/shm{name}s").write_bytes(content)
        try:
            assert name not in [site.ring for site in sites_elsewhere()]
        finally:
            unlink_objects(name)


def test_our_own_ring_is_left_alone(rings: Rings) -> None:
    """To open and close its file would drop our record locks."""
    ring = rings.attach(path=PATH)
    peer = rings.peer(path=PATH)
    assert not [site for site in sites_elsewhere() if site.ring == rings.name]
    index = ring.registry.index
    assert peer.do(is_alive, index)


def is_alive(mine: Any, index: int) -> bool:
    """Done by a peer."""
    alive: bool = mine.ring.registry.alive(index)
    return alive


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ring]:
    """A ring whose name goes back to SECRET_KEY, in a process that has not looked yet."""
    monkeypatch.setattr(module, "_looked", set())
    name = ring_name("process", "from SECRET_KEY")
    ring = Ring(name, "process", LIMITS, Role.SITE, path=PATH)
    yield ring
    ring.attachment.detach()
    unlink_objects(name)


def test_the_same_settings_in_another_ring(
    ours: Ring, other: Rings, caplog: pytest.LogCaptureFixture
) -> None:
    """It names the cause, the other process and the way out, once."""
    site = other.peer(path=f"{PATH}:/srv/site/job.py")
    for _ in range(2):
        warn_of_other_rings(ours, "from SECRET_KEY")
    assert len(caplog.records) == 1
    assert f"the process {site.pid} has the same settings ({PATH}) and another ring" in caplog.text
    assert "SECRET_KEY at random" in caplog.text
    assert "NAMESPACE" in caplog.text


@pytest.mark.parametrize("path", ["/srv/other/settings.py", ""])
def test_other_settings_in_another_ring(
    ours: Ring, other: Rings, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """That is another site."""
    other.peer(path=path)
    warn_of_other_rings(ours, "from SECRET_KEY")
    assert caplog.text == ""


def test_a_namespace_says_that_it_is_wanted(
    ours: Ring, other: Rings, caplog: pytest.LogCaptureFixture
) -> None:
    """Then nothing is looked for."""
    other.peer(path=PATH)
    warn_of_other_rings(ours, "another")
    assert caplog.text == ""


def test_the_rings_of_our_other_aliases(ours: Ring, caplog: pytest.LogCaptureFixture) -> None:
    """Each alias has one, by its own NAMESPACE or the default one."""
    others = []
    namespace = uuid4().hex
    for alias, options in (("second", {}), ("third", {"NAMESPACE": namespace})):
        other = Rings()
        other.name = ring_name(alias, options.get("NAMESPACE", "from SECRET_KEY"))
        other.peer(path=PATH)
        others.append(other)
    try:
        with override_settings(
            TASKS={"second": {"BACKEND": "x"}, "third": {"OPTIONS": {"NAMESPACE": namespace}}}
        ):
            warn_of_other_rings(ours, "from SECRET_KEY")
        assert caplog.text == ""
    finally:
        for other in others:
            other.close()


GREEN = "/srv/green/settings.py"


def warnings_of(rings: Rings, caplog: pytest.LogCaptureFixture, path: str = GREEN) -> int:
    """How often a process that becomes a site now warns of strangers; it leaves again."""
    caplog.clear()
    ring = rings.attach(path=path)
    warn_of_strangers(ring)
    ring.attachment.detach()
    return len(caplog.records)


def test_two_sites_in_one_ring(rings: Rings, caplog: pytest.LogCaptureFixture) -> None:
    """The first process that sees the other site names both, and the way out."""
    blue = rings.peer(path=PATH)
    assert warnings_of(rings, caplog) == 1
    assert f"the process {blue.pid} shares this ring and has its settings at {PATH}" in caplog.text
    assert f"this one at {GREEN}." in caplog.text
    assert "NAMESPACE" in caplog.text
    assert warnings_of(rings, caplog, path=PATH) == 0


def test_a_recycled_web_worker_warns_no_more(
    rings: Rings, caplog: pytest.LogCaptureFixture
) -> None:
    """Where both sites had a process before it: the later of those has warned."""
    rings.peer(path=PATH)
    green = rings.peer(path=GREEN)
    assert warnings_of(rings, caplog) == 0
    assert warnings_of(rings, caplog, path=PATH) == 0
    green.kill()
    assert warnings_of(rings, caplog) == 1
    # Its only web worker was recycled, and its pool is still there.
    rings.peer(role=Role.POOL, path=GREEN)
    assert warnings_of(rings, caplog) == 0


def test_a_pool_that_outlives_its_site_is_no_stranger(
    rings: Rings, caplog: pytest.LogCaptureFixture
) -> None:
    """The release before, stopped and deployed anew at another path, still drains."""
    first = rings.peer(path=PATH)
    rings.peer(role=Role.POOL, path=PATH)
    first.end()
    assert warnings_of(rings, caplog) == 0
