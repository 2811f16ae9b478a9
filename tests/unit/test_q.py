"""django-q's surface: what can be called, its keywords, and what there is not."""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from math import copysign
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.tasks.exceptions import InvalidTask
from django.test import override_settings

from django_tasks_local import schedules
from django_tasks_local.contrib import q
from django_tasks_local.contrib.q import options
from django_tasks_local.contrib.q.paths import find, path_of
from django_tasks_local.contrib.q.schedules import TIMES
from django_tasks_local.test.store import drop_stores
from tests import q_functions

INLINE = {"inline": {"BACKEND": "django_tasks_local.test.InlineBackend"}}
FOREIGN = {"default": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"}}


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A backend on which tasks run at once, and no keyword that was warned of already."""
    monkeypatch.setattr(options, "_warned", set())
    with override_settings(TASKS=FOREIGN | INLINE):
        yield
    drop_stores()


def result_of(func: str | Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a call returns."""
    return q.result(q.async_task(func, *args, **kwargs))


def test_what_can_be_called() -> None:
    """Functions of Python and of C, methods of classes, async functions, decorated tasks."""
    assert result_of(copysign, 2, -2) == -2
    assert result_of(len, "four") == 4
    for func in (q_functions.Shop.name, "tests.q_functions.Shop.name"):
        assert result_of(func) == "Shop"
    assert result_of(q_functions.Shop.price) == 7
    assert result_of(q_functions.is_async, 1) == 2
    for decorated in (q_functions.decorated, "tests.q_functions.decorated"):
        assert result_of(decorated, 4) == 8  # type: ignore[arg-type]


def test_what_cannot_be_called() -> None:
    """What has no import path is refused when it is enqueued, and the text says what to pass."""

    def inner() -> None: ...

    for refused in (lambda: 1, inner, partial(len, ""), q_functions.Shop().sell, 3):
        with pytest.raises(InvalidTask, match="not a lambda, a function inside a function"):
            path_of(refused)
    with pytest.raises(InvalidTask, match="cannot be found again by the import path"):
        q.async_task("math.sqrt", 4, hook=inner)  # type: ignore[arg-type]
    assert not q.successes()


def test_paths_that_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task fails with what the import raises, and not with what that leads to."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "dtl_broken.py").write_text("import dtl_absent\n")
    for path, error, text in (
        ("dtl_absent.code.f", ImportError, "No module named 'dtl_absent'"),
        ("dtl_broken.f", ImportError, "No module named 'dtl_absent'"),
        ("math.nothing", AttributeError, "nothing"),
        ("sqrt", ImportError, "'sqrt' is not an import path: it must be module.name"),
    ):
        with pytest.raises(error, match=text):
            find(path)
    assert "No module named 'dtl_absent'" in result_of("dtl_broken.f")


@pytest.mark.parametrize("name", options.WITHOUT_MEANING)
def test_keywords_without_a_meaning_warn_once(name: str) -> None:
    """Each names what to do, and never reaches the function."""
    function = "tests.q_functions.takes_words"
    with pytest.warns(UserWarning, match=f"^{name}= of django-q means nothing") as found:
        assert result_of(function, size=2, **{name: "x"}) == {"size": 2}
    assert options.WITHOUT_MEANING[name] in str(found[0].message)
    assert found[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert result_of(function, **{name: "x"}) == {}
    with pytest.warns(UserWarning, match=rf"^q_options\['{name}'\] of django-q"):
        assert result_of(function, q_options={name: "x"}, **{name: "y"}) == {name: "y"}


def test_caches_and_brokers_have_no_results() -> None:
    """Who looks for results there is told so once, and finds them all the same."""
    task_id = q.async_task("math.sqrt", 4, group="roots")
    with pytest.warns(UserWarning, match="^cached= of django-q means nothing"):
        assert q.result(task_id, 200, cached=True) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert q.fetch(task_id, cached=True) is not None
        assert q.result_group("roots", wait=50, count=1, cached=True) == [2]
        assert q.count_group("roots", cached=60) == len(q.fetch_group("roots", cached=True)) == 1
    with pytest.warns(UserWarning, match="^broker= of django-q means nothing"):
        assert q.queue_size(broker="redis") == 0


def test_there_is_nothing_to_save() -> None:
    """django-q's page saves a task from its cache: that warns once, and changes nothing."""
    task = q.fetch(q.async_task("math.sqrt", 4, group="roots"))
    assert task is not None
    with pytest.warns(UserWarning, match=r"^task\.save\(\) of django-q means nothing") as found:
        task.save()
    assert found[0].filename == __file__
    for name in ("group_result", "group_count", "group_delete"):
        with pytest.raises(
            AttributeError, match=rf"^task\.{name}\(\) of django-q is not in .* [CG]"
        ):
            getattr(task, name)
    with pytest.raises(AttributeError, match=r"^'Task' object has no attribute 'delete'$"):
        task.delete()  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", [3, "hook", [("hook", "math.floor")]])
def test_options_that_are_no_dict(value: Any) -> None:
    """The error names the value, and what is wanted."""
    with pytest.raises(TypeError, match=r"^q_options=.* must be a dict of hook, group, .* of type"):
        q.async_task("math.sqrt", 4, q_options=value)


def test_a_group_and_a_hook_for_an_iterable() -> None:
    """They mean nothing there, and never reach the function."""
    with pytest.warns(UserWarning, match=r"^async_iter\((hook|group)=...\) of .* each"):
        iter_id = q.async_iter(q_functions.takes_words, [()], hook="math.floor", group="g", size=1)
    assert q.result(iter_id) == [{"size": 1}]


def test_chains() -> None:
    """They end with the first call that fails; options of single calls mean nothing in them."""
    group = q.async_chain([("math.sqrt", (4,)), ("math.sqrt", (-1,)), ("math.sqrt", (9,))])
    assert q.result_group(group) == [2.0]
    assert q.count_group(group, failures=True) == 1
    step = (q_functions.takes_words, (), {"size": 1, "hook": "math.floor"})
    with pytest.warns(UserWarning, match="^hook= in a chain of django-q means nothing"):
        assert q.result_group(q.async_chain([step], group="words")) == [{"size": 1}]
    with pytest.raises(TypeError, match="no keyword 'size'"):
        q.async_chain(["math.sqrt"], size=1)


def test_a_time_limit_that_is_none() -> None:
    """It is refused before anything is stored; no limit is one."""
    for timeout in (0, -1, "soon"):
        with pytest.raises(ValueError, match=rf"^timeout={timeout!r}: it must be a number"):
            q.async_task("math.sqrt", 4, timeout=timeout)  # type: ignore[arg-type]
    assert result_of("math.sqrt", 4, timeout=math.inf) == 2


def test_which_backend() -> None:
    """The first of this package, or the one that the setting names; without one an error."""
    assert result_of("math.sqrt", 4) == 2
    with (
        override_settings(DJANGO_TASKS_LOCAL_Q_BACKEND="default"),
        pytest.raises(ImproperlyConfigured, match="DJANGO_TASKS_LOCAL_Q_BACKEND is 'default'"),
    ):
        q.async_task("math.sqrt", 4)
    with (
        override_settings(TASKS=FOREIGN),
        pytest.raises(ImproperlyConfigured, match="in tests that of an InlineBackend"),
    ):
        q.async_task("math.sqrt", 4)


@pytest.mark.parametrize("name", q.NOT_HERE)
def test_names_that_are_not_here(name: str) -> None:
    """An import says what to do instead."""
    with pytest.raises(ImportError, match=rf"^{name} of django-q is not in .*: |\. "):
        getattr(importlib.import_module("django_tasks_local.contrib.q"), name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        q.nothing  # noqa: B018


@pytest.mark.parametrize("schedule_type", TIMES)
def test_schedules_are_said_in_the_words_of_settings(schedule_type: str) -> None:
    """The error has an entry for SCHEDULE that passes the checks."""
    with pytest.raises(NotImplementedError) as raised:
        q.schedule(
            "reports.tasks.hypot", 3, name="sides", schedule_type=schedule_type, minutes=5,
            cron="0 22 * * 1-5", repeats=24, b=4,
        )  # fmt: skip
    written = eval(str(raised.value).partition('"SCHEDULE": ')[2], {"timedelta": timedelta})
    assert not list(schedules.problems(written, "x"))
    entry = written["sides"]
    assert (entry["task"], entry["args"], entry["kwargs"]) == ("reports.tasks.hypot", [3], {"b": 4})


def test_a_schedule_that_runs_once() -> None:
    """There is another way to defer a task."""
    with pytest.raises(NotImplementedError, match=r"hypot.using\(run_after=...\).enqueue"):
        q.schedule("math.hypot", 3, 4)


def test_a_call_as_an_object() -> None:
    """Its options are attributes; what is changed takes the result away until it runs again."""
    call = q.AsyncTask("math.floor", 1.5, group="math")
    assert (call.id, call.started, call.result(), call.fetch()) == ("", False, None, None)
    call.cached = True
    with pytest.warns(UserWarning, match="cached= of django-q"):
        call.run()
    assert (call.result(wait=-1), call.group, call.hook) == (1, "math", None)
    call.args = (2.5,)
    assert (call.started, call.result(), call.result_group()) == (False, None, [])
    task_id = call.run()
    assert (call.id, call.result(wait=10), call.result_group(count=2)) == (task_id, 2, [1, 2])
    assert [each.id for each in call.fetch_group()][1] == task_id
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        call.nothing  # noqa: B018


def test_calls_as_an_object() -> None:
    """Arguments are added one by one, and the results are a list in their order."""
    calls = q.Iter("math.copysign")
    assert calls.result() is None
    assert [calls.append(number, -1) for number in (1, 2, 3)] == [1, 2, 3]
    assert calls.run() == calls.id
    assert calls.result() == [-1.0, -2.0, -3.0]
    found = calls.fetch()
    assert found is not None
    assert (found.id, found.args[0]) == (calls.id, (1, -1))
