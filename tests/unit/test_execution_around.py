"""What is around a task while it runs: wrappers of its call, the context, transactions."""

from collections.abc import Iterator
from functools import partial, wraps
from types import FunctionType
from typing import Any

import pytest
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.tasks import Task
from django.utils import timezone, translation

from django_tasks_local import execution
from tests import tasks
from tests.watched import Claim, WatchedStore, go

SEEN: list[str] = []  # what a wrapper was called with; a module's, for code without a closure


class Wrapper:
    """What some libraries put in place of a function: an object that passes for it."""

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return partial(by_function(self.wrapped), instance)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)


def by_function(original: Any) -> Any:
    """A function of its own around the original."""

    @wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        SEEN.append(self.name)
        return original(self, *args, **kwargs)

    return call


def by_code(original: Any) -> Any:
    """A function with other code in it, under the same file name."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        SEEN.append(self.name)
        return self.func(*args, **kwargs)

    code = call.__code__.replace(co_filename=original.__code__.co_filename)
    return FunctionType(code, globals(), "call")


@pytest.mark.parametrize("wrap", [Wrapper, by_function, by_code])
def test_wrappers_of_call_see_each_task(wrap: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing libraries replace `Task.call` on the class, or what is in it."""
    SEEN.clear()
    store = WatchedStore([])
    monkeypatch.setattr(Task, "call", wrap(Task.call))
    go(store, Claim(tasks.add, 1, 2))
    assert ("finish", True, 3) in store.events
    assert SEEN == ["add"]


def test_call_as_django_has_it() -> None:
    """Is known as such, or each task costs 1.5 µs more."""
    assert execution._DJANGOS_CALL is Task.call.__code__


def test_translation_and_time_zone_end_with_the_task() -> None:
    """The next task in that thread has those of the settings."""
    store = WatchedStore([])
    before = translation.get_language(), timezone.get_current_timezone_name()
    go(store, Claim(tasks.activate, "de", "Asia/Tokyo"))
    assert ("finish", True, ("de", "Asia/Tokyo")) in store.events
    assert (translation.get_language(), timezone.get_current_timezone_name()) == before


@pytest.fixture
def in_memory() -> Iterator[BaseDatabaseWrapper]:
    """The default database is SQLite in this thread's memory."""
    connection = connections["default"]
    connection.close()
    name, connection.settings_dict["NAME"] = connection.settings_dict["NAME"], ":memory:"
    yield connection
    if connection.connection is not None:
        connection.connection.close()
        connection.connection = None
    connection.settings_dict["NAME"] = name


def test_an_open_transaction_is_rolled_back(
    in_memory: BaseDatabaseWrapper, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the connection cannot be closed."""
    store = WatchedStore([])
    for _ in range(2):
        go(store, Claim(tasks.leave_transaction))
        assert not in_memory.in_atomic_block
        assert in_memory.get_autocommit()
        with transaction.atomic(durable=True), in_memory.cursor() as cursor:
            cursor.execute("select 1")
    assert caplog.text.count("left a transaction open") == 2


def test_a_transaction_from_before_the_task_stays(
    in_memory: BaseDatabaseWrapper, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a test's own."""
    store = WatchedStore([])
    with transaction.atomic():
        go(store, Claim(tasks.nothing))
        assert in_memory.in_atomic_block
    assert "transaction" not in caplog.text
