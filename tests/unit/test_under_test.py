"""What a process knows of its test run."""

import logging
import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.signals import connection_created

from django_tasks_local import under_test


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A process under test, with databases but no threads or pools; what was called to end them."""
    called: list[str] = []
    monkeypatch.setattr(under_test, "under_test", lambda: True)
    monkeypatch.setattr(under_test, "_databases", lambda: {"default": "test_shop"})
    monkeypatch.setattr(under_test, "_ends", [lambda: called.append("end")])
    under_test._shown.clear()  # what tests before this one have shown
    yield called
    under_test._shown.clear()


def connect(alias: str) -> None:
    """What Django says of a new connection."""
    connection_created.send(sender=None, connection=SimpleNamespace(alias=alias))


def test_the_end_comes_before_databases_go(ends: list[str]) -> None:
    """A connection to no database announces it; others mean nothing."""
    connect("default")
    assert ends == []
    connect(NO_DB_ALIAS)
    assert ends == ["end"]


def test_the_end_of_what_has_other_databases(
    ends: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool that was told of other databases than there are now ends, once."""
    assert under_test.databases() == {"default": "test_shop"}
    connect("default")
    assert ends == []
    monkeypatch.setattr(under_test, "_databases", lambda: {"default": "another"})
    connect("default")
    connect("default")
    assert ends == ["end"]


def test_a_pool_has_nothing_to_end(ends: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It belongs to the test run that started it, and is ended by that."""
    assert under_test.test_run() == str(os.getpid())
    monkeypatch.setattr(under_test, "_told", ["1234"])
    assert under_test.test_run() == "1234"
    connect(NO_DB_ALIAS)
    assert ends == []


def test_an_end_that_fails(
    ends: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, the others are called, and the connection is made."""

    def fail() -> None:
        raise OSError("no")

    monkeypatch.setattr(under_test, "_ends", [fail, *under_test._ends])
    with caplog.at_level(logging.ERROR, "django_tasks_local"):
        connect(NO_DB_ALIAS)
    assert "could not be ended" in caplog.text
    assert ends == ["end"]
