"""The table of options: defaults, bounds, and the words of each error."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_tasks_local import exponential, fixed
from django_tasks_local.option_table import MIB, OPTIONS, Kind
from django_tasks_local.options import Options, check
from django_tasks_local.retrying import Retries
from django_tasks_local.schedules import EMPTY
from tests.retried_tasks import at_once


def options(kind: Kind = "process", **values: Any) -> Options:
    """The options made from these values."""
    return Options.from_params({"OPTIONS": values}, "a", kind)


def errors(**values: Any) -> list[str]:
    """The errors of these values for ProcessPoolBackend, each as id, message and hint.

    For ThreadPoolBackend, where an option is its own.
    """
    kind: Kind = "process"
    if any(name in OPTIONS and OPTIONS[name].kinds == ("thread",) for name in values):
        kind = "thread"
    return [f"{e.id} {e.msg} {e.hint}" for e in check({"OPTIONS": values}, "a", kind)]


def test_defaults() -> None:
    """Without OPTIONS the documented defaults count, for both backends."""
    for kind in ("process", "thread"):
        assert Options.from_params({}, "a", kind) == Options(
            max_workers=10,
            max_results=1000,
            max_result_bytes=256 * MIB,
            max_pending=10_000,
            slot_size=1024,
            shm_size=32 * MIB,
            namespace=None,
            directory="/dev/shm",
            sync=False,
            drain_timeout=8,
            timeout=None,
            timeout_grace=5,
            max_attempts=1,
            backoff=exponential(1, 600),
            retry_on=(Exception,),
            never=(),
            retry_lost=False,
            result_ttl=None,
            failure_ttl=None,
            max_tasks_per_worker=None,
            max_worker_memory=None,
            max_task_memory=None,
            admin_arguments=False,
            schedule=EMPTY,
            metrics=False,
        )


def test_shm_size_follows_the_limits() -> None:
    """Twice the records' own slots, in whole MiB, and never less than the workers need."""
    assert options(MAX_RESULTS=100_000).shm_size == 237 * MIB
    assert 237 * MIB >= 2 * 110_000 * (1024 + 104)
    large = options(MAX_RESULTS=1, MAX_PENDING=1, MAX_WORKERS=1000, SLOT_SIZE=MIB)
    assert large.shm_size >= 1002 * MIB


@pytest.mark.parametrize("name", OPTIONS)
def test_bounds_are_inclusive(name: str) -> None:
    """The smallest and the largest value are accepted, what lies beyond is not."""
    option = OPTIONS[name]
    if not option.maximum:
        pytest.skip("not a number")
    room = {"SHM_SIZE": 2**40} if name != "SHM_SIZE" else {"MAX_WORKERS": 1, "SLOT_SIZE": 512}
    if "process" not in option.kinds:
        room = {}
    for value in (option.minimum, option.maximum):
        assert errors(**{**room, name: value}) == []
    for value in (option.minimum - 1, option.maximum + 1):
        (error,) = errors(**{name: value})
        assert error.startswith("django_tasks_local.E004")
        assert f"{option.minimum:,}" in error
        assert f"{option.maximum:,}" in error
        assert option.unit in error


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("value", [True, None, [], {1}, object(), b"x", 1j])
def test_wrong_types(name: str, value: object) -> None:
    """Wrong types are E003, a bool is no number, None only where it means something."""
    if value is None and OPTIONS[name].none_means:
        kind = OPTIONS[name].kinds[-1]
        assert getattr(options(kind, **{name: None}), name.lower()) is None
        return
    right: Any = (
        ("RETRY_ON", []),
        ("NEVER", []),
        ("RETRY_LOST", True),
        ("ADMIN_ARGUMENTS", True),
        ("METRICS", True),
        ("SYNC", True),
    )
    if (name, value) in right:
        assert errors(**{name: value, "DIRECTORY": "/srv/rings"}) == []
        return
    (error,) = errors(**{name: value})
    assert error.startswith("django_tasks_local.E003")
    assert type(value).__name__ in error


