"""What is sent, to Django's own receivers alone and to others."""

import logging
import signal as sys_signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from django.dispatch import Signal
from django.tasks import TaskResultStatus, signals

from django_tasks_local import announce as announcing
from django_tasks_local.announce import announce, is_heard

RESULT: Any = SimpleNamespace(
    id="an id", task=SimpleNamespace(module_path="a.path"), status=TaskResultStatus.FAILED,
    backend="default",
)  # fmt: skip
READY: Any = SimpleNamespace(**vars(RESULT) | {"status": TaskResultStatus.READY})
SIGNALS = [signals.task_enqueued, signals.task_started, signals.task_finished]


@pytest.fixture(params=SIGNALS, ids=["enqueued", "started", "finished"])
def signal(request: pytest.FixtureRequest) -> Iterator[Signal]:
    """A signal to which Django's own receiver alone is connected."""
    signal: Signal = request.param
    before = signal.receivers
    signal.receivers = before[:1]
    yield signal
    signal.receivers = before


class Sender:
    pass


@contextmanager
def logged() -> Iterator[list[tuple[str, int, Any]]]:
    """What Django's receiver writes, as (text, level, exc_info)."""
    found: list[tuple[str, int, Any]] = []

    def note(record: logging.LogRecord) -> bool:
        found.append((record.getMessage(), record.levelno, record.exc_info))
        return False

    django_logger = logging.getLogger("django.tasks")
    level = django_logger.level
    django_logger.setLevel(logging.DEBUG)
    django_logger.addFilter(note)
    try:
        yield found
    finally:
        django_logger.removeFilter(note)
        django_logger.setLevel(level)


def test_django_logs_the_same_as_with_send_robust(signal: Signal) -> None:
    """Its receiver is called with the exception that is being handled."""
    with logged() as found:
        try:
            raise KeyError("a key")
        except KeyError:
            announce(signal, Sender, RESULT)
            signal.send_robust(Sender, task_result=RESULT)
    assert found[0] == found[1]
    assert len(found) == 2


def test_other_receivers_get_it_beside_djangos(signal: Signal) -> None:
    """Also one for this sender alone, connected last."""
    got: list[tuple[Any, Any]] = []

    def receiver(sender: Any, task_result: Any, **kwargs: Any) -> None:
        got.append((sender, task_result))

    signal.connect(receiver, sender=Sender)
    with logged() as found:
        announce(signal, Sender, RESULT)
    assert got == [(Sender, RESULT)]
    assert len(found) == 1


def test_a_receiver_in_the_place_of_djangos(signal: Signal) -> None:
    """A project may disconnect Django's, and connect its own or none."""
    got: list[Any] = []

    def receiver(task_result: Any, **kwargs: Any) -> None:
        got.append(task_result)

    signal.receivers = []
    with logged() as found:
        announce(signal, Sender, RESULT)
        assert got == []
        signal.connect(receiver)
        announce(signal, Sender, RESULT)
    assert got == [RESULT]
    assert not found


def test_djangos_receiver_may_raise(signal: Signal, caplog: pytest.LogCaptureFixture) -> None:
    """As where a filter of the log raises: who enqueues must get the task's id."""

    def refuse(record: logging.LogRecord) -> bool:
        raise ValueError("a filter's")

    with logged():
        logger = logging.getLogger("django.tasks")
        logger.filters.insert(0, refuse)
        try:
            announce(signal, Sender, RESULT)
        finally:
            logger.removeFilter(refuse)
    assert "Task id=an id: a signal receiver raised" in caplog.text


class TimeLimit(Exception):
    """What a signal handler raises."""


@pytest.fixture
def interrupted() -> Iterator[None]:
    """A process in which SIGUSR2 raises."""

    def over(*_: object) -> None:
        raise TimeLimit

    before = sys_signal.signal(sys_signal.SIGUSR2, over)
    yield
    sys_signal.signal(sys_signal.SIGUSR2, before)


@pytest.mark.usefixtures("interrupted")
@pytest.mark.parametrize("alone", [True, False])
def test_what_a_signal_handler_raises_goes_on(signal: Signal, alone: bool) -> None:
    """A task that enqueues in a loop is in a receiver when its time limit comes, often enough."""

    def receiver(record: object = None, **kwargs: Any) -> bool:
        sys_signal.raise_signal(sys_signal.SIGUSR2)
        return True

    if not alone:
        signal.connect(receiver)
    with logged():
        logger = logging.getLogger("django.tasks")
        if alone:
            logger.filters.insert(0, receiver)
        try:
            with pytest.raises(TimeLimit):
                announce(signal, Sender, RESULT)
        finally:
            if alone:
                logger.removeFilter(receiver)


@pytest.fixture
def tasks_logger() -> Iterator[logging.Logger]:
    """Django's logger, whose level comes back."""
    logger = logging.getLogger("django.tasks")
    level = logger.level
    yield logger
    logger.setLevel(level)


def test_what_nobody_logs_costs_no_call(
    signal: Signal, tasks_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the task has failed, or Django's receiver is one that we do not know."""
    called: list[Any] = []
    key, function, level = announcing._OWN[signal]
    assert level is not None

    def own(level: int | None) -> None:
        monkeypatch.setitem(announcing._OWN, signal, (key, lambda *args: called.append(1), level))

    own(level)
    tasks_logger.setLevel(level)
    announce(signal, Sender, READY)
    assert (len(called), is_heard(signal)) == (1, True)
    tasks_logger.setLevel(logging.WARNING)
    announce(signal, Sender, READY)
    assert (len(called), is_heard(signal)) == (1, False)
    announce(signal, Sender, RESULT)
    assert len(called) == 2
    own(announcing._level_of(lambda: function))
    announce(signal, Sender, READY)
    assert (len(called), is_heard(signal)) == (3, True)
