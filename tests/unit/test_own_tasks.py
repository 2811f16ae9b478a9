"""Which tasks a script remembers, and how it waits for them at its end."""

import threading
import time
from array import array
from datetime import datetime, timedelta
from typing import Any

import pytest

from django_tasks_local.pool import own_tasks
from django_tasks_local.ring.format.ids import parse_id
from tests.unit.test_site import Make, enqueue, finish_all, make, started

__all__ = ["make", "started"]


def test_a_script_remembers_what_is_unfinished(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number it forgets what is done; a web process remembers nothing."""
    monkeypatch.setattr(own_tasks, "REMEMBERED", 4)
    site = make()
    for _ in range(4):
        enqueue(site)
    finish_all(site.ring)
    last = enqueue(site)
    assert site._own is not None
    assert site._own._ids == array("Q", parse_id(last)[1:])
    site.serve()
    enqueue(site)
    assert site._own is None


def test_what_stays_unfinished_is_looked_at_rarely(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each task costs a script the same: a look at all of them comes when they have doubled."""
    monkeypatch.setattr(own_tasks, "REMEMBERED", 1)
    site = make()
    looks: list[int] = []
    unfinished = site.ring.upkeep.unfinished

    def count(ids: "array[int]") -> "array[int]":
        looks.append(len(ids) // 2)
        return unfinished(ids)

    monkeypatch.setattr(site.ring.upkeep, "unfinished", count)
    for _ in range(12):
        enqueue(site)
    assert looks == [2, 5, 11]
    finish_all(site.ring)


def test_it_says_until_when_it_waits(
    make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a task is not due yet, the moment of the last one is said."""
    site = make()
    enqueue(site)
    due = datetime.now().astimezone().replace(microsecond=0) + timedelta(hours=30)
    enqueue(site, due_ns=int(due.timestamp()) * 10**9)
    enqueue(site)

    def give_up(seconds: float) -> None:
        raise KeyboardInterrupt

    assert site._own is not None
    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", give_up)
        with pytest.raises(KeyboardInterrupt):
            site._own.wait("alias", lambda: site.ring, lambda: None)
    err = capsys.readouterr().err
    assert "waiting for 3 tasks of 'alias' that this script enqueued, the last of which is " in err
    assert f"due at {due:%Y-%m-%d %H:%M:%S %Z} (Ctrl-C leaves them in the ring" in err


def test_it_waits_for_its_own_tasks(
    make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At exit, saying so on standard error; not where another site is there to take over."""
    site = make()
    enqueue(site)
    monkeypatch.setattr(site, "tick", lambda: 1 / 0)  # what fails there is logged
    real = time.sleep

    def run_tasks_meanwhile(seconds: float) -> None:
        if threading.current_thread() is threading.main_thread():
            finish_all(site.ring)
        else:  # the one that looks whether all is well
            real(seconds)

    monkeypatch.setattr(time, "sleep", run_tasks_meanwhile)
    site.end()
    err = capsys.readouterr().err
    assert "waiting for 1 task of 'alias' that this script enqueued (Ctrl-C leaves it in" in err
    assert site.closed
    second, other = make(), make()
    other.serve()
    enqueue(second)
    second.end()
    assert capsys.readouterr().err == ""
    finish_all(other.ring)


def test_what_another_thread_adds_meanwhile(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is remembered, though those before it are just being looked at."""
    monkeypatch.setattr(own_tasks, "REMEMBERED", 1)
    site = make()
    own: Any = own_tasks.OwnTasks()
    unfinished = site.ring.upkeep.unfinished

    def add_meanwhile(ids: "array[int]") -> "array[int]":
        found = unfinished(ids)
        own._limit = 100
        own.add(site.ring, parse_id(later)[1:], 0)
        return found

    first, second, later = (enqueue(site) for _ in range(3))
    monkeypatch.setattr(site.ring.upkeep, "unfinished", add_meanwhile)
    for each in (first, second):
        own.add(site.ring, parse_id(each)[1:], 0)
    kept = own._ids.tolist()
    assert sorted(kept) == sorted(w for each in (first, second, later) for w in parse_id(each)[1:])
    finish_all(site.ring)