def test_words_of_retries() -> None:
    """Values or import paths; what those lead to is checked, and what raises there is told."""
    for kind in ("process", "thread"):
        found = options(
            kind, MAX_ATTEMPTS=3, BACKOFF="tests.retried_tasks.at_once",
            RETRY_ON=["builtins.OSError", KeyError], NEVER="builtins.FileNotFoundError",
        )  # fmt: skip
        assert found.retries == Retries(3, at_once, (OSError, KeyError), (FileNotFoundError,))
        assert hash(found) == hash(replace(found, backoff=fixed(3)))
    for name, value, wanted in (
        ("BACKOFF", 3, "a function of an exception and a task's result"),
        ("BACKOFF", "nowhere.at_all", "it cannot be imported: ModuleNotFoundError"),
        ("BACKOFF", "builtins.OSError", "a class is not"),
        ("BACKOFF", "django_tasks_local.fixed", "call it with its arguments"),
        ("RETRY_ON", "tests.retried_tasks.at_once", "is not an exception class"),
        ("NEVER", [OSError, 3], "3, of type int, is not an exception class"),
        ("RETRY_LOST", 1, "it must be True or False, not of type int"),
        ("ADMIN_ARGUMENTS", 1, "it must be True or False, not of type int"),
    ):
        (error,) = errors(**{name: value})
        assert error.startswith("django_tasks_local.E003")
        assert repr(value) in error
        assert wanted in error
        assert f"Leave {name} out for its default." in error


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_drain_timeout_is_finite(value: float) -> None:
    """No limit is written None, not infinity."""
    (error,) = errors(DRAIN_TIMEOUT=value)
    assert error.startswith("django_tasks_local.E004")
    assert "or None to wait until all is done" in error


def test_drain_timeout_may_be_a_fraction() -> None:
    """Half a second is a time."""
    assert options(DRAIN_TIMEOUT=0.5).drain_timeout == 0.5


@pytest.mark.parametrize("name", ["RESULT_TTL", "FAILURE_TTL"])
def test_a_lifetime_is_seconds_or_a_timedelta(name: str) -> None:
    """Both spellings are one value; nothing, less than nothing and too much are errors."""
    field = name.lower()
    for value in (90, 90.0, timedelta(minutes=1.5)):
        assert getattr(options("thread", **{name: value}), field) == 90
        assert getattr(options("process", **{name: value}), field) == 90
    bad: list[Any] = [
        0,
        -1,
        timedelta(0),
        timedelta(seconds=-1),
        timedelta.max,
        float("nan"),
        float("inf"),
    ]
    for wrong in bad:
        (error,) = errors(**{name: wrong})
        assert error.startswith("django_tasks_local.E004")
        assert "or a timedelta of as many" in error
        assert "until MAX_RESULTS is reached" in error


def test_slot_size_is_a_power_of_two() -> None:
    """The error names the powers on either side."""
    (error,) = errors(SLOT_SIZE=1000)
    assert error.startswith("django_tasks_local.E005")
    assert "512 and 1024" in error
    assert options(SLOT_SIZE=512).slot_size == 512


def test_shm_size_has_room_for_the_workers() -> None:
    """A segment that could not hold what the workers work on is E006, with the least size."""
    (error,) = errors(SHM_SIZE=MIB, MAX_WORKERS=1000)
    assert error.startswith("django_tasks_local.E006")
    assert f"{768 * 1024 + 1002 * (1024 + 104):,}" in error


def test_what_a_worker_keeps_is_less_than_what_a_task_may_take() -> None:
    """Or else a worker that may stay costs its next task; the error names both options."""
    for worker in (200 * MIB, 300 * MIB):
        (error,) = errors(MAX_WORKER_MEMORY=worker, MAX_TASK_MEMORY=200 * MIB)
        assert error.startswith("django_tasks_local.E010")
        assert f"{worker:,}" in error
        assert f"{200 * MIB:,}" in error
    assert errors(MAX_WORKER_MEMORY=100 * MIB, MAX_TASK_MEMORY=200 * MIB) == []


@pytest.mark.parametrize("value", ["", " ", "\n"])
def test_namespace_is_not_empty(value: str) -> None:
    """A namespace of nothing comes from an unset variable, and would be shared by accident."""
    (error,) = errors(NAMESPACE=value)
    assert error.startswith("django_tasks_local.E004")
    assert options(NAMESPACE="blue").namespace == "blue"


PROCESS_ONLY = ["SLOT_SIZE", "SHM_SIZE", "NAMESPACE", "MAX_TASKS_PER_WORKER"]
PROCESS_ONLY += ["MAX_WORKER_MEMORY", "MAX_TASK_MEMORY", "SCHEDULE"]


