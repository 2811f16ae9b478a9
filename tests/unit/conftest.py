"""What the tests of the ring's rooms and of the commands share."""

from collections.abc import Callable, Iterator
from threading import TIMEOUT_MAX, Event
from typing import Any

import pytest
from django.tasks import task_backends
from django.test import override_settings

from django_tasks_local.ring import Ring, Role
from tests.rings import Rings
from tests.settings import TASKS


@pytest.fixture
def rings() -> Iterator[Rings]:
    """Return a ring of the test's own to which nobody is attached yet."""
    made = Rings()
    yield made
    made.close()


@pytest.fixture
def ring(rings: Rings) -> Ring:
    """Return a small ring of the test's own with this process attached as a site."""
    return rings.attach()


@pytest.fixture
def wake(monkeypatch: pytest.MonkeyPatch) -> Event:
    """Set, it wakes the threads that look after rings, which until then never tick."""
    event = Event()
    monkeypatch.setattr("django_tasks_local.pool.site.until_tick_s", lambda: TIMEOUT_MAX)
    monkeypatch.setattr("time.sleep", event.wait)
    return event


@pytest.fixture
def site_ring(namespace: str) -> Iterator[Callable[[], Ring]]:
    """Settings with one process backend; makes its ring, and attaches as a site that enqueued."""
    attached: list[Ring] = []

    def attach() -> Ring:
        backend: Any = task_backends["process"]
        spec = backend.spec()
        attached.append(Ring(spec.name, "process", spec.limits, Role.SITE, path="/a/settings.py"))
        return attached[0]

    backend = "django_tasks_local.ProcessPoolBackend"
    options = {"NAMESPACE": namespace, "MAX_WORKERS": 2}
    with override_settings(TASKS=TASKS | {"process": {"BACKEND": backend, "OPTIONS": options}}):
        yield attach
        made: Any = task_backends["process"]
        made.close()
        for each in attached:
            each.attachment.detach()
