"""Which web processes attach before their first request, and what they then look after."""

import os
import sys
import types
from dataclasses import replace
from typing import Any

import pytest

from django_tasks_local import under_test
from django_tasks_local.pool import attaching, connections, serving
from django_tasks_local.ring import Entry, PoolState, Ring, Role
from django_tasks_local.schedules import EMPTY, Schedule, read
from tests.children import in_a_child
from tests.support import wait_for
from tests.unit.test_site import Make, enqueue, finish_all, make, started, watchers

__all__ = ["make", "started"]

SCHEDULE = read({"job": {"task": "tests.tasks.noop", "every": 60}})
OTHER = read({"job": {"task": "tests.tasks.noop", "every": 61}})


def entry_of(ring: Ring) -> Entry:
    """What others see of a process."""
    index = ring.registry.index
    return next(each for each in ring.registry.attachments() if each.index == index)


# --- the site -------------------------------------------------------------------------------------


def test_a_server_with_a_schedule_starts_a_pool(make: Make, started: list[Any]) -> None:
    """Nobody has enqueued anything, and no request has come."""
    site = make(schedule=SCHEDULE)
    site.keep_pool()
    assert entry_of(site.ring).state == PoolState.SERVING
    assert watchers() == 1
    site.tick()
    assert len(started) == 1


def test_a_server_without_one_does_not(make: Make, started: list[Any]) -> None:
    """It starts a pool for what waits."""
    site = make()
    site.keep_pool()
    site.tick()
    assert started == []


def test_a_script_with_a_schedule_does_not(make: Make, started: list[Any]) -> None:
    """A pool that runs its own tasks is all that it asks for."""
    site = make(schedule=SCHEDULE)
    enqueue(site)
    assert len(started) == 1
    finish_all(site.ring)
    site.ring.leadership.forget_failures()
    site.tick()
    assert len(started) == 1


def test_where_the_ring_is_busy_the_ticks_go_on(
    make: Make, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process was inside for long when the server started."""
    site = make(schedule=SCHEDULE)
    with monkeypatch.context() as patch:
        patch.setattr(site.ring.attachment, "become", lambda role, needed: False)
        site.keep_pool()
        site.tick()
        assert started == []
    site.tick()
    site.tick()
    assert entry_of(site.ring).role is Role.SITE
    assert len(started) == 1


def test_others_see_which_schedule_a_site_has(make: Make) -> None:
    """Before they see that it is one, after it was taken for dead, and when it has changed."""
    site = make(schedule=SCHEDULE)
    assert entry_of(site.ring).schedule == SCHEDULE.digest
    site.keep_pool()
    assert entry_of(site.ring).schedule == SCHEDULE.digest
    site.ring.registry.release(site.ring.registry.index)
    site.ring.attachment.take_place()
    assert entry_of(site.ring).schedule == SCHEDULE.digest
    site.change(replace(site.spec, schedule=OTHER))
    assert entry_of(site.ring).schedule == OTHER.digest != SCHEDULE.digest


# --- the process ----------------------------------------------------------------------------------


class Backend:
    """What is asked of a ProcessPoolBackend; it notes what it was told to do."""

    def __init__(self, schedule: Schedule) -> None:
        self.alias = "alias"
        self.checked_options = types.SimpleNamespace(schedule=schedule)
        self.upkeep = types.SimpleNamespace(has_unfinished=lambda: True, has_work=lambda: False)
        self.kept: list[int] = []

    def spec(self) -> Any:
        return types.SimpleNamespace(name="/dtl-nobody-000000000000")

    def site(self) -> Any:
        return types.SimpleNamespace(
            keep_pool=lambda: self.kept.append(os.getpid()),
            ring=types.SimpleNamespace(upkeep=self.upkeep),
        )


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    """The only one in TASKS, in a process that no test run owns."""
    made = Backend(SCHEDULE)
    monkeypatch.setattr(connections, "for_each_backend", lambda do: do(made))
    monkeypatch.setattr(under_test, "under_test", lambda: False)
    monkeypatch.setattr(attaching, "_masters", set())
    return made


@pytest.mark.parametrize(
    ("server", "in_master", "schedule", "unfinished", "kept"),
    [
        (True, False, SCHEDULE, False, True),
        (True, False, EMPTY, True, True),
        (True, False, EMPTY, False, False),
        (True, True, SCHEDULE, True, False),
        (False, False, SCHEDULE, True, False),
    ],
    ids=["schedule", "deferred task", "nothing to do", "master", "script"],
)
def test_who_begins_at_once(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, server: bool, in_master: bool,
    schedule: Schedule, unfinished: bool, kept: bool,
) -> None:  # fmt: skip
    """A process that serves and has something to do; no master, and no script."""
    backend.checked_options.schedule = schedule
    monkeypatch.setattr(attaching, "ring_exists", lambda name: unfinished)
    monkeypatch.setattr(attaching, "is_server", lambda: server)
    monkeypatch.setattr(attaching, "makes_workers", lambda: in_master)
    attaching.attach_at_start()
    assert backend.kept == ([os.getpid()] if kept else [])


def test_workers_of_a_master_begin_after_they_were_forked(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each once, and not what such a worker forks itself."""
    monkeypatch.setattr(attaching, "TICK_S", 0.0)
    monkeypatch.setattr(attaching, "is_server", lambda: True)
    monkeypatch.setattr(attaching, "makes_workers", lambda: True)
    attaching.attach_at_start()

    def grandchild() -> None:
        assert not attaching._masters

    def child() -> None:
        wait_for(lambda: backend.kept == [os.getpid()])
        in_a_child(grandchild)

    in_a_child(child)
    assert backend.kept == []


@pytest.mark.parametrize(("program", "master"), [("gunicorn", True), ("uvicorn", False)])
def test_gunicorn_without_a_worker_on_the_stack_is_a_master(
    monkeypatch: pytest.MonkeyPatch, program: str, master: bool
) -> None:
    """Its workers load the application in ``init_process``."""
    monkeypatch.setattr(sys, "argv", [program])
    assert serving.makes_workers() is master

    def init_process() -> bool:
        return serving.makes_workers()

    assert not init_process()


@pytest.mark.parametrize(("worker", "master"), [(0, True), (1, False)])
def test_uwsgi_says_what_it_is(monkeypatch: pytest.MonkeyPatch, worker: int, master: bool) -> None:
    """The number of the worker, 0 in the process that forks them."""
    uwsgi: Any = types.ModuleType("uwsgi")
    uwsgi.worker_id = lambda: worker
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    assert serving.makes_workers() is master