@pytest.mark.parametrize("name", PROCESS_ONLY)
def test_options_of_the_other_backend(name: str) -> None:
    """What shared memory needs, threads do not know; the error says whose it is."""
    (error,) = check({"OPTIONS": {name: 2**20}}, "a", "thread")
    assert error.id == "django_tasks_local.E007"
    assert f"{name} belongs to ProcessPoolBackend, and this is ThreadPoolBackend" in error.msg


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("MAX_WORKER", "MAX_WORKERS"),
        ("max-results", "MAX_RESULTS"),
        ("SLOTSIZE", "SLOT_SIZE"),
        ("Drain_Timeout", "DRAIN_TIMEOUT"),
    ],
)
def test_unknown_key_with_a_guess(wrong: str, meant: str) -> None:
    """An unknown option is E002, with the one that was probably meant."""
    (error,) = errors(**{wrong: 1})
    assert error.startswith("django_tasks_local.E002")
    assert f"Did you mean {meant}?" in error


def test_directory() -> None:
    """An absolute path, as text or as a path object; what cannot be one is an error."""
    assert options(DIRECTORY=Path("/srv//tasks/../rings/")).directory == "/srv/rings"
    for wrong in ("", "rings", "/", "//", "/a\0b", 5, b"/srv/rings", None):
        (error,) = errors(DIRECTORY=wrong)
        assert error.startswith("django_tasks_local.E003")


def test_sync_needs_a_disk() -> None:
    """Nothing in memory survives a reboot, however long one waits for it."""
    (error,) = errors(SYNC=True)
    assert error.startswith("django_tasks_local.E018")
    assert "DIRECTORY" in error
    assert options(SYNC=True, DIRECTORY="/srv/rings").sync
    assert errors(SYNC=1, DIRECTORY="/srv/rings")[0].startswith("django_tasks_local.E003")


def test_unknown_key_without_a_guess() -> None:
    """Where nothing is near, the hint lists the options of this backend."""
    (error,) = [f"{e.id} {e.hint}" for e in check({"OPTIONS": {7: 1}}, "a", "thread")]
    assert error == (
        "django_tasks_local.E002 The options of ThreadPoolBackend are "
        "MAX_WORKERS, MAX_RESULTS, MAX_RESULT_BYTES, MAX_PENDING, DRAIN_TIMEOUT, TIMEOUT, "
        "TIMEOUT_GRACE, MAX_ATTEMPTS, BACKOFF, RETRY_ON, NEVER, RESULT_TTL, FAILURE_TTL, "
        "ADMIN_ARGUMENTS, METRICS."
    )
    assert "NAMESPACE" in errors(COLOUR=1)[0]


def test_all_errors_at_once() -> None:
    """Every wrong value is told, not only the first."""
    found = check(
        {"OPTIONS": {"MAX_WORKERS": 0, "X": 1}, "QUEUES": 5, "SLOT_SIZE": 1}, "a", "thread"
    )
    assert {str(e.id)[-4:] for e in found} == {"E004", "E002", "E008", "E009"}
    with pytest.raises(ImproperlyConfigured) as caught:
        Options.from_params({"OPTIONS": {"MAX_WORKERS": 0, "X": 1}}, "a", "thread")
    assert "E004" in str(caught.value)
    assert "E002" in str(caught.value)


def test_a_value_changed_in_place_is_seen() -> None:
    """What was accepted before does not hide what the settings say now."""
    params: dict[str, Any] = {"OPTIONS": {"MAX_WORKERS": 3}, "QUEUES": ["default"]}
    assert Options.from_params(params, "b", "thread").max_workers == 3
    params["OPTIONS"]["MAX_WORKERS"] = 4
    assert Options.from_params(params, "b", "thread").max_workers == 4
    params["QUEUES"].append(5)
    with pytest.raises(ImproperlyConfigured, match="E008"):
        Options.from_params(params, "b", "thread")


@pytest.mark.parametrize("queues", [["a"], ("a",), {"a"}, frozenset("a"), []])
def test_queues(queues: object) -> None:
    """Any plain collection of strings will do, as in Django."""
    assert check({"QUEUES": queues}, "a", "thread") == []
