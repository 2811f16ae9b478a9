"""The views of the package, as a project routes them."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory, override_settings

from django_tasks_local.ring import Ring
from django_tasks_local.ring.shm.places import segment_path
from django_tasks_local.views import health
from tests.crash.steps import in_child
from tests.rings import put


def get(**options: Any) -> tuple[int, dict[str, Any]]:
    """The status of an answer, and what it says of the alias ``process``."""
    answer = health(RequestFactory().get("/health"), **options)
    assert answer["Content-Type"] == "application/json"
    assert "no-store" in answer["Cache-Control"]
    facts: dict[str, Any] = json.loads(answer.content)["aliases"]["process"]
    return answer.status_code, facts


def test_health_for_load_balancers(site_ring: Callable[[], Ring]) -> None:
    """200 if all is well, or a task waits, unless that is to be told too; it changes nothing."""
    status, facts = get()
    assert (status, facts["status"]) == (200, 0)
    assert facts["says"] == ["There is no ring yet: nothing was enqueued since the host started."]
    ring = site_ring()
    waiting = put(ring)
    assert get()[0] == 200
    before = bytes(ring.segment.bytes)

    def look() -> None:
        status, facts = get(max_wait=0)
        assert (status, facts["status"]) == (200, 1)
        assert waiting in facts["says"][0]
        assert get(max_wait=0, strict=True)[0] == 503

    in_child(look)
    assert bytes(ring.segment.bytes) == before


@pytest.mark.parametrize("value", [-1, float("nan")])
def test_a_wrong_time(value: float) -> None:
    """It stands in the project's URLs."""
    with pytest.raises(ImproperlyConfigured, match=f"max_wait {value} must be 0 or more seconds"):
        get(max_wait=value)


def test_a_ring_that_cannot_be_used(
    site_ring: Callable[[], Ring], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503, with the sentence that the command prints."""
    ring = site_ring()
    name = ring.name

    def look() -> None:
        with open(segment_path(name), "r+b") as file:
            file.truncate(4096 * 3)
        status, facts = get()
        assert (status, facts["status"]) == (503, 2)
        assert "was cut to" in facts["says"][0]

    size = ring.segment.geometry.segment_bytes
    before = bytes(ring.segment.bytes)
    in_child(look)
    with open(segment_path(name), "r+b") as file:
        file.truncate(size)
    ring.segment.bytes[:] = before


def test_only_reading_is_allowed(site_ring: Callable[[], Ring]) -> None:
    """And a site without process pools is healthy."""
    factory = RequestFactory()
    assert health(factory.post("/health")).status_code == 405
    assert health(factory.head("/health")).status_code == 200
    dummy = "django.tasks.backends.dummy.DummyBackend"
    with override_settings(TASKS={"default": {"BACKEND": dummy}}):
        answer = health(factory.get("/health"))
        assert answer.status_code == 200
        assert json.loads(answer.content)["not_examined"] == {"default": "a DummyBackend"}
