"""What the pages say of django-q's names, and of what is different, is so."""

import re
from collections.abc import Iterator

import pytest
from django.test import override_settings

from django_tasks_local.contrib import q
from django_tasks_local.contrib.q.options import OPTIONS, WITHOUT_MEANING
from django_tasks_local.contrib.q.schedules import TIMES
from django_tasks_local.test.store import drop_stores
from tests.docs.pages import DOCS, rows, section

HOWTO = DOCS / "howto" / "come-from-django-q2.md"
REFERENCE = DOCS / "reference" / "django-q.md"
# What the pages on tasks, groups, iterables, chains and schedules of django-q2 1.11 import.
THEIRS = {
    "AsyncTask", "Chain", "Failure", "Iter", "Schedule", "Success", "Task", "async_chain",
    "async_iter", "async_task", "count_group", "delete_cached", "delete_group", "fetch",
    "fetch_group", "get_broker", "queue_size", "result", "result_group", "schedule",
}  # fmt: skip


def names_in(text: str) -> list[str]:
    """The names with which code in a text begins."""
    return re.findall(r"`(\w+)[^`]*`", text)


def first_cells(title: str) -> list[str]:
    """The names in the first column of the tables of a section of the reference."""
    return [name for row in rows(section(REFERENCE, title)) for name in names_in(row[0])]


def test_every_name_is_documented() -> None:
    """Those that are here, and those that are not; together all that django-q's pages use."""
    here = set(first_cells("Functions"))
    assert here | {"Task"} == set(q.__all__)
    assert set(first_cells("What there is not")) == set(q.NOT_HERE)
    assert {*q.__all__, *q.NOT_HERE} >= THEIRS


def test_every_keyword_is_documented() -> None:
    """In the order of the code; those without a meaning say so."""
    keywords = {names_in(row[0])[0]: row[1] for row in rows(section(REFERENCE, "Keywords"))}
    assert list(keywords) == [*OPTIONS, "q_options", *WITHOUT_MEANING]
    nothing = {name for name, meaning in keywords.items() if meaning.startswith("nothing")}
    assert nothing == set(WITHOUT_MEANING)


def test_every_attribute_is_documented() -> None:
    """Those of a task."""
    public = {name for name in vars(q.Task) if not name.startswith("_")}
    assert set(first_cells("Task")) == public


def test_every_type_of_schedule_is_translated() -> None:
    """As the error of `schedule()` does it."""
    translated = {
        re.findall(r'"(\w+)"', kind)[0]: written.strip("`")
        for kind, written in rows(section(HOWTO, "Schedules"))
    }
    assert translated.pop("O").startswith("none:")
    times = {each: TIMES[each].format(minutes=5, cron="0 22 * * 1-5") for each in TIMES}
    assert translated == times


EXAMPLES = [row[2].strip("`") for row in rows(section(HOWTO, "What is different")) if row[2]]


@pytest.fixture
def ids() -> Iterator[dict[str, str]]:
    """The ids of which the page speaks."""
    backend = {"BACKEND": "django_tasks_local.test.InlineBackend"}
    before = section(HOWTO, "What is different").partition("| django-q2 |")[0]
    names: dict[str, str] = {}
    with override_settings(TASKS={"default": backend}):
        for statement in re.findall(r"`([^`]+)`", before):
            exec(statement, vars(q) | {}, names)
        yield names
    drop_stores()


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_difference_is_so(example: str, ids: dict[str, str]) -> None:
    """What a row shows is true."""
    assert eval(example, vars(q) | ids)
