"""report_progress and track, without a backend."""

import math
from collections.abc import Iterator
from contextvars import copy_context
from dataclasses import FrozenInstanceError
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import override_settings
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import strategies as st

from django_tasks_local import progress
from django_tasks_local.progress import Progress, progress_of, report_progress, report_to, track
from tests import tasks

type Report = tuple[float, float | None, str]


@pytest.fixture
def reports() -> Iterator[list[Report]]:
    """What is reported during the test, which counts as a task."""
    heard: list[Report] = []
    token = progress._current.set((lambda *report: heard.append(report), lambda: None))
    yield heard
    progress._current.reset(token)


@pytest.mark.parametrize(
    ("done", "total", "fraction"),
    [
        (0, 4, 0.0),
        (1, 4, 0.25),
        (4, 4, 1.0),
        (5, 4, 1.0),
        (-1, 4, 0.0),
        (3, None, None),
        (0, 0, 1.0),
        (1, -1, 1.0),
    ],
)
def test_fraction(done: float, total: float | None, fraction: float | None) -> None:
    """A part of the total between 0 and 1; nothing of nothing is all of it."""
    assert Progress(done, total).fraction == fraction


def test_is_frozen() -> None:
    """A progress is a value."""
    with pytest.raises(FrozenInstanceError):
        Progress(1).done = 2  # type: ignore[misc]


def test_outside_a_task() -> None:
    """Without a task nothing happens, and rows come through."""
    report_progress(1, 2, "x")
    assert list(track(iter("abc"), message="x")) == ["a", "b", "c"]


@pytest.mark.parametrize("value", ["1", None, [], 1j])
def test_only_numbers(value: Any) -> None:
    """What is no number is a TypeError, outside a task too."""
    with pytest.raises(TypeError, match="done"):
        report_progress(value)
    if value is not None:
        with pytest.raises(TypeError, match="total"):
            report_progress(1, value)
        with pytest.raises(TypeError, match="total"):
            next(track([1], value))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
def test_only_finite_numbers(value: float) -> None:
    """A number that a record cannot hold is a ValueError."""
    with pytest.raises(ValueError, match="finite"):
        report_progress(value)
    with pytest.raises(ValueError, match="finite"):
        report_progress(1, value)


def test_reports(reports: list[Report]) -> None:
    """A report arrives as it was made; a lazy translation as its text."""
    str_promise: Any = gettext_lazy("Yes")
    report_progress(1)
    report_progress(True, 2.5, str_promise)
    assert reports == [(1, None, ""), (True, 2.5, "Yes")]
    assert type(reports[1][2]) is str


@given(st.text(st.characters(exclude_categories=())))
def test_message_is_cut(text: str) -> None:
    """A message is cut to 64 bytes of UTF-8 at a character, and starts as it started."""
    cut = progress._cut(text)
    assert len(cut.encode()) <= 64
    assert text.encode("utf-8", "replace").decode().startswith(cut)
    assert len(text.encode("utf-8", "replace")) <= 64 or len(cut.encode()) > 60


def test_track_reports_first_and_last(reports: list[Report]) -> None:
    """The first and the last report are always made, whatever the time."""
    assert list(track("abc", message="m")) == ["a", "b", "c"]
    assert reports[0] == (0, 3, "m")
    assert reports[-1] == (3, 3, "m")


def test_track_of_nothing(reports: list[Report]) -> None:
    """No rows are a report too: 0 of 0."""
    assert list(track([])) == []
    assert reports == [(0, 0, "")]


def test_track_without_length(reports: list[Report]) -> None:
    """An iterator has no length; the total stays unknown unless it is given."""
    assert list(track(iter([1, 2]))) == [1, 2]
    assert reports[-1] == (2, None, "")
    assert list(track(iter([1, 2]), total=9)) == [1, 2]
    assert reports[-1] == (2, 9, "")


def test_track_left_early(reports: list[Report]) -> None:
    """A loop that is left reports the rows that were finished."""
    rows = track(range(10))
    for row in rows:
        if row == 4:
            break
    rows.close()  # type: ignore[attr-defined]
    assert reports[-1] == (4, 10, "")


def test_track_passes_errors_on(reports: list[Report]) -> None:
    """An error of the rows comes through, after a report of how far it went."""

    def rows() -> Iterator[int]:
        yield 1
        raise LookupError

    with pytest.raises(LookupError):
        list(track(rows()))
    assert reports[-1] == (1, None, "")


def test_track_closed_in_another_task() -> None:
    """A loop left early in one task, and closed in the next, reports to the first only."""
    first: list[Report] = []
    second: list[Report] = []

    def both() -> None:
        report_to(lambda *report: first.append(report))
        rows = track(range(10))
        next(rows)
        report_to(lambda *report: second.append(report))
        rows.close()  # type: ignore[attr-defined]

    copy_context().run(both)
    assert first == [(0, 10, "")] * 2
    assert second == []


def test_track_throttles(reports: list[Report], monkeypatch: pytest.MonkeyPatch) -> None:
    """Between first and last there is a report per interval, not per row."""
    clock = iter(range(1000))
    monkeypatch.setattr(progress, "TRACK_INTERVAL_S", 4)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    list(track(range(100)))
    assert [done for done, _, _ in reports] == [*range(0, 100, 4), 100]


def test_progress_of_any_backends_result() -> None:
    """A backend without progress has none to show, and no AttributeError either."""
    immediate = {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"}
    with override_settings(TASKS={"default": immediate}):
        assert progress_of(tasks.add.enqueue(1, 2)) is None
    reported = SimpleNamespace(progress=Progress(1, 2))
    assert progress_of(reported) == Progress(1, 2)  # type: ignore[arg-type]
    of_another_package = SimpleNamespace(progress=50)
    assert progress_of(of_another_package) is None  # type: ignore[arg-type]
