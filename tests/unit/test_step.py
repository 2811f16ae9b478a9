"""A step that fails: logged, tried again with growing pauses, never raised."""

import logging

import pytest

from django_tasks_local.pool import step as module
from django_tasks_local.pool.step import LONGEST_PAUSE_S, REPEAT_S, Step


class Clock:
    """Time that passes when it is told to."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time as the module sees it."""
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


class Failing:
    """A function that raises what it is told to."""

    def __init__(self) -> None:
        self.error: Exception | None = OSError("no process")
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        if self.error:
            raise self.error


def test_a_failure_is_tried_again_with_growing_pauses(clock: Clock) -> None:
    """0.1 s, 0.2 s and so on up to the longest; the first success forgets them."""
    do = Failing()
    step = Step("it fails", do)
    pauses = []
    for _ in range(9):
        step()
        pauses.append(step.pause_s(60))
        clock.now += pauses[-1] / 2
        step()  # too early
        clock.now += pauses[-1] / 2 + 1e-6  # floats are rounded
    assert do.calls == 9
    assert pauses[:3] == pytest.approx([0.1, 0.2, 0.4])
    assert pauses[-1] == pytest.approx(LONGEST_PAUSE_S)
    assert step.failing_s() == pytest.approx(sum(pauses), abs=1e-3)
    do.error = None
    step()
    assert step.failing_s() == 0
    assert step.pause_s(60) == 60
    do.error = OSError()
    step()
    assert step.pause_s(60) == pytest.approx(0.1)


def test_the_same_failure_is_logged_now_and_then(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """With its traceback at first and once a minute; another one, and the recovery, at once."""
    do = Failing()
    step = Step("it fails", do)
    while clock.now < 1000 + 1.5 * REPEAT_S:
        step()
        clock.now += step.pause_s(60)
    assert len(caplog.records) == 2
    assert caplog.records[0].exc_info is not None
    do.error = ValueError("another one")
    step()
    assert "another one" in caplog.text
    do.error = None
    clock.now += 60
    step()
    assert caplog.records[-1].levelno == logging.WARNING
    assert "works again" in caplog.text


def test_a_filter_that_raises(clock: Clock) -> None:
    """Not even what the project does with log records ends the loop."""

    def refuse(record: logging.LogRecord) -> bool:
        raise RuntimeError

    step = Step("it fails", do := Failing())
    module.logger.addFilter(refuse)
    try:
        step()
        do.error = None
        clock.now += 60
        step()
    finally:
        module.logger.removeFilter(refuse)
    assert do.calls == 2
