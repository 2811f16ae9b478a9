"""SCHEDULE as it is read and checked: every mistake has its error, and no entry imports a task."""

import os
import subprocess
import sys
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.test import override_settings

from django_tasks_local.options import Options, check
from django_tasks_local.schedules import EMPTY, MOST_ENTRIES, Schedule, read
from django_tasks_local.timings import SECOND_NS, Cron, Every
from tests.support import ROOT

TASK = "tests.tasks.noop"
EVERY = {"task": TASK, "every": 30}


def errors(schedule: Any) -> list[str]:
    """The errors of a SCHEDULE, each as id, message and hint."""
    found = check({"OPTIONS": {"SCHEDULE": schedule}}, "a", "process")
    return [f"{e.id} {e.msg} {e.hint}" for e in found]


def entry_errors(**entry: Any) -> list[str]:
    """The errors of one entry."""
    return errors({"job": entry})


def test_an_entry_is_read() -> None:
    """Spans are seconds or timedeltas; what is left out has its default."""
    cron, every = read(
        {
            "nightly": {
                "task": TASK, "cron": " 15  3 * * mon-fri ", "timezone": "Europe/Berlin",
                "args": [1], "kwargs": {"full": True}, "grace": timedelta(hours=1),
            },
            "ping": {"task": TASK, "every": timedelta(seconds=1.5), "overlap": False},
        }
    ).entries  # fmt: skip
    assert (cron.name, cron.task, cron.args, cron.kwargs) == ("nightly", TASK, (1,), {"full": True})
    assert cron.timing == Cron("15 3 * * mon-fri", "Europe/Berlin")
    assert (cron.overlap, cron.grace_ns) == (True, 3600 * SECOND_NS)
    assert every.timing == Every(3 * SECOND_NS // 2)
    assert (every.overlap, every.grace_ns) == (False, 600 * SECOND_NS)


def test_the_default_time_zone_is_that_of_the_site() -> None:
    """TIME_ZONE counts where an entry names none."""
    with override_settings(TIME_ZONE="America/New_York"):
        (entry,) = read({"job": {"task": TASK, "cron": "0 3 * * *"}}).entries
    assert entry.timing == Cron("0 3 * * *", "America/New_York")


def test_without_entries_there_is_nothing() -> None:
    """An empty SCHEDULE is as none."""
    assert read({}) is EMPTY
    assert Options.from_params({"OPTIONS": {"SCHEDULE": {}}}, "a", "process").schedule is EMPTY


GOOD: list[dict[str, Any]] = [
    {"every": 1}, {"every": 1.5}, {"every": timedelta(days=366)}, {"cron": "15 3 * * *"},
    {"cron": "*/5 8-18 * jan,feb MON#1"}, {"cron": "0 0 L * *", "timezone": "Asia/Kolkata"},
    {"every": 5, "args": ("a", [1]), "kwargs": {"when": date(2026, 1, 1)}},
    {"every": 5, "overlap": False, "grace": 1},
]  # fmt: skip


@pytest.mark.parametrize("entry", GOOD)
def test_what_is_right_is_accepted(entry: dict[str, Any]) -> None:
    """Each key in its usual forms."""
    assert entry_errors(task=TASK, **entry) == []


BAD: list[tuple[dict[Any, Any], int, str]] = [
    ({}, 12, "neither of cron and every"),
    ({"every": 5, "cron": "* * * * *"}, 12, "both of cron and every"),
    ({"every": 5, "timezone": "UTC"}, 12, "every counts from 1970-01-01 00:00 UTC"),
    ({"every": 5, "graze": 5}, 12, "Did you mean grace?"),
    ({"every": 5, 7: 5}, 12, "The keys are task, cron, every"),
    ({"every": 0.999}, 13, "from 1 to 31,622,400"),
    ({"every": timedelta(milliseconds=999)}, 13, "from 1 to 31,622,400"),
    ({"every": timedelta.max}, 13, "from 1 to 31,622,400"),
    ({"every": float("nan")}, 13, "['every'] is nan"),
    ({"every": "5 minutes"}, 13, "['every'] is '5 minutes'"),
    ({"every": True}, 13, "['every'] is True"),
    ({"cron": "every day"}, 13, "Wrong number of fields"),
    ({"cron": "61 * * * *"}, 13, "Bad minute"),
    ({"cron": "0 0 31 2 *"}, 13, "Bad day-of-month"),
    ({"cron": ""}, 13, "['cron'] is ''"),
    ({"cron": 5}, 13, "it is of type int"),
    ({"cron": "0 3 * * *", "timezone": "Europe/Bonn"}, 13, "'Europe/Bonn', which is not"),
    ({"cron": "0 3 * * *", "timezone": "../etc/passwd"}, 13, "which is not a time zone"),
    ({"cron": "0 3 * * *", "timezone": None}, 13, "None, which is not a time zone"),
    ({"every": 5, "overlap": "no"}, 13, "must be True or False"),
    ({"every": 5, "grace": 0.5}, 13, "from 1 to 2,678,400"),
    ({"every": 5, "grace": None}, 13, "['grace'] is None"),
    ({"every": 5, "args": "abc"}, 15, "args'] is of type str"),
    ({"every": 5, "kwargs": [1]}, 15, "kwargs'] is [1]"),
    ({"every": 5, "kwargs": {1: 1}}, 15, "strings for keys"),
    ({"every": 5, "args": [lambda: 1]}, 15, "cannot be pickled"),
]


@pytest.mark.parametrize(("entry", "number", "text"), BAD)
def test_what_is_wrong_is_refused(entry: dict[Any, Any], number: int, text: str) -> None:
    """One error for each mistake: where it is, what is wrong and what to do."""
    (error,) = errors({"job": {"task": TASK, **entry}})
    assert error.startswith(f"django_tasks_local.E{number:03}")
    assert text in error
    assert "TASKS['a']['OPTIONS']['SCHEDULE']['job']" in error


@pytest.mark.parametrize("task", [None, "", "noop", ".", 5, ["tests.tasks.noop"]])
def test_a_task_is_an_import_path(task: object) -> None:
    """Settings cannot import tasks, which import settings."""
    (error,) = entry_errors(task=task, every=5)
    assert error.startswith("django_tasks_local.E012")
    assert "import path" in error


@pytest.mark.parametrize("entry", [None, "0 3 * * *", [1]])
def test_an_entry_is_a_dict(entry: object) -> None:
    """And a name has something in it."""
    (error,) = errors({"job": entry})
    assert error.startswith("django_tasks_local.E011")
    for name in ("", " ", 5):
        (error,) = errors({name: EVERY})
        assert error.startswith("django_tasks_local.E011")


def test_there_is_room_for_so_many() -> None:
    """One more is refused, and the error has both numbers."""
    assert errors({f"job{n}": EVERY for n in range(MOST_ENTRIES)}) == []
    (error,) = errors({f"job{n}": EVERY for n in range(MOST_ENTRIES + 1)})
    assert error.startswith("django_tasks_local.E011")
    assert f"{MOST_ENTRIES + 1} entries" in error


@pytest.fixture
def without_cronsim(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without the extra."""
    monkeypatch.setitem(sys.modules, "cronsim", None)
    return


@pytest.mark.usefixtures("without_cronsim")
def test_without_the_extra_cron_is_refused() -> None:
    """The error names the extra; intervals need nothing."""
    (error,) = entry_errors(task=TASK, cron="0 3 * * *")
    assert error.startswith("django_tasks_local.E014")
    assert "pip install 'django-tasks-local[schedule]'" in error
    assert errors({"job": EVERY}) == []
    (entry,) = read({"job": EVERY}).entries
    assert entry.timing.after(0) == 30 * SECOND_NS


class Opaque:
    """Something whose repr differs from process to process."""


def digest(**entry: Any) -> int:
    """The digest of a schedule with one entry."""
    schedule: Schedule = read({"job": {**EVERY, **entry}})
    return schedule.digest


def test_the_digest_follows_every_value() -> None:
    """A pool hands over where any of it has changed; the order of entries is no change."""
    different = [
        digest(), digest(every=31), digest(task="tests.tasks.other"), digest(args=[1]),
        digest(args=["1"]), digest(kwargs={"a": 1}), digest(kwargs={"a": 2}), digest(overlap=False),
        digest(grace=5), digest(args=[Opaque()]), digest(args=[{1, 2}]), digest(args=[[1, 2]]),
        read({"other": EVERY}).digest,
    ]  # fmt: skip
    assert len(set(different)) == len(different)
    assert 0 not in different
    one, other = {"a": EVERY}, {"b": {**EVERY, "every": 5}}
    assert read({**one, **other}).digest == read({**other, **one}).digest


SCRIPT = """
import sys; sys.path.insert(0, %r)
from uuid import UUID
from tests.unit.test_schedules import Opaque, digest
print(digest(args=[{"a", "b", "c", "d"}, Opaque(), UUID(int=5)], kwargs={"x": 1, "y": {"z": None}}))
"""


def test_the_digest_is_the_same_in_every_process() -> None:
    """Whatever the hashes and addresses of values are: else pools would hand over for ever."""
    arguments: dict[str, Any] = {"kwargs": {"y": {"z": None}, "x": 1}}
    ours = digest(args=[{"d", "c", "b", "a"}, Opaque(), UUID(int=5)], **arguments)
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT % str(ROOT)],
            env={**os.environ, "PYTHONHASHSEED": seed, "DJANGO_SETTINGS_MODULE": "tests.settings"},
            capture_output=True, text=True, check=True, cwd=ROOT,
        )  # fmt: skip
        assert int(run.stdout) == ours
